//! Counts drawn from the posterior predictive distribution.

use archipelago_anndata::Csr;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Gamma, Normal, Poisson};

use super::{CountResults, to_vec};
use crate::{
    distributions::Likelihood,
    error::Result,
    model::Decoded,
    nn::{Mode, Pass},
};

/// Drawn counts, one matrix of cells × genes per sample.
pub type CountSamples = Vec<Csr>;

impl CountResults<'_> {
    /// Draws counts of every cell from what the model says about it, `n_samples` times.
    ///
    /// # Errors  [`crate::Error::Anndata`] if there are more genes than a sparse matrix can count
    pub fn posterior_predictive(&self, n_samples: usize) -> Result<CountSamples> {
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise("posterior predictive");
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of("counts", 0));
        let n_genes = self.dataset.counts.n_cols();
        let mut samples = Vec::with_capacity(n_samples);
        for _ in 0..n_samples {
            let mut rows = Vec::new();
            for cells in self.chunks() {
                let minibatch = self.minibatch(&cells);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                let draw = self.model().draw(&minibatch, &mut pass);
                let decoded = self.model().decode(&draw, &minibatch, &minibatch.covariates, &mut pass);
                let drawn = draw_counts(&decoded, self.model().likelihood(), &mut rng);
                rows.push(Csr::from_dense(cells.len(), n_genes, &drawn)?);
            }
            samples.push(Csr::vstack(n_genes, rows)?);
        }
        Ok(samples)
    }
}

/// One draw for every cell and gene, row by row.
pub(super) fn draw_counts(decoded: &Decoded, likelihood: Likelihood, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let rate = &decoded.counts.rate;
    let rates = to_vec(rate);
    let r = decoded.counts.r.as_ref().map(|r| to_vec(&r.expand_as(rate).contiguous()));
    let dropout = decoded.counts.dropout.as_ref().map(|logits| to_vec(&logits.sigmoid()));
    let draw = |i: usize| {
        let (rate, r) = (f64::from(rates[i]), r.as_ref().map_or(f64::INFINITY, |r| f64::from(r[i])));
        match likelihood {
            Likelihood::Normal => Normal::new(rate, r).map_or(rate, |normal| normal.sample(rng)) as f32,
            Likelihood::Poisson => poisson(rate, rng),
            Likelihood::Nb => poisson(gamma(r, rate, rng), rng),
            Likelihood::Zinb => {
                let count = poisson(gamma(r, rate, rng), rng);
                let is_dropped = dropout.as_ref().is_some_and(|dropout| rng.random::<f32>() <= dropout[i]);
                if is_dropped { 0.0 } else { count }
            }
        }
    };
    (0..rates.len()).map(draw).collect()
}

/// A gamma draw of this shape and mean; the mean itself where the shape or the mean is degenerate.
pub(super) fn gamma(shape: f64, mean: f64, rng: &mut ChaCha8Rng) -> f64 {
    Gamma::new(shape, mean / shape).map_or(mean, |gamma| gamma.sample(rng))
}

pub(super) fn poisson(rate: f64, rng: &mut ChaCha8Rng) -> f32 {
    Poisson::new(rate.min(LARGEST_RATE)).map_or(0.0, |poisson| poisson.sample(rng)) as f32
}

/// Upstream's bound on the rate of a Poisson draw.
const LARGEST_RATE: f64 = 1e8;
