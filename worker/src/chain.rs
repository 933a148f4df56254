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
    act::Anchored,
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
    pub(crate) fn hash(&self) -> Digest {
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
    /// Place of the first entry in the file.
    first: u64,
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
        let mut trail = Trail::<R>::read_segments(path)?;
        let first = trail.entries.len() as u64 + 1;
        let whole_len = if path.exists() { trail.read_file(path)? } else { 0 };
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(fs::PRIVATE_FILE).open(path);
        let file = open.map_err(error)?;
        if file.metadata().map_err(error)?.len() > whole_len {
            tracing::warn!("the {} ends in a torn line; it is cut off, nothing was sent for it", R::LOG);
        }
        let log = Self::over(path, file, (&trail, first), whole_len)?;
        fs::sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(log)
    }

    /// Appends an entry; when this returns it is on disk. A file that has become long is put beside under the place of its first entry,
    /// and the chain goes on in a new one.
    ///
    /// # Errors  [`Error::File`]: then nothing may be sent, and nothing of the entry is left
    pub fn append(&mut self, release: R) -> Result<()> {
        self.append_within(release, SEGMENT_BYTES)
    }

    fn append_within(&mut self, release: R, segment_bytes: u64) -> Result<()> {
        if self.file.length() >= segment_bytes {
            self.begin_segment()?;
        }
        self.add(release)
    }

    fn begin_segment(&mut self) -> Result<()> {
        let error = |source| Error::File { action: "begin", path: self.path.clone(), source };
        std::fs::rename(&self.path, segment(&self.path, self.first)).map_err(error)?;
        let open = OpenOptions::new().create_new(true).write(true).mode(fs::PRIVATE_FILE).open(&self.path);
        self.file = AppendFile::new(open.map_err(error)?, 0).map_err(error)?;
        self.first = self.n_entries + 1;
        fs::sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(())
    }
}

impl<R: Record, M: Medium> Log<R, M> {
    /// The log on a medium whose first `whole_len` bytes hold a trail.
    fn over(path: &Path, medium: M, (trail, first): (&Trail<R>, u64), whole_len: u64) -> Result<Self> {
        let file = AppendFile::new(medium, whole_len);
        let file = file.map_err(|source| Error::File { action: "open", path: path.into(), source })?;
        let n_entries = trail.entries.len() as u64;
        Ok(Self { path: path.into(), file, first, n_entries, head: trail.head(), of: PhantomData })
    }

    fn add(&mut self, release: R) -> Result<()> {
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
    /// Reads and verifies a log, with the files that are full.
    ///
    /// # Errors  [`Error::AuditBroken`] with the first line that does not hold, [`Error::Common`] if it cannot be read
    pub fn read(path: &Path) -> Result<Self> {
        let mut trail = Self::read_segments(path)?;
        // A crash may have come between the last full file and the next.
        if trail.entries.is_empty() || path.exists() {
            trail.read_whole(path)?;
        }
        Ok(trail)
    }

    /// The files that are full, in their order.
    fn read_segments(path: &Path) -> Result<Self> {
        let mut trail = Self::default();
        for segment in segments(path)? {
            trail.read_whole(&segment)?;
        }
        Ok(trail)
    }

    fn read_whole(&mut self, path: &Path) -> Result<()> {
        let n_before = self.entries.len();
        let whole_len = self.read_file(path)?;
        let found =
            std::fs::metadata(path).map_err(|source| Error::File { action: "read", path: path.into(), source })?;
        if found.len() != whole_len {
            return Err(broken(path, self.entries.len() - n_before + 1, "the line has no end"));
        }
        Ok(())
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

    /// Where the chain stands.
    pub fn end(&self) -> Anchored {
        Anchored { n_records: self.entries.len() as u64, head: self.head() }
    }

    /// The hashes of what follows such a place, if the chain comes by it.
    pub fn hashes_after(&self, place: Anchored) -> Option<Vec<Digest>> {
        let n_before = usize::try_from(place.n_records).ok().filter(|n| *n <= self.entries.len())?;
        let before = n_before.checked_sub(1).map_or_else(|| Digest::of(b""), |last| self.entries[last].hash());
        (before == place.head).then(|| self.entries[n_before..].iter().map(Entry::hash).collect())
    }

    /// Whether a head that was noted earlier is part of this chain. If not, entries were cut from the end.
    pub fn contains(&self, head: &Digest) -> bool {
        *head == Digest::of(b"") || self.entries.iter().any(|entry| entry.hash() == *head)
    }

    /// The entries of the full files and of all lines that end in the last one, and how many bytes the lines of that take.
    ///
    /// # Errors  as [`Self::read`]
    pub(crate) fn read_prefix(path: &Path) -> Result<(Self, u64)> {
        let mut trail = Self::read_segments(path)?;
        let whole_len = trail.read_file(path)?;
        Ok((trail, whole_len))
    }

    // Goes on with the entries of all lines that end, and says how many bytes those lines take.
    fn read_file(&mut self, path: &Path) -> Result<u64> {
        self.follow(path, &fs::read_bounded(path, MAX_LOG_BYTES)?)
    }

    fn follow(&mut self, path: &Path, bytes: &[u8]) -> Result<u64> {
        let mut head = self.head();
        let mut whole_len = 0;
        let lines = bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
        for (line_idx, line) in lines.enumerate() {
            let entry = self.next_entry((path, line_idx + 1), line, head)?;
            head = entry.hash();
            self.entries.push(entry);
            whole_len += line.len() as u64;
        }
        Ok(whole_len)
    }

    fn next_entry(&self, (path, number): (&Path, usize), line: &[u8], head: Digest) -> Result<Entry<R>> {
        let Line { entry, hash } =
            serde_json::from_slice(line).map_err(|_| broken(path, number, "the line is not an entry"))?;
        if entry.seq != self.entries.len() as u64 + 1 {
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

/// Where a full file of a log is kept, by the place of its first entry.
fn segment(path: &Path, first: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{first:012}"));
    name.into()
}

/// The full files of a log, in the order of their entries.
fn segments(path: &Path) -> Result<Vec<PathBuf>> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let error = |source| Error::File { action: "list", path: dir.into(), source };
    let Ok(listed) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut segments = Vec::new();
    for entry in listed {
        let file = entry.map_err(error)?.file_name();
        let suffix = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        if suffix.is_some_and(|first| first.len() == 12 && first.bytes().all(|byte| byte.is_ascii_digit())) {
            segments.push(path.with_file_name(file));
        }
    }
    segments.sort();
    Ok(segments)
}

/// Bytes of a file after which the log goes on in another: some thirty thousand entries.
const SEGMENT_BYTES: u64 = 16 << 20;
/// A file larger than this has grown for decades or is not ours: an entry takes half a kilobyte.
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
            let of_bytes = |bytes: &[u8]| {
                let mut trail = AuditTrail::default();
                trail.follow(&path, bytes).map(|whole_len| (trail, whole_len)).unwrap()
            };
            let (trail, whole_len) = of_bytes(&line);
            let disk = SmallDisk { bytes: line.clone(), room, is_failing: false };
            let mut log = Log::<Release, _>::over(&path, disk, (&trail, 1), whole_len).unwrap();
            let is_logged = log.add(release(20)).is_ok();
            let seen = |log: &Log<Release, SmallDisk>| {
                let Log { file, .. } = log;
                let (trail, whole_len) = of_bytes(&file.medium().bytes);
                assert_eq!(whole_len, file.length(), "room for {room}: nothing of a line is left");
                trail.bytes_by_kind()["columns"]
            };
            assert_eq!(seen(&log), if is_logged { 30 } else { 10 });
            log.file.medium_mut().room = usize::MAX;
            log.add(release(40)).unwrap();
            assert_eq!(seen(&log), if is_logged { 70 } else { 50 });
        }
    }

    /// A log of entries of 1, 2, 3… bytes, in files of two entries each.
    fn rotated(n: u64) -> (tempfile::TempDir, PathBuf) {
        let (dir, path) = log_of(&[]);
        let mut log = AuditLog::open(&path).unwrap();
        (1..=n).for_each(|size| log.append_within(release(size), 600).unwrap());
        (dir, path)
    }

    #[test]
    fn a_log_goes_on_in_another_file_and_the_chain_with_it() {
        let (_dir, path) = rotated(7);
        let files = segments(&path).unwrap();
        assert!(files.len() >= 3 && files[0] == segment(&path, 1), "{files:?}");
        assert!(files.iter().all(|file| std::fs::metadata(file).unwrap().len() < 1_300), "each is bounded");
        let mut log = AuditLog::open(&path).unwrap();
        log.append_within(release(8), 600).unwrap();
        let trail = AuditTrail::read(&path).unwrap();
        assert_eq!(
            trail.entries.iter().map(|entry| (entry.seq, entry.release.size)).collect::<Vec<_>>(),
            (1..=8).map(|n| (n, n)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_changed_cut_or_taken_away_in_a_full_file_is_seen() {
        let check = |n_file: usize, change: fn(String) -> Option<String>, expected: &str| {
            let (_dir, path) = rotated(7);
            let file = &segments(&path).unwrap()[n_file];
            match change(std::fs::read_to_string(file).unwrap()) {
                Some(text) => std::fs::write(file, text).unwrap(),
                None => std::fs::remove_file(file).unwrap(),
            }
            for result in [AuditTrail::read(&path).map(drop), AuditLog::open(&path).map(drop)] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        };
        check(0, |text| Some(text.replacen("\"size\":1,", "\"size\":9,", 1)), "broken at line 1");
        check(0, |text| Some(text.split_inclusive('\n').next().unwrap().to_owned()), "out of order");
        check(1, |text| Some(text.trim_end().to_owned()), "has no end");
        check(0, |_| None, "out of order");
        check(1, |_| None, "out of order");
    }

    #[test]
    fn a_crash_between_two_files_loses_nothing() {
        let (_dir, path) = rotated(6);
        let n_before = AuditTrail::read(&path).unwrap().entries.len();
        let log = AuditLog::open(&path).unwrap();
        std::fs::rename(&path, segment(&path, log.first)).unwrap();
        assert_eq!(AuditTrail::read(&path).unwrap().entries.len(), n_before);
        AuditLog::open(&path).unwrap().append(release(7)).unwrap();
        assert_eq!(AuditTrail::read(&path).unwrap().entries.len(), n_before + 1);
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
