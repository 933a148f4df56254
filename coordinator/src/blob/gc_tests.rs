//! Tests of what is collected and, above all, of what is not.

use std::fs::{File, FileTimes};

use archipelago_common::BlobRef;

use super::*;
use crate::blob::test_blobs::{chunks, put, store};

/// Makes a file look as if it had been left alone for longer than the grace period.
fn age(file: &Path) {
    let long_ago = SystemTime::now() - 2 * GRACE;
    File::options().write(true).open(file).unwrap().set_times(FileTimes::new().set_modified(long_ago)).unwrap();
}

fn old(store: &Arc<BlobStore>, bytes: &[u8]) -> BlobRef {
    let blob = put(store, bytes);
    age(&store.path(&blob.digest));
    blob
}

fn sweep(store: &Arc<BlobStore>, named: &[BlobRef]) -> Collected {
    store.sweep(&named.iter().map(|blob| blob.digest).collect(), GRACE, false).unwrap()
}

#[test]
fn what_nothing_refers_to_is_removed_and_counted_and_everything_else_stays() {
    let (_dir, store) = store();
    let (named, orphan, young) = (old(&store, b"named"), old(&store, b"orphan"), put(&store, b"young"));
    let named_only = BTreeSet::from([named.digest]);
    let would = store.sweep(&named_only, GRACE, true).unwrap();
    assert_eq!(would, Collected { blobs: 1, bytes: 6, partials: 0 });
    assert!(store.contains(&orphan), "a dry run removes nothing");
    assert_eq!(sweep(&store, &[named]), would);
    assert!(store.contains(&named) && store.contains(&young) && !store.contains(&orphan));
    assert_eq!(store.size(), (2, 10));
    assert_eq!(store.condition().record(archipelago_common::NodeId::new(1).unwrap()).reclaimed_bytes, 6);
}

#[test]
fn what_is_relied_upon_is_held() {
    let (_dir, store) = store();
    let blob = old(&store, b"about to be named");
    assert!(store.hold(&blob));
    assert_eq!(sweep(&store, &[]), Collected::default());
    assert!(store.contains(&blob));
    assert!(!store.hold(&BlobRef::of(b"never there")));
}

#[test]
fn a_transfer_that_is_under_way_loses_nothing() {
    let (_dir, store) = store();
    let all = vec![7; 3 << 20];
    let blob = BlobRef::of(&all);
    let mut receiving = store.receive(blob).unwrap();
    receiving.write(&chunks(&all)[0]).unwrap();
    store.partial_files().unwrap().iter().for_each(|file| age(file));
    assert_eq!(sweep(&store, &[]), Collected::default());
    for chunk in &chunks(&all)[1..] {
        receiving.write(chunk).unwrap();
    }
    receiving.finish().unwrap();
    // A reader keeps what it has opened.
    age(&store.path(&blob.digest));
    let mut reader = store.read(blob, 2).unwrap();
    assert_eq!(sweep(&store, &[]).blobs, 1);
    assert_eq!(reader.next_chunk().unwrap().unwrap().bytes, vec![7; 1 << 20]);
    assert_eq!(store.chunks_files().unwrap().len(), 1);
    store.chunks_files().unwrap().iter().for_each(|file| age(file));
    sweep(&store, &[]);
    assert_eq!(store.chunks_files().unwrap().len(), 0, "digests go with their blob");
}

#[test]
fn an_upload_that_was_given_up_is_removed_in_the_end() {
    let (_dir, store) = store();
    let all = vec![7; 2 << 20];
    let mut receiving = store.receive(BlobRef::of(&all)).unwrap();
    receiving.write(&chunks(&all)[0]).unwrap();
    drop(receiving);
    assert_eq!(sweep(&store, &[]), Collected::default(), "it may be resumed");
    store.partial_files().unwrap().iter().for_each(|file| age(file));
    let collected = sweep(&store, &[]);
    assert!(collected.partials == 1 && collected.bytes > 1 << 20, "{collected:?}");
    assert_eq!(store.partial_files().unwrap().len(), 0);
}

#[test]
fn files_of_somebody_else_are_left_alone() {
    let (_dir, store) = store();
    let blob = put(&store, b"x");
    let foreign = store.path(&blob.digest).with_file_name("notes.txt");
    std::fs::write(&foreign, "do not lose me").unwrap();
    age(&foreign);
    sweep(&store, &[blob]);
    assert!(foreign.exists());
}

#[test]
fn uploads_and_sweeps_at_once_lose_nothing_that_was_held() {
    let (_dir, store) = store();
    let uploads = std::thread::scope(|scope| {
        let uploading: Vec<_> = (0..4_u8)
            .map(|uploader| {
                let store = &store;
                scope.spawn(move || {
                    let upload = |number: u8| {
                        let blob = old(store, &[uploader, number]);
                        // The moment at which a command would be proposed: either it is held, or it comes again.
                        if store.hold(&blob) { blob } else { put(store, &[uploader, number]) }
                    };
                    (0..50).map(upload).collect::<Vec<_>>()
                })
            })
            .collect();
        let store = &store;
        let sweeping = scope.spawn(move || (0..40).map(|_| sweep(store, &[]).blobs).sum::<u64>());
        sweeping.join().unwrap();
        uploading.into_iter().flat_map(|uploader| uploader.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(uploads.len(), 200);
    assert!(uploads.iter().all(|blob| store.contains(blob)));
}
