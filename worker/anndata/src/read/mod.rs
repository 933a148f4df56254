//! From an h5ad file to values, in every encoding since 2017.
//!
//! `element` decides what an object is, `frame` and `matrix` read the two large kinds, `legacy` holds what files before
//! anndata 0.7 did differently.

pub(crate) mod element;
pub(crate) mod frame;
mod legacy;
pub(crate) mod matrix;

use std::{collections::BTreeMap, path::Path};

use hdf5::Group;

use crate::{AnnData, Array, DataFrame, Dict, Element, Error, Matrix, Raw, Result, h5};

/// Reads the whole data set in the group `at` of a file.
pub(crate) fn read(path: &Path, at: &str) -> Result<AnnData> {
    let file = h5::open(path)?;
    let root = h5::group(&file, at)?;
    let (obs, var, used) = annotations(&root)?;
    let mut uns = mapping(&root, "uns")?;
    uns.retain(|key, _| !used.contains(key));
    let adata = AnnData {
        x: if root.link_exists("X") { matrix::read_x(&root, "X")? } else { None },
        obs,
        var,
        layers: matrices(&root, "layers")?,
        obsm: mapping(&root, "obsm")?,
        varm: mapping(&root, "varm")?,
        obsp: matrices(&root, "obsp")?,
        varp: matrices(&root, "varp")?,
        uns,
        raw: raw(&root)?,
    };
    adata.check().map_err(|error| in_file(error, path))?;
    Ok(adata)
}

/// `obs` and `var`, and the keys of `uns` that the oldest files kept their categories under.
pub(crate) fn annotations(root: &Group) -> Result<(DataFrame, DataFrame, Vec<String>)> {
    for name in ["obs", "var"] {
        if !root.link_exists(name) {
            let detail = format!("has no `{name}`; there are: {}", h5::names(root)?.join(", "));
            return Err(h5::malformed(root, detail));
        }
    }
    let (mut obs, mut var) = (frame::read(root, "obs")?, frame::read(root, "var")?);
    let used = legacy::categories_from_uns(root, &mut obs, &mut var)?;
    Ok((obs, var, used))
}

/// A group of named elements, empty where it is absent.
pub(crate) fn mapping(root: &Group, name: &str) -> Result<Dict> {
    if !root.link_exists(name) {
        return Ok(Dict::new());
    }
    match element::read(root, name)? {
        Element::Dict(dict) => Ok(dict),
        // Before 0.7, obsm and varm were one record array.
        Element::Records(fields) => {
            Ok(fields.into_iter().map(|(name, values)| (name, Element::Array(Array::vector(values)))).collect())
        }
        Element::Null => Ok(Dict::new()),
        other => Err(h5::malformed(root, format!("`{name}` is a {}, expected a group", other.kind()))),
    }
}

fn matrices(root: &Group, name: &str) -> Result<BTreeMap<String, Matrix>> {
    if !root.link_exists(name) {
        return Ok(BTreeMap::new());
    }
    let group = h5::group(root, name)?;
    h5::names(&group)?.into_iter().map(|name| Ok((name.clone(), matrix::read(&group, &name)?))).collect()
}

fn raw(root: &Group) -> Result<Option<Raw>> {
    if root.link_exists("raw") && h5::is_group(root, "raw")? {
        let group = h5::group(root, "raw")?;
        let (x, var, varm) = (matrix::read(&group, "X")?, frame::read(&group, "var")?, mapping(&group, "varm")?);
        return Ok(Some(Raw { x, var, varm }));
    }
    legacy::raw(root)
}

/// Says which file a disagreement is in.
pub(crate) fn in_file(error: Error, path: &Path) -> Error {
    match error {
        Error::Shape { part, axis, found, expected, against } => {
            Error::Shape { part: format!("{part} of {}", path.display()), axis, found, expected, against }
        }
        other => other,
    }
}
