//! Decides what an object of a file is, by its encoding and, in old files, by its form.

use hdf5::{Dataset, Group, Location};

use super::{frame, legacy, matrix};
use crate::{Array, Categorical, Column, Dict, Element, Error, Kept, Result, Values, awkward, h5};

/// Groups inside groups beyond this depth are refused, so that links in a circle end.
const MAX_DEPTH: usize = 32;

/// Objects below one key beyond this number are refused, so that links which multiply objects end.
const MAX_OBJECTS: usize = 1 << 16;

/// Reads whatever is called `name`. What would not be written again as it is, is kept and not read.
pub(crate) fn read(parent: &Group, name: &str) -> Result<Element> {
    Walk { depth: 0, n_objects: 0, reading: Reading::Exact }.read(parent, name)
}

/// Reads the members of a group that is a dictionary by its place, whatever it says of itself.
pub(crate) fn read_members(parent: &Group, name: &str) -> Result<Element> {
    let members = Walk { depth: 0, n_objects: 0, reading: Reading::Exact }.read_members(&h5::group(parent, name)?);
    members.map(Element::Dict)
}

/// The same with numbers of uncommon types as the nearest common ones.
pub(crate) fn read_nearly(parent: &Group, name: &str) -> Result<Element> {
    Walk { depth: 0, n_objects: 0, reading: Reading::Near }.read(parent, name)
}

/// What is read of objects that have no exact counterpart here.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// Nothing: they are kept.
    Exact,
    /// What comes nearest.
    Near,
}

/// Where a reading stands in nested groups.
struct Walk {
    depth: usize,
    n_objects: usize,
    reading: Reading,
}

impl Walk {
    fn read(&mut self, parent: &Group, name: &str) -> Result<Element> {
        self.n_objects += 1;
        if self.depth > MAX_DEPTH {
            return Err(h5::malformed(parent, format!("nested deeper than {MAX_DEPTH} groups")));
        }
        if self.n_objects > MAX_OBJECTS {
            return Err(h5::malformed(parent, format!("more than {MAX_OBJECTS} objects below one key")));
        }
        let read = if h5::is_group(parent, name)? {
            self.read_group(parent, &h5::group(parent, name)?, name)
        } else if h5::is_dataset(parent, name)? {
            h5::dataset::open(parent, name).and_then(|dataset| read_dataset(&dataset, self.reading))
        } else {
            return Kept::new(parent, name).map(Element::Kept);
        };
        match read {
            Err(Error::Unsupported { .. }) => Kept::new(parent, name).map(Element::Kept),
            read => read,
        }
    }

    fn read_group(&mut self, parent: &Group, group: &Group, name: &str) -> Result<Element> {
        if self.reading == Reading::Exact {
            refuse_unknown_attributes(group)?;
        }
        if let Some((layout, shape)) = matrix::sparse_header(group)? {
            let parts = matrix::sparse_parts(group, layout, &shape)?;
            if self.reading == Reading::Exact {
                h5::dataset::refuse_inexact(&parts.data)?;
            }
            return Ok(Element::Sparse(parts.read(group)?));
        }
        let encoding = h5::attribute::text(group, "encoding-type")?;
        Ok(match encoding.as_deref() {
            None | Some("dict" | "") => Element::Dict(self.read_members(group)?),
            Some("dataframe") if self.reading == Reading::Exact && !frame::has_text_index(group)? => {
                return Err(h5::unsupported(group, "a frame whose index is not text"));
            }
            Some("dataframe") => Element::Frame(frame::read(parent, name)?),
            Some("categorical") => Element::Column(read_categorical(group)?),
            Some(kind) if kind.starts_with("nullable-") => Element::Column(read_nullable(group)?),
            Some(awkward::ENCODING) => return Err(h5::unsupported(group, "an awkward array")),
            Some(other) => return Err(h5::unsupported(group, format!("encoding `{other}`"))),
        })
    }

    fn read_members(&mut self, group: &Group) -> Result<Dict> {
        self.depth += 1;
        let members = h5::names(group)?.into_iter().map(|name| Ok((name.clone(), self.read(group, &name)?))).collect();
        self.depth -= 1;
        members
    }
}

fn read_dataset(dataset: &Dataset, reading: Reading) -> Result<Element> {
    let encoding = h5::attribute::text(dataset, "encoding-type")?.unwrap_or_default();
    if reading == Reading::Exact {
        refuse_unknown_attributes(dataset)?;
        const KNOWN: [&str; 7] = ["", "array", "string-array", "numeric-scalar", "string", "rec-array", "null"];
        if !KNOWN.contains(&&*encoding) {
            return Err(h5::unsupported(dataset, format!("encoding `{encoding}`")));
        }
    }
    if h5::dataset::is_null(dataset)? {
        // Only anndata since 0.12 writes `None` so, with an encoding; others mean something else by an empty space.
        return match encoding == "null" || reading == Reading::Near {
            true => Ok(Element::Null),
            false => Err(h5::unsupported(dataset, "an empty space without an encoding")),
        };
    }
    match h5::record::compound(dataset)? {
        // Complex numbers are pairs in the file as well.
        Some(_) if reading == Reading::Exact && encoding != "rec-array" => {
            Err(h5::unsupported(dataset, "records without an encoding"))
        }
        Some(compound) => {
            let fields = h5::record::read(dataset, &compound)?;
            // Fields that are arrays themselves (the oldest obsm) have no place in a record of scalars.
            match fields.iter().any(|(_, array)| array.shape().len() != 1) {
                true if reading == Reading::Exact => Err(h5::unsupported(dataset, "records of arrays")),
                true => Ok(Element::Dict(fields.into_iter().map(|(name, array)| (name, array.into())).collect())),
                false => {
                    Ok(Element::Records(fields.into_iter().map(|(name, array)| (name, array.into_values())).collect()))
                }
            }
        }
        None => {
            if reading == Reading::Exact {
                h5::dataset::refuse_inexact(dataset)?;
            }
            Ok(Element::Array(h5::dataset::read_container(dataset)?))
        }
    }
}

/// What would be lost by reading and writing an object of a known encoding.
fn refuse_unknown_attributes(object: &Location) -> Result<()> {
    const KNOWN: [&str; 8] = [
        "encoding-type",
        "encoding-version",
        "shape",
        "h5sparse_format",
        "h5sparse_shape",
        "_index",
        "column-order",
        "ordered",
    ];
    match h5::attribute::names(object)?.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        Some(unknown) => Err(h5::unsupported(object, format!("attribute `{unknown}`"))),
        None => Ok(()),
    }
}

/// Reads a column of a data frame; one of a type that has no counterpart here is kept.
pub(crate) fn read_column(parent: &Group, name: &str) -> Result<Column> {
    match read_known_column(parent, name) {
        Err(Error::Unsupported { .. }) => Kept::new(parent, name).map(Column::Kept),
        read => read,
    }
}

fn read_known_column(parent: &Group, name: &str) -> Result<Column> {
    if h5::is_group(parent, name)? {
        let group = h5::group(parent, name)?;
        return match h5::attribute::text(&group, "encoding-type")?.as_deref() {
            Some("categorical") => read_categorical(&group),
            Some(kind) if kind.starts_with("nullable-") => read_nullable(&group),
            other => Err(h5::unsupported(&group, format!("column of encoding `{}`", other.unwrap_or("none")))),
        };
    }
    let values = vector(&h5::dataset::open(parent, name)?)?;
    match legacy::categories_of(parent, name)? {
        Some((categories, ordered)) => {
            let object = h5::dataset::open(parent, name)?;
            let codes = codes(&values).ok_or_else(|| h5::malformed(&object, "codes of categories are not integers"))?;
            categorical(&object, codes, categories, ordered)
        }
        None => Ok(Column::Plain(values)),
    }
}

/// Integer codes that fit; `None` otherwise.
pub(crate) fn codes(values: &Values) -> Option<Vec<i32>> {
    values.to_i64()?.into_iter().map(|code| i32::try_from(code).ok()).collect()
}

fn read_categorical(group: &Group) -> Result<Column> {
    let categories = vector_or_nullable(group, "categories")?;
    let values = vector(&h5::dataset::open(group, "codes")?)?;
    let codes = codes(&values).ok_or_else(|| h5::malformed(group, "codes are not integers"))?;
    categorical(group, codes, categories, h5::attribute::flag(group, "ordered")?)
}

fn categorical(object: &hdf5::Location, codes: Vec<i32>, categories: Values, ordered: bool) -> Result<Column> {
    Categorical::new(codes, categories, ordered)
        .map(Column::Categorical)
        .map_err(|error| h5::malformed(object, error.to_string()))
}

/// Categories, which pandas may hold in a nullable array although none is missing.
fn vector_or_nullable(group: &Group, name: &str) -> Result<Values> {
    if h5::is_group(group, name)? {
        return match read_nullable(&h5::group(group, name)?)? {
            Column::Nullable { values, .. } | Column::Plain(values) => Ok(values),
            Column::Categorical(_) | Column::Kept(_) => Err(h5::malformed(group, "categories are categorical")),
        };
    }
    vector(&h5::dataset::open(group, name)?)
}

fn read_nullable(group: &Group) -> Result<Column> {
    let values = vector(&h5::dataset::open(group, "values")?)?;
    let mask = vector(&h5::dataset::open(group, "mask")?)?;
    match mask {
        Values::Bool(missing) if missing.len() == values.len() => Ok(Column::Nullable { values, missing }),
        other => {
            let detail = format!("mask of {} {} for {} values", other.len(), other.dtype(), values.len());
            Err(h5::malformed(group, detail))
        }
    }
}

/// A one-dimensional array; a column of width one counts.
pub(crate) fn vector(dataset: &Dataset) -> Result<Values> {
    let array: Array = h5::dataset::read_container(dataset)?;
    match array.shape() {
        [_] | [_, 1] => Ok(array.into_values()),
        other => Err(h5::malformed(dataset, format!("shape {other:?}, expected one dimension"))),
    }
}
