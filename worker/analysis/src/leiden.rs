//! Leiden clustering of the neighbour graph: communities by modularity at a resolution.
//!
//! Our own: the crate at hand ends a run once no cell is better placed elsewhere, and does not look whether a part of a community is;
//! its communities stay below those of leidenalg, which goes on until neither is.

mod communities;
mod network;

use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::graph::Edge;
use crate::progress::{Progress, silent};
use crate::{AnalysisError, Result};

use communities::Assignment;
use network::Network;

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
    network: Network,
}

impl Communities {
    /// Each edge counts in its own direction; a graph without directions has each in both.
    ///
    /// # Errors   an edge beyond `n_cells` or without a finite weight
    pub fn new(edges: &[Edge], n_cells: usize) -> Result<Self> {
        Ok(Self { network: Network::new(edges, n_cells)? })
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
        let starts = (0..N_STARTS).into_par_iter().map(|start| {
            let found = self.start(resolution, ChaCha8Rng::seed_from_u64(seed.wrapping_add(start)));
            progress((1 + n_done.fetch_add(1, Ordering::Relaxed)) as f64 / N_STARTS as f64);
            found
        });
        let starts: Vec<(f64, Vec<u32>)> = starts.collect();
        let best = starts.into_iter().reduce(|best, other| if other.0 > best.0 { other } else { best });
        Ok(best.map(|(_, found)| by_size(&found)).unwrap_or_default())
    }

    /// The communities that one start leads to, and their quality: rounds until one makes nothing better.
    fn start(&self, resolution: f64, mut rng: ChaCha8Rng) -> (f64, Vec<u32>) {
        let alone = Assignment::alone(&self.network, resolution);
        let (mut quality, mut communities) = (alone.quality(), alone.of);
        loop {
            let found = self.round(resolution, communities.clone(), &mut rng);
            let reached = Assignment::new(&self.network, resolution, found);
            let gain = reached.quality() - quality;
            // Rounding may say of the same communities that they are better.
            if gain <= LEAST_GAIN * self.network.total {
                return (quality, communities);
            }
            (quality, communities) = (quality + gain, reached.of);
        }
    }

    /// Moves cells, then the parts that hold together within communities as one, then parts of these, as long as there are parts.
    fn round(&self, resolution: f64, communities: Vec<u32>, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let mut node_of: Vec<u32> = (0..self.network.n_nodes() as u32).collect();
        let (mut network, mut of) = (std::borrow::Cow::Borrowed(&self.network), communities);
        loop {
            let mut level = Assignment::new(&network, resolution, of);
            level.move_nodes(rng);
            let mut parts = Assignment::alone(&network, resolution);
            parts.merge_within(&level.of, rng);
            let (n_parts, n_nodes) = (parts.n_communities(), network.n_nodes());
            if n_parts == n_nodes || n_nodes == level.n_communities() {
                return node_of.into_iter().map(|node| level.of[node as usize]).collect();
            }
            let parts = numbered(&parts.of);
            let mut of_parts = vec![0; n_parts];
            parts.iter().zip(numbered(&level.of)).for_each(|(part, community)| of_parts[*part as usize] = community);
            node_of.iter_mut().for_each(|node| *node = parts[*node as usize]);
            (network, of) = (std::borrow::Cow::Owned(network.of_groups(&parts, n_parts)), of_parts);
        }
    }
}

/// The same communities, numbered from 0 in order of their first node.
fn numbered(of: &[u32]) -> Vec<u32> {
    let mut numbers = vec![u32::MAX; of.len()];
    let mut n_known = 0;
    let mut number = |&community: &u32| {
        let number = &mut numbers[community as usize];
        if *number == u32::MAX {
            *number = n_known;
            n_known += 1;
        }
        *number
    };
    of.iter().map(&mut number).collect()
}

fn by_size(clusters: &[u32]) -> Vec<u32> {
    let clusters = numbered(clusters);
    let mut sizes = vec![0_usize; clusters.iter().max().map_or(0, |&last| last as usize + 1)];
    clusters.iter().for_each(|&cluster| sizes[cluster as usize] += 1);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&cluster| (std::cmp::Reverse(sizes[cluster]), cluster));
    let mut rank = vec![0; sizes.len()];
    order.into_iter().enumerate().for_each(|(position, cluster)| rank[cluster] = position as u32);
    clusters.iter().map(|&cluster| rank[cluster as usize]).collect()
}

/// A single start may end a percent below the best.
const N_STARTS: u64 = 8;
/// The share of all weight that a round must gain for another to follow.
const LEAST_GAIN: f64 = 1e-12;

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
        assert!(matches!(leiden(&edges, 2, 1.0, 0), Err(AnalysisError::Length { found: 2, expected: 10, .. })));
        let edges = [Edge { head: 0, tail: 1, weight: f64::NAN }];
        assert!(matches!(leiden(&edges, 2, 1.0, 0), Err(AnalysisError::Option { .. })));
    }
}
