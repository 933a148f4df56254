//! From an h5ad file to values, in every encoding since 2017.
//!
//! `element` decides what an object is, `frame` and `matrix` read the two large kinds, `legacy` holds what files before
//! anndata 0.7 did differently.

pub(crate) mod element;
pub(crate) mod frame;
mod legacy;
pub(crate) mod matrix;

use std::{collections::BTreeMap, path::Path};

pub(crate) use self::legacy::raw_parts;
use crate::h5::Reading;
use crate::{
    AnnData, Array, Beside, DataFrame, Dict, Element, Error, Kept, Matrix, Raw, Result, RowReader, cellranger, foreign,
    h5,
};
use hdf5::Group;

/// Reads the whole data set in the group `at` of a file.
pub(crate) fn read(path: &Path, at: &str) -> Result<AnnData> {
    let file = cellranger::open(path)?;
    let _reading = Reading::begin(&file);
    let root = h5::group(&file, at)?;
    let (obs, var, used) = annotations(&root)?;
    let mut uns = mapping(&root, "uns")?;
    uns.retain(|key, _| !used.contains(key));
    let mut beside = beside(&root)?;
    let adata = AnnData {
        x: if root.link_exists("X") { matrix::read_x(&root, "X")? } else { None },
        obs,
        var,
        layers: matrices(&root, "layers", &mut beside)?,
        obsm: mapping(&root, "obsm")?,
        varm: mapping(&root, "varm")?,
        obsp: matrices(&root, "obsp", &mut beside)?,
        varp: matrices(&root, "varp", &mut beside)?,
        uns,
        raw: raw(&root)?,
        beside,
    };
    adata.check().map_err(|error| in_file(error, path))?;
    Ok(adata)
}

/// The data set in a group of a file without its large matrices, and how to read those by rows.
pub(crate) fn around_matrices(root: &Group) -> Result<(AnnData, Large)> {
    let file = root.file().map_err(|source| h5::failed("open", root, source))?;
    let _reading = Reading::begin(&file);
    let (obs, var, used) = annotations(root)?;
    let mut uns = mapping(root, "uns")?;
    uns.retain(|key, _| !used.contains(key));
    let (mut large, mut beside) = (Large::default(), beside(root)?);
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
            None => match matrix::read(&group, &name) {
                Err(Error::Unsupported { .. }) => beside.keep("layers", &name, Kept::new(&group, &name)?),
                read => drop(layers.insert(name, read?)),
            },
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
    let raw = match raw_parts(root)? {
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
    let varm = mapping(root, "varm")?;
    let (obsp, varp) = (matrices(root, "obsp", &mut beside)?, matrices(root, "varp", &mut beside)?);
    Ok((AnnData { x, obs, var, layers, obsm, varm, obsp, varp, uns, raw, beside }, large))
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
            if let Some(error) = foreign::of_root(root) {
                return Err(error);
            }
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
    // Before 0.7, obsm and varm were one record array.
    let read =
        if h5::is_group(root, name)? { element::read_members(root, name) } else { element::read_nearly(root, name) };
    match read? {
        Element::Dict(dict) => Ok(dict),
        Element::Records(fields) => {
            Ok(fields.into_iter().map(|(name, values)| (name, Element::Array(Array::vector(values)))).collect())
        }
        Element::Null => Ok(Dict::new()),
        other => Err(h5::malformed(root, format!("`{name}` is a {}, expected a group", other.kind()))),
    }
}

/// What stands beside the data set, members of its frames that are no columns among it.
fn beside(root: &Group) -> Result<Beside> {
    let mut beside = Beside::of(root)?;
    for name in ["obs", "var"] {
        if h5::is_group(root, name)? {
            let group = h5::group(root, name)?;
            for member in frame::no_columns(&group)? {
                beside.keep(name, &member, Kept::new(&group, &member)?);
            }
        }
    }
    Ok(beside)
}

/// The matrices of a group; those of values that are not known here are kept beside the data set.
fn matrices(root: &Group, name: &'static str, beside: &mut Beside) -> Result<BTreeMap<String, Matrix>> {
    let mut matrices = BTreeMap::new();
    for key in group_names(root, name)? {
        let group = h5::group(root, name)?;
        match matrix::read(&group, &key) {
            Err(Error::Unsupported { .. }) => beside.keep(name, &key, Kept::new(&group, &key)?),
            read => drop(matrices.insert(key, read?)),
        }
    }
    Ok(matrices)
}

/// Names in a group, none where it is absent.
fn group_names(root: &Group, name: &str) -> Result<Vec<String>> {
    if root.link_exists(name) { h5::names(&h5::group(root, name)?) } else { Ok(Vec::new()) }
}

fn raw(root: &Group) -> Result<Option<Raw>> {
    let Some((group, x, var, varm)) = raw_parts(root)? else { return Ok(None) };
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
