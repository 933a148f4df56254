//! Single elements.

use hdf5::Group;

use super::{create_group, frame, write_dict, write_encoded};
use crate::{Array, Column, Compression, Element, Layout, Result, Sparse, Values, h5};

/// Writes an element under a name.
pub(crate) fn write(parent: &Group, name: &str, element: &Element, compression: Compression) -> Result<()> {
    match element {
        Element::Null => {
            let dataset = h5::dataset::write_null(parent, name)?;
            h5::attribute::write_encoding(&dataset, "null", "0.1.0")
        }
        Element::Array(array) => write_array(parent, name, array, compression),
        Element::Sparse(sparse) => write_sparse(parent, name, sparse, compression),
        Element::Frame(frame) => frame::write(parent, name, frame, compression),
        Element::Column(column) => write_column(parent, name, column, compression),
        Element::Records(fields) => {
            let dataset = h5::record::write(parent, name, fields, compression)?;
            h5::attribute::write_encoding(&dataset, "rec-array", "0.2.0")
        }
        Element::Dict(dict) => write_dict(parent, name, dict, compression).map(drop),
        Element::Kept(kept) => kept.write(parent, name),
    }
}

/// Writes an array or scalar with the encoding of its kind.
pub(crate) fn write_array(parent: &Group, name: &str, array: &Array, compression: Compression) -> Result<()> {
    let kind = match (array.values(), array.shape()) {
        (Values::Str(_), []) => "string",
        (Values::Str(_), _) => "string-array",
        (_, []) => "numeric-scalar",
        _ => "array",
    };
    write_encoded(parent, name, array, (kind, "0.2.0"), compression)
}

/// Whether the indices of a sparse matrix are written in 32 bits, as scipy does wherever that suffices.
pub(crate) fn has_narrow_indices(n_stored: usize, (n_rows, n_cols): (usize, usize)) -> bool {
    [n_stored, n_rows, n_cols].iter().all(|&n| i32::try_from(n).is_ok())
}

/// Writes a sparse matrix in its own layout.
pub(crate) fn write_sparse(parent: &Group, name: &str, sparse: &Sparse, compression: Compression) -> Result<()> {
    let kind = match sparse.layout() {
        Layout::Csr => "csr_matrix",
        Layout::Csc => "csc_matrix",
    };
    let group = create_group(parent, name, kind, "0.1.0")?;
    let (n_rows, n_cols) = sparse.shape();
    h5::attribute::write(&group, "shape", &Array::vector(vec![n_rows as i64, n_cols as i64]))?;
    let (indptr, indices): (Values, Values) = if has_narrow_indices(sparse.values().len(), sparse.shape()) {
        let indptr: Vec<i32> = sparse.indptr().iter().map(|&start| start as i32).collect();
        let indices: Vec<i32> = sparse.indices().iter().map(|&index| index as i32).collect();
        (indptr.into(), indices.into())
    } else {
        let indptr: Vec<i64> = sparse.indptr().iter().map(|&start| start as i64).collect();
        let indices: Vec<i64> = sparse.indices().iter().map(|&index| i64::from(index)).collect();
        (indptr.into(), indices.into())
    };
    for (name, values) in [("data", sparse.values()), ("indices", &indices), ("indptr", &indptr)] {
        h5::dataset::write_values(&group, name, &[values.len()], values, compression)?;
    }
    Ok(())
}

/// Writes a column of a frame, or a categorical or nullable array on its own.
pub(crate) fn write_column(parent: &Group, name: &str, column: &Column, compression: Compression) -> Result<()> {
    match column {
        Column::Plain(values) => write_array(parent, name, &Array::vector(values.clone()), compression),
        Column::Categorical(categorical) => {
            let group = create_group(parent, name, "categorical", "0.2.0")?;
            h5::attribute::write(&group, "ordered", &Array::new(vec![], vec![categorical.ordered])?)?;
            let categories = Array::vector(categorical.categories().clone());
            write_array(&group, "categories", &categories, compression)?;
            let codes = narrow_codes(categorical.codes(), categories.values().len());
            write_array(&group, "codes", &Array::vector(codes), compression)
        }
        Column::Nullable { values, missing } => {
            let kind = match values {
                Values::Bool(_) => "nullable-boolean",
                Values::Str(_) => "nullable-string-array",
                _ => "nullable-integer",
            };
            let group = create_group(parent, name, kind, "0.1.0")?;
            write_array(&group, "values", &Array::vector(values.clone()), compression)?;
            write_array(&group, "mask", &Array::vector(missing.clone()), compression)
        }
        Column::Kept(kept) => kept.write(parent, name),
    }
}

/// Codes in the narrowest type that pandas would choose.
fn narrow_codes(codes: &[i32], n_categories: usize) -> Values {
    if n_categories <= 1 << 7 {
        Values::I8(codes.iter().map(|&code| code as i8).collect())
    } else if n_categories <= 1 << 15 {
        Values::I16(codes.iter().map(|&code| code as i16).collect())
    } else {
        Values::I32(codes.to_vec())
    }
}
