//! What is said on the wire. New variants go to the end of their enum: the position is the encoding. A variant that came
//! after version 1 is said only in a session of a version that has it: see [`Request::since`].

use std::collections::BTreeMap;

use archipelago_common::{
    blob::BlobRef,
    condition::{ConditionKey, Section},
    health::{Collected, HealthRecord, OfNode},
    id::{Name, NodeId, SiteId, TaskId, VersionId},
    manifest::Version,
    member::MembersRecord,
    record::{
        AssignmentHead, AssignmentState, Cause, Change, Page, Progress, ReferenceHead, ReferenceRecord, SiteRecord,
        StatusRecord, Submission, SubmittedCondition, TaskHead, TaskRecord,
    },
    task::{ConditionMetrics, QualityGates, SurgeryTask},
};
use serde::{Deserialize, Serialize};

pub use crate::peer::{Greeting, PeerAsk, PeerReply, Presentation};

/// The first frame on every stream: what the stream is for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum StreamOpen {
    /// A session's control stream: [`ToCoordinator`] frames one way, [`FromCoordinator`] the other.
    Control(Hello),
    /// An upload. The coordinator answers with [`PutReply::Send`] and the chunks follow.
    Put(BlobRef),
    /// A download from chunk `from_chunk` on. The coordinator answers with [`GetReply`] and the chunks.
    Get {
        /// What to send.
        blob: BlobRef,
        /// The first chunk that the receiver lacks.
        from_chunk: u64,
    },
    /// Raft messages from another coordinator, one protobuf message a frame.
    Raft,
    /// A question from another coordinator, answered with one [`PeerReply`].
    Peer(PeerAsk),
    /// As [`Self::Raft`], from a coordinator that says where it is reached: one that was added later than others know.
    RaftFrom {
        /// `host:port`.
        address: String,
    },
    /// An upload that another coordinator is receiving, chunk by chunk as they come in there. Answered as [`Self::Put`],
    /// with [`PutReply::Has`] after every chunk.
    Relay(BlobRef),
}

/// How a session begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Newest protocol version the peer speaks; see [`crate::version`].
    pub protocol: u16,
    /// Name and version of the peer's software, for the log.
    pub software: String,
}

/// A frame from a site, operator or auditor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly every frame is a request, and each is moved a few times only")]
pub enum ToCoordinator {
    /// A request; the answer carries the same `id`.
    Request {
        /// Counts up within the session.
        id: u64,
        /// Names the request across sessions: a repeated one gets its first answer.
        key: RequestKey,
        /// What is asked.
        body: Request,
    },
    /// Are you there? Answered with [`FromCoordinator::Pong`] at once, so that a slow answer is told from a dead peer.
    Ping,
}

/// A frame from a coordinator.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum FromCoordinator {
    /// The session stands.
    Welcome(Welcome),
    /// The answer to a request.
    Response {
        /// The request's number.
        id: u64,
        /// The answer.
        result: Result<Reply, Refusal>,
    },
    /// Something the peer may want to know, unasked.
    Notice(Notice),
    /// The answer to [`ToCoordinator::Ping`].
    Pong,
}

/// Who the peer has reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version of this session: the lower of both sides'.
    pub protocol: u16,
    /// The node reached.
    pub node: NodeId,
    /// The leader, if known; requests to another node are answered with [`Refusal::NotLeader`].
    pub leader: Option<NodeId>,
}

/// Something a coordinator says unasked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// There may be new work: ask for the tasks.
    TasksChanged,
    /// Leadership moved; sessions with a node that is not the leader should move too.
    LeaderChanged {
        /// The new leader, if known.
        leader: Option<NodeId>,
    },
    /// The session ends, for this reason.
    Closing {
        /// In words.
        reason: String,
    },
    /// Who the coordinators are and where they are reached. Said first after the welcome, and when it changes. Since
    /// version 2.
    MembersChanged {
        /// Address by node.
        addresses: BTreeMap<NodeId, String>,
    },
}

/// A random name for a request, chosen by whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestKey(pub [u8; 16]);

/// What can be asked. The asker's role and name come from its certificate.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// The cluster's state. Any role.
    Status,
    /// All references. Any role.
    ListReferences,
    /// One reference with its versions. Any role.
    ShowReference {
        /// Its name.
        name: Name,
    },
    /// All tasks; a site sees those it may take or has taken. Any role.
    ListTasks,
    /// One task. Any role.
    ShowTask {
        /// Its number.
        task: TaskId,
    },
    /// All sites. Operator or auditor.
    ListSites,
    /// Take a task. Site.
    Claim {
        /// Its number.
        task: TaskId,
    },
    /// Report progress and keep the lease. Site.
    Renew {
        /// The task.
        task: TaskId,
        /// The assignment's epoch.
        epoch: u64,
        /// How far the work has come.
        progress: Progress,
    },
    /// Return a task undone. Site.
    GiveUp {
        /// The task.
        task: TaskId,
        /// The assignment's epoch.
        epoch: u64,
        /// In words, without anything about single cells.
        reason: String,
    },
    /// Hand in finished work. Site.
    Submit(Submission),
    /// Take conditions out of a reference. A site its own, an operator any.
    Withdraw {
        /// The reference.
        reference: Name,
        /// Which conditions.
        what: Withdrawal,
    },
    /// Enrol a site. Operator.
    AddSite {
        /// Its name.
        site: SiteId,
    },
    /// Shut a site out and cut its sessions. Operator.
    RevokeSite {
        /// Its name.
        site: SiteId,
    },
    /// Publish a reference whose blobs were uploaded before. Operator.
    PublishReference {
        /// Its name.
        name: Name,
        /// Its first version.
        version: Version,
    },
    /// Publish a task. Operator.
    PublishTask(Box<SurgeryTask>),
    /// Close a task and merge what was accepted. Operator.
    CloseTask {
        /// Its number.
        task: TaskId,
    },
    /// Cancel a task. Operator.
    CancelTask {
        /// Its number.
        task: TaskId,
    },
    /// The coordinators. Operator or auditor. Since version 2, as all that follows.
    ListMembers,
    /// Add a coordinator, as a learner. Operator.
    AddMember {
        /// Its id, never used before.
        node: NodeId,
        /// Where it is reached, `host:port`.
        address: String,
    },
    /// Make a learner that has caught up a voter. Operator.
    PromoteMember {
        /// Its id.
        node: NodeId,
    },
    /// Take a coordinator out for good. Operator.
    RemoveMember {
        /// Its id.
        node: NodeId,
    },
    /// Have another coordinator lead. Operator.
    TransferLeadership {
        /// Which; the one that is furthest if none is named.
        to: Option<NodeId>,
    },
    /// How every coordinator is. Operator or auditor.
    ShowHealth,
    /// Have every coordinator remove blobs that nothing refers to. Operator.
    CollectBlobs {
        /// Only say what would be removed.
        dry_run: bool,
    },
    /// Have every coordinator compare its blobs with their digests. Operator.
    VerifyBlobs,
    /// Publish a task with quality gates. Operator.
    PublishGatedTask {
        /// The task.
        task: Box<SurgeryTask>,
        /// What its submissions must meet.
        gates: QualityGates,
    },
    /// The quality gates of a task. Any role.
    ShowGates {
        /// Its number.
        task: TaskId,
    },
    /// The references after one, without their histories. Any role. Since version 3, as all that follows: where a list may
    /// be long, one asks for what comes after the last item that one has.
    ListReferenceHeads {
        /// From the first if there is none.
        after: Option<Name>,
    },
    /// One reference without its history. Any role.
    ShowReferenceHead {
        /// Its name.
        name: Name,
    },
    /// What a version holds. Any role.
    ListConditions {
        /// The reference.
        reference: Name,
        /// The version.
        version: VersionId,
        /// Of this owner only.
        owner: Option<SiteId>,
        /// From the first if there is none.
        after: Option<ConditionKey>,
    },
    /// The changes of a reference, from the first; of a long one only its first conditions. Any role.
    ListChanges {
        /// The reference.
        reference: Name,
        /// The first that is wanted, counted from 0.
        from: u64,
    },
    /// The conditions of one change. Any role.
    ListChanged {
        /// The reference.
        reference: Name,
        /// Which change, counted from 0.
        change: u64,
        /// From the first if there is none.
        after: Option<ConditionKey>,
    },
    /// The tasks without what sites made of them; a site sees those it may take or has taken. Any role.
    ListTaskHeads {
        /// Only those that take submissions.
        which: Which,
        /// From the first if there is none.
        after: Option<TaskId>,
    },
    /// One task without what sites made of it. Any role.
    ShowTaskHead {
        /// Its number.
        task: TaskId,
    },
    /// The assignments of a task; a site sees its own. Any role.
    ListAssignments {
        /// Its number.
        task: TaskId,
        /// From the first if there is none.
        after: Option<SiteId>,
    },
    /// What a site handed in for a task; a site sees its own. Any role.
    ListSubmitted {
        /// The task.
        task: TaskId,
        /// The site.
        site: SiteId,
        /// From the first if there is none.
        after: Option<ConditionKey>,
    },
    /// The sites. Operator or auditor.
    ListSitesAfter {
        /// From the first if there is none.
        after: Option<SiteId>,
    },
    /// Note what was derived from the current version of a reference; its blob was uploaded before. Operator or site.
    Derive {
        /// The reference.
        reference: Name,
        /// The version it was derived from.
        version: VersionId,
        /// The value, as the reference's card calls it.
        value: Name,
        /// The result.
        result: BlobRef,
    },
    /// It is this time, whatever the coordinators' clocks say. Operator.
    SetClock {
        /// Unix milliseconds.
        now_ms: u64,
    },
}

/// Which tasks are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Which {
    /// Those that take submissions.
    Open,
    /// All.
    All,
}

impl Request {
    /// The protocol version that brought this request; a session of an earlier one does not send it.
    pub fn since(&self) -> u16 {
        match self {
            Self::PublishGatedTask { task, gates } => since_asked(task).max(since_gates(gates)),
            Self::PublishTask(task) => since_asked(task),
            Self::ListMembers
            | Self::AddMember { .. }
            | Self::PromoteMember { .. }
            | Self::RemoveMember { .. }
            | Self::TransferLeadership { .. }
            | Self::ShowHealth
            | Self::CollectBlobs { .. }
            | Self::VerifyBlobs
            | Self::ShowGates { .. } => 2,
            Self::PublishReference { version, .. } => since_keys(version.columns.keys()),
            Self::Submit(submission) => since_submission(submission),
            Self::Withdraw { what: Withdrawal::Keys(keys), .. } => since_keys(keys),
            Self::ListReferenceHeads { .. }
            | Self::ShowReferenceHead { .. }
            | Self::ListConditions { .. }
            | Self::ListChanges { .. }
            | Self::ListChanged { .. }
            | Self::ListTaskHeads { .. }
            | Self::ShowTaskHead { .. }
            | Self::ListAssignments { .. }
            | Self::ListSubmitted { .. }
            | Self::ListSitesAfter { .. }
            | Self::Derive { .. }
            | Self::SetClock { .. } => 3,
            _ => 1,
        }
    }
}

/// The protocol version in which these keys can be said: an earlier peer cannot read those of further axes and of parts.
fn since_keys<'a>(keys: impl IntoIterator<Item = &'a ConditionKey>) -> u16 {
    if keys.into_iter().all(|key| *key.section() == Section::Condition) { 1 } else { 3 }
}

/// The protocol version in which this request for work can be said: before 3 a task said everything about its training, and asked for
/// everything.
fn since_asked(task: &SurgeryTask) -> u16 {
    if task.is_in_first_layout() { 1 } else { 3 }
}

/// The same of gates: before 3 they knew two figures.
fn since_gates(gates: &QualityGates) -> u16 {
    if gates.are_in_first_layout() { 2 } else { 3 }
}

/// The same of what is handed in.
fn since_submission(submission: &Submission) -> u16 {
    let mut metrics = submission.conditions.values().filter_map(|condition| condition.metrics.as_ref());
    let since_metrics = if metrics.all(ConditionMetrics::are_in_first_layout) { 1 } else { 3 };
    since_keys(submission.conditions.keys()).max(since_metrics)
}

/// Which conditions to withdraw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Withdrawal {
    /// All conditions of one owner.
    Site(SiteId),
    /// These conditions.
    Keys(Vec<ConditionKey>),
}

/// The answer to a request that was not refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Status`.
    Status(StatusRecord),
    /// To `ListReferences`.
    References(Vec<ReferenceRecord>),
    /// To `ShowReference` and `PublishReference`, `Withdraw`. To the last two, of a long history only what fits: the current
    /// version's id is always there.
    Reference(Box<ReferenceRecord>),
    /// To `ListTasks`.
    Tasks(Vec<TaskRecord>),
    /// To `ShowTask`, `PublishTask`, `PublishGatedTask`, `CloseTask`, `CancelTask`.
    Task(Box<TaskRecord>),
    /// To `ListSites`.
    Sites(Vec<SiteRecord>),
    /// To `AddSite` and `RevokeSite`.
    Site(SiteRecord),
    /// To `Claim` and `Renew`.
    Assigned {
        /// The assignment's epoch; goes into every later request about it.
        epoch: u64,
        /// When the lease ends unless renewed, Unix milliseconds of the leader's clock.
        lease_until_ms: u64,
    },
    /// To `GiveUp`.
    Released,
    /// To `Submit`: the submission is durable and accepted.
    Accepted {
        /// The version that holds it, once there is one (`publish = each`: at once).
        version: Option<VersionId>,
    },
    /// To `ListMembers`, `AddMember`, `PromoteMember`, `RemoveMember`, `TransferLeadership`.
    Members(MembersRecord),
    /// To `ShowHealth` and `VerifyBlobs`.
    Health(Vec<OfNode<HealthRecord>>),
    /// To `CollectBlobs`.
    Collected(Vec<OfNode<Collected>>),
    /// To `ShowGates`.
    Gates(QualityGates),
    /// To `ListReferenceHeads`.
    ReferenceHeads(Page<ReferenceHead>),
    /// To `ShowReferenceHead`.
    ReferenceHead(Box<ReferenceHead>),
    /// To `ListConditions` and `ListChanged`.
    Conditions(Page<(ConditionKey, BlobRef)>),
    /// To `ListChanges`: each with whether it has more conditions than are here.
    Changes(Page<(Change, bool)>),
    /// To `ListTaskHeads`.
    TaskHeads(Page<TaskHead>),
    /// To `ShowTaskHead`.
    TaskHead(Box<TaskHead>),
    /// To `ListAssignments`.
    Assignments(Page<(SiteId, AssignmentHead)>),
    /// To `ListSubmitted`.
    Submitted(Page<(ConditionKey, SubmittedCondition)>),
    /// To `ListSitesAfter`.
    SitePage(Page<SiteRecord>),
}

impl Reply {
    /// The answer for a peer that speaks this version. What it could not read is left out of a list, so that it can go on with
    /// the rest.
    ///
    /// # Errors  [`Refusal::Invalid`] where that is all that was asked for
    pub fn in_version(self, protocol: u16) -> Result<Self, Refusal> {
        if protocol >= 3 {
            return Ok(self);
        }
        let too_new = |what: String| {
            let reason = format!("{what} has what protocol {protocol} cannot say; upgrade this program");
            Err(Refusal::Invalid { reason })
        };
        Ok(match self {
            Self::References(mut records) => {
                records.retain(|record| since_reference(record) <= protocol);
                Self::References(records)
            }
            Self::Tasks(mut records) => {
                records.retain(|record| since_task(record) <= protocol);
                Self::Tasks(records)
            }
            Self::Reference(record) if since_reference(&record) > protocol => {
                return too_new(format!("reference `{}`", record.name));
            }
            Self::Task(record) if since_task(&record) > protocol => return too_new(format!("task {}", record.id)),
            Self::Gates(gates) if since_gates(&gates) > protocol => return too_new("a quality gate".to_owned()),
            reply => reply,
        })
    }
}

fn since_reference(record: &ReferenceRecord) -> u16 {
    let is_derived = record.lineage.iter().any(|event| matches!(event.cause, Cause::Derived { .. }));
    if is_derived { 3 } else { since_keys(record.versions.values().flat_map(|version| version.columns.keys())) }
}

fn since_task(record: &TaskRecord) -> u16 {
    let submissions = record.assignments.values().filter_map(|assignment| match &assignment.state {
        AssignmentState::Accepted { submission, .. } => Some(submission),
        _ => None,
    });
    submissions.map(since_submission).max().unwrap_or(1).max(since_asked(&record.task))
}

/// Why a request was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Ask the leader instead, with the same request key.
    #[error("this coordinator is not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too much at once; ask again later with the same request key.
    #[error("the coordinator is busy")]
    Busy {
        /// When to ask again.
        retry_after_ms: u64,
    },
    /// The asker's role or identity does not permit it.
    #[error("not permitted: {reason}")]
    Forbidden {
        /// In words.
        reason: String,
    },
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// The request breaks a rule.
    #[error("{reason}")]
    Invalid {
        /// Which, with found and expected.
        reason: String,
    },
    /// The request comes too late: an old epoch, a superseded version, a closed task.
    #[error("too late: {reason}")]
    Stale {
        /// In words.
        reason: String,
    },
    /// The request contradicts what is there.
    #[error("{reason}")]
    Conflict {
        /// In words.
        reason: String,
    },
    /// Blobs that the request names are not on a majority of coordinators.
    #[error("{} blobs that the request names have not been uploaded", blobs.len())]
    MissingBlobs {
        /// Which.
        blobs: Vec<BlobRef>,
    },
}

/// The coordinator's answer to [`StreamOpen::Put`] and [`StreamOpen::Relay`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PutReply {
    /// Send the chunks from this one on; equal to the number of chunks if all are there.
    Send {
        /// The first chunk wanted.
        from_chunk: u64,
    },
    /// The whole blob is verified and durable on a majority of coordinators.
    Durable,
    /// The upload is refused.
    Refused(Refusal),
    /// So many chunks are written and recorded here, from the first; on a [`StreamOpen::Relay`] only.
    Has {
        /// How many.
        n_chunks: u64,
    },
}

/// The coordinator's answer to [`StreamOpen::Get`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GetReply {
    /// The chunks follow.
    Sending,
    /// The download is refused.
    Refused(Refusal),
    /// The blob is still on its way in. So many chunks of it are here, from the first, and those of them that were asked
    /// for follow; between coordinators only.
    SendingPart {
        /// How many.
        n_chunks: u64,
    },
}

/// One piece of a blob on a transfer stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// Its place, from 0.
    pub chunk_idx: u64,
    /// BLAKE3 of its bytes; checked on arrival, before anything is written.
    pub digest: archipelago_common::Digest,
    /// The bytes; [`archipelago_common::limits::CHUNK_BYTES`] but for the last.
    #[serde(with = "bytes_at_once")]
    pub bytes: Vec<u8>,
}

/// A megabyte is copied in one piece instead of byte by byte; the encoding is the same.
mod bytes_at_once {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        // Borrowed, so that an announced length is compared with the bytes at hand before it is believed.
        deserializer.deserialize_bytes(Bytes)
    }
}
