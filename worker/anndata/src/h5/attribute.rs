//! Attributes: the `encoding-type` of an object, `column-order`, `shape` and their kind.

use std::str::FromStr;

use hdf5::{Location, types::VarLenUnicode};

use super::{dataset, failed, failed_at, malformed};
use crate::{Array, Result, Values};

/// The attribute as an array, `None` where there is none.
pub(crate) fn read(object: &Location, name: &str) -> Result<Option<Array>> {
    if !names(object)?.iter().any(|known| known == name) {
        return Ok(None);
    }
    let attribute = object.attr(name).map_err(|source| failed_at("open attribute of", object, name, source))?;
    dataset::read_container(&attribute).map(Some)
}

/// Names of all attributes of an object.
pub(crate) fn names(object: &Location) -> Result<Vec<String>> {
    object.attr_names().map_err(|source| failed("list attributes of", object, source))
}

/// A scalar text attribute.
pub(crate) fn text(object: &Location, name: &str) -> Result<Option<String>> {
    match read(object, name)? {
        None => Ok(None),
        Some(array) => match array.values() {
            Values::Str(v) if v.len() == 1 => Ok(Some(v[0].clone())),
            other => Err(malformed(object, format!("attribute `{name}` is {}, not one text", other.dtype()))),
        },
    }
}

/// A list of texts; numpy writes an empty one as an empty array of floats.
pub(crate) fn texts(object: &Location, name: &str) -> Result<Option<Vec<String>>> {
    match read(object, name)?.map(Array::into_values) {
        None => Ok(None),
        Some(Values::Str(v)) => Ok(Some(v)),
        Some(other) if other.is_empty() => Ok(Some(Vec::new())),
        Some(other) => Err(malformed(object, format!("attribute `{name}` is {}, not text", other.dtype()))),
    }
}

/// A list of lengths.
pub(crate) fn lengths(object: &Location, name: &str) -> Result<Option<Vec<usize>>> {
    let Some(array) = read(object, name)? else { return Ok(None) };
    let lengths: Option<Vec<usize>> =
        array.values().to_i64().and_then(|v| v.into_iter().map(|n| usize::try_from(n).ok()).collect());
    lengths.map(Some).ok_or_else(|| malformed(object, format!("attribute `{name}` does not hold lengths")))
}

/// A boolean; absent counts as false.
pub(crate) fn flag(object: &Location, name: &str) -> Result<bool> {
    let value = read(object, name)?;
    Ok(value.and_then(|array| array.values().to_i64()).and_then(|v| v.first().copied()).is_some_and(|v| v != 0))
}

/// Writes a scalar text.
pub(crate) fn write_text(object: &Location, name: &str, text: &str) -> Result<()> {
    let value = VarLenUnicode::from_str(text).map_err(|_| malformed(object, "text holds a zero byte"))?;
    object
        .new_attr::<VarLenUnicode>()
        .create(name)
        .and_then(|attribute| attribute.write_scalar(&value))
        .map_err(|source| failed_at("write attribute of", object, name, source))
}

/// Writes `encoding-type` and `encoding-version`.
pub(crate) fn write_encoding(object: &Location, kind: &str, version: &str) -> Result<()> {
    write_text(object, "encoding-type", kind)?;
    write_text(object, "encoding-version", version)
}

/// Writes an array or scalar.
pub(crate) fn write(object: &Location, name: &str, array: &Array) -> Result<()> {
    let shape = array.shape().to_vec();
    let result = match array.values() {
        Values::Str(v) => {
            let strings = dataset::vlen(object, v)?;
            object.new_attr::<VarLenUnicode>().shape(shape).create(name).and_then(|a| a.write_raw(&strings))
        }
        Values::Bool(v) => object.new_attr::<bool>().shape(shape).create(name).and_then(|a| a.write_raw(v)),
        other => {
            fn put<T: hdf5::H5Type>(object: &Location, name: &str, shape: Vec<usize>, v: &[T]) -> hdf5::Result<()> {
                object.new_attr::<T>().shape(shape).create(name)?.write_raw(v)
            }
            crate::values::each_number!(other, v => put(object, name, shape, v), _ => Ok(()))
        }
    };
    result.map_err(|source| failed_at("write attribute of", object, name, source))
}
