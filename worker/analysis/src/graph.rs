//! The weighted neighbour graph that UMAP, Leiden and graph distances share.
//!
//! Edge weights come from neighbour distances: each cell's own scale, then the fuzzy union of both directions. They are
//! what scanpy stores as `connectivities`.

use std::collections::BTreeMap;

use crate::neighbours::Neighbours;

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
    let mut directed = BTreeMap::<(u32, u32), f64>::new();
    for (head, (rows, distances)) in (0u32..).zip(neighbours.iter()) {
        let scale = Scale::of(distances, overall_mean);
        for (&tail, &distance) in rows.iter().zip(distances) {
            directed.insert((head, tail), scale.weight(distance));
        }
    }
    let mut union = BTreeMap::<(u32, u32), f64>::new();
    for (&(head, tail), &there) in &directed {
        let back = directed.get(&(tail, head)).copied().unwrap_or(0.0);
        let weight = there + back - there * back;
        union.insert((head, tail), weight);
        union.insert((tail, head), weight);
    }
    union.into_iter().map(|((head, tail), weight)| Edge { head, tail, weight }).collect()
}

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
