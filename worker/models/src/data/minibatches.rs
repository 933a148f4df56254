//! The minibatches of a data set on one device.
//!
//! In main memory a minibatch is made from the data set when its turn comes. An accelerator holds the whole data set, counts as
//! compressed rows, and gathers minibatches itself: nothing but the numbers of the cells goes there, and nothing waits.

use archipelago_anndata::Csr;
use tch::{Device, Kind, TchError, Tensor};

use super::{Dataset, Minibatch};

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
    counts: ResidentCounts,
    /// All cells, without counts.
    cells: Minibatch,
}

/// Compressed rows on a device.
#[derive(Debug)]
struct ResidentCounts {
    /// Where each row starts, `[n_cells + 1]`.
    starts: Tensor,
    /// Gene of each count, `[n_counts]`.
    genes: Tensor,
    /// `[n_counts]`
    counts: Tensor,
    n_genes: i64,
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
            Some(resident) => resident.minibatch(cells, self.dataset.counts),
            None => self.dataset.minibatch(cells, self.device),
        }
    }
}

impl Resident {
    fn new(dataset: &Dataset<'_>, device: Device) -> Result<Self, TchError> {
        let counts = ResidentCounts::new(dataset.counts, device)?;
        let all: Vec<usize> = (0..dataset.n_cells()).collect();
        let nothing = Tensor::zeros([all.len() as i64, 0], (Kind::Float, device));
        Ok(Self { counts, cells: dataset.minibatch_with(nothing, &all, device) })
    }

    /// `host` is the data set's own counts: how many there will be is known without asking the device.
    fn minibatch(&self, cells: &[usize], host: &Csr) -> Minibatch {
        let n_counts = cells.iter().map(|&cell| host.row(cell).0.len() as i64).sum();
        let cells: Vec<i64> = cells.iter().map(|&cell| cell as i64).collect();
        let cells = Tensor::from_slice(&cells).to_device(self.counts.starts.device());
        self.cells.select(&cells, self.counts.rows(&cells, n_counts))
    }
}

impl ResidentCounts {
    fn new(counts: &Csr, device: Device) -> Result<Self, TchError> {
        let starts: Vec<i64> = counts.indptr().iter().map(|&start| start as i64).collect();
        // A gene's number is below 2^31, or its matrix would have as many columns.
        let genes: Vec<i32> = counts.indices().iter().map(|&gene| gene as i32).collect();
        Ok(Self {
            starts: Tensor::from_slice(&starts).f_to_device(device)?,
            genes: Tensor::from_slice(&genes).f_to_device(device)?,
            counts: Tensor::from_slice(counts.data()).f_to_device(device)?,
            n_genes: counts.n_cols() as i64,
        })
    }

    /// The rows of `cells`, `[n]`, with `n_counts` counts together: `[n, n_genes]`.
    fn rows(&self, cells: &Tensor, n_counts: i64) -> Tensor {
        let (n, device) = (cells.numel() as i64, cells.device());
        let starts = self.starts.index_select(0, cells);
        let lengths = self.starts.index_select(0, &(cells + 1)) - &starts;
        let rows = Tensor::arange(n, (Kind::Int64, device)).repeat_interleave_self_tensor(&lengths, None, n_counts);
        // Place of a count among all, less its place among those taken, is the same all along a row.
        let shift = starts - (lengths.cumsum(0, Kind::Int64) - &lengths);
        let at = shift.index_select(0, &rows) + Tensor::arange(n_counts, (Kind::Int64, device));
        let places = rows * self.n_genes + self.genes.index_select(0, &at);
        let dense = Tensor::zeros([n * self.n_genes], (Kind::Float, device));
        dense.scatter(0, &places, &self.counts.index_select(0, &at)).view([n, self.n_genes])
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
        let numbers = |seed: f32| (0..n).map(|cell| (cell as f32 * seed).sin()).collect::<Vec<_>>();
        let matrix = |width: usize| Array2::from_shape_fn((n, width), |(i, j)| (i * width + j) as f32);
        Dataset {
            counts,
            conditions: codes(3),
            labels: Some(codes(4)),
            unlabelled: Some(3),
            covariates: vec![codes(2), codes(5)],
            continuous: vec![numbers(0.3), numbers(0.7)],
            size_factor: Some(numbers(0.9)),
            proteins: Some(matrix(3)),
            minified: Some(Minified { mean: matrix(2), var: matrix(2), library: numbers(0.1) }),
        }
    }

    /// Every tensor of a minibatch.
    fn tensors(minibatch: &Minibatch) -> Vec<&Tensor> {
        let Minibatch { x, covariates, labels, continuous, size_factor, proteins, minified } = minibatch;
        let kept = minified.iter().flat_map(|kept| [&kept.qz_mean, &kept.qz_var, &kept.library]);
        let columns = labels.iter().chain(continuous).chain(size_factor).chain(proteins).chain(kept);
        [x, &covariates.condition].into_iter().chain(&covariates.categorical).chain(columns).collect()
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
