//! Which cells and genes are good enough to keep.

use super::quality::{cell_totals, gene_quality};
use crate::CsrView;

/// Bounds that a cell must respect, both ends included; by default none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CellBounds {
    /// Least sum of counts.
    pub min_counts: Option<f64>,
    /// Largest sum of counts.
    pub max_counts: Option<f64>,
    /// Least number of genes with a count.
    pub min_genes: Option<u32>,
    /// Largest number of genes with a count.
    pub max_genes: Option<u32>,
}

/// Bounds that a gene must respect, both ends included; by default none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GeneBounds {
    /// Least sum of counts.
    pub min_counts: Option<f64>,
    /// Largest sum of counts.
    pub max_counts: Option<f64>,
    /// Least number of cells with a count.
    pub min_cells: Option<u32>,
    /// Largest number of cells with a count.
    pub max_cells: Option<u32>,
}

/// Whether each cell is within the bounds.
///
/// # Source   `filter_cells` of scanpy
pub fn filter_cells(counts: CsrView<'_>, bounds: CellBounds) -> Vec<bool> {
    let (total, n_genes) = cell_totals(counts);
    let cells = total.into_iter().zip(n_genes);
    cells.map(|(total, n_genes)| bounds.hold(total, n_genes)).collect()
}

impl CellBounds {
    /// Whether a cell with this sum of counts, in so many genes, is within them.
    pub fn hold(&self, total: f64, n_genes: u32) -> bool {
        is_within(total, self.min_counts, self.max_counts) && is_within(n_genes, self.min_genes, self.max_genes)
    }
}

/// Whether each gene is within the bounds.
///
/// # Source   `filter_genes` of scanpy
pub fn filter_genes(counts: CsrView<'_>, bounds: GeneBounds) -> Vec<bool> {
    let quality = gene_quality(counts);
    let genes = quality.total.iter().zip(&quality.n_cells);
    genes
        .map(|(&total, &n_cells)| {
            is_within(total, bounds.min_counts, bounds.max_counts)
                && is_within(n_cells, bounds.min_cells, bounds.max_cells)
        })
        .collect()
}

fn is_within<T: PartialOrd>(value: T, least: Option<T>, most: Option<T>) -> bool {
    least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_bound_are_kept() {
        let counts = CsrView::new(2, &[0, 1, 3, 3], &[0, 0, 1], &[2.0, 1.0, 4.0]).unwrap();
        let check = |bounds| filter_cells(counts, bounds);
        assert_eq!(check(CellBounds::default()), [true; 3]);
        assert_eq!(check(CellBounds { min_counts: Some(2.0), ..CellBounds::default() }), [true, true, false]);
        assert_eq!(check(CellBounds { max_genes: Some(1), ..CellBounds::default() }), [true, false, true]);
        assert_eq!(filter_genes(counts, GeneBounds { min_cells: Some(2), ..GeneBounds::default() }), [true, false]);
    }
}
