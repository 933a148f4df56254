//! Fully connected layers as mvTCR has them: what regularises the last one is decided apart, and a map has no bias under batch norm.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    data::Covariates,
    error::Result,
    nn::{BatchNorm, BatchNormOptions, Builder, CovariateSizes, Dropout, Linear, Pass},
    options::Choice,
};

/// What a layer does to each unit, or to all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MlpActivation {
    /// Nothing.
    Linear,
    /// The unit where it is above 0, else 0.
    Relu,
    /// The unit where it is above 0, else a fifth of it.
    Leakyrelu,
    /// The logistic function.
    Sigmoid,
    /// The softmax over the units.
    Softmax,
    /// The exponential function.
    Exponential,
}

impl Choice for MlpActivation {}

/// How layers are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct MlpOptions<'a> {
    /// Units of every layer but the last.
    pub(super) hidden: &'a [usize],
    /// Activation of every layer but the last.
    pub(super) activation: MlpActivation,
    /// Activation of the last one.
    pub(super) output: MlpActivation,
    /// Dropout rate.
    pub(super) dropout: f64,
    /// Batch norm in every layer but the last.
    pub(super) batch_norm: bool,
    /// Batch norm and dropout in the last one, whatever the others have.
    pub(super) regularises_last: bool,
    /// Whether the first map has a row for each condition.
    pub(super) has_conditions: bool,
}

/// Layers of map, batch norm, activation and dropout, in this order.
#[derive(Debug)]
pub(super) struct Mlp {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    linear: Linear,
    norm: Option<BatchNorm>,
    activation: MlpActivation,
    dropout: Dropout,
}

impl Mlp {
    /// Layers from `n_in` to `n_out` units; tensors `{name}.network.{layer}.0.…` of maps and `.1.…` of norms, as upstream.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub(super) fn new(
        b: &mut Builder<'_>,
        name: &str,
        (n_in, n_out): (usize, usize),
        options: MlpOptions<'_>,
    ) -> Result<Self> {
        let widths: Vec<usize> = std::iter::once(n_in).chain(options.hidden.iter().copied()).chain([n_out]).collect();
        let last = options.hidden.len();
        let mut layers = Vec::with_capacity(widths.len() - 1);
        for (i, sizes) in widths.windows(2).enumerate() {
            let (has_norm, activation, rate) = if i < last {
                (options.batch_norm, options.activation, options.dropout)
            } else if options.regularises_last {
                (true, options.output, options.dropout)
            } else {
                (false, options.output, 0.0)
            };
            let slot = |slot: usize| format!("{name}.network.{i}.{slot}");
            let (n_in, n_out) = (sizes[0], sizes[1]);
            let linear = match (has_norm, options.has_conditions && i == 0) {
                (true, true) => Linear::of_conditions(b, &slot(0), n_in, n_out)?,
                (true, false) => Linear::without_bias(b, &slot(0), n_in, n_out)?,
                (false, conditions) => {
                    Linear::new(b, &slot(0), n_in, n_out, &CovariateSizes { conditions, categorical: vec![] })?
                }
            };
            let norm =
                if has_norm { Some(BatchNorm::with(b, &slot(1), n_out, BatchNormOptions::TORCH)?) } else { None };
            layers.push(Layer { linear, norm, activation, dropout: Dropout::new(b, slot(3), rate) });
        }
        Ok(Self { layers })
    }

    /// Applies all layers to `x`, `[n, n_in]`.
    pub(super) fn forward(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Tensor {
        self.layers.iter().fold(x.shallow_clone(), |x, layer| layer.behind(layer.linear.forward(&x, covariates), pass))
    }

    /// The same of values of cells, most of which are 0, for layers without conditions.
    pub(super) fn forward_cells(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Tensor {
        let Some((first, rest)) = self.layers.split_first() else { return x.shallow_clone() };
        let y = first.behind(first.linear.forward_beside(x, None), pass);
        rest.iter().fold(y, |y, layer| layer.behind(layer.linear.forward(&y, covariates), pass))
    }
}

impl Layer {
    /// What follows the linear map.
    fn behind(&self, y: Tensor, pass: &mut Pass<'_>) -> Tensor {
        let y = match &self.norm {
            Some(norm) => norm.forward(&y, pass.mode),
            None => y,
        };
        self.dropout.forward(self.activation.of(y), pass)
    }
}

impl MlpActivation {
    fn of(self, y: Tensor) -> Tensor {
        match self {
            Self::Linear => y,
            Self::Relu => y.relu(),
            // libtorch's leaky ReLU has a slope of its own that tch does not let choose; that of its PReLU is a tensor.
            Self::Leakyrelu => y.prelu(&Tensor::from(LEAKY_SLOPE).to_kind(y.kind()).to_device(y.device())),
            Self::Sigmoid => y.sigmoid(),
            Self::Softmax => y.softmax(1, y.kind()),
            Self::Exponential => y.exp(),
        }
    }
}

const LEAKY_SLOPE: f64 = 0.2;
