//! A data directory that an earlier version of this program left behind is opened as if nothing had happened.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use archipelago_cluster::{Cluster, invariants};
use archipelago_common::{
    Base, Columns, NodeId, VersionId, limits,
    record::{AssignmentState, TaskState},
    reference_dir::ReferenceDir,
};
use archipelago_coordinator::{
    blob::BlobStore,
    condition::Condition,
    raft::{
        log_store::LogStore,
        node::{Node, Options},
    },
};

#[test]
fn every_reference_has_the_version_it_had() {
    let cluster = opened();
    let versions =
        [("lung", "scvi", 4), ("encoded", "scvi-encoded", 3), ("labelled", "scanvi", 1), ("cite", "totalvi", 2)];
    for (name, directory, n_events) in versions {
        let record = cluster.reference(&name.parse().unwrap()).unwrap();
        let fetched = ReferenceDir::open(&stored().join("references").join(directory)).unwrap();
        assert_eq!(record.current(), fetched.version().id(), "{name}");
        assert_eq!(record.version(record.current()).unwrap(), *fetched.version(), "{name}");
        assert_eq!(record.changes().len(), n_events, "{name}");
        assert!(cluster.layout(record.name()).unwrap().is_plain(), "{name}");
    }
    // The withdrawal brought back the version before, under its id.
    let lung = cluster.reference(&"lung".parse().unwrap()).unwrap();
    assert_eq!(lung.changes()[1].version, lung.current());
}

#[test]
fn every_task_stands_where_it_stood_and_what_waits_still_waits() {
    let cluster = opened();
    let states: Vec<_> = cluster.tasks().map(|task| task.state.clone()).collect();
    assert_eq!(states, [TaskState::Open, TaskState::Closed, TaskState::Open, TaskState::Closed, TaskState::Open]);
    let waiting = cluster.tasks().last().unwrap();
    let is_waiting = |state: &AssignmentState| matches!(state, AssignmentState::Accepted { version: None, .. });
    assert!(waiting.assignments.values().any(|assignment| is_waiting(&assignment.state)));
    assert_eq!(cluster.gates(waiting.id).min_gene_coverage, 0.5);
}

#[test]
fn the_state_is_sound_and_goes_on_in_the_format_of_today() {
    let cluster = opened();
    invariants::check(&cluster).unwrap();
    assert_eq!(Cluster::restore(&cluster.snapshot().unwrap()).unwrap(), cluster);
}

#[test]
fn every_blob_that_the_state_names_is_there_and_reads_as_it_did() {
    let dir = tempfile::tempdir().unwrap();
    copy(&stored().join("consortium/blobs"), &dir.path().join("whole"));
    let store = BlobStore::open(dir.path(), Condition::new(0)).unwrap();
    let cluster = opened();
    for record in cluster.references() {
        Base::from_bytes(&store.read_whole(record.base(), limits::BLOB_BYTES).unwrap()).unwrap();
        for blob in record.changes().iter().flat_map(|change| change.columns.values()) {
            Columns::from_bytes(&store.read_whole(*blob, limits::COLUMNS_BYTES).unwrap()).unwrap();
        }
    }
    let changes = cluster.references().flat_map(|record| record.changes());
    let ids: BTreeSet<VersionId> = changes.map(|change| change.version).collect();
    assert_eq!(ids.len(), 9);
}

/// The state that the log leads to.
fn opened() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.redb");
    std::fs::copy(stored().join("consortium/log.redb"), &log).unwrap();
    let id = NodeId::new(1).unwrap();
    let mut node = Node::new(id, LogStore::open(&log, id).unwrap(), Options::default()).unwrap();
    // Alone, it elects itself after an election timeout and then applies what was committed.
    for _ in 0..100 {
        node.tick();
        while node.handle_ready(&mut |_| ()).unwrap().is_some() {}
    }
    assert!(node.is_leader());
    node.cluster().clone()
}

fn stored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/stored")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
