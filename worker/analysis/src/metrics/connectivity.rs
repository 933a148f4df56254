//! Whether the cells of a label hang together in the neighbour graph.

use crate::neighbours::Neighbours;
use crate::{Labels, Result};

use super::mean;

/// Mean over labels of the share of a label's cells in the largest connected part of its own subgraph of the symmetrised
/// neighbour graph; `None` without cells.
///
/// # Errors   labels of another number of cells than neighbours
/// # Source   Luecken et al. 2022, graph connectivity
pub fn graph_connectivity(neighbours: &Neighbours, labels: &Labels) -> Result<Option<f64>> {
    labels.check_len("the label column", neighbours.n_cells())?;
    let codes = labels.codes();
    let mut parts = Parts::singletons(labels.len());
    for (cell, (rows, _)) in neighbours.iter().enumerate() {
        for &row in rows {
            if codes[cell] == codes[row as usize] {
                parts.unite(cell, row as usize);
            }
        }
    }
    let shares = labels.members().into_iter().filter(|members| !members.is_empty()).map(|members| {
        let largest = members.iter().map(|&cell| parts.size_of(cell)).max().unwrap_or(0);
        largest as f64 / members.len() as f64
    });
    Ok(mean(shares))
}

/// Disjoint sets of cells, joined by size with path halving.
struct Parts {
    parent: Vec<usize>,
    size: Vec<usize>,
}

impl Parts {
    fn singletons(n: usize) -> Self {
        Self { parent: (0..n).collect(), size: vec![1; n] }
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (large, small) = if self.size[a] >= self.size[b] { (a, b) } else { (b, a) };
        self.parent[small] = large;
        self.size[large] += self.size[small];
    }

    fn size_of(&mut self, cell: usize) -> usize {
        let root = self.root(cell);
        self.size[root]
    }

    fn root(&mut self, mut cell: usize) -> usize {
        while self.parent[cell] != cell {
            self.parent[cell] = self.parent[self.parent[cell]];
            cell = self.parent[cell];
        }
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_in_two_parts_counts_its_larger_part() {
        // Cells 0, 1, 2 are "a", linked 0-1 only; cells 3, 4 are "b", linked.
        let neighbours = Neighbours::from_parts(1, vec![1, 0, 3, 4, 3], vec![1.0; 5]).unwrap();
        let labels = Labels::from_names(&["a", "a", "a", "b", "b"]);
        let found = graph_connectivity(&neighbours, &labels).unwrap().unwrap();
        assert!((found - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
    }
}
