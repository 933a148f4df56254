//! A borrowed sparse matrix of counts: cells in rows, genes in columns.

use crate::{AnalysisError, Result};

/// Compressed sparse rows, borrowed from whoever owns the counts.
#[derive(Debug, Clone, Copy)]
pub struct CsrView<'a> {
    n_cols: usize,
    indptr: &'a [usize],
    indices: &'a [u32],
    data: &'a [f32],
}

impl<'a> CsrView<'a> {
    /// Checks the structure and borrows it.
    ///
    /// # Shapes   `indptr`: `[n_cells + 1]`; `indices`, `data`: `[n_stored]`
    /// # Errors   [`AnalysisError::Length`] or [`AnalysisError::Csr`] when the parts do not fit each other
    pub fn new(n_cols: usize, indptr: &'a [usize], indices: &'a [u32], data: &'a [f32]) -> Result<Self> {
        if indices.len() != data.len() {
            return Err(AnalysisError::Length {
                what: "the column indices of a sparse matrix",
                found: indices.len(),
                expected: data.len(),
            });
        }
        if indptr.first() != Some(&0) || indptr.last() != Some(&data.len()) {
            return Err(AnalysisError::Csr { row: 0, reason: "row offsets do not span the stored values" });
        }
        if let Some(row) = indptr.windows(2).position(|w| w[0] > w[1]) {
            return Err(AnalysisError::Csr { row, reason: "row offsets decrease" });
        }
        if let Some(at) = indices.iter().position(|&column| column as usize >= n_cols) {
            let row = indptr.partition_point(|&offset| offset <= at) - 1;
            return Err(AnalysisError::Csr { row, reason: "a column index lies beyond the last gene" });
        }
        Ok(Self { n_cols, indptr, indices, data })
    }

    /// Number of rows.
    pub fn n_cells(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Number of columns.
    pub fn n_genes(&self) -> usize {
        self.n_cols
    }

    /// Gene indices and values stored for one cell.
    pub fn row(&self, cell: usize) -> (&'a [u32], &'a [f32]) {
        let stored = self.indptr[cell]..self.indptr[cell + 1];
        (&self.indices[stored.clone()], &self.data[stored])
    }

    /// The same cells and genes with other stored values.
    ///
    /// # Errors   [`AnalysisError::Length`] unless `data` has one value per stored entry
    pub fn with_data<'b>(&self, data: &'b [f32]) -> Result<CsrView<'b>>
    where
        'a: 'b,
    {
        if data.len() != self.data.len() {
            return Err(AnalysisError::Length {
                what: "the replacement values of a sparse matrix",
                found: data.len(),
                expected: self.data.len(),
            });
        }
        Ok(CsrView { n_cols: self.n_cols, indptr: self.indptr, indices: self.indices, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_its_genes_and_values() {
        let counts = CsrView::new(3, &[0, 2, 2, 3], &[0, 2, 1], &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(counts.row(0), (&[0, 2][..], &[1.0, 2.0][..]));
        assert_eq!(counts.row(1), (&[][..], &[][..]));
        assert_eq!(counts.n_cells(), 3);
    }

    #[test]
    fn malformed_offsets_and_indices_are_refused() {
        let check =
            |indptr: &[usize], indices: &[u32], data: &[f32]| CsrView::new(3, indptr, indices, data).unwrap_err();
        assert!(matches!(check(&[0, 2], &[0], &[1.0]), AnalysisError::Csr { row: 0, .. }));
        assert!(matches!(check(&[], &[0], &[1.0]), AnalysisError::Csr { .. }));
        assert!(matches!(check(&[0, 2, 1, 2], &[0, 1], &[1.0, 1.0]), AnalysisError::Csr { row: 1, .. }));
        assert!(matches!(check(&[0, 1, 2], &[0, 3], &[1.0, 1.0]), AnalysisError::Csr { row: 1, .. }));
        assert!(matches!(check(&[0, 1], &[0, 1], &[1.0]), AnalysisError::Length { .. }));
    }
}
