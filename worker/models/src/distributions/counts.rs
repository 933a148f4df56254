//! The choice of a count likelihood and its parameters: the seam between a decoder and whoever evaluates it.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{negative_binomial, normal, poisson};
use crate::options::Choice;

/// The distribution of counts given a cell's latent state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Likelihood {
    /// Zero-inflated negative binomial.
    #[default]
    Zinb,
    /// Negative binomial.
    Nb,
    /// Poisson.
    Poisson,
    /// Normal, for values that are not counts.
    Normal,
}

impl Choice for Likelihood {}

impl Likelihood {
    /// Whether there is a dispersion (or, for normal, a scale).
    pub fn has_dispersion(self) -> bool {
        self != Self::Poisson
    }

    /// Whether there are zero-inflation logits.
    pub fn has_dropout(self) -> bool {
        self == Self::Zinb
    }
}

/// Parameters of the count distribution.
#[derive(Debug)]
pub struct CountParameters {
    /// Expected counts, `[…, n, n_genes]`.
    pub rate: Tensor,
    /// Inverse dispersion, `[n_genes]` or like `rate`; for normal the standard deviation.
    pub r: Option<Tensor>,
    /// Zero-inflation logits, like `rate`.
    pub dropout: Option<Tensor>,
}

impl CountParameters {
    /// Log-likelihood of each count, like `rate`, in nats. Panics without a parameter the likelihood needs: our own defect.
    pub fn log_prob(&self, likelihood: Likelihood, x: &Tensor) -> Tensor {
        let r = || self.r.as_ref().expect("the likelihood has a dispersion");
        match likelihood {
            Likelihood::Zinb => {
                let dropout = self.dropout.as_ref().expect("zinb has zero-inflation logits");
                negative_binomial::zero_inflated_log_prob(x, &self.rate, r(), dropout)
            }
            Likelihood::Nb => negative_binomial::log_prob(x, &self.rate, r()),
            Likelihood::Poisson => poisson::log_prob(x, &self.rate),
            Likelihood::Normal => normal::log_prob(x, &self.rate, &r().square()),
        }
    }

    /// Negative log-likelihood of each cell, `[…, n]`, in nats.
    pub fn reconstruction(&self, likelihood: Likelihood, x: &Tensor) -> Tensor {
        -self.log_prob(likelihood, x).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
    }
}
