//! Marginal likelihood by importance sampling.

use tch::Tensor;

use super::{CountResults, to_vec};
use crate::{
    error::{Error, Result},
    nn::{Mode, Pass},
};

impl CountResults<'_> {
    /// `log p(x)` of every cell in nats, estimated with `n_samples` draws (upstream takes 1,000).
    ///
    /// # Errors  [`Error::Minified`] without counts
    pub fn marginal_log_likelihood(&self, n_samples: usize) -> Result<Vec<f32>> {
        if self.dataset.minified.is_some() {
            return Err(Error::Minified { what: "the marginal likelihood" });
        }
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise("marginal likelihood");
        let n_samples = n_samples.max(1);
        let mut all = Vec::with_capacity(self.dataset.n_cells());
        for cells in self.chunks() {
            let minibatch = self.minibatch(&cells);
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let mut total: Option<Tensor> = None;
            for _ in 0..n_samples {
                let weight = self.model().log_importance_weight(&minibatch, &mut pass);
                total = Some(match total {
                    Some(total) => total.logaddexp(&weight),
                    None => weight,
                });
            }
            let total = total.expect("there is at least one sample");
            all.extend(to_vec(&(total - (n_samples as f64).ln())));
        }
        Ok(all)
    }
}
