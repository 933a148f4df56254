//! Things in a file that are not interpreted: copied as they stand, object by object, when a data set is written.

use std::{fmt, path::PathBuf};

use hdf5::{Group, Location};

use crate::{
    Array, Compression, Element, Layout, Result, awkward, h5,
    read::{element, matrix},
};

/// An object of a file that nobody looked into: where it lies, and which of its rows are taken.
///
/// The file stays open for as long as this lives. A file that was renamed over in the meantime is still read as it was.
#[derive(Clone)]
pub struct Kept {
    parent: Group,
    name: String,
    /// Rows that the object has, if it is of an encoding that has rows.
    n_rows: Option<usize>,
    /// The rows that are taken, in their order; all where nothing is said.
    rows: Option<Vec<usize>>,
}

impl fmt::Debug for Kept {
    /// What it is, not which file it is in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("object", &self.object()).field("n_rows", &self.n_rows()).finish_non_exhaustive()
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        (self.file(), self.object(), &self.rows) == (other.file(), other.object(), &other.rows)
    }
}

impl Kept {
    pub(crate) fn new(parent: &Group, name: &str) -> Result<Self> {
        let n_rows = n_rows(parent, name)?;
        Ok(Self { parent: parent.clone(), name: name.to_owned(), n_rows, rows: None })
    }

    /// Number of rows that are taken, if it is of an encoding that has rows.
    pub fn n_rows(&self) -> Option<usize> {
        self.rows.as_ref().map(Vec::len).or(self.n_rows)
    }

    /// The file that it lies in.
    pub fn file(&self) -> PathBuf {
        self.parent.filename().into()
    }

    /// Its place in that file.
    pub fn object(&self) -> String {
        format!("{}/{}", self.parent.name().trim_end_matches('/'), self.name)
    }

    /// The rows at `rows`, in that order; `None` for what has no rows.
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn select_rows(&self, rows: &[usize]) -> Option<Self> {
        let n_rows = self.n_rows()?;
        assert!(rows.iter().all(|&row| row < n_rows), "row out of range");
        let of = |row: &usize| self.rows.as_ref().map_or(*row, |taken| taken[*row]);
        Some(Self { rows: Some(rows.iter().map(of).collect()), ..self.clone() })
    }

    /// What it holds as far as it can be read: numbers of an uncommon type as the nearest common one. `None` where it cannot.
    ///
    /// # Errors
    /// When the file is malformed.
    pub(crate) fn read(&self) -> Result<Option<Element>> {
        let element = match element::read_nearly(&self.parent, &self.name)? {
            Element::Kept(_) => return Ok(None),
            element => element,
        };
        Ok(match &self.rows {
            Some(rows) => element.select_rows(rows),
            None => Some(element),
        })
    }

    /// Writes it under a name.
    pub(crate) fn write(&self, to: &Group, name: &str) -> Result<()> {
        match &self.rows {
            None => h5::raw::copy(&self.parent, &self.name, to, name),
            Some(rows) => copy_rows(&self.parent, &self.name, rows, to, name),
        }
    }
}

/// What the encoding of a group says about its rows.
enum Rows {
    /// One row per entry of these members; the others go with all rows.
    Members(Vec<String>),
    /// One row per entry of every member that is a dataset of as many.
    Frame,
    Awkward,
    Sparse,
    None,
}

fn rows_of(group: &Group) -> Result<Rows> {
    let members = |names: &[&str]| Rows::Members(names.iter().map(|&name| name.to_owned()).collect());
    if let Some((layout, _)) = matrix::sparse_header(group)? {
        return Ok(if layout == Layout::Csr { Rows::Sparse } else { Rows::None });
    }
    Ok(match h5::attribute::text(group, "encoding-type")?.as_deref() {
        Some("dataframe") => Rows::Frame,
        Some("categorical") => members(&["codes"]),
        Some(kind) if kind.starts_with("nullable-") => members(&["values", "mask"]),
        Some(awkward::ENCODING) => Rows::Awkward,
        _ => Rows::None,
    })
}

fn n_rows(parent: &Group, name: &str) -> Result<Option<usize>> {
    if !h5::is_group(parent, name)? {
        let Ok(dataset) = parent.dataset(name) else { return Ok(None) };
        return Ok(if h5::raw::has_rows(&dataset)? { h5::dataset::shape(&dataset)?.first().copied() } else { None });
    }
    let group = h5::group(parent, name)?;
    match rows_of(&group)? {
        Rows::Members(members) => {
            let lengths = members.iter().map(|member| n_rows(&group, member)).collect::<Result<Option<Vec<_>>>>()?;
            Ok(lengths.and_then(|lengths| lengths.first().copied()))
        }
        Rows::Frame => {
            let index = h5::attribute::text(&group, "_index")?.unwrap_or_default();
            let columns = h5::attribute::texts(&group, "column-order")?.unwrap_or_default();
            // Before anndata 0.8 a slash in a column's name made a group of it.
            let mut length = n_rows(&group, &index)?.filter(|_| columns.iter().all(|column| !column.contains('/')));
            for column in columns {
                length = length.filter(|_| n_rows(&group, &column).is_ok_and(|found| found == length));
            }
            Ok(length)
        }
        Rows::Awkward => awkward::n_rows(&group),
        Rows::Sparse => Ok(matrix::sparse_header(&group)?.and_then(|(_, shape)| shape.first().copied())),
        Rows::None => Ok(None),
    }
}

fn copy_rows(parent: &Group, name: &str, rows: &[usize], to: &Group, new_name: &str) -> Result<()> {
    if !h5::is_group(parent, name)? {
        let dataset = parent.dataset(name).map_err(|source| h5::failed_at("open", parent, name, source))?;
        return h5::raw::copy_rows(&dataset, rows, to, new_name);
    }
    let from = h5::group(parent, name)?;
    let group = to.create_group(new_name).map_err(|source| h5::failed_at("write", to, new_name, source))?;
    match rows_of(&from)? {
        Rows::Awkward => {
            h5::raw::copy_attributes(&from, &group, &["length"])?;
            awkward::copy_rows(&from, rows, &group)
        }
        Rows::Sparse => copy_sparse_rows(&from, rows, &group),
        Rows::Members(with_rows) => copy_members(&from, rows, &group, |member| with_rows.iter().any(|m| m == member)),
        // What stands in a frame beside its columns (the tables of categories of anndata 0.7) is of no row.
        Rows::Frame => {
            let index = h5::attribute::text(&from, "_index")?.unwrap_or_default();
            let columns = h5::attribute::texts(&from, "column-order")?.unwrap_or_default();
            copy_members(&from, rows, &group, |member| member == index || columns.iter().any(|c| c == member))
        }
        Rows::None => Err(h5::unsupported(&from, "an object without rows")),
    }
}

/// Copies a group: rows of the members that have rows, and the others whole.
fn copy_members(from: &Group, rows: &[usize], to: &Group, has_rows: impl Fn(&str) -> bool) -> Result<()> {
    h5::raw::copy_attributes(from, to, &[])?;
    for member in h5::names(from)? {
        match has_rows(&member) {
            true => copy_rows(from, &member, rows, to, &member)?,
            false => h5::raw::copy(from, &member, to, &member)?,
        }
    }
    Ok(())
}

/// Rows of a matrix by rows, whose values are of a type that is not known here.
fn copy_sparse_rows(from: &Group, rows: &[usize], to: &Group) -> Result<()> {
    let header = matrix::sparse_header(from)?;
    let (layout, mut shape) = header.ok_or_else(|| h5::malformed(from, "expected a sparse matrix"))?;
    let parts = matrix::sparse_parts(from, layout, &shape)?;
    let (indptr, n_values) = (parts.read_indptr()?, h5::dataset::shape(&parts.data)?[0]);
    if !indptr.is_sorted() || indptr.last().is_some_and(|&last| last > n_values) {
        return Err(h5::malformed(&parts.indptr, format!("does not ascend to {n_values}")));
    }
    let taken: Vec<usize> = rows.iter().flat_map(|&row| indptr[row]..indptr[row + 1]).collect();
    h5::raw::copy_rows(&parts.data, &taken, to, "data")?;
    h5::raw::copy_rows(&parts.indices, &taken, to, "indices")?;
    let ends = rows.iter().scan(0_i64, |end, &row| {
        *end += (indptr[row + 1] - indptr[row]) as i64;
        Some(*end)
    });
    let starts: Vec<i64> = std::iter::once(0).chain(ends).collect();
    h5::dataset::write(to, "indptr", &Array::vector(starts), Compression::None)?;
    let name = if shape_is_old(from)? { "h5sparse_shape" } else { "shape" };
    shape[0] = rows.len();
    h5::attribute::write(to, name, &Array::vector(shape.iter().map(|&n| n as i64).collect::<Vec<_>>()))?;
    h5::raw::copy_attributes(from, to, &[])
}

/// Whether the shape stands where it stood before anndata 0.7.
fn shape_is_old(group: &Location) -> Result<bool> {
    Ok(h5::attribute::names(group)?.iter().any(|name| name == "h5sparse_shape"))
}
