//! `X`, layers and pairwise matrices.

use std::ops::Range;

use hdf5::{Dataset, Group};

use super::element;
use crate::{Element, Error, Layout, Matrix, Result, Sparse, h5};

/// Parts of a sparse matrix in a file, opened and checked against each other but not read.
pub(crate) struct SparseParts {
    pub(crate) layout: Layout,
    pub(crate) n_rows: usize,
    pub(crate) n_cols: usize,
    pub(crate) data: Dataset,
    pub(crate) indices: Dataset,
    pub(crate) indptr: Dataset,
}

/// Reads a matrix of numbers.
pub(crate) fn read(parent: &Group, name: &str) -> Result<Matrix> {
    read_x(parent, name)?.ok_or_else(|| h5::malformed(parent, format!("`{name}` is empty, expected a matrix")))
}

/// Reads a matrix of numbers that may be `None`.
pub(crate) fn read_x(parent: &Group, name: &str) -> Result<Option<Matrix>> {
    match element::read_nearly(parent, name)? {
        Element::Null => Ok(None),
        Element::Sparse(sparse) => Ok(Some(Matrix::Sparse(sparse))),
        Element::Array(array) => Matrix::dense(array).map(Some).map_err(|error| match error {
            Error::Invalid { detail, .. } => h5::malformed(parent, format!("`{name}` is {detail}, expected a matrix")),
            other => other,
        }),
        Element::Kept(_) => Err(h5::unsupported(parent, format!("`{name}` holds values of an uncommon type"))),
        other => Err(h5::malformed(parent, format!("`{name}` is a {}, expected a matrix", other.kind()))),
    }
}

/// The layout and shape that a group's attributes announce, `None` if it is no sparse matrix.
pub(crate) fn sparse_header(group: &Group) -> Result<Option<(Layout, Vec<usize>)>> {
    let encoding = h5::attribute::text(group, "encoding-type")?;
    let (format, shape) = match encoding.as_deref() {
        Some("csr_matrix") => ("csr".to_owned(), "shape"),
        Some("csc_matrix") => ("csc".to_owned(), "shape"),
        // Before 0.7.
        _ => match h5::attribute::text(group, "h5sparse_format")? {
            Some(format) => (format, "h5sparse_shape"),
            None => return Ok(None),
        },
    };
    let layout = match &*format {
        "csr" => Layout::Csr,
        "csc" => Layout::Csc,
        other => return Err(h5::unsupported(group, format!("sparse format `{other}`"))),
    };
    let shape = h5::attribute::lengths(group, shape)?
        .ok_or_else(|| h5::malformed(group, format!("sparse matrix without attribute `{shape}`")))?;
    Ok(Some((layout, shape)))
}

/// Opens the parts of a sparse matrix and checks their lengths.
pub(crate) fn sparse_parts(group: &Group, layout: Layout, shape: &[usize]) -> Result<SparseParts> {
    let [n_rows, n_cols] = *shape else {
        return Err(h5::malformed(group, format!("sparse matrix of shape {shape:?}")));
    };
    let open = |name| h5::dataset::open(group, name);
    let parts =
        SparseParts { layout, n_rows, n_cols, data: open("data")?, indices: open("indices")?, indptr: open("indptr")? };
    let n_major = match layout {
        Layout::Csr => n_rows,
        Layout::Csc => n_cols,
    };
    let length = |dataset: &Dataset| match h5::dataset::shape(dataset)?[..] {
        [n] => Ok(n),
        ref other => Err(h5::malformed(dataset, format!("shape {other:?}, expected one dimension"))),
    };
    let (n_data, n_indices, n_indptr) = (length(&parts.data)?, length(&parts.indices)?, length(&parts.indptr)?);
    if n_data != n_indices || n_major.checked_add(1) != Some(n_indptr) {
        let detail = format!(
            "shape {n_rows} × {n_cols} with {n_data} values, {n_indices} indices and {n_indptr} entries in indptr"
        );
        return Err(h5::malformed(group, detail));
    }
    Ok(parts)
}

impl SparseParts {
    /// Reads `indptr`.
    pub(crate) fn read_indptr(&self) -> Result<Vec<usize>> {
        let n = h5::dataset::shape(&self.indptr)?[0];
        let raw: Vec<i64> = h5::dataset::slice(&self.indptr, 0..n)?;
        let starts: Option<Vec<usize>> = raw.into_iter().map(|start| usize::try_from(start).ok()).collect();
        starts.ok_or_else(|| h5::malformed(&self.indptr, "holds a negative number"))
    }

    /// Reads everything.
    pub(crate) fn read(&self, group: &Group) -> Result<Sparse> {
        let values = h5::dataset::read_container(&self.data)?.into_values();
        let indices: Vec<u32> = read_indices(&self.indices, 0..values.len())?;
        Sparse::new(self.layout, (self.n_rows, self.n_cols), self.read_indptr()?, indices, values)
            .map_err(|error| h5::malformed(group, error.to_string()))
    }
}

/// Reads column (or row) numbers, refusing what HDF5 would clip into range.
pub(crate) fn read_indices(dataset: &Dataset, range: Range<usize>) -> Result<Vec<u32>> {
    fn narrow<T: TryInto<u32>>(raw: Vec<T>) -> Option<Vec<u32>> {
        raw.into_iter().map(|index| index.try_into().ok()).collect()
    }
    let width = dataset.dtype().map_err(|source| h5::failed("read", dataset, source))?.size();
    let indices = match width {
        ..=4 => narrow(h5::dataset::slice::<i32>(dataset, range)?),
        _ => narrow(h5::dataset::slice::<i64>(dataset, range)?),
    };
    indices.ok_or_else(|| h5::malformed(dataset, "holds an index that is negative or beyond 32 bits"))
}
