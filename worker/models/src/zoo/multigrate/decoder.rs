//! From a joint latent state to one modality, and the loss of it.

use tch::Tensor;

use super::config::{ModalityLoss, MultigrateConfig};
use crate::{
    data::Covariates,
    distributions::negative_binomial,
    error::Result,
    nn::{Builder, CovariateSizes, Linear, Pass, Stack},
};

/// The decoder of one modality.
#[derive(Debug)]
pub(super) struct Decoder {
    loss: ModalityLoss,
    body: Stack,
    head: Linear,
    /// Logits of further zeros.
    dropout: Option<Linear>,
}

/// What a decoder says of cells.
#[derive(Debug)]
pub struct Decoded {
    loss: ModalityLoss,
    /// Expected values; shares of the cell's total for counts, `[n, n_features]`.
    pub value: Tensor,
    /// Logits of further zeros, `[n, n_features]`.
    pub dropout: Option<Tensor>,
}

impl Decoder {
    /// Tensors `decoders.{m}.…`.
    pub(super) fn new(
        b: &mut Builder<'_>,
        config: &MultigrateConfig,
        modality: usize,
        (n_in, n_features): (usize, usize),
    ) -> Result<Self> {
        let (loss, layers) = (config.loss(modality), config.decoder(modality));
        let name = |part: &str| format!("decoders.{modality}.{part}");
        let body = Stack::new(b, &name("decoder.mlp"), n_in, &layers)?;
        let mut to_features =
            |part: &str| Linear::new(b, &name(part), layers.n_out, n_features, &CovariateSizes::none());
        let head = match loss {
            ModalityLoss::Mse => to_features("recon_decoder"),
            ModalityLoss::Bce => to_features("recon_decoder.fc_layers.Layer 0.0"),
            ModalityLoss::Nb | ModalityLoss::Zinb => to_features("mean_decoder.0"),
        }?;
        let dropout = if loss == ModalityLoss::Zinb { Some(to_features("dropout_decoder")?) } else { None };
        Ok(Self { loss, body, head, dropout })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Decoded {
        let none = Covariates::none(x);
        let hidden = self.body.forward(x, &none, pass);
        let head = self.head.forward(&hidden, &none);
        let value = match self.loss {
            ModalityLoss::Mse => head,
            ModalityLoss::Bce => head.sigmoid(),
            ModalityLoss::Nb | ModalityLoss::Zinb => head.softmax(-1, head.kind()),
        };
        let dropout = self.dropout.as_ref().map(|dropout| dropout.forward(&hidden, &none));
        Decoded { loss: self.loss, value, dropout }
    }
}

impl Decoded {
    /// Reconstruction loss of each cell, `[n]`; `size_factor`: `[n, 1]`, `theta`: inverse dispersion like the values.
    pub(super) fn reconstruction(&self, x: &Tensor, size_factor: &Tensor, theta: Option<&Tensor>) -> Tensor {
        let theta = || theta.expect("a likelihood of counts has a dispersion");
        let rate = || &self.value * size_factor;
        let per_feature = match self.loss {
            ModalityLoss::Mse => (&self.value - x).square(),
            ModalityLoss::Nb => -negative_binomial::log_prob(x, &rate(), theta()),
            ModalityLoss::Zinb => {
                let dropout = self.dropout.as_ref().expect("zinb has logits of further zeros");
                -negative_binomial::zero_inflated_log_prob(x, &rate(), theta(), dropout)
            }
            ModalityLoss::Bce => {
                let log = |share: &Tensor| share.log().clamp_min(SMALLEST_LOG);
                let (other, absent): (Tensor, Tensor) = (1.0 - &self.value, 1.0 - x);
                -(x * log(&self.value) + absent * log(&other))
            }
        };
        per_feature.sum_dim_intlist([-1_i64].as_slice(), false, x.kind())
    }
}

/// Logarithms of shares are no smaller, upstream's.
const SMALLEST_LOG: f64 = -100.0;
