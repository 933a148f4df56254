//! The genes of a network as a graph: which of them are neighbours, and what is sent along its edges.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Genes that go together. All cells have one graph; what a cell brings is a value for each gene.
#[derive(Debug)]
pub struct GeneGraph {
    n_genes: usize,
    /// Gene at the start of each directed edge, `[n_edges]`, and at its end.
    sources: Tensor,
    targets: Tensor,
    pairs: Vec<(u32, u32)>,
    /// Neighbours of each gene, `[n_genes]`.
    degrees: Tensor,
}

impl GeneGraph {
    /// The graph of these pairs of genes, each once; an edge leads both ways.
    ///
    /// # Errors  [`Error::Value`] for a gene that is not there or is its own neighbour
    pub fn new(n_genes: usize, pairs: &[(u32, u32)]) -> Result<Self> {
        if let Some((a, b)) = pairs.iter().find(|(a, b)| a == b || (*a).max(*b) as usize >= n_genes) {
            let (part, found) = ("edges".to_owned(), format!("the pair {a}, {b}"));
            return Err(Error::Value { part, found, expected: format!("two different genes of {n_genes}") });
        }
        let mut pairs: Vec<(u32, u32)> = pairs.iter().map(|&(a, b)| (a.min(b), a.max(b))).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let mut both: Vec<(u32, u32)> = pairs.iter().flat_map(|&(a, b)| [(a, b), (b, a)]).collect();
        both.sort_unstable();
        Ok(Self::directed(n_genes, pairs, &both))
    }

    fn directed(n_genes: usize, pairs: Vec<(u32, u32)>, edges: &[(u32, u32)]) -> Self {
        let end = |of: fn(&(u32, u32)) -> u32| {
            Tensor::from_slice(&edges.iter().map(|edge| i64::from(of(edge))).collect::<Vec<_>>())
        };
        let (sources, targets) = (end(|edge| edge.0), end(|edge| edge.1));
        let mut degrees = vec![0_i64; n_genes];
        edges.iter().for_each(|edge| degrees[edge.1 as usize] += 1);
        Self { n_genes, sources, targets, pairs, degrees: Tensor::from_slice(&degrees) }
    }

    /// The same graph in which every gene is its own neighbour too.
    #[must_use]
    pub(super) fn with_loops(&self) -> Self {
        let both = self.pairs.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
        let edges: Vec<(u32, u32)> = both.chain((0..self.n_genes as u32).map(|gene| (gene, gene))).collect();
        Self::directed(self.n_genes, self.pairs.clone(), &edges)
    }

    /// Number of genes.
    pub fn n_genes(&self) -> usize {
        self.n_genes
    }

    /// Pairs of neighbours, each once, in order.
    pub fn pairs(&self) -> &[(u32, u32)] {
        &self.pairs
    }

    /// Whether each gene has a neighbour.
    pub fn has_neighbours(&self) -> Vec<bool> {
        let mut has = vec![false; self.n_genes];
        for &(a, b) in &self.pairs {
            has[a as usize] = true;
            has[b as usize] = true;
        }
        has
    }

    /// Neighbours of each gene, `[n_genes]`.
    pub(super) fn degrees(&self) -> &Tensor {
        &self.degrees
    }

    /// What each edge's source holds: `[n, n_genes, width]` to `[n, n_edges, width]`.
    pub(super) fn at_sources(&self, x: &Tensor) -> Tensor {
        x.index_select(1, &self.sources)
    }

    /// What each edge's target holds.
    pub(super) fn at_targets(&self, x: &Tensor) -> Tensor {
        x.index_select(1, &self.targets)
    }

    /// What arrives at each gene, added up: `[n, n_edges, width]` to `[n, n_genes, width]`.
    pub(super) fn sum(&self, messages: &Tensor) -> Tensor {
        let size = messages.size();
        let none = Tensor::zeros([size[0], self.n_genes as i64, size[2]], (messages.kind(), messages.device()));
        none.index_add(1, &self.targets, messages)
    }

    /// What the neighbours of each gene hold, added up.
    pub(super) fn sum_of_neighbours(&self, x: &Tensor) -> Tensor {
        self.sum(&self.at_sources(x))
    }

    /// Shares of the edges that lead to one gene, apart for each of `width`; they add up to one but for what keeps the sum from 0.
    pub(super) fn shares(&self, scores: &Tensor) -> Tensor {
        let size = scores.size();
        let most = tch::no_grad(|| {
            let lowest = Tensor::zeros([size[0], self.n_genes as i64, size[2]], (scores.kind(), scores.device()));
            lowest.index_reduce(1, &self.targets, &scores.detach(), "amax", false)
        });
        let raised = (scores - self.at_targets(&most)).exp();
        let total = self.sum(&raised) + SMALLEST_TOTAL;
        raised / self.at_targets(&total)
    }

    /// What each edge weighs in the normalised adjacency, `[n_edges, 1]`: the inverse root of the neighbours of both of its genes.
    pub(super) fn normalised(&self, like: &Tensor) -> Tensor {
        let root = self.degrees.to_kind(like.kind()).rsqrt();
        (root.index_select(0, &self.sources) * root.index_select(0, &self.targets)).unsqueeze(1)
    }

    /// The genes at the ends of every edge, `[2, n_edges]`: sources, then targets, ordered by both.
    pub fn edge_index(&self) -> Tensor {
        Tensor::stack(&[&self.sources, &self.targets], 0).to_kind(Kind::Int64).to_device(Device::Cpu)
    }
}

/// Upstream's, added to the sum of a softmax.
const SMALLEST_TOTAL: f64 = 1e-16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_leads_both_ways_and_stands_once() {
        let graph = GeneGraph::new(4, &[(2, 0), (0, 2), (0, 1)]).unwrap();
        assert_eq!(graph.pairs(), [(0, 1), (0, 2)]);
        let edges = Vec::<i64>::try_from(graph.edge_index().reshape(-1)).unwrap();
        assert_eq!(edges, [0, 0, 1, 2, 1, 2, 0, 0]);
        assert_eq!(graph.has_neighbours(), [true, true, true, false]);
        assert!(GeneGraph::new(2, &[(0, 2)]).is_err() && GeneGraph::new(2, &[(1, 1)]).is_err());
    }

    #[test]
    fn shares_of_a_gene_add_up_to_one_whatever_the_scores() {
        let graph = GeneGraph::new(3, &[(0, 1), (1, 2)]).unwrap();
        let scores = Tensor::from_slice(&[900.0_f32, 0.0, -900.0, 3.0]).view([1, 4, 1]);
        let total = graph.sum(&graph.shares(&scores));
        assert!((total - 1.0).abs().max().double_value(&[]) < 1e-6);
    }
}
