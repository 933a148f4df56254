//! Sets of genes, such as pathways: what a reference knows about its panel before it sees a cell.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::cells::check_length;
use crate::error::{Error, Result};

/// Which genes of a panel belong to which terms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneSets {
    terms: Vec<String>,
    /// Positions in the panel of each term's genes, ascending.
    members: Vec<Vec<u32>>,
    n_genes: usize,
}

impl GeneSets {
    /// Terms and the positions of their genes in a panel of so many, ascending.
    ///
    /// # Errors  [`Error::Shape`], [`Error::Value`] for positions that are out of order or outside
    pub fn new(terms: Vec<String>, members: Vec<Vec<u32>>, n_genes: usize) -> Result<Self> {
        check_length("gene sets", "terms", members.len(), terms.len())?;
        let is_sound = |genes: &Vec<u32>| {
            genes.is_sorted_by(|a, b| a < b) && genes.last().is_none_or(|&last| (last as usize) < n_genes)
        };
        match members.iter().position(|genes| !is_sound(genes)) {
            None => Ok(Self { terms, members, n_genes }),
            Some(at) => Err(Error::Value {
                part: format!("the gene set `{}`", terms[at]),
                found: format!("{:?}", members[at]),
                expected: format!("ascending positions below {n_genes}"),
            }),
        }
    }

    /// No set of genes of a panel of so many.
    pub fn none(n_genes: usize) -> Self {
        Self { terms: Vec::new(), members: Vec::new(), n_genes }
    }

    /// The same sets on another panel: a gene that it lacks is in no set any more.
    pub fn on_panel(&self, own: &[String], panel: &[String]) -> Self {
        let mut position: BTreeMap<&str, u32> = BTreeMap::new();
        for (at, gene) in (0..).zip(panel) {
            position.entry(gene).or_insert(at);
        }
        let moved = |genes: &Vec<u32>| {
            let found = genes.iter().filter_map(|&gene| position.get(own[gene as usize].as_str()).copied());
            found.collect::<BTreeSet<u32>>().into_iter().collect()
        };
        Self { terms: self.terms.clone(), members: self.members.iter().map(moved).collect(), n_genes: panel.len() }
    }

    /// These sets and others of the same panel behind them.
    ///
    /// # Errors  [`Error::Shape`] for sets of another panel
    pub fn and(&self, others: &Self) -> Result<Self> {
        check_length("gene sets", "genes", others.n_genes, self.n_genes)?;
        let (terms, members) = (self.terms.iter().chain(&others.terms), self.members.iter().chain(&others.members));
        Ok(Self { terms: terms.cloned().collect(), members: members.cloned().collect(), n_genes: self.n_genes })
    }

    /// Whether each gene is in a set.
    pub fn is_in_a_set(&self) -> Vec<bool> {
        let mut is_in = vec![false; self.n_genes];
        self.members.iter().flatten().for_each(|&gene| is_in[gene as usize] = true);
        is_in
    }

    /// Number of genes of the panel.
    pub fn n_genes(&self) -> usize {
        self.n_genes
    }

    /// Names of the terms.
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    /// Positions of each term's genes.
    pub fn members(&self) -> &[Vec<u32>] {
        &self.members
    }

    /// 1 where a gene belongs to a term, else 0: `[n_genes, n_terms]`.
    pub fn mask(&self) -> Array2<f32> {
        let mut mask = Array2::zeros((self.n_genes, self.terms.len()));
        for (term, genes) in self.members.iter().enumerate() {
            genes.iter().for_each(|&gene| mask[[gene as usize, term]] = 1.0);
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_mask_has_a_row_per_gene_and_a_column_per_term() {
        let terms = vec!["one".to_owned(), "two".to_owned()];
        let sets = GeneSets::new(terms.clone(), vec![vec![0, 2], vec![]], 3).unwrap();
        assert_eq!(sets.mask(), array![[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        assert!(GeneSets::new(terms.clone(), vec![vec![3], vec![]], 3).unwrap_err().to_string().contains("`one`"));
        assert!(GeneSets::new(terms, vec![vec![1, 1]], 3).is_err());
    }

    #[test]
    fn sets_follow_their_genes_to_another_panel() {
        let names = |genes: &[&str]| genes.iter().map(|&gene| gene.to_owned()).collect::<Vec<_>>();
        let sets = GeneSets::new(names(&["one", "two"]), vec![vec![0, 2, 3], vec![1]], 4).unwrap();
        assert_eq!(sets.is_in_a_set(), [true; 4]);
        // The file names one gene twice.
        let moved = sets.on_panel(&names(&["a", "b", "c", "a"]), &names(&["c", "a"]));
        assert_eq!((moved.members(), moved.n_genes()), (&[vec![0, 1], vec![]][..], 2));
    }
}
