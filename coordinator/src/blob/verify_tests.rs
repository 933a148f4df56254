//! Tests of blobs that a disk has spoilt.

use archipelago_common::BlobRef;

use super::*;
use crate::{blob::test_blobs::put, condition::Condition};

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
