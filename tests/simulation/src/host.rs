//! One coordinator: a real node on a simulated disk, its sessions, and the requests under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use archipelago_cluster::Cluster;
use archipelago_cluster::Outcome;
use archipelago_common::{BlobRef, Digest, NodeId, Principal};
use archipelago_coordinator::{
    clock::Stamps,
    error::Result,
    raft::{
        ProposalId, ReadId,
        log_store::LogStore,
        node::{Node, Options},
    },
    server::course::{Look, Step},
};
use archipelago_protocol::{ChunkReceiver, CoordinatorSession};
use raft::{SnapshotStatus, eraftpb::Message};

use crate::{
    blobs::{Quest, QuestId, Shelves},
    disk::Disk,
    network::StreamId,
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
    /// Whether its log was lost and founded anew: it is no member any more, whatever it thinks.
    pub(crate) is_anew: bool,
    /// The nodes that its log was founded with; none for one that joins.
    founders: BTreeSet<NodeId>,
    pub(crate) live: Option<Live>,
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
    pub(crate) courses: BTreeMap<CourseId, Origin>,
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
}

/// Who waits for a course.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A session's request.
    Session { stream: StreamId, id: u64 },
    /// Nobody: it is the node's own.
    Own,
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
    Receiving { who: Principal, receiver: Option<Box<ChunkReceiver>>, bytes: Vec<u8> },
    /// A blob that is here, and on its way to a majority.
    Spreading,
    /// A blob that this node pushes to another.
    Pushing { quest: QuestId },
    /// A blob that this node fetches from another.
    Fetching { quest: QuestId, receiver: Box<ChunkReceiver>, bytes: Vec<u8> },
}

impl Host {
    pub(crate) fn new(id: NodeId, founders: BTreeSet<NodeId>) -> Self {
        Self {
            id,
            disk: Disk::default(),
            shelves: Shelves::default(),
            scrubbed: Digest::from_bytes([0; 32]),
            skew_ms: 0,
            fsync_ms: USUAL_FSYNC_MS,
            run: 0,
            incarnation: id.as_u64(),
            is_anew: false,
            founders,
            live: None,
        }
    }

    /// Founds the log, as `init` does before the node ever runs.
    pub(crate) fn found(&self) -> Result<()> {
        LogStore::open_backend(
            self.disk.clone(),
            self.id,
            &self.founders,
            Cluster::founded().snapshot()?,
            self.incarnation,
        )
        .map(drop)
    }

    /// Starts the process on what the disk holds.
    pub(crate) fn start(&mut self, options: Options) -> Result<()> {
        let founding = Cluster::founded().snapshot()?;
        let store = LogStore::open_backend(self.disk.clone(), self.id, &self.founders, founding, self.incarnation)?;
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
    pub(crate) fn begin(&mut self, origin: Origin) -> CourseId {
        let id = self.next_course;
        self.next_course += 1;
        self.courses.insert(id, origin);
        id
    }
}

/// When the simulation begins, Unix milliseconds.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
/// Longest fsync of a good disk, ms.
pub(crate) const USUAL_FSYNC_MS: u64 = 6;
