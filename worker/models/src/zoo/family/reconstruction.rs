//! What a decoder's last layer gives, and how far that is from the cells.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::linear::{Bias, plain};
use crate::{
    data::{Covariates, Values},
    distributions::{CountParameters, Likelihood, negative_binomial, poisson},
    error::Result,
    fast::{EncoderInput, Link, ReconstructionSpec, Unsupported},
    nn::{Builder, Linear},
    options::Choice,
    results::{Block, BlockCard, CountBlock, ValueBlock},
};

/// The reconstruction loss, which decides what a model takes: counts, or normalised values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReconLoss {
    /// Squared difference to normalised, log-transformed values.
    Mse,
    /// Negative binomial, on counts.
    Nb,
    /// Zero-inflated negative binomial, on counts.
    Zinb,
    /// Poisson, on counts: the decoder's shares are the rates, whatever the total count.
    Poisson,
}

impl Choice for ReconLoss {}

impl ReconLoss {
    /// The likelihood of counts; none for a squared difference.
    pub fn likelihood(self) -> Option<Likelihood> {
        match self {
            Self::Mse => None,
            Self::Nb => Some(Likelihood::Nb),
            Self::Zinb => Some(Likelihood::Zinb),
            Self::Poisson => Some(Likelihood::Poisson),
        }
    }

    /// What the kernels are told about it.
    ///
    /// # Errors  what they do not know
    pub(in crate::zoo) fn spec(self) -> Result<ReconstructionSpec, Unsupported> {
        match self {
            Self::Mse => Ok(ReconstructionSpec::Squared { link: Link::Relu, is_mean: false }),
            Self::Nb => Ok(ReconstructionSpec::Counts(Likelihood::Nb)),
            Self::Zinb => Ok(ReconstructionSpec::Counts(Likelihood::Zinb)),
            Self::Poisson => Err(Unsupported("rates of a Poisson distribution do not depend on the total count")),
        }
    }

    /// What the kernels are told that the encoder sees.
    pub(in crate::zoo) fn input_spec(self) -> EncoderInput {
        if self.likelihood().is_some() { EncoderInput::Log1p } else { EncoderInput::Count }
    }

    /// Whether the counts of a gene are spread more widely than its rate says.
    pub fn has_dispersion(self) -> bool {
        self.likelihood().is_some_and(Likelihood::has_dispersion)
    }

    /// What is decoded: genes, in the values that the loss compares.
    pub fn block(self) -> BlockCard {
        let values = self.likelihood().map_or(Values::LogNormalised, |_| Values::Counts);
        BlockCard { values, ..BlockCard::RNA }
    }

    /// What the encoder sees of the cells: log counts, or values as they are.
    pub fn encoder_input(self, x: &Tensor) -> Tensor {
        match self.likelihood() {
            Some(_) => x.log1p(),
            None => x.shallow_clone(),
        }
    }
}

/// What a decoder says about cells.
#[derive(Debug)]
pub enum Output {
    /// Normalised values, `[n, n_genes]`, 0 or above.
    Values(Tensor),
    /// Parameters of a distribution of counts.
    Counts {
        /// Share of each gene, `[n, n_genes]`; rows sum to 1.
        share: Tensor,
        /// Expected counts: the share times the total count.
        rate: Tensor,
        /// Logits of an extra zero, where the loss has them.
        dropout: Option<Tensor>,
    },
    /// Expected counts of a Poisson distribution, `[n, n_genes]`; rows sum to 1.
    Rates(Tensor),
}

impl Output {
    /// Loss of each entry, like `x`; `theta` is the inverse dispersion, `[n, n_genes]` or `[n_genes]`.
    ///
    /// # Units    nats for counts; squared log values otherwise
    /// # Source   Lotfollahi et al. 2020; checked against scArches 0.6.1
    ///
    /// # Panics  counts without a dispersion: our own defect
    pub fn loss_per_entry(&self, x: &Tensor, theta: Option<&Tensor>) -> Tensor {
        let theta = || theta.expect("a model of counts has dispersions");
        match self {
            Self::Values(values) => (values - x).square(),
            Self::Counts { rate, dropout: None, .. } => -negative_binomial::log_prob(x, rate, theta()),
            Self::Counts { rate, dropout: Some(logits), .. } => {
                -negative_binomial::zero_inflated_log_prob(x, rate, theta(), logits)
            }
            Self::Rates(rates) => -poisson::log_prob(x, rates),
        }
    }

    /// Loss of each cell, the sum over genes, `[n]`.
    pub fn loss(&self, x: &Tensor, theta: Option<&Tensor>) -> Tensor {
        self.loss_per_entry(x, theta).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
    }

    /// The block that it decodes to, with the dispersions that it needs.
    pub fn into_block(self, theta: Option<Tensor>) -> Box<dyn Block> {
        match self {
            Self::Values(values) => Box::new(ValueBlock { values }),
            Self::Counts { share, rate, dropout } => {
                let likelihood = if dropout.is_some() { Likelihood::Zinb } else { Likelihood::Nb };
                Box::new(CountBlock { scale: share, counts: CountParameters { rate, r: theta, dropout }, likelihood })
            }
            Self::Rates(rate) => {
                let counts = CountParameters { rate: rate.shallow_clone(), r: None, dropout: None };
                Box::new(CountBlock { scale: rate, counts, likelihood: Likelihood::Poisson })
            }
        }
    }
}

/// Linear maps from the last hidden layer.
#[derive(Debug)]
pub(super) enum Heads {
    Values(Linear),
    Counts { mean: Linear, dropout: Option<Linear> },
    Rates(Linear),
}

impl Heads {
    pub(super) fn new(b: &mut Builder<'_>, name: &str, sizes: (usize, usize), loss: ReconLoss) -> Result<Self> {
        let mut head = |part: &str| plain(b, &format!("{name}.{part}"), sizes, Bias::Added);
        Ok(match loss {
            ReconLoss::Mse => Self::Values(head("recon_decoder.0")?),
            ReconLoss::Nb => Self::Counts { mean: head("mean_decoder.0")?, dropout: None },
            ReconLoss::Zinb => Self::Counts { mean: head("mean_decoder.0")?, dropout: Some(head("dropout_decoder")?) },
            ReconLoss::Poisson => Self::Rates(head("recon_decoder.0")?),
        })
    }

    pub(super) fn forward(&self, hidden: &Tensor, totals: &Tensor) -> Output {
        let none = Covariates::none(hidden);
        match self {
            Self::Values(head) => Output::Values(head.forward(hidden, &none).relu()),
            Self::Counts { mean, dropout } => {
                let share = mean.forward(hidden, &none).softmax(-1, Kind::Float);
                let rate = &share * totals;
                Output::Counts { share, rate, dropout: dropout.as_ref().map(|head| head.forward(hidden, &none)) }
            }
            Self::Rates(head) => Output::Rates(head.forward(hidden, &none).softmax(-1, Kind::Float)),
        }
    }

    pub(super) fn spec(&self) -> (String, Option<String>) {
        match self {
            Self::Values(head) | Self::Rates(head) => (head.spec().0, None),
            Self::Counts { mean, dropout } => (mean.spec().0, dropout.as_ref().map(|head| head.spec().0)),
        }
    }
}
