//! A layer that weighs neighbours by their own values and ends in a small network.

use tch::Tensor;

use super::{Convolution, Map};
use crate::{
    error::Result,
    nn::Mode,
    zoo::sagenet::{
        graph::GeneGraph,
        parameters::{Parameters, Start},
    },
};

/// Neighbours by a softmax over their values, the gene, and two maps with batch norm over all genes of all cells between them.
///
/// # Source   Li et al. 2020; `GENConv`
#[derive(Debug)]
pub(super) struct Generalised {
    /// Where a gene has another width than it gets.
    of_source: Option<Map>,
    of_target: Option<Map>,
    first: Map,
    norm: Norm,
    second: Map,
}

/// Batch norm as PyTorch sets it up.
#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    n_batches: Tensor,
}

impl Generalised {
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, (n_in, n_out): (usize, usize)) -> Result<Self> {
        let mut widened = |part: &str| {
            let map =
                (n_in != n_out).then(|| Map::bare(p, &format!("{name}.{part}"), (n_in, n_out), Start::fan_in(n_in)));
            map.transpose()
        };
        let (of_source, of_target) = (widened("lin_src")?, widened("lin_dst")?);
        let inner = 2 * n_out;
        Ok(Self {
            of_source,
            of_target,
            first: Map::bare(p, &format!("{name}.mlp.0"), (n_out, inner), Start::fan_in(n_out))?,
            norm: Norm::new(p, &format!("{name}.mlp.1"), inner)?,
            second: Map::bare(p, &format!("{name}.mlp.4"), (inner, n_out), Start::fan_in(inner))?,
        })
    }
}

impl Norm {
    fn new(p: &mut Parameters<'_>, name: &str, n: usize) -> Result<Self> {
        Ok(Self {
            weight: p.trained(&format!("{name}.weight"), &[n], Start::At(1.0))?,
            bias: p.trained(&format!("{name}.bias"), &[n], Start::At(0.0))?,
            mean: p.buffer(&format!("{name}.running_mean"), &[n], Start::At(0.0))?,
            var: p.buffer(&format!("{name}.running_var"), &[n], Start::At(1.0))?,
            n_batches: p.counter(&format!("{name}.num_batches_tracked"))?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let trains = mode == Mode::Training;
        if trains {
            let _ = self.n_batches.shallow_clone().g_add_scalar_(1);
        }
        let flat = x.reshape([-1, self.weight.size()[0]]);
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        flat.batch_norm(weight, bias, Some(&self.mean), Some(&self.var), trains, 0.1, 1e-5, false).reshape_as(x)
    }
}

impl Convolution for Generalised {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, mode: Mode) -> Tensor {
        let widened = |map: &Option<Map>| map.as_ref().map_or_else(|| x.shallow_clone(), |map| map.forward(x));
        let messages = graph.at_sources(&widened(&self.of_source)).relu() + ABOVE_ZERO;
        let together = graph.sum(&(&messages * graph.shares(&messages))) + widened(&self.of_target);
        self.second.forward(&self.norm.forward(&self.first.forward(&together), mode).relu())
    }
}

/// What keeps messages above zero.
const ABOVE_ZERO: f64 = 1e-7;
