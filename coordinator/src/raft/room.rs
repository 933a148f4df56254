//! Whether a log whose disk was full has room again.
//!
//! That a start succeeds does not tell: it writes a few bytes, which a full disk still takes from the end of a page. A node
//! that came back for them would find the disk full at the next entry, and be ready and not ready by turns. So what the log
//! may need next is written for once beside it, fsynced and given back: the largest entry there is, and a copy of all that
//! is in it, which a snapshot may replace in one transaction.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use archipelago_common::{fs, limits};

/// Says whether there is room for the log again.
pub(crate) type HasRoom = Box<dyn FnMut() -> bool + Send>;

/// Whether the log at `path` has room to go on.
pub(crate) fn around(path: &Path) -> bool {
    let written = std::fs::metadata(path).map_or(0, |log| log.blocks().saturating_mul(BLOCK));
    let needed = MARGIN.saturating_add(written);
    let proved = prove(path, needed);
    if let Err(error) = &proved {
        tracing::info!(needed, %error, "the log has no room yet");
    }
    proved.is_ok()
}

/// Writes and fsyncs so many bytes beside a file, and gives them back.
fn prove(beside: &Path, needed: u64) -> io::Result<()> {
    let dir = beside.parent().unwrap_or(Path::new("."));
    // Asked first: what is left of a full disk is not used up for a proof that must fail.
    let of = rustix::fs::statvfs(dir)?;
    if of.f_bavail.saturating_mul(of.f_frsize) < needed {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut file = unnamed(&beside.with_extension("room"))?;
    let piece = vec![FILL; limits::CHUNK_BYTES as usize];
    let mut left = needed;
    while left > 0 {
        let n = left.min(limits::CHUNK_BYTES);
        file.write_all(&piece[..n as usize])?;
        left -= n;
    }
    file.sync_all()
}

/// A file that is gone when it is closed, also if this process dies before.
fn unnamed(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(fs::PRIVATE_FILE).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// The largest entry, with what its transaction writes around it.
const MARGIN: u64 = 2 * limits::FRAME_BYTES as u64;
/// What `st_blocks` counts in.
const BLOCK: u64 = 512;
/// Not zeros, which some file systems do not store.
const FILL: u8 = 0xa5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_can_be_written_and_nothing_is_left_of_the_proof() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.redb");
        std::fs::write(&log, b"entries").unwrap();
        assert!(around(&log));
        assert_eq!(prove(&log, u64::MAX).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(!around(&dir.path().join("nowhere/log.redb")));
    }
}
