//! States that earlier builds wrote, and how they become one of today.

use std::collections::BTreeMap;

use archipelago_common::{
    Error, Name, NodeId, Result, SiteId, TaskId, codec, limits,
    member::MemberRecord,
    record::{ReferenceRecord, SiteRecord, TaskRecord},
    task::QualityGates,
};
use serde::Deserialize;

use crate::{Cluster, Edition, Reference, requests::SharedMemory};

/// The state up to format 2: every version of a reference with all that it holds, one memory for all askers.
#[derive(Deserialize)]
struct UpToTwo {
    now_ms: u64,
    sites: BTreeMap<SiteId, SiteRecord>,
    references: BTreeMap<Name, ReferenceRecord>,
    tasks: BTreeMap<TaskId, TaskRecord>,
    /// Follows from leases and deadlines.
    #[expect(dead_code, reason = "a place in the encoding")]
    due_ms: Option<u64>,
    requests: SharedMemory,
    members: BTreeMap<NodeId, MemberRecord>,
    gates: BTreeMap<TaskId, QualityGates>,
}

/// Reads a state of an earlier format.
///
/// # Errors  [`Error::Decode`]
pub(crate) fn read(format: u32, mut state: Vec<u8>) -> Result<Cluster> {
    if format >= 3 {
        // Demands, proposals, acts, anchors and erasures came at the end with format 7, certificates and revocations with format 6, invitations, keys of sites and signatures with format 5, the chain and
        // what sites upload with format 4: none of each is one zero.
        let n_later = match format {
            6 => 6,
            5 => 10,
            4 => 13,
            _ => 15,
        };
        state.resize(state.len() + n_later, 0);
        return codec::decode(WHAT, &state, limits::SNAPSHOT_BYTES);
    }
    if format < 2 {
        // Members and quality gates came at the end; there were none, and an empty map is one zero.
        state.extend([0, 0]);
    }
    let before: UpToTwo = codec::decode(WHAT, &state, limits::SNAPSHOT_BYTES)?;
    let mut references = BTreeMap::new();
    for (name, record) in before.references {
        let reference = Reference::of_record(record).map_err(|detail| Error::Decode { what: WHAT, detail })?;
        references.insert(name, reference);
    }
    Ok(Cluster {
        now_ms: before.now_ms,
        latest_ms: before.now_ms,
        sites: before.sites,
        references,
        tasks: before.tasks,
        requests: before.requests.into(),
        members: before.members,
        gates: before.gates,
        edition: Edition::First,
        ..Cluster::default()
    })
}

const WHAT: &str = "snapshot of the cluster state of an earlier version";
