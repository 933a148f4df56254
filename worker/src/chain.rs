//! A log of what was released, append-only and chained by hash: how the site's audit log and its ledger are written.
//!
//! One JSON object per line. Each entry holds the hash of the one before, so an entry that is changed, dropped from the
//! middle or moved breaks the chain from there on. Entries cut from the end leave a shorter chain that is whole in
//! itself: compare its head with one that was noted elsewhere ([`Trail::contains`]).

use std::{
    fs::{File, OpenOptions},
    marker::PhantomData,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use archipelago_common::{
    append::{AppendFile, Medium},
    fs,
    hash::Digest,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// What such a log holds.
pub trait Record: Clone + Serialize + DeserializeOwned {
    /// What the log is called in warnings.
    const LOG: &'static str;
}

/// A release at its place in the chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<R> {
    /// Its place, from 1.
    pub seq: u64,
    /// The site's clock, Unix milliseconds.
    pub at_ms: u64,
    /// What left.
    pub release: R,
    /// The hash of the entry before; that of no bytes for the first.
    pub previous: Digest,
}

impl<R: Record> Entry<R> {
    fn hash(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("an entry of numbers and text is JSON"))
    }
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<R> {
    entry: Entry<R>,
    hash: Digest,
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Log<R, M = File> {
    path: PathBuf,
    file: AppendFile<M>,
    n_entries: u64,
    head: Digest,
    of: PhantomData<R>,
}

impl<R: Record> Log<R> {
    /// Opens the log, or starts one, after verifying its chain. A last line without its end is what a crash leaves
    /// before anything was sent: it is cut off.
    ///
    /// # Errors  [`Error::AuditBroken`], [`Error::File`]
    pub fn open(path: &Path) -> Result<Self> {
        let error = |source| Error::File { action: "open", path: path.into(), source };
        let (trail, whole_len) = if path.exists() { Trail::<R>::read_prefix(path)? } else { (Trail::default(), 0) };
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(fs::PRIVATE_FILE).open(path);
        let file = open.map_err(error)?;
        if file.metadata().map_err(error)?.len() > whole_len {
            tracing::warn!("the {} ends in a torn line; it is cut off, nothing was sent for it", R::LOG);
        }
        let log = Self::over(path, file, &trail, whole_len)?;
        fs::sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(log)
    }
}

impl<R: Record, M: Medium> Log<R, M> {
    /// The log on a medium whose first `whole_len` bytes hold a trail.
    fn over(path: &Path, medium: M, trail: &Trail<R>, whole_len: u64) -> Result<Self> {
        let file = AppendFile::new(medium, whole_len);
        let file = file.map_err(|source| Error::File { action: "open", path: path.into(), source })?;
        Ok(Self { path: path.into(), file, n_entries: trail.entries.len() as u64, head: trail.head(), of: PhantomData })
    }

    /// Appends an entry; when this returns it is on disk.
    ///
    /// # Errors  [`Error::File`]: then nothing may be sent, and nothing of the entry is left
    pub fn append(&mut self, release: R) -> Result<()> {
        let entry = Entry { seq: self.n_entries + 1, at_ms: now_ms(), release, previous: self.head };
        let hash = entry.hash();
        let mut line = serde_json::to_vec(&Line { entry, hash }).expect("an entry of numbers and text is JSON");
        line.push(b'\n');
        let appended = self.file.append(&line);
        appended.map_err(|source| Error::File { action: "append to", path: self.path.clone(), source })?;
        (self.n_entries, self.head) = (self.n_entries + 1, hash);
        Ok(())
    }
}

/// A log that was read and whose chain holds.
#[derive(Clone, Debug)]
pub struct Trail<R> {
    /// All entries, oldest first.
    pub entries: Vec<Entry<R>>,
}

impl<R> Default for Trail<R> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<R: Record> Trail<R> {
    /// Reads and verifies a log.
    ///
    /// # Errors  [`Error::AuditBroken`] with the first line that does not hold, [`Error::Common`] if it cannot be read
    pub fn read(path: &Path) -> Result<Self> {
        let (trail, whole_len) = Self::read_prefix(path)?;
        let found =
            std::fs::metadata(path).map_err(|source| Error::File { action: "read", path: path.into(), source })?;
        if found.len() != whole_len {
            return Err(broken(path, trail.entries.len() + 1, "the line has no end"));
        }
        Ok(trail)
    }

    /// Verifies a log that may be written to meanwhile, and counts its entries: a line without its end is not looked at.
    ///
    /// # Errors  as [`Self::read`]
    pub fn count(path: &Path) -> Result<u64> {
        Ok(Self::read_prefix(path)?.0.entries.len() as u64)
    }

    /// Hash of the last entry; that of no bytes if there is none.
    pub fn head(&self) -> Digest {
        self.entries.last().map_or_else(|| Digest::of(b""), Entry::hash)
    }

    /// Whether a head that was noted earlier is part of this chain. If not, entries were cut from the end.
    pub fn contains(&self, head: &Digest) -> bool {
        *head == Digest::of(b"") || self.entries.iter().any(|entry| entry.hash() == *head)
    }

    // The entries of all lines that end, and how many bytes those lines take.
    pub(crate) fn read_prefix(path: &Path) -> Result<(Self, u64)> {
        Self::of_bytes(path, &fs::read_bounded(path, MAX_LOG_BYTES)?)
    }

    fn of_bytes(path: &Path, bytes: &[u8]) -> Result<(Self, u64)> {
        let mut trail = Self::default();
        let mut head = trail.head();
        let mut whole_len = 0;
        for line in bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let entry = trail.next_entry(path, line, head)?;
            head = entry.hash();
            trail.entries.push(entry);
            whole_len += line.len() as u64;
        }
        Ok((trail, whole_len))
    }

    fn next_entry(&self, path: &Path, line: &[u8], head: Digest) -> Result<Entry<R>> {
        let number = self.entries.len() + 1;
        let Line { entry, hash } =
            serde_json::from_slice(line).map_err(|_| broken(path, number, "the line is not an entry"))?;
        if entry.seq != number as u64 {
            return Err(broken(path, number, "the entry is out of order"));
        }
        if entry.previous != head {
            return Err(broken(path, number, "the entry does not follow the one before"));
        }
        if entry.hash() != hash {
            return Err(broken(path, number, "the entry does not match its hash"));
        }
        Ok(entry)
    }
}

/// A log larger than this has grown for decades or is not ours: an entry takes half a kilobyte.
const MAX_LOG_BYTES: u64 = 4 << 30;

fn broken(path: &Path, line: usize, detail: &'static str) -> Error {
    Error::AuditBroken { path: path.into(), line, detail }
}

/// The clock of this machine, Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use archipelago_common::{append::SmallDisk, id::TaskId};

    use super::*;
    use crate::audit::{AuditLog, AuditTrail, Kind, Release};

    fn release(size: u64) -> Release {
        Release {
            kind: Kind::Columns,
            site: "north".parse().unwrap(),
            task: TaskId(3),
            condition: Some("north/pbmc/b1".parse().unwrap()),
            digest: Digest::of(&size.to_le_bytes()),
            size,
            policy: Digest::of(b"policy"),
        }
    }

    fn log_of(sizes: &[u64]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut log = AuditLog::open(&path).unwrap();
        sizes.iter().for_each(|&size| log.append(release(size)).unwrap());
        (dir, path)
    }

    fn check_broken(path: &Path, expected_line: usize) {
        for result in [AuditTrail::read(path).map(drop), AuditLog::open(path).map(drop)] {
            match result {
                Err(Error::AuditBroken { line, .. }) => assert_eq!(line, expected_line),
                other => panic!("expected a broken chain, got {other:?}"),
            }
        }
    }

    #[test]
    fn a_log_reopens_and_goes_on() {
        let (_dir, path) = log_of(&[10, 20]);
        AuditLog::open(&path).unwrap().append(release(5)).unwrap();
        let trail = AuditTrail::read(&path).unwrap();
        assert_eq!(trail.entries.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(trail.bytes_by_kind()["columns"], 35);
        assert_eq!(trail.bytes_by_kind()["embeddings"], 0);
    }

    #[test]
    fn a_changed_number_breaks_the_chain() {
        let (_dir, path) = log_of(&[10, 20, 30]);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"size\":20", "\"size\":21")).unwrap();
        check_broken(&path, 2);
    }

    #[test]
    fn a_line_taken_out_or_moved_breaks_the_chain() {
        let (_dir, path) = log_of(&[10, 20, 30]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        std::fs::write(&path, [lines[0], lines[2]].concat()).unwrap();
        check_broken(&path, 2);
        std::fs::write(&path, [lines[1], lines[0], lines[2]].concat()).unwrap();
        check_broken(&path, 1);
    }

    #[test]
    fn an_entry_hashed_anew_breaks_the_next_one() {
        let (_dir, path) = log_of(&[10, 20]);
        let mut lines: Vec<Line<Release>> =
            std::fs::read_to_string(&path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        lines[0].entry.release.size = 11;
        lines[0].hash = lines[0].entry.hash();
        let text: String = lines.iter().map(|l| serde_json::to_string(l).unwrap() + "\n").collect();
        std::fs::write(&path, text).unwrap();
        check_broken(&path, 2);
    }

    #[test]
    fn lines_cut_from_the_end_are_seen_by_a_noted_head() {
        let (_dir, path) = log_of(&[10, 20]);
        let noted = AuditTrail::read(&path).unwrap().head();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.split_inclusive('\n').next().unwrap()).unwrap();
        assert!(!AuditTrail::read(&path).unwrap().contains(&noted));
    }

    #[test]
    fn wherever_the_disk_is_full_the_chain_holds_and_goes_on() {
        let (_dir, path) = log_of(&[10]);
        let line = std::fs::read(&path).unwrap();
        for room in line.len()..2 * line.len() + 2 {
            let (trail, whole_len) = AuditTrail::of_bytes(&path, &line).unwrap();
            let disk = SmallDisk { bytes: line.clone(), room, is_failing: false };
            let mut log = Log::<Release, _>::over(&path, disk, &trail, whole_len).unwrap();
            let is_logged = log.append(release(20)).is_ok();
            let seen = |log: &Log<Release, SmallDisk>| {
                let Log { file, .. } = log;
                let (trail, whole_len) = AuditTrail::of_bytes(&path, &file.medium().bytes).unwrap();
                assert_eq!(whole_len, file.length(), "room for {room}: nothing of a line is left");
                trail.bytes_by_kind()["columns"]
            };
            assert_eq!(seen(&log), if is_logged { 30 } else { 10 });
            log.file.medium_mut().room = usize::MAX;
            log.append(release(40)).unwrap();
            assert_eq!(seen(&log), if is_logged { 70 } else { 50 });
        }
    }

    #[test]
    fn a_torn_last_line_is_cut_off_when_the_log_is_opened() {
        let (_dir, path) = log_of(&[10, 20]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
        assert!(matches!(AuditTrail::read(&path), Err(Error::AuditBroken { line: 2, .. })));
        AuditLog::open(&path).unwrap().append(release(30)).unwrap();
        assert_eq!(AuditTrail::read(&path).unwrap().bytes_by_kind()["columns"], 40);
    }
}
