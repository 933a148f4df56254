//! What is the same of all cells, whatever network decodes them.

use tch::{Kind, Tensor};

use crate::{data::Minibatch, distributions::normal, nn::Posterior};

/// Total count of each cell, `[n, 1]`.
pub(in crate::zoo) fn totals(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float)
}

/// The total count of each cell, `[n, 1]`, whether its counts are at hand or not.
pub(in crate::zoo) fn library(minibatch: &Minibatch) -> Tensor {
    match &minibatch.minified {
        Some(kept) => kept.library.shallow_clone(),
        None => totals(&minibatch.x),
    }
}

/// Log of the importance weight `p(x, z) / q(z | x)` of each cell, `[n]`, given its reconstruction loss in nats.
pub(super) fn log_importance_weight(reconstruction: &Tensor, z: &Tensor, qz: &Posterior) -> Tensor {
    let prior = normal::log_prob(z, &z.zeros_like(), &z.ones_like());
    let posterior = normal::log_prob(z, &qz.mean, &qz.var);
    (prior - posterior).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float) - reconstruction
}
