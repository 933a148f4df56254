//! Graph layers: what a gene becomes by its own value and its neighbours'.
//!
//! Each follows the layer of PyTorch Geometric that upstream uses under its name, with the same tensors.

mod attention;
mod chebyshev;
mod degrees;
mod generalised;
mod sums;

use std::fmt;

use tch::Tensor;

use super::{
    config::Classifier,
    graph::GeneGraph,
    parameters::{Parameters, Start},
};
use crate::{error::Result, nn::Mode};

/// A graph layer.
pub(super) trait Convolution: fmt::Debug {
    /// What each gene becomes: `[n, n_genes, n_in]` to `[n, n_genes, n_out]`.
    fn forward(&self, x: &Tensor, graph: &GeneGraph, mode: Mode) -> Tensor;
}

/// A layer of this kind whose tensors' names begin with `name`; none for the kind that looks at no graph.
///
/// # Errors  stored tensors that do not fit
pub(super) fn new(
    kind: Classifier,
    p: &mut Parameters<'_>,
    name: &str,
    (n_in, n_out): (usize, usize),
    k: usize,
) -> Result<Option<Box<dyn Convolution>>> {
    let sizes = (n_in, n_out);
    Ok(Some(match kind {
        Classifier::TransformerConv => Box::new(attention::Transformer::new(p, name, sizes)?),
        Classifier::GatConv => Box::new(attention::Additive::new(p, name, sizes)?),
        Classifier::GraphSage => Box::new(sums::Mean::new(p, name, sizes)?),
        Classifier::GraphConv => Box::new(sums::Sum::new(p, name, sizes)?),
        Classifier::GinConv => Box::new(sums::Isomorphism::new(p, name, sizes)?),
        Classifier::MfConv => Box::new(degrees::ByDegree::new(p, name, sizes)?),
        Classifier::GenConv => Box::new(generalised::Generalised::new(p, name, sizes)?),
        Classifier::Chebnet => Box::new(chebyshev::Chebyshev::new(p, name, sizes, k)?),
        Classifier::Mlp => return Ok(None),
    }))
}

/// A linear map of each gene's values.
#[derive(Debug)]
pub(super) struct Map {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Map {
    /// With a bias.
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, (n_in, n_out): (usize, usize)) -> Result<Self> {
        let weight = Self::bare(p, name, (n_in, n_out), Start::fan_in(n_in))?.weight;
        let bias = Some(p.trained(&format!("{name}.bias"), &[n_out], Start::fan_in(n_in))?);
        Ok(Self { weight, bias })
    }

    /// Without one.
    pub(super) fn bare(
        p: &mut Parameters<'_>,
        name: &str,
        (n_in, n_out): (usize, usize),
        start: Start,
    ) -> Result<Self> {
        Ok(Self { weight: p.trained(&format!("{name}.weight"), &[n_out, n_in], start)?, bias: None })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
