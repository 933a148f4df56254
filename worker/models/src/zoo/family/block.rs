//! A block of the encoder or the decoder: linear map, norm, ReLU, dropout, in this order.

use tch::Tensor;

use super::linear::{Bias, Condition, ConditionalLinear, Hears, plain};
use crate::{
    data::Covariates,
    error::Result,
    fast::{LayerSpec, Unsupported},
    nn::{BatchNorm, BatchNormOptions, Builder, Dropout, Linear, Pass, layer_norm},
};

/// How a block's units are normalised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Norm {
    /// Not at all.
    None,
    /// Over the minibatch's cells; eps 1e-5, momentum 0.1.
    Batch,
    /// Over the units of each cell; eps 1e-5, no parameters.
    Layer,
}

/// What all blocks of an encoder or a decoder have in common.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BlockOptions {
    /// How units are normalised.
    pub norm: Norm,
    /// Dropout rate.
    pub dropout: f64,
    /// How the first block hears of conditions.
    pub hears: Hears,
}

/// One block.
#[derive(Debug)]
pub(super) struct Block {
    linear: Map,
    norm: BuiltNorm,
    dropout: Dropout,
}

#[derive(Debug)]
enum Map {
    First(ConditionalLinear),
    Later(Linear),
}

#[derive(Debug)]
enum BuiltNorm {
    None,
    Batch(BatchNorm),
    Layer,
}

impl Block {
    /// The first block of a stack: it hears of conditions.
    pub(super) fn first(
        b: &mut Builder<'_>,
        stack: &str,
        sizes: (usize, usize),
        bias: Bias,
        options: &BlockOptions,
    ) -> Result<Self> {
        let name = format!("{stack}.L0");
        let map = ConditionalLinear::new(b, &name, sizes, bias, options.hears)?;
        Self::around(b, Map::First(map), (stack, 0), sizes.1, options)
    }

    /// A later block, the `i`-th.
    pub(super) fn later(
        b: &mut Builder<'_>,
        (stack, i): (&str, usize),
        sizes: (usize, usize),
        bias: Bias,
        options: &BlockOptions,
    ) -> Result<Self> {
        let map = plain(b, &format!("{stack}.L{i}"), sizes, bias)?;
        Self::around(b, Map::Later(map), (stack, i), sizes.1, options)
    }

    fn around(
        b: &mut Builder<'_>,
        linear: Map,
        (stack, i): (&str, usize),
        n_out: usize,
        options: &BlockOptions,
    ) -> Result<Self> {
        let norm = match options.norm {
            Norm::None => BuiltNorm::None,
            Norm::Batch => {
                BuiltNorm::Batch(BatchNorm::with(b, &format!("{stack}.N{i}"), n_out, BatchNormOptions::TORCH)?)
            }
            Norm::Layer => BuiltNorm::Layer,
        };
        Ok(Self { linear, norm, dropout: Dropout::new(b, format!("{stack}.D{i}"), options.dropout) })
    }

    pub(super) fn forward(&self, x: &Tensor, condition: Condition<'_>, pass: &mut Pass<'_>) -> Tensor {
        let y = match &self.linear {
            Map::First(map) => map.forward(x, condition),
            Map::Later(map) => map.forward(x, &Covariates::none(x)),
        };
        let y = match &self.norm {
            BuiltNorm::None => y,
            BuiltNorm::Batch(norm) => norm.forward(&y, pass.mode),
            BuiltNorm::Layer => layer_norm(&y),
        };
        self.dropout.forward(y.relu(), pass)
    }

    /// What the kernels are told about it.
    ///
    /// # Errors  what they do not know
    pub(super) fn spec(&self) -> Result<LayerSpec, Unsupported> {
        let (map, columns) = match &self.linear {
            Map::First(map) => map.spec(),
            Map::Later(map) => (map, None),
        };
        let (linear, n_in, n_out) = map.spec();
        let batch_norm = match &self.norm {
            BuiltNorm::Batch(norm) => Some(norm.spec()),
            BuiltNorm::None | BuiltNorm::Layer => None,
        };
        let layer_norm = matches!(self.norm, BuiltNorm::Layer);
        Ok(LayerSpec { linear, columns, n_in, n_out, batch_norm, layer_norm, slope: 0.0, dropout: self.dropout.spec() })
    }
}
