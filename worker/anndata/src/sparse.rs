//! Sparse matrices as a file holds them: by rows or by columns, with their own element type.

use std::borrow::Cow;

use crate::{Csr, Error, Result, Values, csr::check_compressed};

/// Which axis a sparse matrix is compressed along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// By rows, `csr_matrix`.
    Csr,
    /// By columns, `csc_matrix`.
    Csc,
}

/// A sparse matrix that keeps its layout and element type; models take [`Sparse::to_csr`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    layout: Layout,
    n_rows: usize,
    n_cols: usize,
    indptr: Vec<usize>,
    indices: Vec<u32>,
    values: Values,
}

impl Sparse {
    /// # Errors
    /// When lengths disagree, `indptr` falls, an index is out of range, or the values are text.
    pub fn new(
        layout: Layout,
        (n_rows, n_cols): (usize, usize),
        indptr: Vec<usize>,
        indices: Vec<u32>,
        values: impl Into<Values>,
    ) -> Result<Self> {
        let values = values.into();
        let (kind, n_major, n_minor) = match layout {
            Layout::Csr => ("CSR matrix", n_rows, n_cols),
            Layout::Csc => ("CSC matrix", n_cols, n_rows),
        };
        check_compressed(kind, n_major, n_minor, &indptr, &indices, values.len())?;
        if u32::try_from(n_major).is_err() {
            return Err(Error::Invalid { kind, detail: format!("{n_major} rows or columns, beyond 32 bits") });
        }
        if matches!(values, Values::Str(_)) {
            return Err(Error::Invalid { kind, detail: "values are text".into() });
        }
        Ok(Self { layout, n_rows, n_cols, indptr, indices, values })
    }

    /// Compression axis.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// `(n_rows, n_cols)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.n_rows, self.n_cols)
    }

    /// Where each row (CSR) or column (CSC) starts.
    pub fn indptr(&self) -> &[usize] {
        &self.indptr
    }

    /// Column (CSR) or row (CSC) of each stored value.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The stored values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// As rows of `f32`; a matrix by columns is transposed with a counting sort (twice its memory while it runs).
    pub fn to_csr(&self) -> Csr {
        let by_rows = match self.layout {
            Layout::Csr => self.clone(),
            Layout::Csc => self.to_other_layout(),
        };
        let data = by_rows.values.to_f32().expect("text was refused on construction");
        Csr::new(self.n_rows, self.n_cols, by_rows.indptr, by_rows.indices, data)
            .expect("bounds were checked on construction")
    }

    /// The rows at `rows`, in that order, in the same layout.
    ///
    /// # Panics
    /// If a row is out of range.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        match self.layout {
            Layout::Csr => self.select_major(rows),
            Layout::Csc => self.to_other_layout().select_major(rows).to_other_layout(),
        }
    }

    /// The columns at `cols`, in that order, in the same layout.
    ///
    /// # Panics
    /// If a column is out of range.
    #[must_use]
    pub fn select_cols(&self, cols: &[usize]) -> Self {
        self.clone().into_transposed().select_rows(cols).into_transposed()
    }

    /// The same matrix by rows.
    pub(crate) fn by_rows(&self) -> Cow<'_, Self> {
        match self.layout {
            Layout::Csr => Cow::Borrowed(self),
            Layout::Csc => Cow::Owned(self.to_other_layout()),
        }
    }

    /// The transpose, made by reading the other axis; no value moves.
    #[must_use]
    pub fn into_transposed(self) -> Self {
        let layout = match self.layout {
            Layout::Csr => Layout::Csc,
            Layout::Csc => Layout::Csr,
        };
        Self { layout, n_rows: self.n_cols, n_cols: self.n_rows, ..self }
    }

    /// Rows (CSR) at `rows`.
    fn select_major(&self, rows: &[usize]) -> Self {
        let mut indptr = vec![0];
        let mut taken = Vec::new();
        for &row in rows {
            taken.extend(self.indptr[row]..self.indptr[row + 1]);
            indptr.push(taken.len());
        }
        let indices = taken.iter().map(|&at| self.indices[at]).collect();
        Self { n_rows: rows.len(), indptr, indices, values: self.values.gather(&taken), ..*self }
    }

    /// The same matrix compressed along the other axis (a counting sort).
    fn to_other_layout(&self) -> Self {
        let (layout, n_major) = match self.layout {
            Layout::Csr => (Layout::Csc, self.n_cols),
            Layout::Csc => (Layout::Csr, self.n_rows),
        };
        let mut indptr = vec![0; n_major + 1];
        for &index in &self.indices {
            indptr[index as usize + 1] += 1;
        }
        for at in 0..n_major {
            indptr[at + 1] += indptr[at];
        }
        let mut next = indptr.clone();
        let mut indices = vec![0; self.indices.len()];
        let mut order = vec![0; self.indices.len()];
        for (major, pair) in self.indptr.windows(2).enumerate() {
            for at in pair[0]..pair[1] {
                let slot = &mut next[self.indices[at] as usize];
                indices[*slot] = major as u32;
                order[*slot] = at;
                *slot += 1;
            }
        }
        Self { layout, indptr, indices, values: self.values.gather(&order), ..*self }
    }
}

impl From<Csr> for Sparse {
    fn from(csr: Csr) -> Self {
        let (n_rows, n_cols) = (csr.n_rows(), csr.n_cols());
        let (indptr, indices, data) = csr.into_parts();
        Self { layout: Layout::Csr, n_rows, n_cols, indptr, indices, values: Values::F32(data) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_columns() -> Sparse {
        // 1 0 2
        // 0 3 0
        Sparse::new(Layout::Csc, (2, 3), vec![0, 1, 2, 3], vec![0, 1, 0], vec![1_i32, 3, 2]).unwrap()
    }

    #[test]
    fn columns_become_rows() {
        assert_eq!(by_columns().to_csr().to_dense(), [1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
    }

    #[test]
    fn selected_rows_keep_their_type() {
        let rows = by_columns().select_rows(&[1, 0, 1]);
        assert_eq!((rows.layout(), rows.values()), (Layout::Csc, &Values::I32(vec![1, 3, 3, 2])));
        assert_eq!(rows.to_csr().to_dense(), [0.0, 3.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
    }

    #[test]
    fn bounds_follow_the_layout() {
        assert!(Sparse::new(Layout::Csc, (2, 3), vec![0, 1, 1, 1], vec![2], vec![1_i32]).is_err());
        assert!(Sparse::new(Layout::Csr, (2, 3), vec![0, 1, 1], vec![2], vec![1_i32]).is_ok());
    }

    #[test]
    fn the_transpose_of_the_transpose_is_the_same() {
        assert_eq!(by_columns().into_transposed().into_transposed(), by_columns());
        assert_eq!(by_columns().into_transposed().to_csr().to_dense(), [1.0, 0.0, 0.0, 3.0, 2.0, 0.0]);
    }
}
