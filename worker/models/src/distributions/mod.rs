//! Probability distributions of counts and latent variables: log-likelihoods and divergences, in nats.

pub mod counts;
pub(crate) mod gaussian_mixture;
pub mod negative_binomial;
pub mod normal;
pub mod poisson;

pub use counts::{CountParameters, Likelihood};
