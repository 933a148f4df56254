//! Values drawn from the posterior predictive distribution.

use archipelago_anndata::Csr;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::CountResults;
use crate::{
    error::Result,
    nn::{Mode, Pass},
};

/// Drawn values of the same latent states: cells × features for each block, in order.
pub type Sample = Vec<Csr>;

impl CountResults<'_> {
    /// Draws values of every cell from what the model says about it, `n_samples` times.
    ///
    /// # Errors  [`crate::Error::NotOfValues`], [`crate::Error::Anndata`] if there are more features than a sparse matrix can count
    pub fn posterior_predictive(&self, n_samples: usize) -> Result<Vec<Sample>> {
        self.only_of_counts("distribution to draw from")?;
        let _guard = tch::no_grad_guard();
        let mut noise = self.asked.noise("posterior predictive");
        let mut rng = ChaCha8Rng::from_seed(self.asked.seeds().of("counts", 0));
        let widths: Vec<usize> = self.blocks.iter().map(|block| block.names.len()).collect();
        let mut samples = Vec::with_capacity(n_samples);
        for _ in 0..n_samples {
            let mut rows = vec![Vec::new(); widths.len()];
            for cells in self.asked.chunks() {
                let minibatch = self.asked.minibatch(&cells);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                let draw = self.model().draw(&minibatch, &mut pass);
                let blocks = self.model().decode(&draw, &minibatch, &minibatch.covariates, &mut pass);
                for ((rows, &width), block) in rows.iter_mut().zip(&widths).zip(blocks) {
                    rows.push(Csr::from_dense(cells.len(), width, &block.draw(&mut rng))?);
                }
            }
            let below = rows.into_iter().zip(&widths).map(|(rows, &width)| Csr::vstack(width, rows));
            samples.push(below.collect::<archipelago_anndata::Result<_>>()?);
        }
        Ok(samples)
    }
}
