//! Sets of genes, such as pathways: what a reference knows about its panel before it sees a cell.

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
}
