//! What is acknowledged is in directories that are on disk too: an entry that its directory has only in memory is lost with the
//! power, and with it everything that was fsynced below it.

mod record;

use std::{path::Path, sync::Arc};

use archipelago_cluster::Cluster;
use archipelago_common::{BlobRef, NodeId, fs, limits};
use archipelago_coordinator::{
    blob::BlobStore,
    condition::Condition,
    raft::log_store::{Beginning, LogStore},
};
use archipelago_protocol::ChunkSender;

use crate::record::{lost, lost_below};

/// Stores a blob of two chunks, as if a peer had sent it; where it is.
fn put(store: &Arc<BlobStore>, seed: u8) -> BlobRef {
    let bytes = vec![seed; limits::CHUNK_BYTES as usize + 1];
    let blob = BlobRef::of(&bytes);
    let (mut receiving, mut sender) = (store.receive(blob).unwrap(), ChunkSender::new(blob, 0).unwrap());
    while let Some(piece) = sender.poll_piece() {
        let chunk = sender.handle_read(bytes[piece.offset as usize..][..piece.size].to_vec()).unwrap();
        receiving.write(&chunk).unwrap();
    }
    receiving.finish().unwrap();
    assert!(store.contains(&blob));
    blob
}

fn whole(dir: &Path, blob: &BlobRef) -> std::path::PathBuf {
    let name = blob.digest.to_string();
    dir.join("whole").join(&name[..2]).join(name)
}

#[test]
fn what_is_made_and_not_fsynced_is_seen_to_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (outer, file) = (dir.path().join("outer"), dir.path().join("outer/file"));
    std::fs::create_dir(&outer).unwrap();
    std::fs::write(dir.path().join("new"), b"x").unwrap();
    std::fs::rename(dir.path().join("new"), &file).unwrap();
    assert_eq!(
        lost(dir.path(), &file),
        [file.clone(), outer.clone(), file.clone()],
        "the file, what it is in, and what is in it"
    );
    fs::sync_dir(&outer).unwrap();
    fs::sync_dir(dir.path()).unwrap();
    assert_eq!(lost(dir.path(), &file), [file.as_path()], "its content was never fsynced");
    fs::write_atomic(&file, b"y").unwrap();
    assert!(lost(dir.path(), &file).is_empty());
}

#[test]
fn an_acknowledged_blob_its_digests_and_all_directories_above_them_are_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("node1/data/blobs");
    let store = BlobStore::open(&blobs, Condition::new(0)).unwrap();
    for seed in 0..4 {
        let blob = put(&store, seed);
        assert_eq!(lost(dir.path(), &whole(&blobs, &blob)), <[&Path; 0]>::default());
        assert_eq!(lost(dir.path(), &blobs.join("chunks").join(blob.digest.to_string())), <[&Path; 0]>::default());
    }
}

/// A process that made a directory and was killed before it made it durable leaves one that looks like any other.
#[test]
fn directories_that_a_killed_process_made_are_on_disk_before_anything_in_them_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    let name = BlobRef::of(&vec![7; limits::CHUNK_BYTES as usize + 1]).digest.to_string();
    std::fs::create_dir_all(blobs.join("whole").join(&name[..2])).unwrap();
    assert_eq!(lost_below(dir.path()).len(), 3);
    let store = BlobStore::open(&blobs, Condition::new(0)).unwrap();
    let blob = put(&store, 7);
    assert_eq!(lost(dir.path(), &whole(&blobs, &blob)), <[&Path; 0]>::default());
}

#[test]
fn a_founded_log_is_on_disk_with_the_directories_that_were_made_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node1/data");
    fs::create_private_dir(&data).unwrap();
    let state = Cluster::founded().snapshot().unwrap();
    let log = data.join("log.redb");
    LogStore::create(&log, NodeId::new(1).unwrap(), &Beginning::joining(state)).unwrap();
    assert_eq!(lost_below(dir.path()), <[&Path; 0]>::default());
}
