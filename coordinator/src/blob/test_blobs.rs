//! Blobs for tests.

use std::sync::Arc;

use archipelago_common::BlobRef;
use archipelago_protocol::{ChunkSender, message::Chunk};

use super::BlobStore;
use crate::condition::Condition;

/// An empty store in a folder that goes with the first of both.
pub(crate) fn store() -> (tempfile::TempDir, Arc<BlobStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), Condition::new(0)).unwrap();
    (dir, store)
}

/// The chunks of some bytes.
pub(crate) fn chunks(bytes: &[u8]) -> Vec<Chunk> {
    let mut sender = ChunkSender::new(BlobRef::of(bytes), 0).unwrap();
    let mut chunks = Vec::new();
    while let Some(piece) = sender.poll_piece() {
        chunks.push(sender.handle_read(bytes[piece.offset as usize..][..piece.size].to_vec()).unwrap());
    }
    chunks
}

/// Stores some bytes as if a peer had sent them.
pub(crate) fn put(store: &Arc<BlobStore>, bytes: &[u8]) -> BlobRef {
    let blob = BlobRef::of(bytes);
    if !store.contains(&blob) {
        let mut receiving = store.receive(blob).unwrap();
        chunks(bytes)[receiving.next_chunk() as usize..].iter().for_each(|chunk| receiving.write(chunk).unwrap());
        receiving.finish().unwrap();
    }
    blob
}
