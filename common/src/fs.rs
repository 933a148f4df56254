//! Files that are either there whole or not at all.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use crate::{
    blob::BlobRef,
    error::{Error, Result},
    hash::StreamHasher,
    limits,
};

/// Writes `bytes` to `path` durably and atomically: temporary file beside it, fsync, rename, fsync of the directory.
///
/// A new file is its owner's alone ([`PRIVATE_FILE`]); one that replaces another keeps the permissions that somebody gave it.
///
/// # Errors  [`Error::File`] naming the step that failed
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// The same of what is written piece by piece.
///
/// # Errors  [`Error::File`] naming the step that failed
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let temporary = temporary_beside(path);
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(PRIVATE_FILE)
            .open(&temporary)
            .map_err(|source| Error::File { action: "create", path: temporary.clone(), source })?;
        if let Ok(replaced) = std::fs::metadata(path) {
            file.set_permissions(replaced.permissions()).map_err(|source| Error::File {
                action: "set permissions of",
                path: temporary.clone(),
                source,
            })?;
        }
        write(&mut file).map_err(|source| Error::File { action: "write", path: temporary.clone(), source })?;
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

/// The bytes at a place of a file, which has them all.
///
/// # Errors  that of the system; [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof) if the file is shorter
pub fn read_at(file: &File, offset: u64, size: usize) -> std::io::Result<Vec<u8>> {
    // Not cleared first: a megabyte costs as much to clear as to read.
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The system may give more room than was asked for.
    bytes.truncate(size);
    Ok(bytes)
}

/// Makes a file durable while it is still being written, on a thread of its own: the disk works beside the network, and
/// the fsync at the end has little left to do.
#[derive(Debug, Default)]
pub struct Syncer {
    n_unsynced: u64,
    running: Option<JoinHandle<std::io::Result<()>>>,
}

impl Syncer {
    /// Notes that `n_bytes` were written to `file`. Every [`SYNC_BYTES`] an fsync begins; one that has not ended by then
    /// is waited for, so that no more than twice as many bytes are ever at risk.
    ///
    /// # Errors  that of an fsync that has ended
    pub fn wrote(&mut self, file: &File, n_bytes: u64) -> std::io::Result<()> {
        self.n_unsynced += n_bytes;
        if self.n_unsynced < SYNC_BYTES {
            return Ok(());
        }
        self.wait()?;
        self.n_unsynced = 0;
        let file = file.try_clone()?;
        self.running = Some(std::thread::spawn(move || file.sync_data()));
        Ok(())
    }

    /// Waits for the fsync under way. What was written since it began is not durable yet.
    ///
    /// # Errors  that of the fsync
    pub fn wait(&mut self) -> std::io::Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread of an fsync failed")))
    }
}

/// Bytes after which [`Syncer`] begins an fsync.
pub const SYNC_BYTES: u64 = 8 << 20;

/// Creates a directory and its parents, durably: what is fsynced in a directory is lost with it if its own entry in the
/// one above is not on disk. Those that are new are their owner's alone.
///
/// # Errors  [`Error::File`]
pub fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        create_dir(above)?;
    }
    match DirBuilder::new().mode(PRIVATE_DIR).create(path) {
        Ok(()) => {}
        // Somebody else was faster.
        Err(_) if path.is_dir() => {}
        Err(source) => return Err(Error::File { action: "create", path: path.into(), source }),
    }
    sync_dir(above.unwrap_or(Path::new(".")))
}

/// The same for a directory of state: one that is there already becomes its owner's alone too.
///
/// # Errors  [`Error::File`]
pub fn create_private_dir(path: &Path) -> Result<()> {
    create_dir(path)?;
    let made_private = std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE_DIR));
    made_private.map_err(|source| Error::File { action: "set permissions of", path: path.into(), source })
}

/// Makes a file that is there its owner's alone.
///
/// # Errors  [`Error::File`]
pub fn make_private(path: &Path) -> Result<()> {
    let made_private = std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE_FILE));
    made_private.map_err(|source| Error::File { action: "set permissions of", path: path.into(), source })
}

/// Permissions of files that hold, or come from, data of people.
pub const PRIVATE_FILE: u32 = 0o600;
/// Permissions of directories of such files.
pub const PRIVATE_DIR: u32 = 0o700;

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_new_is_its_owners_alone_and_what_is_replaced_keeps_its_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("state/cache");
        create_dir(&inner).unwrap();
        assert_eq!((mode(&inner), mode(inner.parent().unwrap())), (0o700, 0o700));
        let file = inner.join("columns");
        write_atomic(&file, b"1").unwrap();
        assert_eq!(mode(&file), 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        write_atomic(&file, b"2").unwrap();
        assert_eq!((mode(&file), std::fs::read(&file).unwrap()), (0o640, b"2".to_vec()));
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o755)).unwrap();
        create_dir(&inner).unwrap();
        assert_eq!(mode(&inner), 0o755, "a user's own folder stays as it is");
        create_private_dir(&inner).unwrap();
        make_private(&file).unwrap();
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
    }

    #[test]
    fn a_place_of_a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let all: Vec<u8> = (0..5_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &all).unwrap();
        let file = File::open(&path).unwrap();
        for (offset, size) in [(0, 5_000), (17, 4_000), (4_999, 1), (5_000, 0)] {
            assert_eq!(read_at(&file, offset, size).unwrap(), all[offset as usize..][..size]);
        }
        assert_eq!(read_at(&file, 4_000, 1_001).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_directory_below_a_file_is_an_error_and_one_that_is_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        create_dir(&dir.path().join("a/b/c")).unwrap();
        create_dir(&dir.path().join("a/b/c")).unwrap();
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        assert!(create_dir(&dir.path().join("file/below")).is_err());
    }

    #[test]
    fn a_file_is_synced_while_it_grows_and_an_error_of_the_disk_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("blob")).unwrap();
        let mut syncer = Syncer::default();
        syncer.wrote(&file, SYNC_BYTES - 1).unwrap();
        assert!(syncer.running.is_none(), "not for every chunk");
        syncer.wrote(&file, 1).unwrap();
        assert!(syncer.running.is_some());
        syncer.wait().unwrap();
        assert!(syncer.running.is_none());
        syncer.running = Some(std::thread::spawn(|| Err(std::io::Error::other("no space left"))));
        assert!(syncer.wrote(&file, SYNC_BYTES).is_err());
    }
}
