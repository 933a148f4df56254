//! The weighted neighbour graph that UMAP, Leiden and graph distances share.
//!
//! Edge weights come from neighbour distances: each cell's own scale, then the fuzzy union of both directions. They are
//! what scanpy stores as `connectivities`.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::neighbours::Neighbours;
use crate::{AnalysisError, Result};

/// A weighted edge between two cells, stored once per direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// Row of the cell it leaves.
    pub head: u32,
    /// Row of the cell it reaches.
    pub tail: u32,
    /// Strength, above 0 and at most 1.
    pub weight: f64,
}

/// The fuzzy union of all neighbourhoods, edges in order of head and tail. The cell itself counts as one of its
/// neighbourhood: scanpy's 15 neighbours are 14 others here.
///
/// # Source   McInnes, Healy & Melville 2018; `neighbors` of scanpy, method `umap`
pub fn connectivities(neighbours: &Neighbours) -> Vec<Edge> {
    let overall_mean = neighbours.iter().flat_map(|(_, distances)| distances).sum::<f64>()
        / (neighbours.n_cells() * (neighbours.k() + 1)) as f64;
    let of_cell = |(head, (rows, distances)): (u32, (&[u32], &[f64]))| {
        let scale = Scale::of(distances, overall_mean);
        let weight = |(&tail, &distance)| Edge { head, tail, weight: scale.weight(distance) };
        rows.iter().zip(distances).map(weight).collect::<Vec<Edge>>()
    };
    // Both directions of every edge side by side, so that each finds the other.
    let mut there: Vec<Edge> = (0u32..).zip(neighbours.iter()).flat_map(of_cell).collect();
    there.sort_unstable_by_key(|edge| (edge.head, edge.tail));
    let mut union: Vec<Edge> = Vec::with_capacity(2 * there.len());
    for edge in &there {
        let back = there.binary_search_by_key(&(edge.tail, edge.head), |edge| (edge.head, edge.tail));
        let back = back.ok().map(|at| there[at].weight);
        let weight = edge.weight + back.unwrap_or(0.0) - edge.weight * back.unwrap_or(0.0);
        union.push(Edge { weight, ..*edge });
        if back.is_none() {
            union.push(Edge { head: edge.tail, tail: edge.head, weight });
        }
    }
    union.sort_unstable_by_key(|edge| (edge.head, edge.tail));
    union
}

/// Refuses edges that are of no graph of so many cells.
///
/// # Errors   an edge beyond `n_cells`, or of a weight that is no length
pub(crate) fn check(edges: &[Edge], n_cells: usize) -> Result<()> {
    for edge in edges {
        let last = edge.head.max(edge.tail) as usize;
        if last >= n_cells {
            return Err(AnalysisError::Length { what: "the graph's cells", found: n_cells, expected: last + 1 });
        }
        if !(0.0..f64::INFINITY).contains(&edge.weight) {
            let found = edge.weight.to_string();
            return Err(AnalysisError::Option { option: "an edge's weight", expected: "zero or more", found });
        }
    }
    Ok(())
}

/// The graph laid out by cell, for walking along its edges.
pub(crate) struct Paths {
    first_edge: Vec<usize>,
    tails: Vec<(u32, f64)>,
}

impl Paths {
    /// # Errors   an edge beyond `n_cells`, or of a weight that is no length
    pub(crate) fn new(edges: &[Edge], n_cells: usize) -> Result<Self> {
        check(edges, n_cells)?;
        let mut first_edge = vec![0; n_cells + 1];
        edges.iter().for_each(|edge| first_edge[edge.head as usize + 1] += 1);
        for cell in 0..n_cells {
            first_edge[cell + 1] += first_edge[cell];
        }
        let mut by_head: Vec<&Edge> = edges.iter().collect();
        by_head.sort_by_key(|edge| (edge.head, edge.tail));
        Ok(Self { first_edge, tails: by_head.into_iter().map(|edge| (edge.tail, edge.weight)).collect() })
    }

    /// The at most `k` nearest other cells and their distances along edges, nearest first (Dijkstra 1959).
    pub(crate) fn nearest(&self, cell: usize, k: usize, walk: &mut Walk) -> (Vec<u32>, Vec<f64>) {
        walk.start(cell as u32, self.first_edge.len() - 1);
        let (mut rows, mut distances) = (Vec::with_capacity(k), Vec::with_capacity(k));
        while let Some(Reverse(Place { distance, cell: at })) = walk.open.pop() {
            if distance > walk.best[at as usize] {
                // A shorter path was found after this one.
                continue;
            }
            if at as usize != cell {
                rows.push(at);
                distances.push(distance);
            }
            if rows.len() == k {
                break;
            }
            for &(tail, weight) in &self.tails[self.first_edge[at as usize]..self.first_edge[at as usize + 1]] {
                walk.reach(Place { distance: distance + weight, cell: tail });
            }
        }
        (rows, distances)
    }
}

/// What a walk along the graph keeps in mind, for many walks one after another.
#[derive(Default)]
pub(crate) struct Walk {
    /// Shortest known distance of every cell.
    best: Vec<f64>,
    /// Cells with a known distance.
    reached: Vec<u32>,
    open: BinaryHeap<Reverse<Place>>,
}

impl Walk {
    fn start(&mut self, cell: u32, n_cells: usize) {
        self.reached.drain(..).for_each(|cell| self.best[cell as usize] = f64::INFINITY);
        self.best.resize(n_cells, f64::INFINITY);
        self.open.clear();
        self.reach(Place { distance: 0.0, cell });
    }

    fn reach(&mut self, place: Place) {
        let best = &mut self.best[place.cell as usize];
        if place.distance < *best {
            if best.is_infinite() {
                self.reached.push(place.cell);
            }
            *best = place.distance;
            self.open.push(Reverse(place));
        }
    }
}

/// A cell at the end of a path, ordered by length, then by row.
#[derive(Clone, Copy)]
struct Place {
    distance: f64,
    cell: u32,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.cell.cmp(&other.cell))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Place {}

/// A cell's own measure of distance: beyond the nearest neighbour, weights fall off so that they sum to log2 of the
/// neighbourhood's size.
struct Scale {
    nearest: f64,
    falloff: f64,
}

impl Scale {
    fn of(distances: &[f64], overall_mean: f64) -> Self {
        let nearest = distances.iter().copied().find(|&d| d > 0.0).unwrap_or(0.0);
        // The neighbourhood's size counts the cell itself, at distance 0.
        let size = (distances.len() + 1) as f64;
        let target = size.log2();
        let (mut low, mut high, mut falloff) = (0.0, f64::INFINITY, 1.0);
        for _ in 0..MAX_HALVINGS {
            let scale = Self { nearest, falloff };
            let sum: f64 = distances.iter().map(|&d| scale.weight(d)).sum();
            if (sum - target).abs() < TOLERANCE {
                break;
            }
            if sum > target {
                high = falloff;
                falloff = (low + high) / 2.0;
            } else {
                low = falloff;
                falloff = if high.is_infinite() { falloff * 2.0 } else { (low + high) / 2.0 };
            }
        }
        let own_mean = distances.iter().sum::<f64>() / size;
        let least = LEAST_FALLOFF * if nearest > 0.0 { own_mean } else { overall_mean };
        Self { nearest, falloff: falloff.max(least) }
    }

    fn weight(&self, distance: f64) -> f64 {
        let beyond = distance - self.nearest;
        if beyond <= 0.0 || self.falloff == 0.0 { 1.0 } else { (-beyond / self.falloff).exp() }
    }
}

const MAX_HALVINGS: usize = 64;
const TOLERANCE: f64 = 1e-5;
/// A falloff below this share of the mean distance would cut cells off from their neighbours.
const LEAST_FALLOFF: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_the_size_s_logarithm_and_the_nearest_weighs_one() {
        let distances: Vec<f64> = (1..15).map(|i| f64::from(i) * 0.3).collect();
        let scale = Scale::of(&distances, 1.0);
        let weights: Vec<f64> = distances.iter().map(|&d| scale.weight(d)).collect();
        assert_eq!(weights[0], 1.0);
        assert!((weights.iter().sum::<f64>() - 15f64.log2()).abs() < 1e-4);
    }

    #[test]
    fn the_nearest_by_path_may_lie_around_a_corner() {
        let edge = |head, tail, weight| Edge { head, tail, weight };
        let edges = [edge(0, 1, 5.0), edge(0, 2, 1.0), edge(2, 1, 1.0), edge(1, 3, 1.0)];
        let (paths, mut walk) = (Paths::new(&edges, 4).unwrap(), Walk::default());
        assert_eq!(paths.nearest(0, 2, &mut walk), (vec![2, 1], vec![1.0, 2.0]));
        assert_eq!(paths.nearest(1, 5, &mut walk), (vec![3], vec![1.0]));
        assert!(matches!(Paths::new(&edges, 3), Err(AnalysisError::Length { expected: 4, .. })));
        assert!(matches!(Paths::new(&[edge(0, 1, f64::NAN)], 2), Err(AnalysisError::Option { .. })));
    }

    #[test]
    fn an_edge_weighs_the_same_both_ways() {
        let neighbours = Neighbours::from_parts(2, vec![1, 2, 0, 2, 1, 0], vec![1.0, 2.0, 1.0, 1.5, 1.5, 2.0]).unwrap();
        let edges = connectivities(&neighbours);
        for edge in &edges {
            let back = edges.iter().find(|other| (other.head, other.tail) == (edge.tail, edge.head)).unwrap();
            assert_eq!(edge.weight, back.weight);
        }
        assert_eq!(edges.len(), 6);
    }
}
