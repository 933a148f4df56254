//! Which type a cell is of, and how sure that is: the nearest prototype and how far away it is.

use ndarray::{Array2, ArrayView2};
use tch::{Kind, Tensor};

use super::{
    module::EUCLIDEAN,
    prototypes::{Statistics, distances},
};
use crate::{nn::of_rows, reference::to_array};

/// What is told beside the nearest prototype.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sureness {
    /// The distance: an uncertainty.
    #[default]
    Distance,
    /// The softmax of the negative distances: a certainty.
    Probability,
}

/// The nearest prototype of each cell.
#[derive(Clone, PartialEq, Debug)]
pub struct Classified {
    /// Its number among the candidates.
    pub nearest: Vec<usize>,
    /// Its distance, or its probability.
    pub sureness: Vec<f64>,
    /// All distances, or probabilities, `[n_cells, n_candidates]`.
    pub all: Array2<f32>,
}

/// Compares cells, `[n_cells, n_latent]`, with candidates, `[n_candidates, n_latent]`, at least one; `p` is the order of the norm.
pub fn classify(latent: ArrayView2<'_, f32>, candidates: &Tensor, p: f64, sureness: Sureness) -> Classified {
    let away = distances(&of_rows(latent), candidates, p);
    let (best, nearest) = away.min_dim(1, false);
    let (told, all) = match sureness {
        Sureness::Distance => (best, away),
        Sureness::Probability => {
            let probabilities = away.neg().softmax(-1, Kind::Float);
            (probabilities.amax([1_i64].as_slice(), false), probabilities)
        }
    };
    let nearest = Vec::<i64>::try_from(&nearest).expect("positions are integers");
    Classified {
        nearest: nearest.into_iter().map(|at| at as usize).collect(),
        sureness: Vec::try_from(told.to_kind(Kind::Double)).expect("distances are numbers"),
        all: to_array(&all),
    }
}

/// A type that some clusters are made of.
#[derive(Debug)]
pub struct NewType {
    /// Cells nearer to it than to any other type.
    pub n_cells: u64,
    /// Mean of the clusters' prototypes, `[n_latent]`.
    pub mean: Tensor,
    /// Covariance of its cells, `[n_latent, n_latent]`; zeros for less than two.
    pub cov: Tensor,
}

impl NewType {
    /// Makes a type of clusters' prototypes, `[n_clusters, n_latent]`, beside those of the known types, and finds its cells among these.
    pub fn of_clusters(clusters: &Tensor, known: &Tensor, latent: ArrayView2<'_, f32>) -> Self {
        let mean = clusters.mean_dim([0_i64].as_slice(), false, Kind::Float);
        let candidates = Tensor::cat(&[known, &mean.unsqueeze(0)], 0);
        let new = known.size()[0] as usize;
        let found = classify(latent, &candidates, EUCLIDEAN, Sureness::Distance);
        let mut statistics = Statistics::new(1, latent.ncols());
        let own = latent.rows().into_iter().zip(found.nearest).filter(|(_, nearest)| *nearest == new);
        own.for_each(|(z, _)| statistics.add(0, z));
        let own = &statistics.types()[0];
        Self { n_cells: own.n_cells, mean, cov: own.cov() }
    }
}

/// Moves numbers to 0 to 1: their median is taken away, they are divided by the range of the middle half, and then the smallest becomes 0
/// and the largest 1. Numbers that are all equal become 0.
pub fn scale(values: &mut [f64]) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return };
    let quantile = |share: f64| {
        let at = share * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    };
    let (median, range) = (quantile(0.5), or_one(quantile(0.75) - quantile(0.25)));
    let robust = |value: f64| (value - median) / range;
    let (low, span) = (robust(*first), or_one(robust(*last) - robust(*first)));
    values.iter_mut().for_each(|value| *value = (robust(*value) - low) / span);
}

fn or_one(range: f64) -> f64 {
    if range == 0.0 { 1.0 } else { range }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_nearest_prototype_and_how_sure_that_is() {
        let candidates = of_rows(array![[0.0_f32, 0.0], [3.0, 4.0]].view());
        let cells = array![[0.0_f32, 1.0], [3.0, 4.0]];
        let found = classify(cells.view(), &candidates, 2.0, Sureness::Distance);
        assert_eq!((found.nearest, found.sureness), (vec![0, 1], vec![1.0, 0.0]));
        let found = classify(cells.view(), &candidates, 1.0, Sureness::Probability);
        assert!((found.sureness[1] - 1.0 / (1.0 + (-7.0_f64).exp())).abs() < 1e-6);
        assert!(found.all.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-6));
    }

    #[test]
    fn scaled_numbers_run_from_0_to_1() {
        let mut values = [4.0, 1.0, 2.0, 9.0];
        scale(&mut values);
        assert_eq!(values, [0.375, 0.0, 0.125, 1.0]);
        let mut equal = [2.0, 2.0];
        scale(&mut equal);
        assert_eq!(equal, [0.0, 0.0]);
    }
}
