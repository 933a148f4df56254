//! One coordinator: a real node on a simulated disk, its sessions, and the requests under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use archipelago_cluster::Cluster;
use archipelago_cluster::Outcome;
use archipelago_common::{BlobRef, Digest, NodeId, Principal, member::Origin};
use archipelago_coordinator::{
    clock::Stamps,
    error::Result,
    quota::{Limits, Quotas, Transfer},
    raft::{
        ProposalId, ReadId,
        log_store::{Beginning, LogStore},
        node::{Node, Options},
    },
    server::course::{Look, Step},
};
use archipelago_protocol::{ChunkReceiver, CoordinatorSession};
use raft::{SnapshotStatus, eraftpb::Message};

use crate::{
    blobs::{Quest, QuestId},
    disk::Disk,
    network::StreamId,
    shelves::Shelves,
    uploads::{DAY_BYTES, Grant},
};

/// Names a request under way on one run of a node.
pub(crate) type CourseId = u64;
/// What becomes of a course once its command is applied.
pub(crate) type AfterOutcome = Box<dyn FnOnce(Outcome) -> Step + Send>;

/// A coordinator's machine. What is in here survives the process.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    pub(crate) shelves: Shelves,
    /// The blob that it read last, looking for what its disk has spoilt.
    pub(crate) scrubbed: Digest,
    /// What its clock shows beyond the true time, ms.
    pub(crate) skew_ms: i64,
    /// Longest fsync, ms.
    pub(crate) fsync_ms: u64,
    /// Counts the starts: what was scheduled for an earlier process does not reach the next.
    pub(crate) run: u64,
    /// Which life of its log it is.
    pub(crate) incarnation: u64,
    /// Why it is no member any more, whatever it thinks: it is there for an operator to replace.
    pub(crate) lost: Option<Loss>,
    /// Whether its disk has changed something in its state.
    pub(crate) was_spoilt: bool,
    /// The nodes that its log was founded with; none for one that joins.
    founders: BTreeMap<NodeId, String>,
    origin: Origin,
    pub(crate) live: Option<Live>,
}

/// How a machine was lost to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// Its log was lost, and founded anew under its old id.
    FoundedAnew,
    /// A majority contradicted its state, and its process ended for good.
    Outvoted,
}

/// The process on a machine.
pub(crate) struct Live {
    pub(crate) node: Node,
    /// Inside an fsync until then.
    pub(crate) busy_until: u64,
    pub(crate) is_woken: bool,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) proposals: BTreeMap<ProposalId, (CourseId, AfterOutcome)>,
    pub(crate) reads: BTreeMap<ReadId, (CourseId, Look)>,
    pub(crate) courses: BTreeMap<CourseId, Caller>,
    pub(crate) next_course: CourseId,
    pub(crate) served: BTreeMap<StreamId, Served>,
    pub(crate) quests: BTreeMap<QuestId, Quest>,
    pub(crate) next_quest: QuestId,
    /// Blobs that are being received or fetched.
    pub(crate) receiving: BTreeSet<BlobRef>,
    pub(crate) leader: Option<NodeId>,
    /// Where the members are, as the sessions were told last.
    pub(crate) told: BTreeMap<NodeId, String>,
    /// Requests whose blobs were counted and whose command is not applied; no member may change meanwhile.
    pub(crate) naming: BTreeSet<CourseId>,
    /// A change of members under way; no blob is counted meanwhile.
    pub(crate) changing: Option<CourseId>,
    pub(crate) stamps: Stamps,
    /// When it last compared clocks, and in which term.
    pub(crate) kept_time: (u64, u64),
    /// How the logs of those founders began that take it for one, as long as its own holds nothing.
    pub(crate) takers: BTreeMap<NodeId, Origin>,
    pub(crate) quotas: Quotas,
    /// Uploads that wait until their bytes are granted.
    pub(crate) grants: BTreeMap<CourseId, Grant>,
    /// When it last asked the others what they have come to.
    pub(crate) compared_at: u64,
    /// Erasures whose blobs this run has deleted.
    pub(crate) erased: u64,
}

/// Who waits for a course.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    /// A session's request.
    Session { stream: StreamId, id: u64 },
    /// An upload whose bytes are to be granted.
    Upload,
    /// It is the node's own.
    Nobody,
}

/// What the node is given, one after another.
pub(crate) enum Input {
    Tick,
    Message(Box<Message>),
    Propose { course: CourseId, command: Vec<u8>, then: AfterOutcome },
    Read { course: CourseId, look: Look },
    Peek { course: CourseId, look: Look },
    Unreachable(NodeId),
    SnapshotSent { to: NodeId, status: SnapshotStatus },
    HandOver,
}

/// What a stream is for, as this node sees it.
pub(crate) enum Served {
    /// Nothing was said yet.
    Opened(Principal),
    /// A session.
    Control(Box<CoordinatorSession>),
    /// A blob on its way in.
    Receiving { who: Principal, receiver: Option<Box<ChunkReceiver>>, bytes: Vec<u8>, counted: Transfer },
    /// A blob that is here, and on its way to a majority.
    Spreading,
    /// A blob that this node pushes to another.
    Pushing { quest: QuestId },
    /// A blob that this node fetches from another.
    Fetching { quest: QuestId, receiver: Box<ChunkReceiver>, bytes: Vec<u8> },
}

impl Host {
    pub(crate) fn new(id: NodeId, founders: BTreeMap<NodeId, String>) -> Self {
        let mut host = Self {
            id,
            disk: Disk::default(),
            shelves: Shelves::default(),
            scrubbed: Digest::from_bytes([0; 32]),
            skew_ms: 0,
            fsync_ms: USUAL_FSYNC_MS,
            run: 0,
            incarnation: id.as_u64(),
            lost: None,
            was_spoilt: false,
            founders: BTreeMap::new(),
            origin: Origin::Joined,
            live: None,
        };
        host.found_with(founders);
        host
    }

    /// Its log will be founded with these; or it joins, if there are none.
    pub(crate) fn found_with(&mut self, founders: BTreeMap<NodeId, String>) {
        self.origin = if founders.is_empty() { Origin::Joined } else { Origin::founded_with(&founders) };
        self.founders = founders;
    }

    /// Whether its process may be started.
    pub(crate) fn may_start(&self) -> bool {
        self.live.is_none() && self.lost != Some(Loss::Outvoted)
    }

    /// How its log begins.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// What its log begins with.
    pub(crate) fn beginning(&self) -> Result<Beginning> {
        let (voters, state) = (self.founders.keys().copied().collect(), Cluster::founded().snapshot()?);
        Ok(Beginning { voters, origin: self.origin, state })
    }

    /// Founds the log, as `init` does before the node ever runs.
    pub(crate) fn found(&self) -> Result<()> {
        LogStore::open_backend(self.disk.clone(), self.id, &self.beginning()?, self.incarnation).map(drop)
    }

    /// Starts the process on what the disk holds.
    pub(crate) fn start(&mut self, options: Options) -> Result<()> {
        let store = LogStore::open_backend(self.disk.clone(), self.id, &self.beginning()?, self.incarnation)?;
        let node = Node::new(self.id, store, options)?;
        self.run += 1;
        self.live = Some(Live {
            node,
            busy_until: 0,
            is_woken: false,
            inbox: VecDeque::new(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            courses: BTreeMap::new(),
            next_course: 1,
            served: BTreeMap::new(),
            quests: BTreeMap::new(),
            next_quest: 1,
            receiving: BTreeSet::new(),
            leader: None,
            told: BTreeMap::new(),
            naming: BTreeSet::new(),
            changing: None,
            stamps: Stamps::default(),
            kept_time: (0, 0),
            takers: BTreeMap::new(),
            quotas: Quotas::new(Limits { bytes_per_day: DAY_BYTES, ..Limits::default() }),
            grants: BTreeMap::new(),
            compared_at: 0,
            erased: 0,
        });
        Ok(())
    }

    /// What time it is to this node as a leader, where it knows.
    pub(crate) fn stamp(&self, now: u64) -> Option<u64> {
        let live = self.live.as_ref()?;
        live.stamps.now_ms(live.node.term(), now, self.clock_ms(now))
    }

    /// The time for a look at the state: as the node stamps it, or as the state has it.
    pub(crate) fn look_ms(&self, now: u64) -> u64 {
        self.stamp(now).or_else(|| Some(self.live.as_ref()?.node.cluster().now_ms())).unwrap_or_default()
    }

    /// What this machine's clock shows, Unix milliseconds.
    pub(crate) fn clock_ms(&self, now: u64) -> u64 {
        (EPOCH_MS + now).saturating_add_signed(self.skew_ms)
    }
}

impl Live {
    /// A course that begins.
    pub(crate) fn begin(&mut self, caller: Caller) -> CourseId {
        let id = self.next_course;
        self.next_course += 1;
        self.courses.insert(id, caller);
        id
    }
}

/// Where a coordinator is.
pub(crate) fn address(node: NodeId) -> String {
    format!("node-{node}:7101")
}

/// When the simulation begins, Unix milliseconds.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
/// Longest fsync of a good disk, ms.
pub(crate) const USUAL_FSYNC_MS: u64 = 6;
