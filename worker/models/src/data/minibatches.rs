//! The minibatches of a data set on one device.
//!
//! In main memory a minibatch is made from the data set when its turn comes. An accelerator holds the whole data set, counts as
//! compressed rows, and gathers minibatches itself: nothing but the numbers of the cells goes there, and nothing waits.

use archipelago_anndata::Csr;
use tch::{Device, Kind, TchError, Tensor};

use super::{Dataset, Encoded, Minibatch};

/// Where minibatches come from.
#[derive(Debug)]
pub struct Minibatches<'a> {
    dataset: &'a Dataset<'a>,
    device: Device,
    resident: Option<Resident>,
}

/// A data set on a device.
#[derive(Debug)]
struct Resident {
    counts: ResidentRows,
    /// Fields that are matrices, by their places.
    matrices: Vec<Option<ResidentRows>>,
    /// All cells, without these.
    cells: Minibatch,
}

/// Compressed rows on a device.
#[derive(Debug)]
struct ResidentRows {
    /// Where each row starts, `[n_cells + 1]`.
    starts: Tensor,
    /// Column of each value, `[n_values]`.
    columns: Tensor,
    /// `[n_values]`
    values: Tensor,
    n_columns: i64,
}

impl<'a> Minibatches<'a> {
    /// On an accelerator, of a data set that lies there if it fits.
    pub fn new(dataset: &'a Dataset<'a>, device: Device) -> Self {
        let resident = (device != Device::Cpu).then(|| Resident::new(dataset, device));
        let resident = resident.and_then(|resident| {
            let why = |error: &TchError| tracing::info!(%error, "cells go to the device minibatch by minibatch");
            resident.inspect_err(why).ok()
        });
        Self { dataset, device, resident }
    }

    /// The cells at `cells`, in that order, as tensors.
    pub fn of(&self, cells: &[usize]) -> Minibatch {
        match &self.resident {
            Some(resident) => resident.minibatch(cells, self.dataset),
            None => self.dataset.minibatch(cells, self.device),
        }
    }
}

impl Resident {
    fn new(dataset: &Dataset<'_>, device: Device) -> Result<Self, TchError> {
        let counts = ResidentRows::new(dataset.counts, device)?;
        let matrix = |field: &Encoded| match field {
            Encoded::Matrix(values) => ResidentRows::new(values, device).map(Some),
            _ => Ok(None),
        };
        let matrices = dataset.fields.iter().map(matrix).collect::<Result<_, _>>()?;
        let all: Vec<usize> = (0..dataset.n_cells()).collect();
        let nothing = || Tensor::zeros([all.len() as i64, 0], (Kind::Float, device));
        Ok(Self { counts, matrices, cells: dataset.minibatch_with(nothing(), &all, device, |_| nothing()) })
    }

    fn minibatch(&self, cells: &[usize], dataset: &Dataset<'_>) -> Minibatch {
        let places: Vec<i64> = cells.iter().map(|&cell| cell as i64).collect();
        let places = Tensor::from_slice(&places).to_device(self.counts.starts.device());
        let matrix = |at: usize| match (&self.matrices[at], &dataset.fields[at]) {
            (Some(rows), Encoded::Matrix(host)) => Some(rows.of(&places, cells, host)),
            _ => None,
        };
        self.cells.select(&places, self.counts.of(&places, cells, dataset.counts), matrix)
    }
}

impl ResidentRows {
    fn new(matrix: &Csr, device: Device) -> Result<Self, TchError> {
        let starts: Vec<i64> = matrix.indptr().iter().map(|&start| start as i64).collect();
        // A column's number is below 2^31, or its matrix would have as many columns.
        let columns: Vec<i32> = matrix.indices().iter().map(|&column| column as i32).collect();
        Ok(Self {
            starts: Tensor::from_slice(&starts).f_to_device(device)?,
            columns: Tensor::from_slice(&columns).f_to_device(device)?,
            values: Tensor::from_slice(matrix.data()).f_to_device(device)?,
            n_columns: matrix.n_cols() as i64,
        })
    }

    /// The rows of `cells`, whose places are `[n]` on the device: `[n, n_columns]`. `host` is the data set's own matrix: how many
    /// values there will be is known without asking the device.
    fn of(&self, places: &Tensor, cells: &[usize], host: &Csr) -> Tensor {
        let n_values = cells.iter().map(|&cell| host.row(cell).0.len() as i64).sum::<i64>();
        let (n, device) = (places.numel() as i64, places.device());
        let starts = self.starts.index_select(0, places);
        let lengths = self.starts.index_select(0, &(places + 1)) - &starts;
        let rows = Tensor::arange(n, (Kind::Int64, device)).repeat_interleave_self_tensor(&lengths, None, n_values);
        // Place of a value among all, less its place among those taken, is the same all along a row.
        let shift = starts - (lengths.cumsum(0, Kind::Int64) - &lengths);
        let at = shift.index_select(0, &rows) + Tensor::arange(n_values, (Kind::Int64, device));
        let targets = rows * self.n_columns + self.columns.index_select(0, &at);
        let dense = Tensor::zeros([n * self.n_columns], (Kind::Float, device));
        dense.scatter(0, &targets, &self.values.index_select(0, &at)).view([n, self.n_columns])
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::data::Minified;

    fn dataset(counts: &Csr) -> Dataset<'_> {
        let n = counts.n_rows();
        let codes = |m: i64| (0..n as i64).map(|cell| cell * 7 % m).collect::<Vec<_>>();
        let matrix = |width: usize| Array2::from_shape_fn((n, width), |(i, j)| ((i * width + j) as f32 * 0.3).sin());
        let peaks: Vec<f32> = matrix(3).iter().map(|value| value.max(0.0)).collect();
        let library = matrix(1).iter().copied().collect();
        Dataset {
            covariates: vec![codes(2), codes(5)],
            fields: vec![
                Encoded::Codes { codes: codes(4), n: 3, new: vec![] },
                Encoded::Matrix(Csr::from_dense(n, 3, &peaks).unwrap()),
                Encoded::Numbers(matrix(2)),
                Encoded::Tokens(Array2::from_shape_fn((n, 2), |(i, j)| (i + j) as i64)),
            ],
            minified: Some(Minified { mean: matrix(2), var: matrix(2), library }),
            ..Dataset::new(counts, codes(3))
        }
    }

    /// Every tensor of a minibatch.
    fn tensors(minibatch: &Minibatch) -> Vec<&Tensor> {
        let Minibatch { x, covariates, fields, minified } = minibatch;
        let kept = minified.iter().flat_map(|kept| [&kept.qz_mean, &kept.qz_var, &kept.library]);
        [x, &covariates.condition].into_iter().chain(&covariates.categorical).chain(fields).chain(kept).collect()
    }

    proptest! {
        #[test]
        fn a_resident_data_set_gives_the_minibatches_of_the_data_set(
            (n_genes, dense) in (1_usize..9).prop_flat_map(|n_genes| {
                let count = prop_oneof![2 => Just(0.0_f32), 1 => (1_u8..9).prop_map(f32::from)];
                (Just(n_genes), proptest::collection::vec(count, n_genes * 11))
            }),
            cells in proptest::collection::vec(0_usize..11, 1..20),
        ) {
            let counts = Csr::from_dense(11, n_genes, &dense).unwrap();
            let dataset = dataset(&counts);
            // What is gathered does not depend on the kind of device.
            let resident = Some(Resident::new(&dataset, Device::Cpu).unwrap());
            let resident = Minibatches { dataset: &dataset, device: Device::Cpu, resident }.of(&cells);
            let made = dataset.minibatch(&cells, Device::Cpu);
            let (resident, made) = (tensors(&resident), tensors(&made));
            prop_assert_eq!(resident.len(), 11);
            for (resident, made) in resident.into_iter().zip(made) {
                prop_assert!(resident.kind() == made.kind() && resident.equal(made), "{resident:?} is not {made:?}");
            }
        }
    }
}
