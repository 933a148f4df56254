//! What a module's loss is made of, cell by cell.

pub mod hsic;
pub mod mmd;

use tch::{Kind, Tensor};

/// What a module says of a minibatch. The ELBO of a cell is `-(reconstruction + kl_local)`, whatever the warm-up weight.
#[derive(Debug)]
pub struct LossTerms {
    /// What the optimiser minimises: the mean over cells, a scalar.
    pub loss: Tensor,
    /// Negative log-likelihood per cell, `[n]`, in nats.
    pub reconstruction: Tensor,
    /// All Kullback–Leibler terms per cell, unweighted, `[n]`, in nats.
    pub kl_local: Tensor,
    /// Figures of the model's own, by the names on its card: `[n]` for a value per cell, a scalar for a mean over them.
    pub further: Vec<(&'static str, Tensor)>,
    /// The drawn latent states, `[n, n_latent]`, for what a model does with them beside its loss.
    pub latent: Option<Tensor>,
}

impl LossTerms {
    /// Mean over cells of `reconstruction + weight * warmed_kl + kl`, where only the first divergence is warmed up.
    pub fn new(reconstruction: Tensor, warmed_kl: &Tensor, kl: Option<&Tensor>, weight: f64) -> Self {
        let warmed = &reconstruction + warmed_kl * weight;
        let (per_cell, kl_local) = match kl {
            Some(kl) => (warmed + kl, warmed_kl + kl),
            None => (warmed, warmed_kl.shallow_clone()),
        };
        Self { loss: per_cell.mean(Kind::Float), reconstruction, kl_local, further: Vec::new(), latent: None }
    }
}
