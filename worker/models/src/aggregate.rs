//! The aggregated posterior of a reference's cells as a mixture of normal distributions: where cells of the reference lie, without any
//! of them. The base keeps it as a small table, and surgery draws the latent states of a query to it.
//!
//! The columns of a new condition are found by the query's likelihood alone if nothing holds them, and then the query's cells drift from
//! the reference's by what a decoder's own column makes up for. A standard normal prior does not hold them: all of the reference lies in
//! it. Source: the prior as a mixture of posteriors is that of Tomczak and Welling (AISTATS 2018); the divergence of a normal
//! distribution from a mixture has no closed form, and its bound `-ln Σ w e^(-KL)` is that of Hershey and Olsen (ICASSP 2007).

use archipelago_analysis::kmeans::{KMeans, kmeans};
use archipelago_common::{StateDict, Tensor as Stored};
use ndarray::{ArrayView2, Axis};
use tch::Tensor;

use crate::{
    error::{Error, Result},
    nn::Posterior,
};

/// A mixture with a component for each cluster of the reference's cells, all of the same weight, so that a type counts as much where it is
/// rare, and a standard normal as the last one, in which cells unlike any of the reference find their place.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregate {
    n_latent: usize,
    /// Means of the components, `[n_components, n_latent]`.
    means: Vec<f32>,
    /// Their variances.
    vars: Vec<f32>,
}

/// A component of the mixture.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Component<'a> {
    /// Its mean, `[n_latent]`.
    pub mean: &'a [f32],
    /// Its variance, `[n_latent]`.
    pub var: &'a [f32],
    /// Logarithm of its weight.
    pub log_weight: f64,
}

impl Aggregate {
    /// Of the posteriors of a reference's cells, `[n_cells, n_latent]`; none where there are too few cells for a cluster.
    ///
    /// # Errors  latent states that are not finite
    pub fn of_cells(means: ArrayView2<'_, f32>, vars: ArrayView2<'_, f32>, seed: u64) -> Result<Option<Self>> {
        let (n_cells, n_latent) = means.dim();
        let n_clusters = (n_cells / CELLS_PER_CLUSTER).min(MOST_COMPONENTS - 1);
        if n_clusters == 0 {
            return Ok(None);
        }
        let clusters = kmeans(means, KMeans { n_init: 1, ..KMeans::new(n_clusters, seed) })?;
        let mut mixture = Self { n_latent, means: Vec::new(), vars: Vec::new() };
        for cluster in 0..n_clusters as u32 {
            let members = clusters.assignment.iter().enumerate().filter(|(_, of)| **of == cluster);
            let members: Vec<usize> = members.map(|(cell, _)| cell).collect();
            // The mean of very few cells would tell where each of them lies.
            if members.len() < LEAST_CELLS {
                continue;
            }
            let of_members = |values: ArrayView2<'_, f32>| values.select(Axis(0), &members).mapv(f64::from);
            let (means, vars) = (of_members(means), of_members(vars));
            let n = members.len() as f64;
            let spread = means.var_axis(Axis(0), 0.0) + vars.sum_axis(Axis(0)) / n;
            mixture.means.extend((means.sum_axis(Axis(0)) / n).iter().map(|&mean| mean as f32));
            mixture.vars.extend(spread.iter().map(|&var| (var as f32).clamp(LEAST_VARIANCE, LARGEST_VARIANCE)));
        }
        if mixture.means.is_empty() {
            return Ok(None);
        }
        mixture.means.extend(vec![0.0; n_latent]);
        mixture.vars.extend(vec![1.0; n_latent]);
        Ok(Some(mixture))
    }

    /// The one that a base keeps, if it keeps one.
    ///
    /// # Errors  a table of another shape, or with numbers that no reference's cells give
    pub fn of_base(base: &StateDict) -> Result<Option<Self>> {
        let (Some(means), Some(vars)) = (base.get(MEANS), base.get(VARIANCES)) else { return Ok(None) };
        let misfit = |detail: String| Err(Error::Aggregate { detail });
        let &[n_components, n_latent] = means.shape() else {
            return misfit(format!("`{MEANS}` has shape {:?}, expected components × dimensions", means.shape()));
        };
        if vars.shape() != means.shape() || n_latent == 0 || !(2..=MOST_COMPONENTS).contains(&n_components) {
            let found = (means.shape(), vars.shape());
            return misfit(format!("tables have shapes {found:?}, expected one shape of 2 to {MOST_COMPONENTS} rows"));
        }
        let (means, vars) = (means.to_f32(MEANS)?, vars.to_f32(VARIANCES)?);
        // A component as narrow as a needle, or as far away as one likes, would make steps as large as its author likes.
        if let Some(mean) = means.iter().find(|mean| !(-LARGEST_MEAN..=LARGEST_MEAN).contains(*mean)) {
            return misfit(format!("a mean is {mean}, expected at most {LARGEST_MEAN} in size"));
        }
        if let Some(var) = vars.iter().find(|var| !(LEAST_VARIANCE..=LARGEST_VARIANCE).contains(*var)) {
            return misfit(format!("a variance is {var}, expected {LEAST_VARIANCE} to {LARGEST_VARIANCE}"));
        }
        Ok(Some(Self { n_latent, means, vars }))
    }

    /// Puts the table among a base's tensors.
    pub fn keep_in(&self, base: &mut StateDict) {
        let shape = [self.means.len() / self.n_latent, self.n_latent];
        base.insert(MEANS, Stored::from_f32(&shape, &self.means));
        base.insert(VARIANCES, Stored::from_f32(&shape, &self.vars));
    }

    /// Any numbers, for tests.
    #[cfg(test)]
    pub(crate) fn of_numbers(n_latent: usize, means: Vec<f32>, vars: Vec<f32>) -> Self {
        Self { n_latent, means, vars }
    }

    /// Dimensions of the latent space.
    pub fn n_latent(&self) -> usize {
        self.n_latent
    }

    /// All components.
    pub fn components(&self) -> impl ExactSizeIterator<Item = Component<'_>> {
        let n_clusters = self.means.len() / self.n_latent - 1;
        let of_cluster = ((1.0 - BROAD_WEIGHT) / n_clusters as f64).ln();
        let rows = self.means.chunks_exact(self.n_latent).zip(self.vars.chunks_exact(self.n_latent));
        rows.enumerate().map(move |(at, (mean, var))| {
            let log_weight = if at < n_clusters { of_cluster } else { BROAD_WEIGHT.ln() };
            Component { mean, var, log_weight }
        })
    }

    /// How far posteriors lie from the mixture at most, in nats.
    ///
    /// # Shapes   posteriors `[n, n_latent]`; returns `[n]`
    pub fn divergence(&self, posterior: &Posterior) -> Tensor {
        let device = posterior.mean.device();
        let table = |values: &[f32]| Tensor::from_slice(values).view([1, -1, self.n_latent as i64]).to_device(device);
        let (means, vars) = (table(&self.means), table(&self.vars));
        let log_weights: Vec<f32> = self.components().map(|component| component.log_weight as f32).collect();
        let (mean, var) = (posterior.mean.unsqueeze(1), posterior.var.unsqueeze(1));
        let of_each = crate::distributions::normal::kl(&mean, &var, &means, &vars);
        -(Tensor::from_slice(&log_weights).to_device(device) - of_each).logsumexp([1_i64].as_slice(), false)
    }
}

/// Names of the table in the base.
const MEANS: &str = "aggregate.means";
const VARIANCES: &str = "aggregate.variances";
/// Cells for which there is a cluster.
const CELLS_PER_CLUSTER: usize = 10;
/// Cells that a cluster has at least; smaller ones are left out.
const LEAST_CELLS: usize = 5;
/// Components at most, the broad one among them.
const MOST_COMPONENTS: usize = 101;
/// Weight of the broad component.
const BROAD_WEIGHT: f64 = 0.1;
/// Bounds of variances and means.
const LEAST_VARIANCE: f32 = 1e-3;
const LARGEST_VARIANCE: f32 = 1e3;
const LARGEST_MEAN: f32 = 1e3;

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use tch::Device;

    use super::*;

    fn cells(n: usize) -> (Array2<f32>, Array2<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let means = Array2::from_shape_fn((n, 3), |(cell, _)| (cell % 2) as f32 * 4.0 + rng.random_range(-0.5..0.5));
        (means, Array2::from_elem((n, 3), 0.25))
    }

    #[test]
    fn cells_give_a_mixture_that_a_base_keeps_to_the_bit() {
        let (means, vars) = cells(200);
        let aggregate = Aggregate::of_cells(means.view(), vars.view(), 0).unwrap().unwrap();
        assert_eq!(Aggregate::of_cells(means.view(), vars.view(), 0).unwrap().as_ref(), Some(&aggregate));
        let mut base = StateDict::new();
        assert_eq!(Aggregate::of_base(&base).unwrap(), None);
        aggregate.keep_in(&mut base);
        assert_eq!(Aggregate::of_base(&base).unwrap(), Some(aggregate.clone()));
        let weights: f64 = aggregate.components().map(|component| component.log_weight.exp()).sum();
        assert!((weights - 1.0).abs() < 1e-12, "{weights}");
        // No cluster is far from both heaps of cells, and none is narrower than a posterior.
        let n = aggregate.components().len();
        for component in aggregate.components().take(n - 1) {
            assert!(component.mean.iter().all(|mean| mean.abs() < 0.6 || (mean - 4.0).abs() < 0.6), "{component:?}");
            assert!(component.var.iter().all(|var| (0.25..0.6).contains(var)), "{component:?}");
        }
    }

    #[test]
    fn few_cells_give_none() {
        let (means, vars) = cells(9);
        assert_eq!(Aggregate::of_cells(means.view(), vars.view(), 0).unwrap(), None);
    }

    // import numpy as np; from scipy.special import logsumexp
    // m, v = np.array([.5, -1]), np.array([.3, .8]); mu = np.array([[1, 0], [0, 0]]); s = np.array([[.5, .25], [1, 1]])
    // kl = .5 * (np.log(s / v) + (v + (m - mu) ** 2) / s - 1).sum(1); print(-logsumexp(np.log([.9, .1]) - kl))
    const BOUND: f64 = 2.358_470_905;

    #[test]
    fn the_divergence_is_the_bound_of_a_mixture() {
        let aggregate = Aggregate::of_numbers(2, vec![1.0, 0.0, 0.0, 0.0], vec![0.5, 0.25, 1.0, 1.0]);
        let row = |values: [f32; 2]| Tensor::from_slice(&values).view([1, 2]).to_device(Device::Cpu);
        let posterior = Posterior { mean: row([0.5, -1.0]), var: row([0.3, 0.8]) };
        let found = aggregate.divergence(&posterior).double_value(&[0]);
        assert!((found - BOUND).abs() < 1e-5, "{found}");
    }

    #[test]
    fn tables_that_no_cells_give_are_refused() {
        let base = |shape: &[usize], mean: f32, var: f32| {
            let n = shape.iter().product();
            let mut base = StateDict::new();
            base.insert(MEANS, Stored::from_f32(shape, &vec![mean; n]));
            base.insert(VARIANCES, Stored::from_f32(shape, &vec![var; n]));
            Aggregate::of_base(&base)
        };
        base(&[3, 2], 0.0, 1.0).unwrap();
        for (refused, what) in [
            (base(&[6], 0.0, 1.0), "components × dimensions"),
            (base(&[1, 2], 0.0, 1.0), "2 to 101 rows"),
            (base(&[500, 2], 0.0, 1.0), "2 to 101 rows"),
            (base(&[3, 2], f32::NAN, 1.0), "a mean is NaN"),
            (base(&[3, 2], 0.0, 1e-20), "a variance is"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
