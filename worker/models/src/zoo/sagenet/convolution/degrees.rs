//! A layer with maps of its own for genes of few and of many neighbours.

use tch::{Kind, Tensor};

use super::{Convolution, Map};
use crate::{
    error::Result,
    nn::Mode,
    zoo::sagenet::{
        graph::GeneGraph,
        parameters::{Parameters, Start},
    },
};

/// The sum of the neighbours, and the gene, by maps that depend on how many neighbours there are.
///
/// # Source   Duvenaud et al. 2015; `MFConv` with at most ten neighbours told apart
#[derive(Debug)]
pub(super) struct ByDegree {
    maps: Vec<(Map, Map)>,
}

impl ByDegree {
    pub(super) fn new(p: &mut Parameters<'_>, name: &str, sizes: (usize, usize)) -> Result<Self> {
        let mut of_degree = |degree: usize| {
            let neighbours = Map::new(p, &format!("{name}.lins_l.{degree}"), sizes)?;
            let own = Map::bare(p, &format!("{name}.lins_r.{degree}"), sizes, Start::fan_in(sizes.0))?;
            Ok((neighbours, own))
        };
        Ok(Self { maps: (0..=MOST_NEIGHBOURS).map(&mut of_degree).collect::<Result<_>>()? })
    }
}

impl Convolution for ByDegree {
    fn forward(&self, x: &Tensor, graph: &GeneGraph, _: Mode) -> Tensor {
        let neighbours = graph.sum_of_neighbours(x);
        let degrees = graph.degrees().clamp_max(MOST_NEIGHBOURS as i64);
        // Tensors of degrees that no gene has get no gradient, which is that they stay.
        let of_degree = |(degree, (of_neighbours, own)): (usize, &(Map, Map))| {
            let is_one = degrees.eq(degree as i64);
            if is_one.sum(Kind::Int64).int64_value(&[]) == 0 {
                return None;
            }
            let mapped = of_neighbours.forward(&neighbours) + own.forward(x);
            Some(mapped * is_one.to_kind(x.kind()).unsqueeze(1))
        };
        let parts = self.maps.iter().enumerate().filter_map(of_degree);
        parts.reduce(|sum, part| sum + part).expect("every gene has a degree")
    }
}

/// Genes with more neighbours are mapped as those with so many.
const MOST_NEIGHBOURS: usize = 10;
