//! Protein counts: a mixture of background and foreground, each a negative binomial (Gayoso et al. 2021).

use tch::{Kind, Tensor};

use crate::distributions::negative_binomial;

/// Parameters of the protein counts of each cell.
#[derive(Debug)]
pub struct ProteinParameters {
    /// Expected count if it is background, `[n, n_proteins]`.
    pub rate_back: Tensor,
    /// Expected count if it is foreground, like `rate_back` and above it.
    pub rate_fore: Tensor,
    /// Inverse dispersion of both, `[n_proteins]` or like `rate_back`.
    pub r: Tensor,
    /// Logit of being background, like `rate_back`.
    pub mixing: Tensor,
}

impl ProteinParameters {
    /// Log-likelihood of each count, like `rate_back`, in nats. `efficiency` multiplies both expectations.
    pub fn log_prob(&self, y: &Tensor, efficiency: Option<&Tensor>) -> Tensor {
        let scaled = |rate: &Tensor| efficiency.map_or_else(|| rate.shallow_clone(), |efficiency| rate * efficiency);
        let (back, fore) = (scaled(&self.rate_back), scaled(&self.rate_fore));
        negative_binomial::mixture_log_prob(y, &back, &fore, &self.r, &self.mixing)
    }

    /// Probability of being foreground, like `rate_back`.
    pub fn foreground_probability(&self) -> Tensor {
        1.0 - self.mixing.sigmoid()
    }

    /// Expected foreground of each protein as a share of all, like `rate_back`.
    pub fn scale(&self) -> Tensor {
        shares(&(self.foreground_probability() * &self.rate_fore))
    }
}

/// Values of each cell divided by their sum; zeros stay zeros.
///
/// # Shapes   `values`: `[…, n_proteins]`, not negative; returns like `values`
pub(super) fn shares(values: &Tensor) -> Tensor {
    values / values.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float).clamp_min(SMALLEST_SUM)
}

/// Keeps the shares of an empty row finite.
const SMALLEST_SUM: f64 = 1e-12;
