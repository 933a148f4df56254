//! The decoder of counts: latent space to the parameters of a count distribution.

use tch::{Kind, Tensor};

use super::{Builder, CovariateSizes, Linear, Pass, Stack, StackOptions};
use crate::{
    data::Covariates,
    error::Result,
    fast::{LayerSpec, Unsupported},
};

/// Parameters of the count distribution of each cell and gene.
#[derive(Debug)]
pub struct DecoderOutput {
    /// Expected share of each gene, `[…, n, n_genes]`; rows sum to 1 unless there is a size factor.
    pub scale: Tensor,
    /// Expected counts, `[…, n, n_genes]`.
    pub rate: Tensor,
    /// Log inverse dispersion, where each cell has its own.
    pub log_r: Option<Tensor>,
    /// Zero-inflation logits, where the likelihood has them.
    pub dropout: Option<Tensor>,
}

/// A stack with heads for scale, dispersion and zero inflation; only the heads that are used exist.
#[derive(Debug)]
pub struct Decoder {
    stack: Stack,
    scale: Linear,
    log_r: Option<Linear>,
    dropout: Option<Linear>,
    softplus: bool,
}

/// Which heads a decoder has, and how it makes the scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    /// A dispersion per cell and gene.
    pub dispersion: bool,
    /// Zero-inflation logits.
    pub dropout: bool,
    /// Softplus instead of softmax: a size factor is registered.
    pub softplus: bool,
}

impl Decoder {
    /// A decoder of `n_in` units to `n_genes`; tensors `{name}.px_decoder.…`, `.px_scale_decoder.0.…`, `.px_r_decoder.…`,
    /// `.px_dropout_decoder.…`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        n_in: usize,
        n_genes: usize,
        options: &StackOptions,
        heads: Heads,
    ) -> Result<Self> {
        let stack = Stack::new(builder, &format!("{name}.px_decoder"), n_in, options)?;
        let mut head = |part: &str| {
            Linear::new(builder, &format!("{name}.{part}"), options.n_out, n_genes, &CovariateSizes::none())
        };
        Ok(Self {
            stack,
            scale: head("px_scale_decoder.0")?,
            log_r: if heads.dispersion { Some(head("px_r_decoder")?) } else { None },
            dropout: if heads.dropout { Some(head("px_dropout_decoder")?) } else { None },
            softplus: heads.softplus,
        })
    }

    /// What the kernels are told about it: its layers, and the linear maps to logits of shares and of extra zeros.
    ///
    /// # Errors  what they do not know
    pub(crate) fn spec(&self) -> Result<(Vec<LayerSpec>, String, Option<String>), Unsupported> {
        if self.softplus {
            return Err(Unsupported("a size factor replaces the library size"));
        }
        if self.log_r.is_some() {
            return Err(Unsupported("each cell has dispersions of its own"));
        }
        let dropout = self.dropout.as_ref().map(|head| head.spec().0);
        Ok((self.stack.spec()?, self.scale.spec().0, dropout))
    }

    /// Decodes `z`, `[…, n, n_in]`, with the log library of each cell, `[…, n, 1]`.
    pub fn forward(&self, z: &Tensor, library: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> DecoderOutput {
        let px = self.stack.forward(z, covariates, pass);
        let logits = self.scale.forward(&px, covariates);
        let scale = if self.softplus { logits.softplus() } else { logits.softmax(-1, Kind::Float) };
        DecoderOutput {
            rate: library.exp() * &scale,
            scale,
            log_r: self.log_r.as_ref().map(|head| head.forward(&px, covariates)),
            dropout: self.dropout.as_ref().map(|head| head.forward(&px, covariates)),
        }
    }
}
