//! Which cells are good enough, judged by the counts of all genes of a file.

use std::collections::BTreeMap;

use archipelago_analysis::{
    CsrView,
    preprocess::{CellBounds, CellQuality, cell_quality, genes_with_prefix},
};
use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::error::Result;

/// Figures of quality.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quality {
    /// Gene sets by name: genes whose name starts with one of the prefixes, letters of either case.
    pub sets: BTreeMap<String, Vec<String>>,
    /// Numbers of top genes whose share of the counts is written.
    pub percent_top: Vec<usize>,
}

impl Default for Quality {
    fn default() -> Self {
        Self { sets: BTreeMap::from([("mt".to_owned(), vec!["MT-".to_owned()])]), percent_top: Vec::new() }
    }
}

/// Bounds that a cell must respect, both ends included.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CellFilter {
    /// Least sum of counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_counts: Option<f64>,
    /// Largest sum of counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_counts: Option<f64>,
    /// Least number of genes with a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_genes: Option<u32>,
    /// Largest number of genes with a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_genes: Option<u32>,
    /// Largest percentage of counts in a gene set, by the name of the set. A cell without counts has none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub max_percent: BTreeMap<String, f64>,
}

impl Recipe {
    /// Figures of quality of some cells over all genes; gene sets in order of their names.
    ///
    /// # Errors  [`crate::Error::Analysis`] for a number of top genes beyond the genes there are
    pub(super) fn cell_quality(&self, counts: CsrView<'_>, genes: &[String]) -> Result<CellQuality> {
        let quality = self.quality.clone().unwrap_or_default();
        let sets: Vec<Vec<bool>> = quality
            .sets
            .values()
            .map(|prefixes| genes_with_prefix(genes, &prefixes.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        Ok(cell_quality(counts, &quality.percent_top, &sets)?)
    }

    /// Whether each cell is good enough.
    pub(super) fn good(&self, quality: &CellQuality) -> Vec<bool> {
        let Some(filter) = &self.filter_cells else { return vec![true; quality.total.len()] };
        let sets = self.sets();
        let CellFilter { min_counts, max_counts, min_genes, max_genes, .. } = *filter;
        let size = CellBounds { min_counts, max_counts, min_genes, max_genes };
        let shares: Vec<(usize, f64)> =
            sets.keys().enumerate().filter_map(|(at, name)| Some((at, *filter.max_percent.get(name)?))).collect();
        let is_good = |cell: usize| {
            let is_clean = |&(set, most): &(usize, f64)| {
                let percent = quality.set_percent[set][cell];
                percent.is_nan() || percent <= most
            };
            size.hold(quality.total[cell], quality.n_genes[cell]) && shares.iter().all(is_clean)
        };
        (0..quality.total.len()).map(is_good).collect()
    }

    /// Whether each cell of some rows of a file is good enough; the genes are already called as the recipe says.
    ///
    /// # Errors  as [`archipelago_analysis::preprocess::cell_quality`]
    pub fn keeps(&self, counts: CsrView<'_>, genes: &[String]) -> Result<Vec<bool>> {
        if self.filter_cells.is_none() {
            return Ok(vec![true; counts.n_cells()]);
        }
        Ok(self.good(&self.cell_quality(counts, genes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_kept_for_its_counts_its_genes_and_its_mitochondria() {
        // Three cells over MT-CO1 and LYZ: 3 and 1, 1 and 9, none.
        let counts = CsrView::new(2, &[0, 2, 4, 4], &[0, 1, 0, 1], &[3.0, 1.0, 1.0, 9.0]).unwrap();
        let genes = ["MT-CO1".to_owned(), "LYZ".to_owned()];
        let keeps = |filter| {
            let recipe = Recipe { filter_cells: Some(filter), ..Recipe::default() };
            recipe.keeps(counts, &genes).unwrap()
        };
        assert_eq!(keeps(CellFilter::default()), [true; 3]);
        assert_eq!(keeps(CellFilter { min_genes: Some(1), ..CellFilter::default() }), [true, true, false]);
        assert_eq!(keeps(CellFilter { max_counts: Some(4.0), ..CellFilter::default() }), [true, false, true]);
        let max_percent = BTreeMap::from([("mt".to_owned(), 10.0)]);
        assert_eq!(keeps(CellFilter { max_percent, ..CellFilter::default() }), [false, true, true]);
    }
}
