//! What may stand under a key: matrices, and the wider set of things that `uns` and `obsm` hold.

use std::collections::BTreeMap;

use crate::{Array, Column, Csr, DataFrame, Error, Kept, Result, Sparse, Values};

/// Named elements in the order of their names, which is also the order of a file.
pub type Dict = BTreeMap<String, Element>;

/// `X`, a layer, or a pairwise matrix.
#[derive(Debug, Clone, PartialEq)]
pub enum Matrix {
    /// Two-dimensional and of numbers.
    Dense(Array),
    /// By rows or by columns.
    Sparse(Sparse),
}

/// Anything an h5ad file can hold under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    /// Python's `None`.
    Null,
    /// An array or a scalar.
    Array(Array),
    /// A sparse matrix.
    Sparse(Sparse),
    /// A data frame.
    Frame(DataFrame),
    /// A categorical or nullable array on its own.
    Column(Column),
    /// A one-dimensional record array (scanpy's `rank_genes_groups`): named fields of equal length.
    Records(Vec<(String, Values)>),
    /// A nested dictionary.
    Dict(Dict),
    /// What this crate does not interpret (awkward arrays, complex numbers, opaque bytes …), copied when it is written.
    Kept(Kept),
}

impl Matrix {
    /// A dense matrix of numbers.
    ///
    /// # Errors
    /// When `array` is not two-dimensional or holds text.
    pub fn dense(array: Array) -> Result<Self> {
        if array.shape().len() != 2 || matches!(array.values(), Values::Str(_)) {
            let detail = format!("{} of shape {:?}", array.values().dtype(), array.shape());
            return Err(Error::Invalid { kind: "matrix", detail });
        }
        Ok(Self::Dense(array))
    }

    /// `(n_rows, n_cols)`.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Dense(array) => (array.shape()[0], array.shape()[1]),
            Self::Sparse(sparse) => sparse.shape(),
        }
    }

    /// Name of the element type, such as `float32`.
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::Dense(array) => array.values().dtype(),
            Self::Sparse(sparse) => sparse.values().dtype(),
        }
    }

    /// As rows of `f32`, whatever the layout and element type.
    ///
    /// # Errors
    /// When a dense matrix has more columns than `u32` can count.
    pub fn to_csr(&self) -> Result<Csr> {
        match self {
            Self::Dense(array) => {
                let (n_rows, n_cols) = self.shape();
                let values = array.values().to_f32().ok_or_else(|| Error::Kind {
                    name: "matrix".into(),
                    found: array.values().dtype().into(),
                    expected: "numbers",
                })?;
                Csr::from_dense(n_rows, n_cols, &values)
            }
            Self::Sparse(sparse) => Ok(sparse.to_csr()),
        }
    }

    /// The rows at `rows`, in that order, in the same layout.
    ///
    /// # Panics
    /// If a row is out of range.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::Dense(array) => Self::Dense(array.select_rows(rows)),
            Self::Sparse(sparse) => Self::Sparse(sparse.select_rows(rows)),
        }
    }

    /// The columns at `cols`, in that order, in the same layout.
    ///
    /// # Panics
    /// If a column is out of range.
    #[must_use]
    pub fn select_cols(&self, cols: &[usize]) -> Self {
        match self {
            Self::Dense(array) => {
                let (n_rows, n_cols) = self.shape();
                let positions: Vec<usize> =
                    (0..n_rows).flat_map(|row| cols.iter().map(move |&col| row * n_cols + col)).collect();
                assert!(cols.iter().all(|&col| col < n_cols), "column out of range");
                let values = array.values().gather(&positions);
                Self::Dense(Array::matrix(n_rows, cols.len(), values).expect("one value per row and column"))
            }
            Self::Sparse(sparse) => Self::Sparse(sparse.select_cols(cols)),
        }
    }
}

impl From<Csr> for Matrix {
    fn from(csr: Csr) -> Self {
        Self::Sparse(csr.into())
    }
}

impl From<Sparse> for Matrix {
    fn from(sparse: Sparse) -> Self {
        Self::Sparse(sparse)
    }
}

impl Element {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Array(array) if array.shape().is_empty() => "scalar",
            Self::Array(_) => "array",
            Self::Sparse(_) => "sparse matrix",
            Self::Frame(_) => "data frame",
            Self::Column(_) => "column",
            Self::Records(_) => "record array",
            Self::Dict(_) => "dictionary",
            Self::Kept(_) => "kept object",
        }
    }

    /// Length of the first axis, where it has one.
    pub fn n_rows(&self) -> Option<usize> {
        match self {
            Self::Array(array) => array.shape().first().copied(),
            Self::Sparse(sparse) => Some(sparse.shape().0),
            Self::Frame(frame) => Some(frame.n_rows()),
            Self::Column(column) => Some(column.len()),
            Self::Records(fields) => fields.first().map(|(_, values)| values.len()),
            Self::Kept(kept) => kept.n_rows(),
            Self::Null | Self::Dict(_) => None,
        }
    }

    /// The rows at `rows`, in that order; `None` for what has no rows.
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn select_rows(&self, rows: &[usize]) -> Option<Self> {
        self.n_rows()?;
        Some(match self {
            Self::Array(array) => Self::Array(array.select_rows(rows)),
            Self::Sparse(sparse) => Self::Sparse(sparse.select_rows(rows)),
            Self::Frame(frame) => Self::Frame(frame.select_rows(rows)),
            Self::Column(column) => Self::Column(column.select_rows(rows)),
            Self::Records(fields) => {
                Self::Records(fields.iter().map(|(name, values)| (name.clone(), values.gather(rows))).collect())
            }
            Self::Kept(kept) => Self::Kept(kept.select_rows(rows)?),
            Self::Null | Self::Dict(_) => return None,
        })
    }

    /// Numbers in two dimensions with column names where they are known: an embedding, or a table of features.
    ///
    /// # Errors
    /// [`Error::Kind`] when it is not a numeric matrix, vector or data frame.
    pub fn to_table(&self, name: &str) -> Result<Table> {
        let kind = |found: String| Error::Kind { name: name.to_owned(), found, expected: "a numeric matrix" };
        let (n_rows, n_cols, values, columns) = match self {
            Self::Array(array) if matches!(array.shape().len(), 1 | 2) => {
                let n_cols = array.shape().get(1).copied().unwrap_or(1);
                let values = array.values().to_f32().ok_or_else(|| kind("text".into()))?;
                (array.shape()[0], n_cols, values, None)
            }
            Self::Sparse(sparse) => (sparse.shape().0, sparse.shape().1, sparse.to_csr().to_dense(), None),
            Self::Frame(frame) => {
                let n_cols = frame.columns().len();
                let mut values = vec![0.0; frame.n_rows() * n_cols];
                for (at, (column_name, column)) in frame.columns().iter().enumerate() {
                    let numbers = column.to_f64().ok_or_else(|| kind(format!("text in column `{column_name}`")))?;
                    for (row, number) in numbers.into_iter().enumerate() {
                        values[row * n_cols + at] = number as f32;
                    }
                }
                (frame.n_rows(), n_cols, values, Some(frame.column_names()))
            }
            Self::Kept(kept) => {
                let element = kept.read()?.ok_or_else(|| kind(self.kind().into()))?;
                return element.to_table(name);
            }
            other => return Err(kind(other.kind().into())),
        };
        Ok(Table { n_rows, n_cols, values, columns })
    }
}

/// A dense numeric view of an element.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Number of rows (cells).
    pub n_rows: usize,
    /// Number of columns.
    pub n_cols: usize,
    /// Row-major, `n_rows * n_cols`.
    pub values: Vec<f32>,
    /// Column names, where the element has them.
    pub columns: Option<Vec<String>>,
}

impl From<Array> for Element {
    fn from(array: Array) -> Self {
        Self::Array(array)
    }
}

impl From<DataFrame> for Element {
    fn from(frame: DataFrame) -> Self {
        Self::Frame(frame)
    }
}

impl From<Dict> for Element {
    fn from(dict: Dict) -> Self {
        Self::Dict(dict)
    }
}

impl From<Csr> for Element {
    fn from(csr: Csr) -> Self {
        Self::Sparse(csr.into())
    }
}

impl From<&str> for Element {
    fn from(text: &str) -> Self {
        Self::Array(Array::text(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_sparse_and_dense_agree() {
        let dense = vec![1_i32, 0, 2, 0, 3, 0];
        let array = Matrix::dense(Array::matrix(2, 3, dense).unwrap()).unwrap();
        let sparse = Matrix::from(array.to_csr().unwrap());
        let expected = [2.0, 1.0, 0.0, 0.0];
        assert_eq!(array.select_cols(&[2, 0]).to_csr().unwrap().to_dense(), expected);
        assert_eq!(sparse.select_cols(&[2, 0]).to_csr().unwrap().to_dense(), expected);
    }

    #[test]
    fn a_frame_of_proteins_is_a_table() {
        let mut frame = DataFrame::new(["a", "b"]);
        frame.insert("CD3", vec![1_i32, 2]).unwrap();
        frame.insert("CD4", vec![3.5_f32, 4.0]).unwrap();
        let table = Element::from(frame).to_table("protein_expression").unwrap();
        assert_eq!((table.values, table.columns), (vec![1.0, 3.5, 2.0, 4.0], Some(vec!["CD3".into(), "CD4".into()])));
        assert!(Element::from("x").to_table("title").is_err());
    }

    #[test]
    fn a_matrix_has_two_dimensions_of_numbers() {
        assert!(Matrix::dense(Array::vector(vec![1.0_f32])).is_err());
        assert!(Matrix::dense(Array::matrix(1, 1, vec!["a"]).unwrap()).is_err());
    }
}
