//! Query genes brought into the order of a reference panel.
//!
//! A reference model knows its genes by position, so a query must have the same genes in the same order: missing ones
//! become zero columns, extra ones are dropped. What upstream does as `prepare_query_anndata`, with duplicates refused
//! instead of taken at random.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::{Csr, Error, Result};

/// Names shown in an error.
const N_EXAMPLES: usize = 5;

/// What happens to a gene that the query names more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// It is an error.
    #[default]
    Refuse,
    /// Its columns are added up.
    Sum,
}

/// Where each gene of a query goes in the panel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alignment {
    /// Panel position per query column, `None` where the panel lacks the gene.
    #[serde(skip)]
    targets: Vec<Option<u32>>,
    /// Genes in the panel.
    pub n_panel: usize,
    /// Panel genes that the query has.
    pub n_found: usize,
    /// Panel genes that the query lacks, in panel order; their columns are zero.
    pub missing: Vec<String>,
    /// Query columns that the panel has no place for.
    pub n_dropped: usize,
    /// Query columns that were added to another of the same name.
    pub n_summed: usize,
}

/// Finds every query gene in the panel.
///
/// # Errors
/// [`Error::DuplicateGenes`] when the panel repeats a name, or the query does and `duplicates` refuses it;
/// [`Error::NoCommonGenes`] when nothing matches.
pub fn align(query: &[String], panel: &[String], duplicates: Duplicates) -> Result<Alignment> {
    let position = unique_positions(panel)?;
    let targets: Vec<Option<u32>> = query.iter().map(|gene| position.get(gene.as_str()).copied()).collect();
    let mut n_columns = vec![0_usize; panel.len()];
    for &target in targets.iter().flatten() {
        n_columns[target as usize] += 1;
    }
    let repeated = |n: &&usize| **n > 1;
    if duplicates == Duplicates::Refuse && n_columns.iter().any(|n| repeated(&n)) {
        let names = panel.iter().zip(&n_columns).filter(|(_, n)| repeated(n)).map(|(gene, _)| gene.clone());
        let n_duplicated = n_columns.iter().filter(repeated).count();
        return Err(Error::DuplicateGenes {
            of: "the query",
            n_duplicated,
            examples: names.take(N_EXAMPLES).collect(),
        });
    }
    let n_found = n_columns.iter().filter(|&&n| n > 0).count();
    if n_found == 0 {
        let few = |names: &[String]| names.iter().take(N_EXAMPLES).cloned().collect();
        return Err(Error::NoCommonGenes { query: few(query), panel: few(panel) });
    }
    Ok(Alignment {
        n_panel: panel.len(),
        n_found,
        missing: panel.iter().zip(&n_columns).filter(|(_, n)| **n == 0).map(|(gene, _)| gene.clone()).collect(),
        n_dropped: targets.iter().filter(|target| target.is_none()).count(),
        n_summed: n_columns.iter().map(|n| n.saturating_sub(1)).sum(),
        targets,
    })
}

impl Alignment {
    /// Share of the panel's genes that the query has, from 0 to 1; below 0.8 a caller should warn.
    pub fn coverage(&self) -> f64 {
        self.n_found as f64 / self.n_panel as f64
    }

    /// Panel positions of the genes that the query has, ascending.
    pub fn found(&self) -> Vec<usize> {
        self.targets.iter().flatten().map(|&target| target as usize).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether query and panel are the same genes in the same order.
    pub fn is_identity(&self) -> bool {
        self.targets.len() == self.n_panel && self.targets.iter().zip(0..).all(|(target, at)| *target == Some(at))
    }

    /// Cells × query genes to cells × panel genes.
    ///
    /// # Errors
    /// When `query` has not the number of columns that was aligned.
    pub fn apply(&self, query: &Csr) -> Result<Csr> {
        if self.is_identity() && query.n_cols() == self.n_panel {
            return Ok(query.clone());
        }
        query.map_cols(&self.targets, self.n_panel)
    }
}

fn unique_positions(panel: &[String]) -> Result<HashMap<&str, u32>> {
    let mut position = HashMap::with_capacity(panel.len());
    let mut duplicated = Vec::new();
    for (gene, at) in panel.iter().zip(0..) {
        if position.insert(gene.as_str(), at).is_some() {
            duplicated.push(gene.clone());
        }
    }
    if duplicated.is_empty() {
        return Ok(position);
    }
    let n_duplicated = duplicated.len();
    duplicated.truncate(N_EXAMPLES);
    Err(Error::DuplicateGenes { of: "the panel", n_duplicated, examples: duplicated })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn check(query: &[&str], panel: &[&str], duplicates: Duplicates) -> Result<Alignment> {
        align(&names(query), &names(panel), duplicates)
    }

    #[test]
    fn genes_are_reordered_padded_and_dropped() {
        let alignment = check(&["c", "x", "a"], &["a", "b", "c"], Duplicates::Refuse).unwrap();
        let query = Csr::from_dense(1, 3, &[3.0, 9.0, 1.0]).unwrap();
        assert_eq!(alignment.apply(&query).unwrap().to_dense(), [1.0, 0.0, 3.0]);
        assert_eq!((alignment.missing.clone(), alignment.n_dropped), (names(&["b"]), 1));
        assert!((alignment.coverage() - 2.0 / 3.0).abs() < 1e-12);
        assert!(!alignment.is_identity());
    }

    #[test]
    fn duplicates_are_refused_or_summed() {
        let message = check(&["a", "a"], &["a", "b"], Duplicates::Refuse).unwrap_err().to_string();
        assert_eq!(message, "the query names 1 genes more than once, such as `a`");
        let alignment = check(&["a", "b", "a"], &["a", "b"], Duplicates::Sum).unwrap();
        let query = Csr::from_dense(1, 3, &[1.0, 2.0, 4.0]).unwrap();
        assert_eq!(alignment.apply(&query).unwrap().to_dense(), [5.0, 2.0]);
        assert_eq!(alignment.n_summed, 1);
    }

    #[test]
    fn a_repeated_gene_outside_the_panel_does_no_harm() {
        assert_eq!(check(&["x", "x", "a"], &["a"], Duplicates::Refuse).unwrap().n_dropped, 2);
    }

    #[test]
    fn a_panel_that_repeats_a_gene_is_refused() {
        assert!(matches!(
            check(&["a"], &["a", "a"], Duplicates::Sum),
            Err(Error::DuplicateGenes { of: "the panel", .. })
        ));
    }

    #[test]
    fn no_common_gene_shows_names_of_both_sides() {
        let message = check(&["ENSG1"], &["CD3D", "CD4"], Duplicates::Refuse).unwrap_err().to_string();
        assert_eq!(message, "no gene in common: the query has `ENSG1`, the panel `CD3D`, `CD4`");
    }

    #[test]
    fn the_same_genes_in_the_same_order_are_an_identity() {
        assert!(check(&["a", "b"], &["a", "b"], Duplicates::Refuse).unwrap().is_identity());
    }
}
