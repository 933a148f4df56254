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

use crate::{AnnData, Array, DataFrame, Dict, Element, Error, Matrix, Raw, Result, RowReader, h5};

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

/// The data set in a group of a file without its large matrices, and how to read those by rows.
pub(crate) fn around_matrices(root: &Group) -> Result<(AnnData, Large)> {
    let (obs, var, used) = annotations(root)?;
    let mut uns = mapping(root, "uns")?;
    uns.retain(|key, _| !used.contains(key));
    let mut large = Large::default();
    let x = match root.link_exists("X") {
        false => None,
        true => {
            large.x = RowReader::streaming(root, "X")?;
            if large.x.is_some() { None } else { matrix::read_x(root, "X")? }
        }
    };
    let mut layers = BTreeMap::new();
    for name in group_names(root, "layers")? {
        let group = h5::group(root, "layers")?;
        match RowReader::streaming(&group, &name)? {
            Some(reader) => drop(large.layers.insert(name, reader)),
            None => drop(layers.insert(name.clone(), matrix::read(&group, &name)?)),
        }
    }
    let obsm = match root.link_exists("obsm") && h5::is_group(root, "obsm")? {
        false => mapping(root, "obsm")?,
        true => {
            let (group, mut obsm) = (h5::group(root, "obsm")?, Dict::new());
            for name in h5::names(&group)? {
                match RowReader::streaming(&group, &name)? {
                    Some(reader) => drop(large.obsm.insert(name, reader)),
                    None => drop(obsm.insert(name.clone(), element::read(&group, &name)?)),
                }
            }
            obsm
        }
    };
    let raw = match legacy::raw_parts(root)? {
        None => None,
        Some((group, x, var, varm)) => {
            let (var, varm) = (frame::read(&group, var)?, mapping(&group, varm)?);
            match RowReader::streaming(&group, x)? {
                Some(reader) => {
                    large.raw = Some((reader, var, varm));
                    None
                }
                None => Some(Raw { x: matrix::read(&group, x)?, var, varm }),
            }
        }
    };
    let (varm, obsp, varp) = (mapping(root, "varm")?, matrices(root, "obsp")?, matrices(root, "varp")?);
    Ok((AnnData { x, obs, var, layers, obsm, varm, obsp, varp, uns, raw }, large))
}

/// Matrices of a file with a row per cell, which are read by rows.
#[derive(Debug, Default)]
pub(crate) struct Large {
    pub(crate) x: Option<RowReader>,
    pub(crate) layers: BTreeMap<String, RowReader>,
    pub(crate) obsm: BTreeMap<String, RowReader>,
    /// With the genes of `raw`.
    pub(crate) raw: Option<(RowReader, DataFrame, Dict)>,
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
    let read = |key: String| Ok((key.clone(), matrix::read(&h5::group(root, name)?, &key)?));
    group_names(root, name)?.into_iter().map(read).collect()
}

/// Names in a group, none where it is absent.
fn group_names(root: &Group, name: &str) -> Result<Vec<String>> {
    if root.link_exists(name) { h5::names(&h5::group(root, name)?) } else { Ok(Vec::new()) }
}

fn raw(root: &Group) -> Result<Option<Raw>> {
    let Some((group, x, var, varm)) = legacy::raw_parts(root)? else { return Ok(None) };
    Ok(Some(Raw { x: matrix::read(&group, x)?, var: frame::read(&group, var)?, varm: mapping(&group, varm)? }))
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
