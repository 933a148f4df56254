//! A layer that looks several steps along the edges.

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

/// Chebyshev polynomials of the normalised Laplacian, whose largest eigenvalue counts as 2.
///
/// # Source   Defferrard, Bresson & Vandergheynst 2016; `ChebConv`
#[derive(Debug)]
pub(super) struct Chebyshev {
    maps: Vec<Map>,
    bias: Tensor,
}

impl Chebyshev {
    pub(super) fn new(
        p: &mut Parameters<'_>,
        name: &str,
        (n_in, n_out): (usize, usize),
        n_terms: usize,
    ) -> Result<Self> {
        let mut map =
            |term: usize| Map::bare(p, &format!("{name}.lins.{term}"), (n_in, n_out), Start::glorot(n_in, n_out));
        let maps = (0..n_terms).map(&mut map).collect::<Result<_>>()?;
        Ok(Self { maps, bias: p.trained(&format!("{name}.bias"), &[n_out], Start::At(0.0))? })
    }
}

impl Convolution for Chebyshev {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, _: Mode) -> Tensor {
        let weights = graph.normalised(x);
        // With that eigenvalue the diagonal is zero, and what is left of the Laplacian are the edges, negative.
        let step = |x: &Tensor| -graph.sum(&(graph.at_sources(x) * &weights));
        let (mut before, mut last) = (x.shallow_clone(), step(x));
        let mut out = self.maps[0].forward(x);
        for (term, map) in self.maps.iter().enumerate().skip(1) {
            if term > 1 {
                let next = step(&last) * 2.0 - &before;
                before = std::mem::replace(&mut last, next);
            }
            out += map.forward(&last);
        }
        out + &self.bias
    }
}
