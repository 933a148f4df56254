//! Parts of a section: communities of cells that lie together.

use std::collections::BTreeMap;

use ndarray::ArrayView2;

use crate::Result;
use crate::graph::Edge;
use crate::leiden::Communities;
use crate::neighbours::self_knn;
use crate::progress::silent;

/// The directed graph from each cell to its `n_neighbors` nearest by position.
///
/// # Shapes   `positions`: `[n_cells, 2]`, or more dimensions
/// # Errors   as [`self_knn`]
pub fn spatial_graph(positions: ArrayView2<'_, f32>, n_neighbors: usize) -> Result<Vec<Edge>> {
    let neighbours = self_knn(positions, n_neighbors)?;
    let of_cell = |(head, (tails, _)): (u32, (&[u32], &[f64]))| {
        tails.iter().map(move |&tail| Edge { head, tail, weight: 1.0 }).collect::<Vec<_>>()
    };
    Ok((0u32..).zip(neighbours.iter()).flat_map(of_cell).collect())
}

/// The part of each cell at each resolution, largest part first: one column per resolution.
///
/// # Errors   a resolution that is not above 0, an edge beyond `n_cells`
/// # Source   Leiden on the directed graph with the configuration null model, as scanpy runs it on squidpy's graph
pub fn spatial_partitions(edges: &[Edge], n_cells: usize, resolutions: &[f64], seed: u64) -> Result<Vec<Vec<u32>>> {
    let communities = Communities::new(edges, n_cells)?;
    resolutions.iter().map(|&resolution| communities.leiden(resolution, seed, &silent)).collect()
}

/// Edges within parts beyond those that chance would put there, `resolution` times: what partitions are compared by.
pub fn directed_modularity(edges: &[Edge], parts: &[u32], resolution: f64) -> f64 {
    let total: f64 = edges.iter().map(|edge| edge.weight).sum();
    let within = edges.iter().filter(|edge| parts[edge.head as usize] == parts[edge.tail as usize]);
    let within: f64 = within.map(|edge| edge.weight).sum();
    let mut ends = BTreeMap::<u32, (f64, f64)>::new();
    for edge in edges {
        ends.entry(parts[edge.head as usize]).or_default().0 += edge.weight;
        ends.entry(parts[edge.tail as usize]).or_default().1 += edge.weight;
    }
    within - resolution * ends.values().map(|(out, into)| out * into).sum::<f64>() / total
}
