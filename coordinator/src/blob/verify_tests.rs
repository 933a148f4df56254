//! Tests of blobs that a disk has spoilt.

use std::collections::BTreeSet;

use archipelago_common::BlobRef;

use super::*;
use crate::{
    blob::test_blobs::{put, store},
    condition::Condition,
};

#[test]
fn a_damaged_blob_is_put_aside_and_missing_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), Condition::new(0)).unwrap();
    let (good, bad, torn) = (put(&store, b"good"), put(&store, b"bad"), put(&store, b"torn"));
    std::fs::write(store.path(&bad.digest), b"bat").unwrap();
    std::fs::write(store.path(&torn.digest), b"to").unwrap();
    assert!(store.contains(&bad), "the size alone does not tell");
    assert_eq!(store.verify_all(u64::MAX / 2_000).unwrap(), 2);
    assert!(store.contains(&good) && !store.contains(&bad) && !store.contains(&torn));
    assert_eq!(std::fs::read(dir.path().join("damaged").join(bad.digest.to_string())).unwrap(), b"bat");
    assert_eq!(store.condition().record(archipelago_common::NodeId::new(1).unwrap()).blobs_damaged, 2);
    assert_eq!(store.size().0, 1);
    // It comes again from another coordinator, and is right then.
    put(&store, b"bad");
    assert_eq!(store.verify_all(u64::MAX / 2_000).unwrap(), 0);
    assert_eq!(store.read_whole(bad, 10).unwrap(), b"bad");
}

#[test]
fn a_blob_that_is_not_here_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), Condition::new(0)).unwrap();
    assert!(store.verify(BlobRef::of(b"elsewhere").digest).unwrap());
}

/// Changes one bit of a blob on the disk.
fn flip(store: &BlobStore, blob: BlobRef, place: usize) {
    let path = store.path(&blob.digest);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

fn long() -> Vec<u8> {
    (0..3_u32 << 20).map(|i| (i / 9 % 249) as u8).collect()
}

#[test]
fn a_spoilt_copy_is_not_held() {
    let (_dir, store) = store();
    let (small, large) = (put(&store, b"small"), put(&store, &long()));
    assert!(store.hold(&small) && store.hold(&large));
    flip(&store, small, 4);
    flip(&store, large, (1 << 20) + 7);
    assert!(!store.hold(&small) && !store.hold(&large));
    assert!(!store.contains(&small) && !store.contains(&large), "it is put aside, so that it can come anew");
}

#[test]
fn what_a_disk_has_spoilt_is_found_before_it_is_given_out_and_put_aside_at_once() {
    let (dir, store) = store();
    let blob = put(&store, &long());
    flip(&store, blob, (2 << 20) + 5);
    let mut file = store.read(blob, 1).unwrap();
    assert_eq!(file.next_chunk().unwrap().unwrap().chunk_idx, 1, "what is sound is given");
    assert!(matches!(file.next_chunk(), Err(Error::Damaged { .. })));
    assert!(!store.contains(&blob) && store.chunks_files().unwrap().is_empty());
    assert!(dir.path().join("damaged").join(blob.digest.to_string()).exists());

    let small = put(&store, b"small");
    flip(&store, small, 0);
    assert!(matches!(store.read_whole(small, 10), Err(Error::Damaged { .. })));
    assert!(!store.contains(&small));
    let beginning = put(&store, &long());
    flip(&store, beginning, 3);
    let read = std::io::Read::read(&mut store.read(beginning, 0).unwrap(), &mut [0; 8]);
    assert!(read.unwrap_err().to_string().contains("is damaged"));
}

#[test]
fn another_reader_of_a_spoilt_blob_does_not_put_the_good_one_aside_that_came_in_its_place() {
    let (_dir, store) = store();
    let blob = put(&store, &long());
    flip(&store, blob, 7);
    let (mut one, mut other) = (store.read(blob, 0).unwrap(), store.read(blob, 0).unwrap());
    assert!(one.next_chunk().is_err());
    put(&store, &long());
    assert!(other.next_chunk().is_err());
    assert!(store.contains(&blob) && store.verify(blob.digest).unwrap());
}

#[test]
fn digests_that_are_spoilt_or_of_an_earlier_build_are_made_anew() {
    let (_dir, store) = store();
    let blob = put(&store, &long());
    let record = store.chunks_path(&blob.digest);
    let good = std::fs::read(&record).unwrap();
    let mut spoilt = good.clone();
    spoilt[60] ^= 1;
    std::fs::write(&record, spoilt).unwrap();
    assert!(store.read(blob, 0).unwrap().next_chunk().is_ok(), "the blob itself is sound");
    assert_eq!(std::fs::read(&record).unwrap(), good);
    std::fs::remove_file(&record).unwrap();
    assert!(store.verify(blob.digest).unwrap());
    assert_eq!(std::fs::read(&record).unwrap(), good);
}

#[test]
fn a_scrub_goes_round_and_comes_to_every_blob() {
    let (_dir, store) = store();
    let blobs: BTreeSet<_> = (0..5_u8).map(|i| put(&store, &[i]).digest).collect();
    let spoilt = put(&store, b"spoilt");
    flip(&store, spoilt, 0);
    let (mut after, mut seen) = (Digest::from_bytes([0x80; 32]), BTreeSet::new());
    for _ in 0..6 {
        (after, _) = store.scrub_next(after).unwrap().unwrap();
        seen.insert(after);
    }
    assert!(seen.is_superset(&blobs) && seen.contains(&spoilt.digest));
    assert!(!store.contains(&spoilt));
    let place = |first: u8| Digest::from_bytes([first; 32]);
    assert!(passes(place(1), place(3), place(2)) && !passes(place(1), place(2), place(3)));
    assert!(passes(place(9), place(1), place(1)) && !passes(place(9), place(1), place(5)));
}
