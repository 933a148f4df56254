//! Files that are either there whole or not at all.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    blob::BlobRef,
    error::{Error, Result},
    hash::StreamHasher,
    limits,
};

/// Writes `bytes` to `path` durably and atomically: temporary file beside it, fsync, rename, fsync of the directory.
///
/// # Errors  [`Error::File`] naming the step that failed
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_beside(path);
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(|source| Error::File { action: "create", path: temporary.clone(), source })?;
        file.write_all(bytes).map_err(|source| Error::File { action: "write", path: temporary.clone(), source })?;
        file.sync_all().map_err(|source| Error::File { action: "fsync", path: temporary.clone(), source })?;
        persist(&temporary, path)
    })();
    if result.is_err() {
        // The error that counts is the first one; a leftover temporary file is only untidy.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// Renames a finished and fsynced temporary file to its final name and makes the rename durable.
///
/// # Errors  [`Error::File`]
pub fn persist(temporary: &Path, path: &Path) -> Result<()> {
    std::fs::rename(temporary, path).map_err(|source| Error::File {
        action: "rename to",
        path: path.into(),
        source,
    })?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes a directory's entries durable.
///
/// # Errors  [`Error::File`]
pub fn sync_dir(dir: &Path) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|file| file.sync_all()).map_err(|source| Error::File {
        action: "fsync",
        path: dir.into(),
        source,
    })
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors  [`Error::File`], [`Error::TooLarge`]
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let error = |source| Error::File { action: "read", path: path.into(), source };
    let file = File::open(path).map_err(error)?;
    let found = file.metadata().map_err(error)?.len();
    if found > limit {
        return Err(Error::TooLarge { what: format!("file `{}`", path.display()), found, limit, unit: "bytes" });
    }
    let mut bytes = Vec::with_capacity(found as usize);
    file.take(limit).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

/// Digest and size of a file's content, read piece by piece.
///
/// # Errors  [`Error::File`]
pub fn blob_ref(path: &Path) -> Result<BlobRef> {
    let error = |source| Error::File { action: "read", path: path.into(), source };
    let mut file = File::open(path).map_err(error)?;
    let (mut hasher, mut size, mut piece) = (StreamHasher::default(), 0, vec![0; limits::CHUNK_BYTES as usize]);
    loop {
        match file.read(&mut piece).map_err(error)? {
            0 => return Ok(BlobRef { digest: hasher.finish(), size }),
            n => {
                hasher.update(&piece[..n]);
                size += n as u64;
            }
        }
    }
}

/// Creates a directory and its parents.
///
/// # Errors  [`Error::File`]
pub fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|source| Error::File { action: "create", path: path.into(), source })
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}
