//! This node's blobs, each a file whose name is its digest.
//!
//! ```text
//! <dir>/whole/<first 2 digits>/<digest>     verified, fsynced, never changed
//!       chunks/<digest>                     digests of its chunks, if it has several; see [`super::digests`]
//!       partial/<digest>.data, .record      on their way in; see [`super::receiving`]
//!       damaged/<digest>                    found to be something else, and put aside; see [`super::verify`]
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, FileTimes},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::{BlobRef, Digest, NodeId, fs};
use tokio::sync::{Notify, watch};

use super::{
    gc::digest_of,
    receiving::{Part, Receiving},
};
use crate::{
    condition::Condition,
    error::{Error, Result},
    ops::metrics,
};

/// The blobs on this node's disk. Every method blocks on the disk.
pub struct BlobStore {
    dir: PathBuf,
    /// What is being received: two senders of one blob would write over each other.
    receiving: Mutex<BTreeSet<Digest>>,
    turns: Mutex<BTreeMap<Digest, Arc<Turn>>>,
    n_blobs: AtomicU64,
    n_bytes: AtomicU64,
    condition: Arc<Condition>,
    /// Told when a blob that was here is here no more.
    lost: Notify,
}

impl BlobStore {
    /// Opens a directory, or makes it. What befalls the blobs is noted in `condition`.
    ///
    /// # Errors  [`Error::Common`] naming the file
    pub fn open(dir: &Path, condition: Arc<Condition>) -> Result<Arc<Self>> {
        let store = Self {
            dir: dir.to_owned(),
            receiving: Mutex::default(),
            turns: Mutex::default(),
            n_blobs: AtomicU64::new(0),
            n_bytes: AtomicU64::new(0),
            condition,
            lost: Notify::new(),
        };
        for dir in [dir, &store.whole_dir(), &store.chunks_dir(), &store.partial_dir(), &store.damaged_dir()] {
            fs::create_private_dir(dir)?;
        }
        // Those that a process made which was killed before it made them durable.
        fs::sync_dir(dir)?;
        fs::sync_dir(dir.parent().unwrap_or(Path::new(".")))?;
        store.recount(&store.present()?);
        Ok(Arc::new(store))
    }

    /// How the node is.
    pub fn condition(&self) -> &Arc<Condition> {
        &self.condition
    }

    /// Whether a blob is here, by its size; whether the disk has spoilt it shows when it is read.
    pub fn contains(&self, blob: &BlobRef) -> bool {
        std::fs::metadata(self.path(&blob.digest)).is_ok_and(|metadata| metadata.len() == blob.size)
    }

    /// Whether a blob is here as it came, which is found out by reading it; and if so, it is not collected before a grace
    /// period from now is over. Whoever is about to rely on a blob that came earlier looks in this way: a copy that a disk
    /// has spoilt since is put aside, and counts for nothing.
    pub fn hold(&self, blob: &BlobRef) -> bool {
        // Before it is read, so that it is not collected meanwhile.
        self.touch(blob)
            && (mutation::is_broken(Rule::CountWhatIsRead) || matches!(self.make_digests(*blob), Ok(Some(_))))
    }

    fn touch(&self, blob: &BlobRef) -> bool {
        // Nothing is removed while this is locked.
        let _receiving = self.lock();
        let now = FileTimes::new().set_modified(SystemTime::now());
        self.contains(blob) && File::open(self.path(&blob.digest)).is_ok_and(|file| file.set_times(now).is_ok())
    }

    /// Waits until a blob that was here is here no more.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Reads a whole small blob and verifies it. One that the disk has spoilt is put aside.
    ///
    /// # Errors  [`Error::NoBlob`]; [`Error::Damaged`]; [`Error::Common`] if it is larger than `limit`
    pub fn read_whole(&self, blob: BlobRef, limit: u64) -> Result<Vec<u8>> {
        if !self.contains(&blob) {
            return Err(Error::NoBlob { blob });
        }
        let path = self.path(&blob.digest);
        // Opened before it is read: what is put aside is what was read.
        let file = File::open(&path).map_err(|_| Error::NoBlob { blob })?;
        let bytes = fs::read_bounded(&path, limit)?;
        if blob.verify("blob", &bytes).is_err() {
            self.put_aside(blob.digest, &file)?;
            return Err(Error::Damaged { blob });
        }
        Ok(bytes)
    }

    /// What is here, with its size.
    pub(super) fn present(&self) -> Result<BTreeMap<Digest, u64>> {
        let mut present = BTreeMap::new();
        for file in self.whole_files()? {
            // One that is gone again was collected meanwhile.
            if let (Some(digest), Ok(bytes)) = (digest_of(&file), file_size(&file)) {
                present.insert(digest, bytes);
            }
        }
        Ok(present)
    }

    /// Counts anew: somebody may have removed files behind this program's back.
    pub(super) fn recount(&self, present: &BTreeMap<Digest, u64>) {
        self.n_blobs.store(present.len() as u64, Ordering::Relaxed);
        self.n_bytes.store(present.values().sum(), Ordering::Relaxed);
        self.count(0, 0);
    }

    /// Tells whoever keeps this store complete that something is missing.
    pub(super) fn note_lost(&self) {
        self.lost.notify_waiters();
    }

    /// Begins or resumes receiving a blob; one at a time. Whoever finds it busy has a receiver that stands still give up,
    /// so that the next try may succeed: its sender has died, and came back as the one that asks.
    ///
    /// # Errors  [`Error::BlobBusy`], [`Error::Protocol`] for one over the limit, [`Error::Common`]
    pub fn receive(self: &Arc<Self>, blob: BlobRef) -> Result<Receiving> {
        self.receive_in(blob, Turn::new(Instant::now()))
    }

    /// As [`Self::receive`], for chunks that coordinator `by` relays. It ends as soon as the sender itself comes here
    /// ([`Self::receive_at_first_hand`]), as soon as `by` begins anew, and when the leader relays and `by` is not the leader.
    ///
    /// # Errors  as [`Self::receive`]
    pub async fn receive_relayed(
        self: &Arc<Self>,
        blob: BlobRef,
        by: NodeId,
        leader: Option<NodeId>,
    ) -> Result<Receiving> {
        self.end_relay(&blob, |other| other == by || leader == Some(by)).await;
        let turn = Turn { relayed_by: Some(by), ..Turn::new(Instant::now()) };
        tokio::task::block_in_place(|| self.receive_in(blob, turn))
    }

    /// As [`Self::receive`], for the sender itself: whoever relays the same blob to this node has died, or does without.
    ///
    /// # Errors  as [`Self::receive`]
    pub async fn receive_at_first_hand(self: &Arc<Self>, blob: BlobRef) -> Result<Receiving> {
        self.end_relay(&blob, |_| true).await;
        tokio::task::block_in_place(|| self.receive(blob))
    }

    /// What has arrived of a blob that is on its way in, if anything has.
    pub(crate) fn part(&self, blob: BlobRef) -> Option<Part> {
        Part::open(self, blob).ok().filter(|part| part.n_chunks() > 0)
    }

    fn receive_in(self: &Arc<Self>, blob: BlobRef, turn: Turn) -> Result<Receiving> {
        if blob.size > self.condition.spare_bytes() {
            return Err(Error::DiskLow { blob, spare: self.condition.spare_bytes() });
        }
        Receiving::open(Claim::new(self.clone(), blob, turn)?)
    }

    /// Has a relayed turn by one of these end, and waits until it has.
    async fn end_relay(&self, blob: &BlobRef, is_one: impl Fn(NodeId) -> bool) {
        let ended = {
            let turns = self.turns.lock().unwrap_or_else(|e| e.into_inner());
            let turn = turns.get(&blob.digest).filter(|turn| turn.relayed_by.is_some_and(is_one));
            turn.map(|turn| {
                turn.over.notify_one();
                turn.ended.subscribe()
            })
        };
        if let Some(mut ended) = ended {
            // Nothing is ever sent; it changes when the turn is given back, or is past caring about.
            let _ = tokio::time::timeout(STALLED, ended.changed()).await;
        }
    }

    /// Number of blobs, and of their bytes.
    pub fn size(&self) -> (u64, u64) {
        (self.n_blobs.load(Ordering::Relaxed), self.n_bytes.load(Ordering::Relaxed))
    }

    /// Where a blob is, or will be. Built from a digest, never from a peer's text.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.whole_dir().join(&name[..2]).join(name)
    }

    pub(super) fn partial_path(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.partial_dir().join(format!("{digest}.{extension}"))
    }

    pub(super) fn count(&self, blobs: u64, bytes: u64) {
        metrics::BLOB_OBJECTS.set((self.n_blobs.fetch_add(blobs, Ordering::Relaxed) + blobs) as i64);
        metrics::BLOB_BYTES.set((self.n_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes) as i64);
    }

    /// Every file that is a whole blob.
    pub(super) fn whole_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for shelf in entries(&self.whole_dir())? {
            files.extend(entries(&shelf)?);
        }
        Ok(files)
    }

    /// Every file of a blob on its way in.
    pub(super) fn partial_files(&self) -> Result<Vec<PathBuf>> {
        entries(&self.partial_dir())
    }

    /// What is being received. While it is locked nothing new begins to be, and nothing is held or removed.
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.receiving.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes that a blob is gone.
    pub(super) fn uncount(&self, bytes: u64) {
        metrics::BLOB_OBJECTS.set((self.n_blobs.fetch_sub(1, Ordering::Relaxed) - 1) as i64);
        metrics::BLOB_BYTES.set((self.n_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes) as i64);
        self.note_lost();
    }

    pub(super) fn chunks_path(&self, digest: &Digest) -> PathBuf {
        self.chunks_dir().join(digest.to_string())
    }

    /// Every file of digests.
    pub(super) fn chunks_files(&self) -> Result<Vec<PathBuf>> {
        entries(&self.chunks_dir())
    }

    fn chunks_dir(&self) -> PathBuf {
        self.dir.join("chunks")
    }

    pub(super) fn damaged_dir(&self) -> PathBuf {
        self.dir.join("damaged")
    }

    fn whole_dir(&self) -> PathBuf {
        self.dir.join("whole")
    }

    fn partial_dir(&self) -> PathBuf {
        self.dir.join("partial")
    }
}

/// The right to write one blob's partial file; given back on drop.
pub(super) struct Claim {
    pub(super) store: Arc<BlobStore>,
    pub(super) blob: BlobRef,
    pub(super) turn: Arc<Turn>,
}

/// How a receiver gets on, for others who want to send the same blob.
pub(super) struct Turn {
    /// Since when the sender has given nothing; not while it is not the sender that is waited for.
    idle_since: Mutex<Option<Instant>>,
    over: Notify,
    /// The coordinator that relays; none for the sender itself, and for whole blobs.
    relayed_by: Option<NodeId>,
    /// Closed when the turn is given back.
    ended: watch::Sender<()>,
}

impl Turn {
    pub(super) fn new(now: Instant) -> Self {
        Self { idle_since: Mutex::new(Some(now)), over: Notify::new(), relayed_by: None, ended: watch::Sender::new(()) }
    }

    /// The next chunk is awaited.
    pub(super) fn await_sender(&self) {
        self.note_idle_since(Some(Instant::now()));
    }

    /// The sender has done its part, and somebody else is awaited.
    pub(super) fn await_others(&self) {
        self.note_idle_since(None);
    }

    /// Waits until somebody else is to have the turn.
    pub(super) async fn over(&self) {
        self.over.notified().await;
    }

    pub(super) fn end_if_stalled(&self, now: Instant) {
        let idle_since = *self.idle_since.lock().unwrap_or_else(|e| e.into_inner());
        if idle_since.is_some_and(|since| now.duration_since(since) > STALLED) {
            self.over.notify_one();
        }
    }

    fn note_idle_since(&self, since: Option<Instant>) {
        *self.idle_since.lock().unwrap_or_else(|e| e.into_inner()) = since;
    }
}

impl Claim {
    fn new(store: Arc<BlobStore>, blob: BlobRef, turn: Turn) -> Result<Self> {
        let is_free = store.lock().insert(blob.digest);
        let mut turns = store.turns.lock().unwrap_or_else(|e| e.into_inner());
        if !is_free {
            turns.get(&blob.digest).into_iter().for_each(|turn| turn.end_if_stalled(Instant::now()));
            return Err(Error::BlobBusy { blob });
        }
        let turn = Arc::new(turn);
        turns.insert(blob.digest, turn.clone());
        drop(turns);
        Ok(Self { store, blob, turn })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.turns.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.blob.digest);
        self.store.lock().remove(&self.blob.digest);
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let error = |source| archipelago_common::Error::File { action: "list", path: dir.into(), source };
    let list = std::fs::read_dir(dir).map_err(error)?;
    Ok(list.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>().map_err(error)?)
}

pub(super) fn file_size(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path);
    Ok(metadata.map_err(|source| archipelago_common::Error::File { action: "read", path: path.into(), source })?.len())
}

/// How long a receiver may get nothing before another sender of the same blob is preferred. A live line that is slower than
/// 4 Mbit/s may lose its turn, and goes on with the next chunk when it comes back for it.
const STALLED: Duration = Duration::from_secs(2);
