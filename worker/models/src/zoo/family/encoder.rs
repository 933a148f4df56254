//! The encoder: what the cells express, and their conditions, to a normal distribution over the latent space.

use tch::Tensor;

use super::{
    BlockOptions,
    block::Block,
    linear::{Bias, Condition, plain},
};
use crate::{
    data::Covariates,
    error::Result,
    fast::{PosteriorSpec, Unsupported},
    nn::{Builder, Linear, Pass, Posterior, VARIANCE_FLOOR},
};

/// Blocks, and linear maps to mean and log variance.
#[derive(Debug)]
pub struct Encoder {
    blocks: Vec<Block>,
    mean: Linear,
    log_var: Linear,
}

impl Encoder {
    /// An encoder of `n_in` units through `hidden` ones to `n_latent`; tensors `{name}.FC.…`, `{name}.mean_encoder.…`,
    /// `{name}.log_var_encoder.…`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    ///
    /// # Panics  without a hidden layer, which options never have
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        n_in: usize,
        hidden: &[usize],
        n_latent: usize,
        options: &BlockOptions,
    ) -> Result<Self> {
        let stack = format!("{name}.FC");
        let mut blocks = vec![Block::first(b, &stack, (n_in, hidden[0]), Bias::Added, options)?];
        for (i, sizes) in (1..).zip(hidden.windows(2)) {
            blocks.push(Block::later(b, (&stack, i), (sizes[0], sizes[1]), Bias::Added, options)?);
        }
        let n_hidden = hidden[hidden.len() - 1];
        let mut head = |part: &str| plain(b, &format!("{name}.{part}"), (n_hidden, n_latent), Bias::Added);
        Ok(Self { blocks, mean: head("mean_encoder")?, log_var: head("log_var_encoder")? })
    }

    /// The posterior of each cell. The floor is part of the variance everywhere: in draws, in the divergence and in what is reported.
    pub fn forward(&self, x: &Tensor, condition: Condition<'_>, pass: &mut Pass<'_>) -> Posterior {
        self.heads(&self.hidden(x, condition, pass))
    }

    /// The posterior of what the last block gives.
    pub fn heads(&self, hidden: &Tensor) -> Posterior {
        let none = Covariates::none(hidden);
        Posterior {
            mean: self.mean.forward(hidden, &none),
            var: self.log_var.forward(hidden, &none).exp() + VARIANCE_FLOOR,
        }
    }

    /// What the last block gives, for heads beyond mean and variance.
    pub fn hidden(&self, x: &Tensor, condition: Condition<'_>, pass: &mut Pass<'_>) -> Tensor {
        self.blocks.iter().fold(x.shallow_clone(), |y, block| block.forward(&y, condition, pass))
    }

    /// What the kernels are told about it.
    ///
    /// # Errors  what they do not know
    pub(in crate::zoo) fn spec(&self) -> Result<PosteriorSpec, Unsupported> {
        let layers = self.blocks.iter().map(Block::spec).collect::<Result<_, _>>()?;
        Ok(PosteriorSpec { layers, mean: self.mean.spec().0, var: self.log_var.spec().0 })
    }
}
