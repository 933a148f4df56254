//! Tests of blobs on their way in: kills, torn and damaged files, wrong content.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use archipelago_common::{BlobRef, Digest, NodeId, limits};

use super::*;
use crate::blob::{
    BlobStore,
    store::Turn,
    test_blobs::{chunks, put, store},
};

fn bytes(n_chunks: u64) -> Vec<u8> {
    (0..n_chunks * limits::CHUNK_BYTES - 7).map(|i| (i / 11 % 253) as u8).collect()
}

/// A store where `n` chunks of the bytes have come before the process was killed.
fn interrupted(all: &[u8], n: usize) -> (tempfile::TempDir, Arc<BlobStore>) {
    let (dir, store) = store();
    let mut receiving = store.receive(BlobRef::of(all)).unwrap();
    chunks(all)[..n].iter().for_each(|chunk| receiving.write(chunk).unwrap());
    (dir, store)
}

#[test]
fn a_blob_comes_back_as_it_was_sent_and_is_counted() {
    let (dir, store) = store();
    for all in [vec![], vec![1], bytes(1), bytes(3)] {
        let blob = put(&store, &all);
        assert_eq!(store.read_whole(blob, limits::BLOB_BYTES).unwrap(), all);
    }
    assert_eq!(store.size().0, 4);
    assert_eq!(BlobStore::open(dir.path(), crate::condition::Condition::new(0)).unwrap().size(), store.size());
    assert_eq!(std::fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn after_a_kill_what_has_come_is_not_asked_for_again() {
    let all = bytes(4);
    let (_dir, store) = interrupted(&all, 3);
    assert!(!store.contains(&BlobRef::of(&all)), "a part is not the blob");
    let receiving = store.receive(BlobRef::of(&all)).unwrap();
    assert_eq!(receiving.next_chunk(), 3);
    drop(receiving);
    put(&store, &all);
    assert!(store.contains(&BlobRef::of(&all)));
}

#[test]
fn a_damaged_part_costs_what_is_damaged() {
    let all = bytes(4);
    let blob = BlobRef::of(&all);
    let (_dir, store) = interrupted(&all, 3);
    let path = store.partial_path(&blob.digest, "data");
    let mut data = std::fs::read(&path).unwrap();
    data[limits::CHUNK_BYTES as usize + 5] ^= 1;
    std::fs::write(&path, data).unwrap();
    assert_eq!(store.receive(blob).unwrap().next_chunk(), 1);
    put(&store, &all);
}

#[test]
fn torn_and_foreign_records_are_harmless() {
    let all = bytes(3);
    let blob = BlobRef::of(&all);
    for (damage, expected) in [(vec![], 0), (vec![9; 300], 0)] {
        let (_dir, store) = interrupted(&all, 2);
        std::fs::write(store.partial_path(&blob.digest, "record"), damage).unwrap();
        assert_eq!(store.receive(blob).unwrap().next_chunk(), expected);
        put(&store, &all);
    }
    let (_dir, store) = interrupted(&all, 2);
    let path = store.partial_path(&blob.digest, "record");
    let record = std::fs::read(&path).unwrap();
    std::fs::write(&path, &record[..record.len() - 1]).unwrap();
    assert_eq!(store.receive(blob).unwrap().next_chunk(), 1, "a torn entry counts as none");
    put(&store, &all);
}

#[test]
fn other_content_than_announced_is_thrown_away() {
    let (dir, store) = store();
    let announced = BlobRef { digest: Digest::of(b"something else"), size: 3 };
    let mut receiving = store.receive(announced).unwrap();
    receiving.write(&chunks(b"abc")[0]).unwrap();
    let error = receiving.finish().unwrap_err();
    assert!(matches!(error, Error::Protocol(archipelago_protocol::Error::BlobDigest { .. })), "{error}");
    assert!(!store.contains(&announced));
    assert_eq!(std::fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_blob_has_one_sender_at_a_time() {
    let (_dir, store) = store();
    let blob = BlobRef::of(b"abc");
    let first = store.receive(blob).unwrap();
    assert!(matches!(store.receive(blob), Err(Error::BlobBusy { .. })));
    drop(first);
    assert!(store.receive(blob).is_ok());
}

#[test]
fn a_blob_over_the_limit_is_refused_before_anything_is_written() {
    let (dir, store) = store();
    let vast = BlobRef { digest: Digest::of(b""), size: limits::BLOB_BYTES + 1 };
    assert!(store.receive(vast).is_err());
    assert_eq!(std::fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_blob_of_another_size_is_not_the_blob() {
    let (_dir, store) = store();
    let blob = put(&store, b"abc");
    let other = BlobRef { size: 4, ..blob };
    assert!(!store.contains(&other));
    assert!(matches!(store.read_whole(other, 10), Err(Error::NoBlob { .. })));
}

#[tokio::test]
async fn a_sender_that_died_does_not_keep_its_blob_from_being_sent_by_another() {
    let begun = Instant::now();
    let turn = Turn::new(begun);
    let is_over = async || tokio::time::timeout(Duration::ZERO, turn.over()).await.is_ok();
    turn.end_if_stalled(begun + Duration::from_secs(1));
    assert!(!is_over().await, "one that gets on goes on");
    turn.end_if_stalled(begun + Duration::from_secs(3));
    assert!(is_over().await, "one that stands still gives up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_gives_way_to_its_own_node_and_to_the_leader_and_to_nobody_else() {
    let (all, (_dir, store)) = (bytes(3), store());
    let (blob, node) = (BlobRef::of(&all), |id| NodeId::new(id).unwrap());
    let receiving = store.receive_relayed(blob, node(2), None).await.unwrap();
    for leader in [None, Some(node(2)), Some(node(1))] {
        assert!(
            matches!(store.receive_relayed(blob, node(3), leader).await, Err(Error::BlobBusy { .. })),
            "{leader:?}"
        );
    }
    let gives_way = async |receiving: Receiving| receiving.over().await;
    let (next, ()) = tokio::join!(store.receive_relayed(blob, node(2), None), gives_way(receiving));
    let (next, ()) = tokio::join!(store.receive_relayed(blob, node(3), Some(node(3))), gives_way(next.unwrap()));
    assert_eq!(next.unwrap().next_chunk(), 0);
}
