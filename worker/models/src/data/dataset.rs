//! Encoded cells.

use archipelago_anndata::Csr;
use archipelago_common::hash::{Digest, FieldHasher, StreamHasher};
use ndarray::Array2;
use tch::{Device, Tensor, kind::Element};

use super::{
    CellConditions, Covariates, Minibatch, Minified, MinifiedBatch, Slot,
    cells::check_length,
    slot::{Category, Coordinates, Labels, Matrix, Number, Receptor},
};
use crate::error::Result;

/// Cells whose fields are numbers. Matrices stay sparse; only a minibatch is ever dense.
#[derive(Clone, Debug)]
pub struct Dataset<'a> {
    /// Expression, cells × genes.
    pub counts: &'a Csr,
    /// Condition code of each cell.
    pub conditions: Vec<i64>,
    /// Codes of each cell on each further axis.
    pub axes: Vec<Vec<i64>>,
    /// Codes of each further categorical covariate, in block order.
    pub covariates: Vec<Vec<i64>>,
    /// The fields that have a value for each cell, in the order of the registry.
    pub fields: Vec<Encoded>,
    /// What is known instead of counts.
    pub minified: Option<Minified>,
}

/// The values of a field as numbers.
#[derive(Clone, PartialEq, Debug)]
pub enum Encoded {
    /// Codes below `n`, or `n` itself for a cell without a label.
    Codes {
        /// Code of each cell.
        codes: Vec<i64>,
        /// Number of names.
        n: usize,
        /// Names that the reference does not know, whose codes follow `n`.
        new: Vec<String>,
    },
    /// Numbers of each cell, `[n_cells, n_columns]`.
    Numbers(Array2<f32>),
    /// Features of a panel, cells × features.
    Matrix(Csr),
    /// Codes of amino acids, `[n_cells, n_chains * length]`.
    Tokens(Array2<i64>),
}

impl<'a> Dataset<'a> {
    /// Cells of which expression and condition are known.
    pub fn new(counts: &'a Csr, conditions: Vec<i64>) -> Self {
        Self { counts, conditions, axes: vec![], covariates: vec![], fields: vec![], minified: None }
    }

    /// The same cells with their keys on further axes.
    ///
    /// # Errors  [`Error::Shape`](crate::Error::Shape)
    pub fn with_axes(self, axes: &[CellConditions]) -> Result<Self> {
        let codes = |axis: &CellConditions| axis.codes().iter().map(|&code| i64::from(code)).collect::<Vec<_>>();
        axes.iter().try_fold(self, |cells, axis| cells.with_codes(&codes(axis)))
    }

    /// The same cells with codes on one more axis.
    ///
    /// # Errors  [`Error::Shape`](crate::Error::Shape)
    pub(crate) fn with_codes(mut self, codes: &[i64]) -> Result<Self> {
        check_length("axis", "cells", codes.len(), self.n_cells())?;
        self.axes.push(codes.to_vec());
        Ok(self)
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.counts.n_rows()
    }

    /// Label code of each cell.
    pub fn codes(&self, slot: Slot<Labels>) -> &[i64] {
        self.codes_at(slot.index)
    }

    /// Label code of each cell that carries a label.
    pub fn labels(&self, slot: Slot<Labels>) -> Vec<Option<i64>> {
        self.codes(slot).iter().map(|&code| (code != slot.width() as i64).then_some(code)).collect()
    }

    /// Labels that the reference does not know, whose codes come after that of cells without one.
    pub fn new_labels(&self, slot: Slot<Labels>) -> &[String] {
        match &self.fields[slot.index] {
            Encoded::Codes { new, .. } => new,
            _ => unreachable!("a slot is of its field's kind"),
        }
    }

    /// Category code of each cell.
    pub fn categories(&self, slot: Slot<Category>) -> &[i64] {
        self.codes_at(slot.index)
    }

    /// The values of a panel's features.
    pub fn matrix(&self, slot: Slot<Matrix>) -> &Csr {
        match &self.fields[slot.index] {
            Encoded::Matrix(values) => values,
            _ => unreachable!("a slot is of its field's kind"),
        }
    }

    /// The values of a panel's features, or those of genes where there is no slot.
    pub(crate) fn values_of(&self, slot: Option<Slot<Matrix>>) -> &Csr {
        slot.map_or(self.counts, |slot| self.matrix(slot))
    }

    /// A number of each cell, `[n_cells, 1]`.
    pub fn numbers(&self, slot: Slot<Number>) -> &Array2<f32> {
        match &self.fields[slot.index] {
            Encoded::Numbers(values) => values,
            _ => unreachable!("a slot is of its field's kind"),
        }
    }

    /// The places of cells, `[n_cells, n_dimensions]`.
    pub fn places(&self, slot: Slot<Coordinates>) -> &Array2<f32> {
        match &self.fields[slot.index] {
            Encoded::Numbers(values) => values,
            _ => unreachable!("a slot is of its field's kind"),
        }
    }

    /// The codes of receptors, `[n_cells, n_chains * length]`.
    pub fn receptors(&self, slot: Slot<Receptor>) -> &Array2<i64> {
        match &self.fields[slot.index] {
            Encoded::Tokens(codes) => codes,
            _ => unreachable!("a slot is of its field's kind"),
        }
    }

    /// Whether a cell carries a label.
    pub fn is_labelled(&self, slot: Slot<Labels>, cell: usize) -> bool {
        self.codes(slot)[cell] < slot.width() as i64
    }

    fn codes_at(&self, field: usize) -> &[i64] {
        match &self.fields[field] {
            Encoded::Codes { codes, .. } => codes,
            _ => unreachable!("a slot is of its field's kind"),
        }
    }

    /// Mean and population variance of the log total count in each of `n_conditions` conditions: the prior of a latent library
    /// size. Empty cells count as 0; a condition without cells has 0 and 1.
    pub fn log_library_moments(&self, n_conditions: usize) -> (Vec<f32>, Vec<f32>) {
        let mut logs = vec![Vec::new(); n_conditions];
        for (total, &code) in self.counts.row_sums().into_iter().zip(&self.conditions) {
            logs[code as usize].push(if total > 0.0 { total.ln() } else { 0.0 });
        }
        let moments = |logs: &Vec<f64>| {
            if logs.is_empty() {
                return (0.0, 1.0);
            }
            let n = logs.len() as f64;
            let mean = logs.iter().sum::<f64>() / n;
            (mean as f32, (logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / n) as f32)
        };
        logs.iter().map(moments).unzip()
    }

    /// Digest of every number in here.
    pub fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new("archipelago/dataset/2");
        let mut field = |digest: Digest| {
            hasher.field(digest.as_bytes());
        };
        matrix_digests(self.counts).into_iter().for_each(&mut field);
        let columns = std::iter::once(&self.conditions).chain(&self.covariates).chain(&self.axes);
        columns.for_each(|codes| field(stream(codes.iter().map(|code| code.to_le_bytes()))));
        for values in &self.fields {
            match values {
                Encoded::Codes { codes, new, .. } => {
                    field(stream(codes.iter().map(|code| code.to_le_bytes())));
                    new.iter().for_each(|name| field(Digest::of(name.as_bytes())));
                }
                Encoded::Numbers(values) => field(stream(values.iter().map(|value| value.to_le_bytes()))),
                Encoded::Tokens(codes) => field(stream(codes.iter().map(|code| code.to_le_bytes()))),
                Encoded::Matrix(values) => matrix_digests(values).into_iter().for_each(&mut field),
            }
        }
        let kept = self.minified.iter().flat_map(|kept| [&kept.mean, &kept.var]);
        kept.for_each(|values| field(stream(values.iter().map(|value| value.to_le_bytes()))));
        hasher.finish()
    }

    /// The cells at `cells`, in that order, as tensors.
    pub fn minibatch(&self, cells: &[usize], device: Device) -> Minibatch {
        let dense = |matrix: &Csr| dense_rows(matrix, cells).to_device(device);
        self.minibatch_with(dense(self.counts), cells, device, dense)
    }

    /// The cells at `cells`, with what stands for their expression and for other matrices.
    pub(super) fn minibatch_with(
        &self,
        x: Tensor,
        cells: &[usize],
        device: Device,
        matrix: impl Fn(&Csr) -> Tensor,
    ) -> Minibatch {
        let codes = |column: &[i64]| Tensor::from_slice(&gather(column, cells)).to_device(device);
        let field = |values: &Encoded| match values {
            Encoded::Codes { codes: column, .. } => codes(column),
            Encoded::Numbers(values) => rows(values, cells).to_device(device),
            Encoded::Tokens(values) => rows(values, cells).to_device(device),
            Encoded::Matrix(values) => matrix(values),
        };
        Minibatch {
            x,
            covariates: Covariates {
                condition: codes(&self.conditions),
                axes: self.axes.iter().map(|column| codes(column)).collect(),
                categorical: self.covariates.iter().map(|column| codes(column)).collect(),
            },
            fields: self.fields.iter().map(field).collect(),
            minified: self.minified.as_ref().map(|kept| MinifiedBatch {
                qz_mean: rows(&kept.mean, cells).to_device(device),
                qz_var: rows(&kept.var, cells).to_device(device),
                library: Tensor::from_slice(&gather(&kept.library, cells)).unsqueeze(1).to_device(device),
            }),
        }
    }
}

/// Digests of the parts of a matrix.
fn matrix_digests(matrix: &Csr) -> [Digest; 3] {
    [
        stream(matrix.indptr().iter().map(|&at| (at as u64).to_le_bytes())),
        stream(matrix.indices().iter().map(|column| column.to_le_bytes())),
        stream(matrix.data().iter().map(|value| value.to_le_bytes())),
    ]
}

/// Digest of a long sequence of numbers, without a copy of it.
fn stream<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> Digest {
    let mut hasher = StreamHasher::default();
    numbers.for_each(|bytes| hasher.update(&bytes));
    hasher.finish()
}

/// Rows of a matrix in full, `[n, n_columns]`.
fn dense_rows(matrix: &Csr, cells: &[usize]) -> Tensor {
    let n_columns = matrix.n_cols();
    let mut dense = vec![0.0_f32; cells.len() * n_columns];
    for (row, &cell) in dense.chunks_exact_mut(n_columns.max(1)).zip(cells) {
        let (columns, values) = matrix.row(cell);
        for (&column, &value) in columns.iter().zip(values) {
            row[column as usize] = value;
        }
    }
    Tensor::from_slice(&dense).view([cells.len() as i64, n_columns as i64])
}

fn rows<T: Element + Copy>(values: &Array2<T>, cells: &[usize]) -> Tensor {
    let mut rows: Vec<T> = Vec::with_capacity(cells.len() * values.ncols());
    cells.iter().for_each(|&cell| rows.extend(values.row(cell)));
    Tensor::from_slice(&rows).view([cells.len() as i64, values.ncols() as i64])
}

fn gather<T: Copy>(values: &[T], cells: &[usize]) -> Vec<T> {
    cells.iter().map(|&cell| values[cell]).collect()
}
