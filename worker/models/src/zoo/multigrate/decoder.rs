//! From a joint latent state to one modality, and the loss of it.

use tch::Tensor;

use super::config::{ModalityLoss, MultigrateConfig};
use crate::{
    data::Covariates,
    distributions::{Likelihood, negative_binomial},
    error::Result,
    fast::{CountsWithin, LayerSpec, Link, LogDispersionSpec, ReconstructionSpec, Unsupported},
    nn::{Builder, CovariateSizes, Init, Levels, Linear, Pass, Role, Stack},
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

/// What the kernels are told about a decoder.
pub(super) struct DecoderSpec {
    pub(super) layers: Vec<LayerSpec>,
    pub(super) head: String,
    pub(super) dropout: Option<String>,
    pub(super) reconstruction: ReconstructionSpec,
}

/// What was measured of the cells that a decoder speaks of.
#[derive(Clone, Copy)]
pub(super) struct Measured<'a> {
    /// Values of the modality, `[n, n_features]`.
    pub(super) x: &'a Tensor,
    /// What stands for the total count of each cell, `[n, 1]`.
    pub(super) size_factor: &'a Tensor,
    /// The group of each cell, `[n]`.
    pub(super) groups: &'a Tensor,
    /// What each cell's loss is multiplied by: 0 where it lacks the modality, `[n]`.
    pub(super) weights: &'a Tensor,
}

/// Log inverse dispersion of a modality of counts.
#[derive(Debug)]
pub(super) enum Theta {
    /// The same for all cells, `[n_features]`.
    OfAll(Tensor),
    /// Of each group that is integrated on, `[n_groups, n_features]`.
    OfGroups(Levels),
}

/// What a decoder says of cells.
#[derive(Debug)]
pub struct Decoded {
    loss: ModalityLoss,
    /// What the last map gives, `[n, n_features]`.
    head: Tensor,
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

    /// What the kernels are told: layers, the maps to values and to further zeros, and what the values are compared by.
    ///
    /// # Errors  what they do not know
    pub(super) fn spec(&self) -> std::result::Result<DecoderSpec, Unsupported> {
        let reconstruction = match self.loss {
            ModalityLoss::Mse => ReconstructionSpec::Squared { link: Link::Identity, is_mean: false },
            ModalityLoss::Nb => ReconstructionSpec::Counts(Likelihood::Nb),
            ModalityLoss::Zinb => ReconstructionSpec::Counts(Likelihood::Zinb),
            ModalityLoss::Bce => return Err(Unsupported("a modality's loss is a binary cross entropy")),
        };
        let dropout = self.dropout.as_ref().map(|dropout| dropout.spec().0);
        Ok(DecoderSpec { layers: self.body.spec()?, head: self.head.spec().0, dropout, reconstruction })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Decoded {
        let none = Covariates::none(x);
        let hidden = self.body.forward(x, &none, pass);
        let head = self.head.forward(&hidden, &none);
        let dropout = self.dropout.as_ref().map(|dropout| dropout.forward(&hidden, &none));
        Decoded { loss: self.loss, head, dropout }
    }
}

impl Theta {
    /// Tensor `theta.{m}`, or `theta.{m}.condition` with a row for each group: a column, upstream.
    pub(super) fn new(b: &mut Builder<'_>, config: &MultigrateConfig, m: usize, n_features: usize) -> Result<Self> {
        match &config.integrate_on {
            Some(key) => {
                let name = format!("theta.{m}.condition");
                Ok(Self::OfGroups(b.levels(key, &name, &[n_features], Role::Condition, Init::Normal)?))
            }
            None => Ok(Self::OfAll(b.tensor(&format!("theta.{m}"), &[n_features], Role::Parameter, Init::Normal)?)),
        }
    }

    /// What the kernels are told of that of a modality.
    ///
    /// # Errors  dispersions of groups
    pub(super) fn spec(&self, m: usize) -> std::result::Result<LogDispersionSpec, Unsupported> {
        match self {
            Self::OfAll(_) => Ok(LogDispersionSpec::Gene(format!("theta.{m}"))),
            Self::OfGroups(_) => Err(Unsupported("groups have dispersions of their own")),
        }
    }

    /// Of cells of these groups, `[n, n_features]`, or `[n_features]` where all have the same.
    pub(super) fn of_cells(&self, groups: &Tensor) -> Tensor {
        match self {
            Self::OfAll(theta) => theta.shallow_clone(),
            Self::OfGroups(levels) => levels.of_cells(groups),
        }
    }

    /// Each that there is, `[n_rows, n_features]`.
    fn rows(&self) -> Tensor {
        match self {
            Self::OfAll(theta) => theta.unsqueeze(0),
            Self::OfGroups(levels) => levels.rows(),
        }
    }

    /// The row of cells of these groups, `[n]`.
    fn rows_of(&self, groups: &Tensor) -> Tensor {
        match self {
            Self::OfAll(_) => groups.zeros_like(),
            Self::OfGroups(_) => groups.shallow_clone(),
        }
    }
}

impl Decoded {
    /// Expected values; shares of the cell's total for counts, `[n, n_features]`.
    pub fn value(&self) -> Tensor {
        match self.loss {
            ModalityLoss::Mse => self.head.shallow_clone(),
            ModalityLoss::Bce => self.head.sigmoid(),
            ModalityLoss::Nb | ModalityLoss::Zinb => self.head.softmax(-1, self.head.kind()),
        }
    }

    /// Reconstruction loss of each cell, weighted, `[n]`.
    pub(super) fn reconstruction(&self, measured: &Measured<'_>, theta: Option<&Theta>) -> Tensor {
        let Measured { x, size_factor, groups, weights } = measured;
        let per_feature = match (self.loss, theta) {
            (ModalityLoss::Mse, _) => (&self.head - *x).square(),
            (ModalityLoss::Bce, _) => {
                let log = |share: &Tensor| share.log().clamp_min(SMALLEST_LOG);
                let value = self.value();
                let (other, absent): (Tensor, Tensor) = (1.0 - &value, 1.0 - *x);
                -(*x * log(&value) + absent * log(&other))
            }
            (ModalityLoss::Nb | ModalityLoss::Zinb, theta) => {
                let theta = theta.expect("a likelihood of counts has a dispersion");
                let (logits, dropout, log_r) = (&self.head, self.dropout.as_ref(), &theta.rows());
                let (totals, group_of) = (*size_factor, theta.rows_of(groups));
                let within = CountsWithin { logits, dropout, log_r, groups: &group_of, x, totals, weights };
                if let Some(loss) = within.loss() {
                    return loss;
                }
                let (rate, theta) = (self.value() * *size_factor, theta.of_cells(groups).exp());
                -match dropout {
                    None => negative_binomial::log_prob(x, &rate, &theta),
                    Some(dropout) => negative_binomial::zero_inflated_log_prob(x, &rate, &theta, dropout),
                }
            }
        };
        per_feature.sum_dim_intlist([-1_i64].as_slice(), false, x.kind()) * *weights
    }
}

/// Logarithms of shares are no smaller, upstream's.
const SMALLEST_LOG: f64 = -100.0;
