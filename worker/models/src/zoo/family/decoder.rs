//! The decoder: a latent state and a condition to what the cells express.

use tch::Tensor;

use super::{
    BlockOptions, Output, ReconLoss,
    block::Block,
    linear::{Bias, Condition},
    reconstruction::Heads,
};
use crate::{
    error::Result,
    fast::{LayerSpec, Unsupported},
    nn::{Builder, Pass},
};

/// Blocks, of which the first hears of conditions, and heads for what a loss takes.
#[derive(Debug)]
pub struct Decoder {
    blocks: Vec<Block>,
    heads: Heads,
}

/// What a decoder makes of latent states.
#[derive(Debug)]
pub struct Decoded {
    /// After the first block, `[n, n_hidden]`: upstream's `y`.
    pub first: Tensor,
    /// What the loss takes.
    pub output: Output,
}

impl Decoder {
    /// A decoder of `n_latent` dimensions through `hidden` units, from the latent side, to `n_genes`; tensors `{name}.FirstL.…`,
    /// `{name}.HiddenL.…` and the heads'. Only what follows the first map's norm may add a number: blocks have no bias.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    ///
    /// # Panics  without a hidden layer, which options never have
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        (n_latent, n_genes): (usize, usize),
        hidden: &[usize],
        loss: ReconLoss,
        options: &BlockOptions,
    ) -> Result<Self> {
        let mut blocks = vec![Block::first(b, &format!("{name}.FirstL"), (n_latent, hidden[0]), Bias::None, options)?];
        let stack = format!("{name}.HiddenL");
        for (i, sizes) in (1..).zip(hidden.windows(2)) {
            blocks.push(Block::later(b, (&stack, i), (sizes[0], sizes[1]), Bias::None, options)?);
        }
        let heads = Heads::new(b, name, (hidden[hidden.len() - 1], n_genes), loss)?;
        Ok(Self { blocks, heads })
    }

    /// Decodes `z`, `[n, n_latent]`, for cells with these total counts, `[n, 1]`.
    pub fn forward(&self, z: &Tensor, condition: Condition<'_>, totals: &Tensor, pass: &mut Pass<'_>) -> Decoded {
        let (first, later) = self.blocks.split_first().expect("there is a first block");
        let first = first.forward(z, condition, pass);
        let hidden = later.iter().fold(first.shallow_clone(), |y, block| block.forward(&y, condition, pass));
        Decoded { first, output: self.heads.forward(&hidden, totals) }
    }

    /// What the kernels are told about it: its layers, and the linear maps to shares or values and to logits of extra zeros.
    ///
    /// # Errors  what they do not know
    pub(in crate::zoo) fn spec(&self) -> Result<(Vec<LayerSpec>, String, Option<String>), Unsupported> {
        let (scale, dropout) = self.heads.spec();
        Ok((self.blocks.iter().map(Block::spec).collect::<Result<_, _>>()?, scale, dropout))
    }
}
