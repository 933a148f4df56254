//! A stack of fully connected layers, the body of every encoder and decoder.

use tch::Tensor;

use super::{BatchNorm, Builder, CovariateSizes, Linear, Mode, Pass, norm::layer_norm};
use crate::{
    data::Covariates,
    error::Result,
    fast::{LayerSpec, Unsupported},
};

/// What a stack is made of.
#[derive(Clone, PartialEq, Debug)]
pub struct StackOptions {
    /// Number of linear maps.
    pub n_layers: usize,
    /// Units of every layer but the last.
    pub n_hidden: usize,
    /// Units of the last layer.
    pub n_out: usize,
    /// Covariates of the first layer, and of all where they are injected.
    pub covariates: CovariateSizes,
    /// Whether layers after the first take the covariates too.
    pub inject: bool,
    /// Dropout rate after every layer.
    pub dropout: f64,
    /// Batch norm in every layer.
    pub batch_norm: bool,
    /// Whether each condition adds a scale and a shift of its own to everybody's.
    pub batch_norm_offsets: bool,
    /// Layer norm in every layer, after batch norm.
    pub layer_norm: bool,
    /// What follows in every layer.
    pub activation: Activation,
}

/// What a layer does to each unit by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// Nothing.
    None,
    /// The unit where it is above 0, else 0.
    Relu,
    /// The unit where it is above 0, else a hundredth of it.
    LeakyRelu,
    /// The hyperbolic tangent.
    Tanh,
}

/// Layers of linear map, norms, activation and dropout, in this order.
#[derive(Debug)]
pub struct Stack {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    linear: Linear,
    batch_norm: Option<BatchNorm>,
    layer_norm: bool,
    activation: Activation,
    dropout: Dropout,
}

/// A dropout layer.
#[derive(Debug)]
pub(crate) struct Dropout {
    name: String,
    rate: f64,
}

impl Stack {
    /// A stack on `n_in` units; tensors `{name}.fc_layers.Layer {i}.{slot}.…` as upstream names them.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(builder: &mut Builder<'_>, name: &str, n_in: usize, options: &StackOptions) -> Result<Self> {
        let mut layers = Vec::with_capacity(options.n_layers);
        for i in 0..options.n_layers {
            let n_in = if i == 0 { n_in } else { options.n_hidden };
            let n_out = if i + 1 == options.n_layers { options.n_out } else { options.n_hidden };
            let none = CovariateSizes::none();
            let covariates = if i == 0 || options.inject { &options.covariates } else { &none };
            let slot = |slot: usize| format!("{name}.fc_layers.Layer {i}.{slot}");
            let linear = Linear::new(builder, &slot(0), n_in, n_out, covariates)?;
            let batch_norm = match (options.batch_norm, options.batch_norm_offsets) {
                (false, _) => None,
                (true, false) => Some(BatchNorm::new(builder, &slot(1), n_out)?),
                (true, true) => Some(BatchNorm::new(builder, &slot(1), n_out)?.with_offsets(builder)?),
            };
            let dropout = Dropout::new(builder, slot(4), options.dropout);
            let (layer_norm, activation) = (options.layer_norm, options.activation);
            layers.push(Layer { linear, batch_norm, layer_norm, activation, dropout });
        }
        Ok(Self { layers })
    }

    /// What the kernels are told about its layers.
    ///
    /// # Errors  what they do not know
    pub(crate) fn spec(&self) -> Result<Vec<LayerSpec>, Unsupported> {
        self.layers.iter().map(Layer::spec).collect()
    }

    /// Applies all layers; `x` is `[n, n_in]` or `[n_samples, n, n_in]`.
    pub fn forward(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Tensor {
        let mut y = x.shallow_clone();
        for layer in &self.layers {
            y = layer.forward(&y, covariates, pass);
        }
        y
    }

    /// Applies all layers to `x` with what stands beside it, `[n, n_in]` together; see [`Linear::forward_beside`].
    pub(crate) fn forward_beside(&self, x: &Tensor, beside: Option<&Tensor>, pass: &mut Pass<'_>) -> Tensor {
        let Some((first, later)) = self.layers.split_first() else { return x.shallow_clone() };
        let y = first.linear.forward_beside(x, beside);
        let none = Covariates::none(&y);
        let y = first.behind(y, &none, pass);
        later.iter().fold(y, |y, layer| layer.forward(&y, &none, pass))
    }
}

impl Layer {
    fn spec(&self) -> Result<LayerSpec, Unsupported> {
        let slope = match self.activation {
            Activation::None => 1.0,
            Activation::Relu => 0.0,
            Activation::LeakyRelu => LEAKY_SLOPE,
            Activation::Tanh => return Err(Unsupported("the activation of a layer is a hyperbolic tangent")),
        };
        let (linear, n_in, n_out) = self.linear.spec();
        let columns = self.linear.columns_spec()?;
        let batch_norm = self.batch_norm.as_ref().map(BatchNorm::spec);
        let dropout = self.dropout.spec();
        Ok(LayerSpec { linear, columns, n_in, n_out, batch_norm, layer_norm: self.layer_norm, slope, dropout })
    }

    fn forward(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Tensor {
        self.behind(self.linear.forward(x, covariates), covariates, pass)
    }

    /// What follows the linear map.
    fn behind(&self, y: Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Tensor {
        let mut y = y;
        if let Some(norm) = &self.batch_norm {
            y = norm.forward_of(&y, covariates, pass.mode);
        }
        if self.layer_norm {
            y = layer_norm(&y);
        }
        let y = match self.activation {
            Activation::None => y,
            Activation::Relu => y.relu(),
            Activation::LeakyRelu => y.leaky_relu(),
            Activation::Tanh => y.tanh(),
        };
        self.dropout.forward(y, pass)
    }
}

impl Dropout {
    /// A layer of this name, at the model's rate unless the builder's rules say otherwise.
    pub(crate) fn new(builder: &Builder<'_>, name: String, rate: f64) -> Self {
        let rate = builder.rules().dropout(&name, rate);
        Self { name, rate }
    }

    /// Its name and rate.
    pub(crate) fn spec(&self) -> (String, f64) {
        (self.name.clone(), self.rate)
    }

    /// Drops units of `x`, in training.
    pub(crate) fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Tensor {
        if pass.mode == Mode::Evaluation || self.rate <= 0.0 {
            return x;
        }
        match pass.noise.keep(&self.name, &x.size(), self.rate, x.device()) {
            Some(keep) => x * (keep / (1.0 - self.rate)),
            None => x,
        }
    }
}

/// What libtorch's leaky ReLU multiplies numbers below 0 by.
pub(crate) const LEAKY_SLOPE: f64 = 0.01;
