//! The blobs on one machine's disk. Simulated, because the real store is a directory; what is said about blobs is real.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
};

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::{BlobRef, Digest};
use archipelago_coordinator::{
    blob::{digests::ChunkDigests, verify::next_to_read},
    error::{Error, Result},
    server::checks::Shelf,
};
use archipelago_protocol::{ChunkReceiver, ChunkSender, message::Chunk};

/// The blobs on one machine's disk.
#[derive(Default)]
pub(crate) struct Shelves {
    whole: BTreeMap<Digest, Kept>,
    /// Chunks of a blob that has not come whole, and their recorded digests.
    partial: BTreeMap<Digest, Vec<Chunk>>,
}

/// How long what somebody is about to rely on is left alone, as on a live node.
const HELD_MS: u64 = 10_000;

/// A whole blob, and the digests of its chunks beside it.
struct Kept {
    bytes: Arc<[u8]>,
    digests: ChunkDigests,
    /// When it was last relied upon.
    touched: u64,
}

impl Shelves {
    pub(crate) fn contains(&self, blob: &BlobRef) -> bool {
        self.whole.get(&blob.digest).is_some_and(|kept| kept.bytes.len() as u64 == blob.size)
    }

    /// Whether a blob is here as it came. The product finds out by reading it; this is what is checked.
    pub(crate) fn is_sound(&self, blob: &BlobRef) -> bool {
        self.whole.get(&blob.digest).is_some_and(|kept| BlobRef::of(&kept.bytes) == *blob)
    }

    /// Whether a blob is here as it came, found out by reading it; and if so, it is relied upon now.
    pub(crate) fn hold(&mut self, blob: &BlobRef, now: u64) -> bool {
        let Some(kept) = self.whole.get_mut(&blob.digest) else { return false };
        let read = || ChunkDigests::read(*blob, &mut &kept.bytes[..]).is_ok_and(|digests| digests.is_some());
        let is_sound = mutation::is_broken(Rule::CountWhatIsRead) || read();
        kept.touched = now;
        if !is_sound {
            self.lose(blob);
        }
        is_sound
    }

    /// All that is here.
    pub(crate) fn all(&self) -> Vec<BlobRef> {
        let blob = |(digest, kept): (&Digest, &Kept)| BlobRef { digest: *digest, size: kept.bytes.len() as u64 };
        self.whole.iter().map(blob).collect()
    }

    /// The disk changes one bit of a blob.
    pub(crate) fn spoil(&mut self, blob: &BlobRef, place: u64) {
        if let Some(kept) = self.whole.get_mut(&blob.digest).filter(|kept| !kept.bytes.is_empty()) {
            let mut bytes = kept.bytes.to_vec();
            let place = (place % bytes.len() as u64) as usize;
            bytes[place] ^= 1;
            kept.bytes = bytes.into();
        }
    }

    /// The disk loses a blob, or somebody puts it aside.
    pub(crate) fn lose(&mut self, blob: &BlobRef) {
        self.whole.remove(&blob.digest);
    }

    /// Reads the next blob after this one, and puts it aside if it is not what it should be. Says which, and whether it was.
    pub(crate) fn scrub(&mut self, after: Digest) -> Option<(Digest, bool)> {
        let digest = next_to_read(&self.whole, after)?;
        let bytes = self.whole[&digest].bytes.clone();
        let blob = BlobRef { digest, size: bytes.len() as u64 };
        let is_sound = ChunkDigests::read(blob, &mut &bytes[..]).is_ok_and(|digests| digests.is_some());
        if !is_sound {
            self.lose(&blob);
        }
        Some((digest, is_sound))
    }

    /// Removes what nothing refers to and nobody has relied upon for long; says what that was.
    pub(crate) fn sweep(&mut self, named: &BTreeSet<Digest>, now: u64) -> Vec<Digest> {
        let is_idle = |(digest, kept): (&Digest, &Kept)| !named.contains(digest) && kept.touched + GRACE_MS < now;
        let idle: Vec<_> = self.whole.iter().filter(|(d, w)| is_idle((d, w))).map(|(digest, _)| *digest).collect();
        idle.iter().for_each(|digest| drop(self.whole.remove(digest)));
        idle
    }

    /// Deletes a blob in every form, unless it was relied upon a moment ago; says whether nothing of it is left.
    pub(crate) fn erase(&mut self, blob: &BlobRef, now: u64) -> bool {
        let is_held = self.whole.get(&blob.digest).is_some_and(|kept| kept.touched + HELD_MS >= now);
        if !is_held {
            self.whole.remove(&blob.digest);
            self.partial.remove(&blob.digest);
        }
        !is_held
    }

    /// Loses what was not fsynced.
    pub(crate) fn lose_power(&mut self) {
        for chunks in self.partial.values_mut() {
            chunks.truncate(chunks.len() / 2);
        }
    }

    /// A receiver that has taken what an earlier attempt left, and its bytes.
    pub(crate) fn resume(&mut self, blob: BlobRef) -> Result<(ChunkReceiver, Vec<u8>)> {
        let mut receiver = ChunkReceiver::new(blob)?;
        let recorded = self.partial.entry(blob.digest).or_default();
        let intact = recorded.iter().take_while(|chunk| receiver.handle_recorded(&chunk.bytes, chunk.digest)).count();
        recorded.truncate(intact);
        let bytes = recorded.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect();
        Ok((receiver, bytes))
    }

    /// A chunk of a blob has come and is recorded.
    pub(crate) fn record(&mut self, blob: &BlobRef, chunk: &Chunk) {
        self.partial.entry(blob.digest).or_default().push(chunk.clone());
    }

    /// A blob is whole, if it is what it should be. Says whether it is.
    pub(crate) fn keep(&mut self, blob: BlobRef, bytes: Vec<u8>, now: u64) -> bool {
        self.partial.remove(&blob.digest);
        let Ok(Some(digests)) = ChunkDigests::read(blob, &mut &bytes[..]) else { return false };
        self.whole.insert(blob.digest, Kept { bytes: bytes.into(), digests, touched: now });
        true
    }

    pub(crate) fn bytes(&self, blob: BlobRef) -> Result<Arc<[u8]>> {
        self.whole.get(&blob.digest).map(|kept| kept.bytes.clone()).ok_or(Error::NoBlob { blob })
    }

    pub(crate) fn sender(&self, blob: BlobRef, from_chunk: u64) -> Result<ChunkSender> {
        self.whole.get(&blob.digest).ok_or(Error::NoBlob { blob })?.digests.sender(from_chunk)
    }
}

impl Shelf for Shelves {
    fn open(&self, blob: BlobRef) -> Result<Box<dyn Read>> {
        let bytes = self.bytes(blob)?;
        blob.verify("blob", &bytes).map_err(|_| Error::Damaged { blob })?;
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }

    fn read_whole(&self, blob: BlobRef, _: u64) -> Result<Vec<u8>> {
        let bytes = self.bytes(blob)?.to_vec();
        blob.verify("blob", &bytes).map_err(|_| Error::Damaged { blob })?;
        Ok(bytes)
    }
}

/// How long a blob that nothing refers to is kept; longer than a command is ever under way here.
const GRACE_MS: u64 = 50_000;
