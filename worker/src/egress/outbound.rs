//! The values that can leave a site, and no others.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use archipelago_common::{
    condition::Columns,
    part::Member,
    record::Progress,
    state_dict::{StateDict, Tensor},
    task::ConditionMetrics,
};

use ndarray::ArrayView2;

use crate::audit::Kind;

mod sealed {
    /// Keeps [`super::Outbound`] to this file: a value of another type cannot be sent.
    pub trait Sealed {}
}

/// A value that may leave a site once the gate releases it. Counts and cell names are not among them.
pub trait Outbound: sealed::Sealed {
    /// What kind of value it is, for policy, audit and metrics.
    fn kind(&self) -> Kind;
    /// The bytes that the value stands for on its way.
    fn to_wire(&self) -> Vec<u8>;
    /// How many numbers it tells about cells, for the ledger.
    fn numbers(&self) -> u64;
}

/// Embeddings as they leave: one row per cell without its name, or one per label.
#[derive(Clone, PartialEq, Debug)]
pub enum Embeddings {
    /// `[n_cells, n_latent]`, rows sorted by value so that their order says nothing.
    Cells(Latent),
    /// The mean of each label that is large enough.
    LabelMeans(BTreeMap<String, LabelMean>),
}

/// Positions of cells in the latent space.
#[derive(Clone, PartialEq, Debug)]
pub struct Latent {
    /// Width of a row.
    pub n_latent: usize,
    /// Row-major, one row per cell.
    pub values: Vec<f32>,
}

impl Latent {
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.values.len().checked_div(self.n_latent).unwrap_or(0)
    }

    /// Position of one cell.
    ///
    /// # Panics
    /// If there is no such cell.
    pub fn row(&self, cell: usize) -> &[f32] {
        &self.values[cell * self.n_latent..(cell + 1) * self.n_latent]
    }

    /// All rows, `[n_cells, n_latent]`.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        ArrayView2::from_shape((self.n_cells(), self.n_latent), &self.values).expect("rows have one width")
    }

    /// Some of the rows.
    #[must_use]
    pub fn select(&self, cells: &[usize]) -> Self {
        Self { n_latent: self.n_latent, values: cells.iter().flat_map(|&cell| self.row(cell)).copied().collect() }
    }

    /// The same rows in ascending order of their values.
    #[must_use]
    pub fn sorted(&self) -> Self {
        let mut rows: Vec<&[f32]> = self.rows().collect();
        rows.sort_by(|a, b| {
            a.iter().zip(*b).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        });
        Self { n_latent: self.n_latent, values: rows.concat() }
    }

    /// One row per cell.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.n_latent.max(1))
    }
}

/// The mean position of the cells of one label.
#[derive(Clone, PartialEq, Debug)]
pub struct LabelMean {
    /// How many cells.
    pub n_cells: u64,
    /// Their mean, `n_latent` numbers.
    pub mean: Vec<f32>,
}

impl LabelMean {
    /// The means of all labels that have at least `min_cells` cells from at least `min_donors` donors. Where donors are
    /// not known, none is counted. Cells without a label are left out.
    pub fn of_labels(
        latent: &Latent,
        labels: &[Option<String>],
        donors: Option<&[Option<String>]>,
        min_cells: u64,
        min_donors: u64,
    ) -> BTreeMap<String, Self> {
        let mut cells_of: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (cell, label) in labels.iter().enumerate() {
            if let Some(label) = label {
                cells_of.entry(label).or_default().push(cell);
            }
        }
        let n_donors = |cells: &[usize]| {
            donors.map_or(0, |donors| cells.iter().filter_map(|&c| donors[c].as_deref()).collect::<BTreeSet<_>>().len())
        };
        let rows: Vec<&[f32]> = latent.rows().collect();
        cells_of
            .into_iter()
            .filter(|(_, cells)| cells.len() as u64 >= min_cells && n_donors(cells) as u64 >= min_donors)
            .map(|(label, cells)| (label.to_owned(), Self::of_cells(&rows, &cells, latent.n_latent)))
            .collect()
    }

    fn of_cells(rows: &[&[f32]], cells: &[usize], n_latent: usize) -> Self {
        let mut sums = vec![0.0_f64; n_latent];
        for &cell in cells {
            sums.iter_mut().zip(rows[cell]).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let mean = sums.into_iter().map(|sum| (sum / cells.len() as f64) as f32).collect();
        Self { n_cells: cells.len() as u64, mean }
    }
}

impl sealed::Sealed for Columns {}
impl Outbound for Columns {
    fn kind(&self) -> Kind {
        Kind::Columns
    }

    fn to_wire(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn numbers(&self) -> u64 {
        numbers_of(&self.0)
    }
}

fn numbers_of(tensors: &StateDict) -> u64 {
    tensors.iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>() as u64).sum()
}

impl sealed::Sealed for Embeddings {}
impl Outbound for Embeddings {
    fn kind(&self) -> Kind {
        match self {
            Self::Cells(_) => Kind::Embeddings,
            Self::LabelMeans(_) => Kind::LabelMeans,
        }
    }

    // A safetensors file: `embeddings` [n_cells, n_latent], or `means` [n_labels, n_latent] and `n_cells` [n_labels]
    // with the labels in the metadata.
    fn to_wire(&self) -> Vec<u8> {
        let mut tensors = StateDict::new();
        match self {
            Self::Cells(latent) => {
                tensors.insert("embeddings", Tensor::from_f32(&[latent.n_cells(), latent.n_latent], &latent.values));
                tensors.to_safetensors(None)
            }
            Self::LabelMeans(means) => {
                let n_latent = means.values().next().map_or(0, |m| m.mean.len());
                let values: Vec<f32> = means.values().flat_map(|m| m.mean.iter().copied()).collect();
                let n_cells: Vec<i64> = means.values().map(|m| m.n_cells as i64).collect();
                tensors.insert("means", Tensor::from_f32(&[means.len(), n_latent], &values));
                tensors.insert("n_cells", Tensor::from_i64(&[means.len()], &n_cells));
                let labels = serde_json::json!({ "labels": means.keys().collect::<Vec<_>>() });
                tensors.to_safetensors(Some(&labels.to_string()))
            }
        }
    }

    fn numbers(&self) -> u64 {
        match self {
            Self::Cells(latent) => latent.values.len() as u64,
            Self::LabelMeans(means) => means.values().map(|of_label| 1 + of_label.mean.len() as u64).sum(),
        }
    }
}

impl sealed::Sealed for ConditionMetrics {}
impl Outbound for ConditionMetrics {
    fn kind(&self) -> Kind {
        Kind::Metrics
    }

    fn to_wire(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers are JSON")
    }

    fn numbers(&self) -> u64 {
        4 + self.figures.len() as u64
    }
}

impl sealed::Sealed for Member {}
impl Outbound for Member {
    fn kind(&self) -> Kind {
        Kind::Parts
    }

    fn to_wire(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn numbers(&self) -> u64 {
        match self {
            Self::Tensors(tensors) => numbers_of(tensors),
            Self::Sums(pool) => {
                let of_entry: usize = pool.specs().values().map(|spec| spec.shape.iter().product::<usize>()).sum();
                (pool.entries().len() * of_entry) as u64
            }
        }
    }
}

impl sealed::Sealed for Progress {}
impl Outbound for Progress {
    fn kind(&self) -> Kind {
        Kind::Progress
    }

    fn to_wire(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers are JSON")
    }

    fn numbers(&self) -> u64 {
        2
    }
}
