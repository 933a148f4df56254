//! Layers that add up a gene's neighbours.

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

/// The mean of the neighbours, and the gene.
///
/// # Source   Hamilton, Ying & Leskovec 2017; `SAGEConv`
#[derive(Debug)]
pub(super) struct Mean {
    neighbours: Map,
    own: Map,
}

impl Mean {
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, sizes: (usize, usize)) -> Result<Self> {
        let neighbours = Map::new(p, &format!("{name}.lin_l"), sizes)?;
        Ok(Self { neighbours, own: Map::bare(p, &format!("{name}.lin_r"), sizes, Start::fan_in(sizes.0))? })
    }
}

impl Convolution for Mean {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, _: Mode) -> Tensor {
        let n = graph.degrees().to_kind(x.kind()).clamp_min(1.0).unsqueeze(1);
        self.neighbours.forward(&(graph.sum_of_neighbours(x) / n)) + self.own.forward(x)
    }
}

/// The sum of the neighbours, and the gene.
///
/// # Source   Morris et al. 2019; `GraphConv`
#[derive(Debug)]
pub(super) struct Sum {
    neighbours: Map,
    own: Map,
}

impl Sum {
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, sizes: (usize, usize)) -> Result<Self> {
        let neighbours = Map::new(p, &format!("{name}.lin_rel"), sizes)?;
        Ok(Self { neighbours, own: Map::bare(p, &format!("{name}.lin_root"), sizes, Start::fan_in(sizes.0))? })
    }
}

impl Convolution for Sum {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, _: Mode) -> Tensor {
        self.neighbours.forward(&graph.sum_of_neighbours(x)) + self.own.forward(x)
    }
}

/// Two maps of a gene together with its neighbours.
///
/// # Source   Xu et al. 2019; `GINConv`, whose weight of the gene itself stays as it is
#[derive(Debug)]
pub(super) struct Isomorphism {
    own: Tensor,
    first: Map,
    second: Map,
}

impl Isomorphism {
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, (n_in, n_out): (usize, usize)) -> Result<Self> {
        Ok(Self {
            own: p.buffer(&format!("{name}.eps"), &[1], Start::At(0.0))?,
            first: Map::new(p, &format!("{name}.nn.0"), (n_in, n_out))?,
            second: Map::new(p, &format!("{name}.nn.2"), (n_out, n_out))?,
        })
    }
}

impl Convolution for Isomorphism {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, _: Mode) -> Tensor {
        let together = graph.sum_of_neighbours(x) + x * (&self.own + 1.0);
        self.second.forward(&self.first.forward(&together).relu())
    }
}
