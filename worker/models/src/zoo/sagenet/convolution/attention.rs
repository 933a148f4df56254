//! Layers in which a gene chooses among its neighbours.

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

/// One head of scaled dot products, and the gene itself by a map of its own.
///
/// # Source   Shi et al. 2021; `TransformerConv`
#[derive(Debug)]
pub(super) struct Transformer {
    query: Map,
    key: Map,
    value: Map,
    skip: Map,
    scale: f64,
}

impl Transformer {
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, sizes: (usize, usize)) -> Result<Self> {
        let mut map = |part: &str| Map::new(p, &format!("{name}.{part}"), sizes);
        let (key, query) = (map("lin_key")?, map("lin_query")?);
        let (value, skip) = (map("lin_value")?, map("lin_skip")?);
        Ok(Self { query, key, value, skip, scale: 1.0 / (sizes.1 as f64).sqrt() })
    }
}

impl Convolution for Transformer {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, _: Mode) -> Tensor {
        let query = graph.at_targets(&self.query.forward(x));
        let key = graph.at_sources(&self.key.forward(x));
        let scores = (query * key).sum_dim_intlist([2_i64].as_slice(), true, x.kind()) * self.scale;
        let values = graph.at_sources(&self.value.forward(x));
        graph.sum(&(values * graph.shares(&scores))) + self.skip.forward(x)
    }
}

/// Attention by the sum of what both genes say; a gene is among its own neighbours.
///
/// # Source   Veličković et al. 2018; `GATConv`
#[derive(Debug)]
pub(super) struct Additive {
    map: Map,
    of_source: Tensor,
    of_target: Tensor,
    bias: Tensor,
}

impl Additive {
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, (n_in, n_out): (usize, usize)) -> Result<Self> {
        let map = Map::bare(p, &format!("{name}.lin"), (n_in, n_out), Start::glorot(n_in, n_out))?;
        let mut says = |part: &str| p.trained(&format!("{name}.{part}"), &[1, 1, n_out], Start::glorot(1, n_out));
        let (of_source, of_target) = (says("att_src")?, says("att_dst")?);
        let bias = p.trained(&format!("{name}.bias"), &[n_out], Start::At(0.0))?;
        Ok(Self { map, of_source, of_target, bias })
    }
}

impl Convolution for Additive {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, _: Mode) -> Tensor {
        let graph = graph.with_loops();
        let x = self.map.forward(x);
        let says = |vector: &Tensor| (&x * vector).sum_dim_intlist([2_i64].as_slice(), true, x.kind());
        let scores = graph.at_sources(&says(&self.of_source)) + graph.at_targets(&says(&self.of_target));
        // A leaky rectifier: a fifth of what is below zero.
        let scores = scores.maximum(&(&scores * LEAK));
        graph.sum(&(graph.at_sources(&x) * graph.shares(&scores))) + &self.bias
    }
}

/// What passes of values below zero.
const LEAK: f64 = 0.2;
