//! From values to an h5ad file in the encodings of anndata 0.8 and later.
//!
//! The file is written beside its destination and renamed onto it when it is complete and on disk, so that a reader
//! finds the old file or the new one, never a half.

mod cells;
mod element;
mod frame;

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use hdf5::{File, Group};

use self::cells::{Copies, Copy};
use crate::{AnnData, Array, Compression, Dict, Element, Error, Matrix, MuData, Raw, Result, h5};

/// Writes a whole file.
pub(crate) fn write(adata: &AnnData, path: &Path, compression: Compression) -> Result<()> {
    let write = |root: &Group| write_root(adata, &mut Copies::none(), root, compression);
    atomically(path, &adata.beside.user_block(), write)
}

/// Writes an h5mu file: modalities below `mod`, and where the cells and variables of each stand among all.
pub(crate) fn write_modalities(mdata: &MuData, path: &Path, compression: Compression) -> Result<()> {
    atomically(path, &[], |root| {
        h5::attribute::write_encoding(root, "MuData", "0.1.0")?;
        let group = root.create_group("mod").map_err(|source| h5::failed_at("write", root, "mod", source))?;
        let names: Vec<String> = mdata.modalities.keys().cloned().collect();
        h5::attribute::write(&group, "mod-order", &Array::vector(names))?;
        for (name, adata) in &mdata.modalities {
            check_key(&group, name)?;
            let modality = group.create_group(name).map_err(|source| h5::failed_at("write", &group, name, source))?;
            write_root(adata, &mut Copies::none(), &modality, compression)?;
        }
        let (obs, var) = (mdata.obs(), mdata.var());
        frame::write(root, "obs", &obs, compression)?;
        frame::write(root, "var", &var, compression)?;
        for (map, all, of) in [
            ("obsmap", &obs, AnnData::obs_names as fn(&AnnData) -> &[String]),
            ("varmap", &var, AnnData::var_names as fn(&AnnData) -> &[String]),
        ] {
            let positions = |(name, adata): (&String, &AnnData)| {
                (name.clone(), Element::Array(Array::vector(positions(all.index(), of(adata)))))
            };
            write_dict(root, map, &mdata.modalities.iter().map(positions).collect(), compression)?;
        }
        ["obsm", "varm", "obsp", "varp", "uns"]
            .iter()
            .try_for_each(|name| write_dict(root, name, &Dict::new(), compression).map(drop))
    })
}

/// The file that [`write`] would make, in memory and under a name that nobody else has.
pub(crate) fn in_memory(adata: &AnnData, name: &Path, compression: Compression) -> Result<File> {
    let failed = |source| Error::Hdf5 { action: "make", object: "/".into(), path: name.to_owned(), source };
    let options = File::with_options().with_fapl(|plist| plist.core_filebacked(false)).create(name);
    let file = options.map_err(failed)?;
    write_root(adata, &mut Copies::none(), &h5::group(&file, "/")?, compression)?;
    Ok(file)
}

/// Where each of all names stands in a modality, from 1; 0 where it does not.
fn positions(all: &[String], own: &[String]) -> Vec<u32> {
    let position: BTreeMap<&String, u32> = own.iter().zip(1..).collect();
    all.iter().map(|name| position.get(name).copied().unwrap_or(0)).collect()
}

/// Writes a file beside its destination and renames it onto it. `user_block` stands before the file proper.
fn atomically(path: &Path, user_block: &[u8], content: impl FnOnce(&Group) -> Result<()>) -> Result<()> {
    let io = |action, source| Error::Io { action, path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".archipelago-")
        .suffix(".h5ad.part")
        .tempfile_in(folder)
        .map_err(|source| io("write", source))?
        .into_temp_path();
    let failed = |action, source| Error::Hdf5 { action, object: "/".into(), path: path.to_owned(), source };
    let file = File::with_options().with_fcpl(|plist| plist.userblock(user_block.len() as u64)).create(&temporary);
    let file = file.map_err(|source| failed("write", source))?;
    content(&h5::group(&file, "/")?)?;
    file.close().map_err(|source| failed("close", source))?;
    if !user_block.is_empty() {
        let open = fs::OpenOptions::new().write(true).open(&temporary);
        open.and_then(|mut file| file.write_all(user_block)).map_err(|source| io("write", source))?;
    }
    keep_permissions(&temporary, path)?;
    fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(|source| io("write", source))?;
    temporary.persist(path).map_err(|error| io("rename", error.error))?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| io("write", source))
}

/// A temporary file is private, and so is a new one: cells are people's. One that replaces another gets its permissions.
fn keep_permissions(temporary: &Path, path: &Path) -> Result<()> {
    let Ok(replaced) = fs::metadata(path) else { return Ok(()) };
    fs::set_permissions(temporary, replaced.permissions()).map_err(|source| Error::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Writes a data set, and the matrices that are copied beside it.
fn write_root(adata: &AnnData, copies: &mut Copies<'_>, root: &Group, compression: Compression) -> Result<()> {
    let beside = &adata.beside;
    beside.copy_root_attributes(root)?;
    if !h5::attribute::names(root)?.iter().any(|name| name == "encoding-type") {
        h5::attribute::write_encoding(root, "anndata", "0.1.0")?;
    }
    if let Some(x) = &adata.x {
        write_matrix(root, "X", x, compression)?;
    }
    copies.write(Copy::X, root, compression)?;
    frame::write(root, "obs", &adata.obs, compression)?;
    frame::write(root, "var", &adata.var, compression)?;
    beside.copy_frame_attributes(root)?;
    for frame in ["obs", "var"] {
        beside.write_kept(frame, &h5::group(root, frame)?)?;
    }
    let layers = write_matrices(root, "layers", &adata.layers, compression)?;
    beside.write_kept("layers", &layers)?;
    copies.write(Copy::Layers, &layers, compression)?;
    copies.write(Copy::Obsm, &write_dict(root, "obsm", &adata.obsm, compression)?, compression)?;
    write_dict(root, "varm", &adata.varm, compression)?;
    beside.write_kept("obsp", &write_matrices(root, "obsp", &adata.obsp, compression)?)?;
    beside.write_kept("varp", &write_matrices(root, "varp", &adata.varp, compression)?)?;
    write_dict(root, "uns", &adata.uns, compression)?;
    if let Some(Raw { x, var, varm }) = &adata.raw {
        let group = create_group(root, "raw", "raw", "0.1.0")?;
        write_matrix(&group, "X", x, compression)?;
        frame::write(&group, "var", var, compression)?;
        write_dict(&group, "varm", varm, compression)?;
    }
    if let Some((var, varm)) = copies.raw() {
        let group = create_group(root, "raw", "raw", "0.1.0")?;
        copies.write(Copy::Raw, &group, compression)?;
        frame::write(&group, "var", &var, compression)?;
        write_dict(&group, "varm", &varm, compression)?;
    }
    beside.copy_members(root)
}

fn write_matrix(parent: &Group, name: &str, matrix: &Matrix, compression: Compression) -> Result<()> {
    match matrix {
        Matrix::Dense(array) => element::write_array(parent, name, array, compression),
        Matrix::Sparse(sparse) => element::write_sparse(parent, name, sparse, compression),
    }
}

fn write_matrices(
    parent: &Group,
    name: &str,
    matrices: &BTreeMap<String, Matrix>,
    compression: Compression,
) -> Result<Group> {
    let group = create_group(parent, name, "dict", "0.1.0")?;
    for (name, matrix) in matrices {
        check_key(&group, name)?;
        write_matrix(&group, name, matrix, compression)?;
    }
    Ok(group)
}

fn write_dict(parent: &Group, name: &str, dict: &Dict, compression: Compression) -> Result<Group> {
    let group = create_group(parent, name, "dict", "0.1.0")?;
    write_members(&group, dict, compression)?;
    Ok(group)
}

fn write_members(group: &Group, members: &BTreeMap<String, Element>, compression: Compression) -> Result<()> {
    for (name, member) in members {
        check_key(group, name)?;
        element::write(group, name, member, compression)?;
    }
    Ok(())
}

fn create_group(parent: &Group, name: &str, kind: &str, version: &str) -> Result<Group> {
    let group = parent.create_group(name).map_err(|source| h5::failed_at("write", parent, name, source))?;
    h5::attribute::write_encoding(&group, kind, version)?;
    Ok(group)
}

fn write_encoded(
    parent: &Group,
    name: &str,
    array: &Array,
    (kind, version): (&str, &str),
    compression: Compression,
) -> Result<()> {
    let dataset = h5::dataset::write(parent, name, array, compression)?;
    h5::attribute::write_encoding(&dataset, kind, version)
}

/// HDF5 would take a slash as a path, and `.` as the group itself.
fn check_key(group: &Group, name: &str) -> Result<()> {
    if name.is_empty() || name == "." || name.contains(['/', '\0']) {
        return Err(h5::unsupported(group, format!("key `{}`", name.escape_default())));
    }
    Ok(())
}
