//! A weighted network, and the smaller one whose nodes are groups of its nodes.

use crate::Result;
use crate::graph::{self, Edge};

/// Nodes and what ties them. A tie is the weight of both directions together: whatever way an edge points, it pulls its ends into one
/// community. What chance would put between two nodes depends on how much leaves each and arrives at each.
#[derive(Debug, Clone)]
pub(super) struct Network {
    /// Where the ties of each node begin in `ties`, and where the last ones end.
    starts: Vec<usize>,
    /// To whom, in ascending order, and how strong; none to itself.
    ties: Vec<(u32, f64)>,
    /// Weight that leaves each node, ties to itself included.
    pub(super) out: Vec<f64>,
    /// Weight that arrives at each node.
    pub(super) into: Vec<f64>,
    /// Weight of all edges; above 0 also without one, so that it divides.
    pub(super) total: f64,
}

impl Network {
    /// Each edge counts in its own direction.
    ///
    /// # Errors   an edge beyond `n_nodes`, or of a weight that is no finite number of 0 or more
    pub(super) fn new(edges: &[Edge], n_nodes: usize) -> Result<Self> {
        graph::check(edges, n_nodes)?;
        let (mut out, mut into) = (vec![0.0; n_nodes], vec![0.0; n_nodes]);
        for edge in edges {
            out[edge.head as usize] += edge.weight;
            into[edge.tail as usize] += edge.weight;
        }
        let both =
            edges.iter().flat_map(|edge| [(edge.head, edge.tail, edge.weight), (edge.tail, edge.head, edge.weight)]);
        let (starts, ties) = laid_out(both, n_nodes);
        let total: f64 = edges.iter().map(|edge| edge.weight).sum();
        Ok(Self { starts, ties, out, into, total: total.max(f64::MIN_POSITIVE) })
    }

    pub(super) fn n_nodes(&self) -> usize {
        self.out.len()
    }

    /// Who is tied to a node, and how strongly.
    pub(super) fn ties(&self, node: u32) -> &[(u32, f64)] {
        &self.ties[self.starts[node as usize]..self.starts[node as usize + 1]]
    }

    /// The network whose nodes are the groups of this one's.
    pub(super) fn of_groups(&self, groups: &[u32], n_groups: usize) -> Self {
        let (mut out, mut into) = (vec![0.0; n_groups], vec![0.0; n_groups]);
        for (node, &group) in groups.iter().enumerate() {
            out[group as usize] += self.out[node];
            into[group as usize] += self.into[node];
        }
        let of_node = |node: u32| {
            self.ties(node).iter().map(move |&(other, weight)| (groups[node as usize], groups[other as usize], weight))
        };
        let (starts, ties) = laid_out((0..self.n_nodes() as u32).flat_map(of_node), n_groups);
        Self { starts, ties, out, into, total: self.total }
    }
}

/// Ties by their node, several to one other added up, those of a node to itself left out.
fn laid_out(ties: impl Iterator<Item = (u32, u32, f64)> + Clone, n_nodes: usize) -> (Vec<usize>, Vec<(u32, f64)>) {
    let others = ties.filter(|(node, other, _)| node != other);
    let mut ends = vec![0; n_nodes + 1];
    others.clone().for_each(|(node, ..)| ends[node as usize + 1] += 1);
    for node in 0..n_nodes {
        ends[node + 1] += ends[node];
    }
    let mut all = vec![(0, 0.0); ends[n_nodes]];
    let mut next = ends.clone();
    for (node, other, weight) in others {
        all[next[node as usize]] = (other, weight);
        next[node as usize] += 1;
    }
    let (mut starts, mut kept) = (vec![0], Vec::with_capacity(all.len()));
    for node in 0..n_nodes {
        let own = &mut all[ends[node]..ends[node + 1]];
        // In a stable order, so that equal ties are added up in one order.
        own.sort_by_key(|(other, _)| *other);
        for same in own.chunk_by(|a, b| a.0 == b.0) {
            kept.push((same[0].0, same.iter().map(|(_, weight)| weight).sum()));
        }
        starts.push(kept.len());
    }
    (starts, kept)
}
