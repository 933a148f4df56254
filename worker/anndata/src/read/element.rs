//! Decides what an object of a file is, by its encoding and, in old files, by its form.

use std::collections::BTreeMap;

use hdf5::{Dataset, Group};

use super::{frame, legacy, matrix};
use crate::{Array, Categorical, Column, Dict, Element, Foreign, Result, Values, h5};

/// Groups inside groups beyond this depth are refused, so that links in a circle end.
const MAX_DEPTH: usize = 32;

/// Objects below one key beyond this number are refused, so that links which multiply objects end.
const MAX_OBJECTS: usize = 1 << 16;

/// Reads whatever is called `name`.
pub(crate) fn read(parent: &Group, name: &str) -> Result<Element> {
    Walk { depth: 0, n_objects: 0 }.read(parent, name)
}

/// Where a reading stands in nested groups.
struct Walk {
    depth: usize,
    n_objects: usize,
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
        if h5::is_group(parent, name)? {
            self.read_group(parent, &h5::group(parent, name)?, name)
        } else {
            read_dataset(&h5::dataset::open(parent, name)?)
        }
    }

    fn read_group(&mut self, parent: &Group, group: &Group, name: &str) -> Result<Element> {
        if let Some((layout, shape)) = matrix::sparse_header(group)? {
            return Ok(Element::Sparse(matrix::sparse_parts(group, layout, &shape)?.read(group)?));
        }
        let encoding = h5::attribute::text(group, "encoding-type")?;
        Ok(match encoding.as_deref() {
            None | Some("dict" | "") => Element::Dict(self.read_members(group)?),
            Some("dataframe") => Element::Frame(frame::read(parent, name)?),
            Some("categorical") => Element::Column(read_categorical(group)?),
            Some(kind) if kind.starts_with("nullable-") => Element::Column(read_nullable(group)?),
            Some(_) => {
                let mut attributes = BTreeMap::new();
                for attribute in h5::attribute::names(group)? {
                    if let Some(value) = h5::attribute::read(group, &attribute)? {
                        attributes.insert(attribute, value);
                    }
                }
                Element::Foreign(Foreign { attributes, members: self.read_members(group)? })
            }
        })
    }

    fn read_members(&mut self, group: &Group) -> Result<Dict> {
        self.depth += 1;
        let members = h5::names(group)?.into_iter().map(|name| Ok((name.clone(), self.read(group, &name)?))).collect();
        self.depth -= 1;
        members
    }
}

fn read_dataset(dataset: &Dataset) -> Result<Element> {
    if h5::dataset::is_null(dataset)? {
        return Ok(Element::Null);
    }
    match h5::record::compound(dataset)? {
        Some(compound) => {
            let fields = h5::record::read(dataset, &compound)?;
            // Fields that are arrays themselves (the oldest obsm) have no place in a record of scalars.
            if fields.iter().any(|(_, array)| array.shape().len() != 1) {
                return Ok(Element::Dict(fields.into_iter().map(|(name, array)| (name, array.into())).collect()));
            }
            Ok(Element::Records(fields.into_iter().map(|(name, array)| (name, array.into_values())).collect()))
        }
        None => Ok(Element::Array(h5::dataset::read_container(dataset)?)),
    }
}

/// Reads a column of a data frame.
pub(crate) fn read_column(parent: &Group, name: &str) -> Result<Column> {
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
            Column::Categorical(_) => Err(h5::malformed(group, "categories are categorical")),
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
