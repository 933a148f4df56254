//! Leiden clustering of the neighbour graph: communities by modularity at a resolution.

use std::sync::atomic::{AtomicU64, Ordering};

use leiden_rs::{GraphData, GraphDataBuilder, LeidenConfig, LeidenError, QualityType};
use rayon::prelude::*;

use crate::graph::Edge;
use crate::progress::{Progress, silent};
use crate::{AnalysisError, Result};

/// Cluster of each cell; cluster 0 is the largest, equal ones in order of their first cell. The best of a few starts by
/// modularity is kept.
///
/// # Errors   a resolution that is not a positive number, an edge beyond `n_cells` or without a finite weight
/// # Source   Traag, Waltman & van Eck 2019, configuration null model, as `leiden` of scanpy
pub fn leiden(edges: &[Edge], n_cells: usize, resolution: f64, seed: u64) -> Result<Vec<u32>> {
    Communities::new(edges, n_cells)?.leiden(resolution, seed, &silent)
}

/// A neighbour graph, to be clustered at one resolution or at many.
pub struct Communities {
    graph: GraphData,
}

impl Communities {
    /// # Errors   an edge beyond `n_cells` or without a finite weight
    pub fn new(edges: &[Edge], n_cells: usize) -> Result<Self> {
        let mut graph = GraphDataBuilder::new(n_cells);
        for edge in edges.iter().filter(|edge| edge.head < edge.tail) {
            graph.add_edge(edge.head as usize, edge.tail as usize, edge.weight).map_err(failed)?;
        }
        Ok(Self { graph: graph.build().map_err(failed)? })
    }

    /// The same where an edge counts in its own direction only.
    ///
    /// # Errors   as [`Self::new`]
    pub fn directed(edges: &[Edge], n_cells: usize) -> Result<Self> {
        let mut graph = GraphDataBuilder::new(n_cells).directed();
        for edge in edges {
            graph.add_edge(edge.head as usize, edge.tail as usize, edge.weight).map_err(failed)?;
        }
        Ok(Self { graph: graph.build().map_err(failed)? })
    }

    /// As [`leiden`].
    ///
    /// # Errors   a resolution that is not a positive number
    pub fn leiden(&self, resolution: f64, seed: u64, progress: Progress<'_>) -> Result<Vec<u32>> {
        if !(f64::MIN_POSITIVE..f64::INFINITY).contains(&resolution) {
            let found = resolution.to_string();
            return Err(AnalysisError::Option { option: "resolution", expected: "above 0", found });
        }
        let n_done = AtomicU64::new(0);
        let starts: Vec<_> = (0..N_STARTS)
            .into_par_iter()
            .map(|start| {
                let config = LeidenConfig::builder()
                    .quality(QualityType::RBConfiguration)
                    .resolution(resolution)
                    .seed(seed.wrapping_add(start))
                    .build();
                let found = leiden_rs::Leiden::new(config).run(&self.graph);
                progress((1 + n_done.fetch_add(1, Ordering::Relaxed)) as f64 / N_STARTS as f64);
                found
            })
            .collect::<std::result::Result<_, _>>()
            .map_err(failed)?;
        let best = starts.into_iter().reduce(|best, other| if other.quality > best.quality { other } else { best });
        Ok(best.map(|found| by_size(found.partition.as_slice())).unwrap_or_default())
    }
}

fn failed(error: LeidenError) -> AnalysisError {
    AnalysisError::Clustering { reason: error.to_string() }
}

fn by_size(clusters: &[usize]) -> Vec<u32> {
    let n_clusters = clusters.iter().max().map_or(0, |&last| last + 1);
    let mut sizes = vec![0usize; n_clusters];
    let mut first = vec![usize::MAX; n_clusters];
    for (cell, &cluster) in clusters.iter().enumerate() {
        sizes[cluster] += 1;
        first[cluster] = first[cluster].min(cell);
    }
    let mut order: Vec<usize> = (0..n_clusters).collect();
    order.sort_by_key(|&cluster| (std::cmp::Reverse(sizes[cluster]), first[cluster]));
    let mut rank = vec![0; n_clusters];
    order.into_iter().enumerate().for_each(|(position, cluster)| rank[cluster] = position as u32);
    clusters.iter().map(|&cluster| rank[cluster]).collect()
}

/// A single start may end a percent below the best.
const N_STARTS: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two cliques of four and three cells, joined by one weak edge.
    fn check(resolution: f64) -> Result<Vec<u32>> {
        let clique = |cells: std::ops::Range<u32>| {
            cells.clone().flat_map(move |a| cells.clone().filter(move |&b| b != a).map(move |b| (a, b)))
        };
        let mut edges: Vec<Edge> =
            clique(0..3).chain(clique(3..7)).map(|(head, tail)| Edge { head, tail, weight: 1.0 }).collect();
        edges.extend([(2, 3), (3, 2)].map(|(head, tail)| Edge { head, tail, weight: 0.1 }));
        leiden(&edges, 7, resolution, 3)
    }

    #[test]
    fn cliques_are_found_and_the_largest_comes_first() {
        assert_eq!(check(1.0).unwrap(), [1, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_tiny_resolution_joins_all_and_none_is_refused() {
        assert_eq!(check(1e-3).unwrap(), [0; 7]);
        for resolution in [0.0, -1.0, f64::NAN] {
            assert!(matches!(check(resolution), Err(AnalysisError::Option { option: "resolution", .. })));
        }
    }

    #[test]
    fn an_edge_beyond_the_cells_is_an_error() {
        let edges = [Edge { head: 0, tail: 9, weight: 1.0 }];
        assert!(matches!(leiden(&edges, 2, 1.0, 0), Err(AnalysisError::Clustering { .. })));
    }
}
