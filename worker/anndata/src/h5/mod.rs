//! What this crate asks of HDF5: checked opening, reading and writing of single objects.
//!
//! Nothing above this module calls the library. HDF5 has one process-wide lock that each call takes in turn: reading on
//! several threads gains nothing, so a caller keeps all h5ad work on one (blocking) thread. The library's own error
//! printing is off; its reasons arrive as the source of [`Error::Hdf5`](crate::Error).

pub(crate) mod attribute;
mod bounded;
pub(crate) mod dataset;
mod heap;
mod ledger;
pub(crate) mod links;
pub(crate) mod raw;
pub(crate) mod record;

use std::{
    fs,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

use hdf5::{File, Group, Location};

pub(crate) use self::ledger::Reading;
use crate::{Error, Result, foreign};

/// The first bytes of every HDF5 file, after a user block if it has one.
const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

/// Opens a file for reading and makes sure that no link in it leads out of it.
pub(crate) fn open(path: &Path) -> Result<File> {
    let io = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => Error::NotFound { path: path.to_owned() },
        _ => Error::Io { action: "read", path: path.to_owned(), source },
    };
    let metadata = fs::metadata(path).map_err(io)?;
    let size = metadata.len();
    // Opening a pipe waits until somebody writes into it, which may be never.
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let foreign = || foreign::of_path(path).unwrap_or_else(|| Error::NotHdf5 { path: path.to_owned() });
    if metadata.is_dir() {
        return Err(foreign());
    }
    let base = start(&mut fs::File::open(path).map_err(io)?, size).map_err(io)?.ok_or_else(foreign)?;
    heap::check(path, base)?;
    let failed = |source: hdf5::Error| {
        let reason = source.to_string();
        if reason.contains("truncated") || reason.contains("eof") {
            return Error::Truncated { path: path.to_owned(), size };
        }
        Error::Hdf5 { action: "open", object: "/".into(), path: path.to_owned(), source }
    };
    let file = File::open(path).map_err(failed)?;
    let largest_chunk = links::check(&file)?;
    if largest_chunk <= CHUNK_CACHE {
        return Ok(file);
    }
    // A chunk that HDF5 cannot keep is decompressed anew for every few rows.
    drop(file);
    let cache = largest_chunk.min(LARGEST_CACHE);
    File::with_options()
        .with_fapl(|plist| plist.chunk_cache(CACHE_SLOTS, cache, CACHE_POLICY))
        .open(path)
        .map_err(failed)
}

/// Bytes that HDF5 keeps uncompressed of a dataset unless it is told otherwise.
const CHUNK_CACHE: usize = 1 << 20;
/// What it keeps at most of one with larger chunks.
const LARGEST_CACHE: usize = 256 << 20;
/// HDF5's own numbers for the rest.
const CACHE_SLOTS: usize = 521;
const CACHE_POLICY: f64 = 0.75;

/// Where the signature stands, of the places where HDF5 looks for it: at the start, or after a user block of 512 bytes, 1,024
/// and so on. Python's mudata writes such a block. Addresses in the file count from there.
fn start(file: &mut fs::File, size: u64) -> io::Result<Option<u64>> {
    let mut at = 0;
    while at < size {
        let mut start = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.by_ref().take(SIGNATURE.len() as u64).read_to_end(&mut start)?;
        if start == SIGNATURE {
            return Ok(Some(at));
        }
        at = (2 * at).max(SMALLEST_USER_BLOCK);
    }
    Ok(None)
}

/// HDF5's smallest user block, in bytes; others are twice as large, and so on.
const SMALLEST_USER_BLOCK: u64 = 512;

/// Names in a group, ascending.
pub(crate) fn names(group: &Group) -> Result<Vec<String>> {
    let mut names = group.member_names().map_err(|source| failed("list", group, source))?;
    names.sort_unstable();
    Ok(names)
}

/// Opens a group below `parent`.
pub(crate) fn group(parent: &Group, name: &str) -> Result<Group> {
    parent.group(name).map_err(|source| failed_at("open", parent, name, source))
}

/// Whether `name` is a group (and not a dataset) below `parent`.
pub(crate) fn is_group(parent: &Group, name: &str) -> Result<bool> {
    let kind = parent.loc_type_by_name(name).map_err(|source| failed_at("open", parent, name, source))?;
    Ok(kind == hdf5::LocationType::Group)
}

/// Whether `name` is a dataset below `parent`.
pub(crate) fn is_dataset(parent: &Group, name: &str) -> Result<bool> {
    let kind = parent.loc_type_by_name(name).map_err(|source| failed_at("open", parent, name, source))?;
    Ok(kind == hdf5::LocationType::Dataset)
}

/// Whether a matrix holds numbers that convert to a float: not records, complex numbers and their kind.
pub(crate) fn is_readable(parent: &Group, name: &str) -> Result<bool> {
    let data = match is_group(parent, name)? {
        true if !group(parent, name)?.link_exists("data") => return Ok(false),
        true => dataset::open(&group(parent, name)?, "data"),
        false => dataset::open(parent, name),
    };
    match data.and_then(|data| dataset::no_values(&data)) {
        Ok(_) => Ok(true),
        Err(Error::Unsupported { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// The library failed on `object`.
pub(crate) fn failed(action: &'static str, object: &Location, source: hdf5::Error) -> Error {
    Error::Hdf5 { action, object: object.name(), path: object.filename().into(), source }
}

/// The library failed on what is called `name` in `parent`.
pub(crate) fn failed_at(action: &'static str, parent: &Location, name: &str, source: hdf5::Error) -> Error {
    let object = format!("{}/{name}", parent.name().trim_end_matches('/'));
    Error::Hdf5 { action, object, path: parent.filename().into(), source }
}

/// `object` is not what its encoding promises.
pub(crate) fn malformed(object: &Location, detail: impl Into<String>) -> Error {
    Error::Malformed { object: object.name(), path: object.filename().into(), detail: detail.into() }
}

/// `object` is well formed, but of a kind this crate leaves alone.
pub(crate) fn unsupported(object: &Location, detail: impl Into<String>) -> Error {
    Error::Unsupported { object: object.name(), path: object.filename().into(), detail: detail.into() }
}

/// There is no memory for so many values.
fn too_large(object: &Location, n: usize) -> Error {
    malformed(object, format!("{n} elements do not fit into memory"))
}

/// Zeros for so many values, refused where there is no memory for them.
fn zeroed(object: &Location, n: usize, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let n_bytes = n.saturating_mul(size);
    bytes.try_reserve_exact(n_bytes).map_err(|_| too_large(object, n))?;
    bytes.resize(n_bytes, 0);
    Ok(bytes)
}
