//! Tests of the log: what was promised durable is there after every kind of end.

use raft::eraftpb::{Entry, HardState};

use super::*;
use crate::raft::test_disk::Disk;

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

/// What the logs of this many founders begin with.
fn founded(n_founders: u64) -> Beginning {
    let founders = (1..=n_founders).map(|id| (node(id), format!("h{id}:1"))).collect();
    Beginning::of_founders(&founders, b"state".to_vec())
}

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (index, term);
    entry.data = format!("payload of entry {index} in term {term}").into_bytes().into();
    entry
}

fn append(store: &mut LogStore, entries: &[Entry], commit: u64) {
    let last = entries.last().unwrap();
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.commit) = (last.term, commit);
    store.write(&Batch { snapshot: None, entries, hard_state: Some(&hard_state) }).unwrap();
}

fn terms(store: &LogStore) -> Vec<(u64, u64)> {
    let (first, last) = (store.first_index().unwrap(), store.last_index().unwrap());
    let entries = store.entries(first, last + 1, None, GetEntriesContext::empty(false)).unwrap();
    entries.iter().map(|e| (e.index, e.term)).collect()
}

fn on_disk(disk: &Disk) -> Result<LogStore> {
    LogStore::open_backend(disk.clone(), node(1), &founded(1), 1)
}

fn in_file(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("raft.redb");
    LogStore::create(&path, node(1), &founded(2)).unwrap();
    path
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = in_file(&dir);
    let mut store = LogStore::open(&path, node(1)).unwrap();
    append(&mut store, &[entry(2, 1), entry(3, 1), entry(4, 2)], 3);
    let starts = store.starts();
    drop(store);

    let store = LogStore::open(&path, node(1)).unwrap();
    assert_eq!(terms(&store), [(2, 1), (3, 1), (4, 2)]);
    let state = store.initial_state().unwrap();
    assert_eq!((state.hard_state.term, state.hard_state.commit), (2, 3));
    assert_eq!(state.conf_state.voters, [1, 2]);
    assert_eq!(store.last_snapshot().data, b"state".as_slice());
    assert_eq!(store.starts(), starts + 1);
    assert_eq!(store.origin(), founded(2).origin);
}

#[test]
fn a_new_leaders_entries_replace_the_tail() {
    let mut store = on_disk(&Disk::default()).unwrap();
    append(&mut store, &[entry(2, 1), entry(3, 1), entry(4, 1)], 2);
    append(&mut store, &[entry(3, 2)], 3);
    assert_eq!(terms(&store), [(2, 1), (3, 2)]);
    assert_eq!(store.term(3).unwrap(), 2);
    assert!(store.term(4).is_err());
}

#[test]
fn compaction_keeps_the_tail_and_the_term_before_it() {
    let disk = Disk::default();
    let mut store = on_disk(&disk).unwrap();
    append(&mut store, &(2..=10).map(|i| entry(i, i)).collect::<Vec<_>>(), 10);
    let mut snapshot = Snapshot::default();
    (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (9, 9);
    store.compact(snapshot, 3).unwrap();
    for store in [store, on_disk(&Disk::holding(disk.bytes())).unwrap()] {
        assert_eq!(store.first_index().unwrap(), 7);
        assert_eq!(store.term(6).unwrap(), 6, "raft compares the entry before the first");
        assert!(store.term(5).is_err());
        assert_eq!(store.n_entries_since_snapshot(), 1);
    }
}

#[test]
fn a_received_snapshot_replaces_the_whole_log() {
    let mut store = on_disk(&Disk::default()).unwrap();
    append(&mut store, &[entry(2, 1), entry(3, 1)], 2);
    let mut snapshot = Snapshot::default();
    (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (50, 4);
    let entries = [entry(51, 4)];
    store.write(&Batch { snapshot: Some(&snapshot), entries: &entries, hard_state: None }).unwrap();
    assert_eq!(terms(&store), [(51, 4)]);
    assert_eq!(store.term(50).unwrap(), 4);
}

#[test]
fn a_crash_at_any_moment_leaves_one_whole_batch_or_the_other() {
    let disk = Disk::default();
    let mut store = on_disk(&disk).unwrap();
    append(&mut store, &[entry(2, 1)], 1);
    let before = disk.n_operations();
    append(&mut store, &[entry(3, 1), entry(4, 1)], 2);
    let after = disk.n_operations();
    let mut seen = BTreeSet::new();
    for crash_at in before..after {
        let survivor = on_disk(&Disk::holding(disk.after_crash(crash_at))).unwrap();
        seen.insert(survivor.last_index().unwrap());
        assert_ne!(survivor.last_index().unwrap(), 3, "half a batch after a crash at operation {crash_at}");
    }
    assert!(seen.contains(&2) && seen.is_subset(&BTreeSet::from([2, 4])), "{seen:?}");
    let survivor = on_disk(&Disk::holding(disk.after_crash(after))).unwrap();
    assert_eq!(survivor.last_index().unwrap(), 4, "a batch that was acknowledged is durable");
}

#[test]
fn a_byte_changed_in_the_middle_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = in_file(&dir);
    let mut store = LogStore::open(&path, node(1)).unwrap();
    append(&mut store, &[entry(2, 1), entry(3, 1), entry(4, 1)], 4);
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"payload of entry 3";
    let places: Vec<_> = bytes.windows(needle.len()).enumerate().filter(|(_, w)| w == needle).map(|(i, _)| i).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    let error = LogStore::open(&path, node(1)).err().unwrap();
    assert!(matches!(error, Error::LogCorrupted { .. }), "{error}");
    assert!(error.hint().unwrap().contains("do not start the node on it"));
}

#[test]
fn a_file_that_is_no_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    std::fs::write(&path, [7; 10_000]).unwrap();
    assert!(LogStore::open(&path, node(1)).is_err());
    std::fs::write(&path, []).unwrap();
    assert!(LogStore::open(&path, node(1)).is_err());
}

#[test]
fn a_log_is_neither_founded_twice_nor_shared_nor_lent() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.redb");
    assert!(matches!(LogStore::open(&missing, node(1)), Err(Error::NoLog { .. })));
    let path = in_file(&dir);
    let again = LogStore::create(&path, node(1), &Beginning::joining(Vec::new()));
    assert!(matches!(again, Err(Error::LogExists { .. })));
    assert!(matches!(LogStore::open(&path, node(2)), Err(Error::LogOfOtherNode { found: 1, .. })));
    let _held = LogStore::open(&path, node(1)).unwrap();
    assert!(matches!(LogStore::open(&path, node(1)), Err(Error::LogInUse { .. })));
}
