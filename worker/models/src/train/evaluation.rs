//! Figures of cells, and sums that become figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::Means;
use crate::{
    data::Minibatches,
    fast::Terms,
    losses::LossTerms,
    model::Module,
    nn::{Mode, Pass, SeededNoise},
};

/// Mean figures of some cells.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// Loss with the warm-up weight: what is minimised.
    pub loss: f64,
    /// Figures by name. Every model has [`ELBO`] and [`RECONSTRUCTION`]; its card says which it reports.
    pub figures: BTreeMap<String, f64>,
}

/// Mean evidence lower bound, without the warm-up weight.
pub const ELBO: &str = "elbo";
/// Mean negative log-likelihood.
pub const RECONSTRUCTION: &str = "reconstruction";

impl Evaluation {
    /// A figure by its name; `loss` is one.
    pub fn figure(&self, name: &str) -> Option<f64> {
        if name == "loss" { Some(self.loss) } else { self.figures.get(name).copied() }
    }

    /// Mean evidence lower bound per cell, in nats; higher is better.
    pub fn elbo(&self) -> f64 {
        self.figures.get(ELBO).copied().unwrap_or(f64::NAN)
    }

    /// Mean negative log-likelihood per cell, in nats.
    pub fn reconstruction(&self) -> f64 {
        self.figures.get(RECONSTRUCTION).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn of_sums(terms: &Terms, n: usize) -> Self {
        let n = n as f64;
        let figures = [(ELBO, -(terms.negative_elbo / n)), (RECONSTRUCTION, terms.reconstruction / n)];
        let further = terms.further.iter().map(|(name, sum)| (name, sum / n));
        let figures = figures.into_iter().chain(further).map(|(name, value)| (name.to_owned(), value));
        Self { loss: terms.loss / n, figures: figures.collect() }
    }
}

/// Mean figures of some cells in evaluation mode, without gradients.
pub fn evaluate(
    module: &dyn Module,
    minibatches: &Minibatches<'_>,
    cells: &[usize],
    kl_weight: f64,
    noise: SeededNoise,
) -> Evaluation {
    let runs = cells.chunks(EVALUATION_MINIBATCH);
    evaluate_minibatches(module, minibatches, runs, (kl_weight, Means::OverCells), noise)
}

/// The same, minibatch by minibatch as given.
pub(super) fn evaluate_minibatches<'c>(
    module: &dyn Module,
    minibatches: &Minibatches<'_>,
    runs: impl Iterator<Item = &'c [usize]>,
    (kl_weight, means): (f64, Means),
    mut noise: SeededNoise,
) -> Evaluation {
    let _guard = tch::no_grad_guard();
    let mut sums = Sums::new(means);
    for cells in runs {
        let minibatch = minibatches.of(cells);
        let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
        sums.add(&module.loss(&minibatch, kl_weight, &mut pass), cells.len());
    }
    sums.mean()
}

/// Sums over cells or minibatches, on the device until they are asked for: reading a number would wait for the device.
pub(super) struct Sums {
    means: Means,
    total: Option<Tensor>,
    /// A model's own figures, and over how many cells or minibatches.
    further: BTreeMap<&'static str, (Tensor, usize)>,
    /// Those that the kernels computed.
    fast: Terms,
    n: usize,
}

impl Sums {
    pub(super) fn new(means: Means) -> Self {
        Self { means, total: None, further: BTreeMap::new(), fast: Terms::default(), n: 0 }
    }

    /// Adds the terms of a minibatch of so many cells.
    pub(super) fn add(&mut self, terms: &LossTerms, n_cells: usize) {
        let reconstruction = terms.reconstruction.sum(Kind::Double);
        let negative_elbo = &reconstruction + terms.kl_local.sum(Kind::Double);
        let loss = terms.loss.to_kind(Kind::Double) * n_cells as f64;
        let (n, divisor) = match self.means {
            Means::OverCells => (n_cells, None),
            Means::OverMinibatches => (1, Some(n_cells as f64)),
        };
        let counted = |sums: Tensor| match divisor {
            None => sums.detach(),
            Some(n) => sums.detach() / n,
        };
        let sums = counted(Tensor::stack(&[loss, negative_elbo, reconstruction], 0));
        self.total = Some(match self.total.take() {
            Some(total) => total + sums,
            None => sums,
        });
        self.n += n;
        for (name, values) in &terms.further {
            let values = values.to_kind(Kind::Double);
            let sum = if values.dim() == 0 { values * n_cells as f64 } else { values.sum(Kind::Double) };
            let sum = counted(sum);
            self.further
                .entry(name)
                .and_modify(|(total, so_far)| {
                    *total = &*total + &sum;
                    *so_far += n;
                })
                .or_insert_with(|| (sum.shallow_clone(), n));
        }
    }

    /// Adds the sums over so many cells that the kernels computed.
    pub(super) fn add_sums(&mut self, terms: Terms, n_cells: usize) {
        let (n, terms) = match self.means {
            Means::OverCells => (n_cells, terms),
            Means::OverMinibatches => (1, terms.over(n_cells as f64)),
        };
        self.fast.add(terms);
        self.n += n;
    }

    /// Means of all that was added.
    pub(super) fn mean(&self) -> Evaluation {
        let sum = |i: i64| self.total.as_ref().map_or(0.0, |total| total.double_value(&[i]));
        let mut terms = Terms { loss: sum(0), negative_elbo: sum(1), reconstruction: sum(2), ..Terms::default() };
        terms.add(self.fast);
        let mut evaluation = Evaluation::of_sums(&terms, self.n);
        let further =
            self.further.iter().map(|(name, (total, n))| ((*name).to_owned(), total.double_value(&[]) / *n as f64));
        evaluation.figures.extend(further);
        evaluation
    }
}

/// Cells per minibatch where nothing is trained.
pub(crate) const EVALUATION_MINIBATCH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(values: &[f32]) -> LossTerms {
        let n = values.len() as i64;
        let reconstruction = Tensor::from_slice(values);
        let kl = Tensor::ones([n], (Kind::Float, tch::Device::Cpu));
        let mut terms = LossTerms::new(reconstruction, &kl, None, 0.5);
        terms.further.push(("pair", Tensor::from(values[0])));
        terms
    }

    #[test]
    fn means_are_over_cells_or_over_minibatches() {
        let mean = |means| {
            let mut sums = Sums::new(means);
            sums.add(&terms(&[2.0, 4.0, 6.0]), 3);
            sums.add(&terms(&[8.0]), 1);
            sums.mean()
        };
        let cells = mean(Means::OverCells);
        assert_eq!((cells.loss, cells.elbo(), cells.reconstruction()), (5.5, -6.0, 5.0));
        assert_eq!(cells.figure("pair"), Some((2.0 * 3.0 + 8.0) / 4.0));
        let minibatches = mean(Means::OverMinibatches);
        assert_eq!((minibatches.loss, minibatches.elbo(), minibatches.reconstruction()), (6.5, -7.0, 6.0));
        assert_eq!((minibatches.figure("pair"), minibatches.figure("loss")), (Some(5.0), Some(6.5)));
    }
}
