//! Compressed sparse rows of `f32`: the form in which counts travel from file to model.

use crate::{Access, CsrBuilder, Error, Result, Storage, Stored};

/// A sparse matrix by rows: cells × genes, whatever the file held.
///
/// Always true of a value of this type: `indptr` has `n_rows + 1` entries, starts at 0 and never falls; the columns of
/// a row ascend without repeats and are below `n_cols`. Stored zeros are allowed.
///
/// The stored values lie in memory, or in scratch files where a [`CsrBuilder`] was given a [`Storage`] that they do not fit
/// into. Clones share them.
#[derive(Debug, Clone)]
pub struct Csr {
    n_rows: usize,
    n_cols: usize,
    indptr: Stored<usize>,
    indices: Stored<u32>,
    data: Stored<f32>,
    storage: Option<Storage>,
}

impl PartialEq for Csr {
    fn eq(&self, other: &Self) -> bool {
        (self.n_cols, &self.indptr) == (other.n_cols, &other.indptr)
            && self.indices == other.indices
            && self.data == other.data
    }
}

impl Csr {
    /// Checks the parts; columns of a row may come in any order, and repeated ones are summed (as scipy reads them).
    ///
    /// # Errors
    /// When lengths disagree, `indptr` falls, or a column is out of range.
    pub fn new(n_rows: usize, n_cols: usize, indptr: Vec<usize>, indices: Vec<u32>, data: Vec<f32>) -> Result<Self> {
        check_compressed("CSR matrix", n_rows, n_cols, &indptr, &indices, data.len())?;
        let mut csr = Self::in_memory(n_cols, indptr, indices, data);
        if (0..n_rows).any(|row| !csr.row(row).0.is_sorted_by(|a, b| a < b)) {
            csr.sort_rows();
        }
        Ok(csr)
    }

    /// The matrix without a stored value.
    pub fn zeros(n_rows: usize, n_cols: usize) -> Self {
        Self::in_memory(n_cols, vec![0; n_rows + 1], Vec::new(), Vec::new())
    }

    fn in_memory(n_cols: usize, indptr: Vec<usize>, indices: Vec<u32>, data: Vec<f32>) -> Self {
        let n_rows = indptr.len() - 1;
        Self { n_rows, n_cols, indptr: indptr.into(), indices: indices.into(), data: data.into(), storage: None }
    }

    /// What a builder made of valid rows.
    pub(crate) fn built(
        n_cols: usize,
        indptr: Vec<usize>,
        indices: Stored<u32>,
        data: Stored<f32>,
        storage: Storage,
    ) -> Self {
        Self { n_rows: indptr.len() - 1, n_cols, indptr: indptr.into(), indices, data, storage: Some(storage) }
    }

    /// Keeps what is not zero of a row-major matrix.
    ///
    /// # Errors
    /// When `dense` does not hold `n_rows * n_cols` values, or there are more columns than `u32` can count.
    pub fn from_dense(n_rows: usize, n_cols: usize, dense: &[f32]) -> Result<Self> {
        if n_rows.checked_mul(n_cols) != Some(dense.len()) || u32::try_from(n_cols).is_err() {
            return Err(invalid("CSR matrix", format!("{n_rows} × {n_cols} from {} values", dense.len())));
        }
        let (mut indptr, mut indices, mut data) = (vec![0; n_rows + 1], Vec::new(), Vec::new());
        for row in 0..n_rows {
            for (col, &value) in dense[row * n_cols..(row + 1) * n_cols].iter().enumerate() {
                if value != 0.0 {
                    indices.push(col as u32);
                    data.push(value);
                }
            }
            indptr[row + 1] = data.len();
        }
        Ok(Self::in_memory(n_cols, indptr, indices, data))
    }

    /// Lays matrices of equal width below each other.
    ///
    /// # Errors
    /// When widths differ.
    pub fn vstack(n_cols: usize, parts: impl IntoIterator<Item = Self>) -> Result<Self> {
        let mut all = CsrBuilder::new(n_cols, &Storage::memory(), 0);
        for part in parts {
            all.push(&part)?;
        }
        all.finish()
    }

    /// Number of rows (cells).
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Number of columns (genes).
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Number of stored values.
    pub fn nnz(&self) -> usize {
        self.data.len()
    }

    /// Where each row starts in `indices` and `data`; the last entry is `nnz()`.
    pub fn indptr(&self) -> &[usize] {
        &self.indptr
    }

    /// Columns of the stored values, row after row.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The stored values, row after row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// `(indptr, indices, data)`.
    pub fn into_parts(self) -> (Vec<usize>, Vec<u32>, Vec<f32>) {
        (self.indptr.into_vec(), self.indices.into_vec(), self.data.into_vec())
    }

    /// The storage that it was built in; what is derived from it row by row may go there as well. Memory if it was not.
    pub fn storage(&self) -> Storage {
        self.storage.clone().unwrap_or_else(Storage::memory)
    }

    /// Whether some of it lies in scratch files.
    pub fn is_spilled(&self) -> bool {
        self.indices.is_spilled() || self.data.is_spilled()
    }

    /// Tells the system in what order rows will be read; it changes nothing but speed.
    pub fn expect(&self, access: Access) {
        self.indices.expect(access);
        self.data.expect(access);
    }

    /// Tells the system that a row will be wanted soon; it does not wait for it.
    ///
    /// # Panics
    /// If `row` is not below `n_rows()`.
    pub fn will_need(&self, row: usize) {
        let range = self.indptr[row]..self.indptr[row + 1];
        self.indices.will_need(range.clone());
        self.data.will_need(range);
    }

    /// Columns and values of one row.
    ///
    /// # Panics
    /// If `row` is not below `n_rows()`.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.indptr[row]..self.indptr[row + 1];
        (&self.indices[range.clone()], &self.data[range])
    }

    /// The value at a position, zero where none is stored.
    ///
    /// # Panics
    /// If `row` is not below `n_rows()`.
    pub fn value(&self, row: usize, col: u32) -> f32 {
        let (cols, values) = self.row(row);
        cols.binary_search(&col).map_or(0.0, |at| values[at])
    }

    /// The rows at `rows`, in that order; a row may be taken more than once.
    ///
    /// # Panics
    /// If a row is out of range.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        let nnz = rows.iter().map(|&row| self.row(row).0.len()).sum();
        let (mut indices, mut data) = (Vec::with_capacity(nnz), Vec::with_capacity(nnz));
        let mut indptr = Vec::with_capacity(rows.len() + 1);
        indptr.push(0);
        for &row in rows {
            let (cols, values) = self.row(row);
            indices.extend_from_slice(cols);
            data.extend_from_slice(values);
            indptr.push(data.len());
        }
        Self::in_memory(self.n_cols, indptr, indices, data)
    }

    /// The rows at `rows`, in the storage of this matrix; all of them in order share its values.
    ///
    /// # Errors
    /// [`Error::Scratch`] when they do not fit into memory and the disk does not take them.
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn select_rows_stored(&self, rows: &[usize]) -> Result<Self> {
        if rows.iter().copied().eq(0..self.n_rows) {
            return Ok(self.clone());
        }
        let nnz = rows.iter().map(|&row| self.row(row).0.len()).sum();
        let mut selected = CsrBuilder::new(self.n_cols, &self.storage(), nnz);
        for some in rows.chunks(ROWS_AT_ONCE) {
            selected.push(&self.select_rows(some))?;
        }
        selected.finish()
    }

    /// The columns at `cols`, in that order.
    ///
    /// # Errors
    /// When a column is out of range or taken twice.
    pub fn select_cols(&self, cols: &[usize]) -> Result<Self> {
        let mut targets = vec![None; self.n_cols];
        for (new, &old) in cols.iter().enumerate() {
            match targets.get_mut(old) {
                Some(slot @ None) => *slot = Some(new as u32),
                Some(Some(_)) => return Err(invalid("column selection", format!("column {old} is taken twice"))),
                None => return Err(invalid("column selection", format!("column {old} of {}", self.n_cols))),
            }
        }
        self.map_cols(&targets, cols.len())
    }

    /// Sends column `j` to `targets[j]`; `None` drops it, and columns with one target are summed.
    ///
    /// # Errors
    /// When `targets` has not one entry per column, or names one that is not below `n_cols`.
    pub fn map_cols(&self, targets: &[Option<u32>], n_cols: usize) -> Result<Self> {
        if targets.len() != self.n_cols {
            return Err(invalid("column map", format!("{} entries for {} columns", targets.len(), self.n_cols)));
        }
        let mut indptr = Vec::with_capacity(self.n_rows + 1);
        indptr.push(0);
        let (mut indices, mut data) = (Vec::new(), Vec::new());
        for row in 0..self.n_rows {
            let (cols, values) = self.row(row);
            for (&col, &value) in cols.iter().zip(values) {
                if let Some(target) = targets[col as usize] {
                    indices.push(target);
                    data.push(value);
                }
            }
            indptr.push(data.len());
        }
        Self::new(self.n_rows, n_cols, indptr, indices, data)
    }

    /// Sum of each row (library size of each cell where rows are counts).
    pub fn row_sums(&self) -> Vec<f64> {
        (0..self.n_rows).map(|row| self.row(row).1.iter().map(|&x| f64::from(x)).sum()).collect()
    }

    /// Row-major values, `n_rows * n_cols` of them.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.n_rows * self.n_cols];
        for row in 0..self.n_rows {
            let (cols, values) = self.row(row);
            for (&col, &value) in cols.iter().zip(values) {
                dense[row * self.n_cols + col as usize] = value;
            }
        }
        dense
    }

    fn sort_rows(&mut self) {
        let (mut indices, mut data) = (Vec::with_capacity(self.nnz()), Vec::with_capacity(self.nnz()));
        let mut indptr = vec![0];
        for row in 0..self.n_rows {
            let (cols, values) = self.row(row);
            let mut entries: Vec<(u32, f32)> = cols.iter().copied().zip(values.iter().copied()).collect();
            entries.sort_by_key(|&(col, _)| col);
            let start = indices.len();
            for (col, value) in entries {
                if indices.len() > start && indices.last() == Some(&col) {
                    *data.last_mut().expect("data grows with indices") += value;
                } else {
                    indices.push(col);
                    data.push(value);
                }
            }
            indptr.push(data.len());
        }
        (self.indptr, self.indices, self.data) = (indptr.into(), indices.into(), data.into());
    }
}

/// Rows that are in memory while a selection is made.
const ROWS_AT_ONCE: usize = 4096;

/// What every compressed matrix must satisfy; `n_major` counts what `indptr` runs over.
pub(crate) fn check_compressed(
    kind: &'static str,
    n_major: usize,
    n_minor: usize,
    indptr: &[usize],
    indices: &[u32],
    n_values: usize,
) -> Result<()> {
    if n_major.checked_add(1) != Some(indptr.len()) {
        return Err(invalid(kind, format!("indptr has {} entries, expected {n_major} + 1", indptr.len())));
    }
    if indptr.first() != Some(&0) || indptr.last() != Some(&n_values) || indices.len() != n_values {
        let (first, last) = (indptr.first(), indptr.last());
        let detail =
            format!("indptr runs from {first:?} to {last:?} over {} indices and {n_values} values", indices.len());
        return Err(invalid(kind, detail));
    }
    if let Some(at) = indptr.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(invalid(kind, format!("indptr falls after entry {at}")));
    }
    if let Some(&index) = indices.iter().find(|&&index| index as usize >= n_minor) {
        return Err(invalid(kind, format!("index {index} in an axis of {n_minor}")));
    }
    Ok(())
}

fn invalid(kind: &'static str, detail: String) -> Error {
    Error::Invalid { kind, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Csr {
        // 1 0 2
        // 0 0 0
        // 0 3 4
        Csr::new(3, 3, vec![0, 2, 2, 4], vec![0, 2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap()
    }

    #[test]
    fn broken_parts_are_refused() {
        for (indptr, indices, data) in [
            (vec![0, 1], vec![0], vec![1.0]),
            (vec![0, 2, 1], vec![0], vec![1.0]),
            (vec![1, 1, 1], vec![0], vec![1.0]),
            (vec![0, 1, 1], vec![2], vec![1.0]),
            (vec![0, 1, 2], vec![0, 1], vec![1.0]),
            (vec![0, 1, 2], vec![0], vec![1.0, 2.0]),
        ] {
            assert!(Csr::new(2, 2, indptr.clone(), indices, data).is_err(), "{indptr:?}");
        }
        assert!(Csr::new(usize::MAX, 1, vec![0], vec![], vec![]).is_err());
    }

    #[test]
    fn unsorted_rows_are_sorted_and_repeats_summed() {
        let csr = Csr::new(2, 3, vec![0, 3, 4], vec![2, 0, 2, 1], vec![1.0, 5.0, 2.0, 7.0]).unwrap();
        assert_eq!(csr.row(0), (&[0, 2][..], &[5.0, 3.0][..]));
        assert_eq!(csr.row(1), (&[1][..], &[7.0][..]));
    }

    #[test]
    fn rows_and_columns_are_selected() {
        let csr = example();
        assert_eq!(csr.select_rows(&[2, 0]).to_dense(), [0.0, 3.0, 4.0, 1.0, 0.0, 2.0]);
        assert_eq!(csr.select_cols(&[2, 1]).unwrap().to_dense(), [2.0, 0.0, 0.0, 0.0, 4.0, 3.0]);
        assert!(csr.select_cols(&[3]).is_err());
        assert!(csr.select_cols(&[1, 1]).is_err());
    }

    #[test]
    fn columns_with_one_target_are_summed() {
        let summed = example().map_cols(&[Some(0), None, Some(0)], 1).unwrap();
        assert_eq!(summed.to_dense(), [3.0, 0.0, 4.0]);
        assert!(example().map_cols(&[Some(5), None, None], 1).is_err());
        assert!(example().map_cols(&[None], 1).is_err());
    }

    #[test]
    fn row_sums_and_values() {
        assert_eq!(example().row_sums(), [3.0, 0.0, 7.0]);
        assert_eq!((example().value(2, 1), example().value(1, 1)), (3.0, 0.0));
    }

    #[test]
    fn stacking_concatenates_rows() {
        let stacked = Csr::vstack(3, [example(), Csr::zeros(1, 3), example()]).unwrap();
        assert_eq!(stacked.n_rows(), 7);
        assert_eq!(stacked.row(6), example().row(2));
        assert!(Csr::vstack(2, [example()]).is_err());
    }
}
