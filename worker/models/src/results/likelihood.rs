//! Marginal likelihood by importance sampling.

use tch::Tensor;

use super::CountResults;
use crate::error::{Error, Result};

impl CountResults<'_> {
    /// `log p(x)` of every cell in nats, estimated with `n_samples` draws (upstream takes 1,000).
    ///
    /// # Errors  [`Error::Minified`] without counts, [`Error::NotOfValues`]
    pub fn marginal_log_likelihood(&self, n_samples: usize) -> Result<Vec<f32>> {
        if self.asked.dataset().minified.is_some() {
            return Err(Error::Minified { what: "the marginal likelihood" });
        }
        self.only_of_counts("likelihood")?;
        let n_samples = n_samples.max(1);
        Ok(self.asked.number_by_chunk("marginal likelihood", |minibatch, pass| {
            let mut total: Option<Tensor> = None;
            for _ in 0..n_samples {
                let weight = self.model().log_importance_weight(minibatch, pass);
                total = Some(match total {
                    Some(total) => total.logaddexp(&weight),
                    None => weight,
                });
            }
            total.expect("there is at least one sample") - (n_samples as f64).ln()
        }))
    }
}
