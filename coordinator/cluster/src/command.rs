//! What is put into the replicated log. New variants of [`Body`] go to the end: the position is the encoding.

use std::collections::BTreeMap;

use archipelago_common::{
    BlobRef, ConditionKey, Digest, Fingerprint, Layout, Name, NodeId, Principal, Result, SiteId, TaskId, Version,
    VersionId,
    act::Anchored,
    codec,
    enrolment::CertifiedKey,
    limits,
    member::Incarnation,
    proposal::Demand,
    record::{BaseSummary, Progress, Submission},
    signature::Signature,
    task::{QualityGates, SurgeryTask},
};
use serde::{Deserialize, Serialize};

use crate::{Deed, Edition};

/// One entry of the replicated log: who asks for what, and when the leader heard it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// Names the request across sessions and leaders; a repeated one gets its first answer.
    pub key: [u8; 16],
    /// Who asks, from the verified certificate. The leader itself for [`Body::Tick`].
    pub principal: Principal,
    /// The leader's clock, Unix milliseconds: the only way in which time enters the state.
    pub now_ms: u64,
    /// What is asked.
    pub body: Body,
}

/// What is asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Time passes: leases and deadlines fall due. Coordinator.
    Tick,
    /// Enrol a site. Operator.
    AddSite {
        /// Its name.
        site: SiteId,
    },
    /// Shut a site out for good. Operator.
    RevokeSite {
        /// Its name.
        site: SiteId,
    },
    /// Publish a reference whose blobs are durable. Operator.
    PublishReference {
        /// Its name, unused so far.
        name: Name,
        /// Its first version.
        version: Version,
        /// What the leader read from the base blob.
        summary: Box<BaseSummary>,
    },
    /// Publish a task. Operator.
    PublishTask(Box<SurgeryTask>),
    /// Close a task and merge what was accepted. Operator.
    CloseTask {
        /// Its number.
        task: TaskId,
    },
    /// Cancel a task; what waits for its close is not merged. Operator.
    CancelTask {
        /// Its number.
        task: TaskId,
    },
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
        /// In words.
        reason: String,
    },
    /// Hand in finished work whose blobs are durable and whose columns the leader has checked. Site.
    Submit(Submission),
    /// Take conditions out of a reference. A site its own, an operator any.
    Withdraw {
        /// The reference.
        reference: Name,
        /// Which conditions.
        selection: Selection,
    },
    /// Write down the founders of the cluster and where they are reached. Coordinator.
    AdoptMembers {
        /// Address by node.
        addresses: BTreeMap<NodeId, String>,
    },
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
    /// Publish a task that asks for more than [`Self::PublishTask`]'s minimum. Operator.
    PublishGatedTask {
        /// The task.
        task: Box<SurgeryTask>,
        /// What its submissions must meet.
        gates: QualityGates,
    },
    /// Publish a reference that grows otherwise than [`Self::PublishReference`] can say: along several axes, with kinds of
    /// tensors, with parts. Operator.
    PublishLaidOutReference {
        /// Its name, unused so far.
        name: Name,
        /// Its first version.
        version: Version,
        /// What the leader read from the base blob.
        summary: Box<BaseSummary>,
        /// The rest of it.
        layout: Box<Layout>,
    },
    /// From here on, carry commands out by the rules of a later edition: every member knows them. Coordinator.
    RaiseEdition {
        /// Which.
        edition: Edition,
    },
    /// Note what was derived from a version, whose blob is durable. Operator or site.
    Derive {
        /// The reference.
        reference: Name,
        /// Its current version.
        version: VersionId,
        /// The value, as the reference's layout calls it.
        value: Name,
        /// The result.
        result: BlobRef,
    },
    /// From here on, only this life of a member's log counts as that member. Coordinator.
    Introduce {
        /// The member.
        node: NodeId,
        /// What it says of its log.
        incarnation: Incarnation,
    },
    /// What the clocks of coordinators show; where a majority agrees, that is the time. Coordinator.
    AgreeOnTime {
        /// By node, Unix milliseconds.
        clocks: BTreeMap<NodeId, u64>,
    },
    /// It is this time, whatever clocks said. Operator.
    SetClock {
        /// Unix milliseconds.
        now_ms: u64,
    },
    /// Let a site upload so many bytes more today. Coordinator.
    Grant {
        /// The site.
        site: SiteId,
        /// How many.
        bytes: u64,
        /// What it may upload in a day, as the leader is configured.
        limit: u64,
    },
    /// Invite a site. Operator. Since edition 6, as all about invitations.
    Invite {
        /// The site.
        site: SiteId,
        /// The key that comes with the invitation.
        invitation: Fingerprint,
        /// The last moment at which anything comes of it, Unix milliseconds.
        expires_ms: u64,
    },
    /// Use an invitation up: ask to have a key certified. Whoever is invited.
    RequestCertificate {
        /// The site's own key, as the leader read it from the request.
        key: Fingerprint,
        /// The signing request, PEM; the leader has verified its signature.
        request: String,
    },
    /// Enrol a site whose request waits. Operator.
    ApproveSite {
        /// The site.
        site: SiteId,
        /// The key that is certified and until when, as the leader read it from the certificate.
        certified: CertifiedKey,
        /// The certificate, PEM.
        certificate: String,
    },
    /// Say no to a request, or take an invitation back. Operator.
    RefuseSite {
        /// The site.
        site: SiteId,
        /// In words.
        reason: String,
    },
    /// Publish a reference that its publisher signed. Operator.
    PublishSignedReference {
        /// Its name, unused so far.
        name: Name,
        /// Its first version.
        version: Version,
        /// What the leader read from the base blob.
        summary: Box<BaseSummary>,
        /// The rest of it.
        layout: Box<Layout>,
        /// The publisher's signature.
        signature: Box<Signature>,
    },
    /// Publish a task that its publisher signed. Operator.
    PublishSignedTask {
        /// The task.
        task: Box<SurgeryTask>,
        /// What its submissions must meet.
        gates: QualityGates,
        /// The publisher's signature.
        signature: Box<Signature>,
    },
    /// Ask to have another key of one's own certified. Site. Since edition 7, as all that follows.
    RenewCertificate {
        /// The new key, as the leader read it from the request.
        key: Fingerprint,
        /// The signing request, PEM; the leader has verified its signature.
        request: String,
        /// The site's signature of that, with the key that it has.
        signature: Box<Signature>,
    },
    /// Note with which certificate somebody came. Coordinator.
    NoteCertificate {
        /// Who.
        who: Principal,
        /// The key, and its certificate's end.
        certified: CertifiedKey,
    },
    /// Shut somebody out for good, or one key of theirs. Operator.
    Revoke {
        /// Who.
        who: Principal,
        /// The key that counts no more; without one, the name.
        key: Option<Fingerprint>,
        /// In words.
        reason: String,
    },
    /// Demand something from here on, or no more. Administrator. Since edition 8, as all that follows.
    Demand {
        /// What.
        demand: Demand,
        /// Whether it is demanded.
        holds: bool,
    },
    /// Propose what two persons are to do. Whoever has the role for it.
    Propose {
        /// What.
        deed: Box<Deed>,
        /// The key that whoever proposes it comes with, as the leader has verified it.
        key: Fingerprint,
    },
    /// Approve, and have done, what another person has proposed. Whoever has the role for it.
    ApproveProposal {
        /// Which.
        number: u64,
        /// The key that whoever approves it comes with, as the leader has verified it.
        key: Fingerprint,
    },
    /// Say no to what was proposed, or take it back. Whoever has the role for it.
    DeclineProposal {
        /// Which.
        number: u64,
        /// In words.
        reason: String,
    },
    /// Say how far one's own log is. Site.
    Anchor {
        /// What was said before.
        after: Anchored,
        /// The hashes of the records that have come since.
        hashes: Vec<Digest>,
    },
    /// Take conditions out of a reference, as [`Self::Withdraw`] does, and delete what they hold, also where they were withdrawn before.
    /// A site its own, a publisher any.
    Erase {
        /// The reference.
        reference: Name,
        /// Which conditions.
        selection: Selection,
    },
}

/// Which conditions to withdraw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Selection {
    /// All conditions of one owner.
    Site(SiteId),
    /// These conditions.
    Keys(Vec<ConditionKey>),
}

impl Command {
    /// The bytes of a log entry.
    ///
    /// # Errors  [`archipelago_common::Error::TooLarge`]
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        codec::encode("command", self, COMMAND_BYTES)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors  [`archipelago_common::Error::Decode`], `UnknownVersion`, `TooLarge`
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode("command", bytes, COMMAND_BYTES)
    }
}

impl Body {
    /// Whether the answer is kept for a repeated request. Renewals are not: they come every few seconds from every
    /// site, would push out answers that matter, and carry an epoch that makes a repetition harmless.
    pub(crate) fn is_remembered(&self) -> bool {
        !matches!(
            self,
            Self::Tick
                | Self::Renew { .. }
                | Self::RaiseEdition { .. }
                | Self::Introduce { .. }
                | Self::AgreeOnTime { .. }
                | Self::Grant { .. }
                | Self::NoteCertificate { .. }
        )
    }

    /// Whether this is of the kind that a consortium may demand two persons for.
    pub fn may_be_for_two(&self) -> bool {
        Deed::of(self).is_some()
    }

    /// Tells two requests under one key apart; none for a body too large for the log.
    pub(crate) fn digest(&self) -> Option<Digest> {
        codec::encode("command", self, COMMAND_BYTES).ok().map(|bytes| Digest::of(&bytes))
    }
}

/// Bytes of a command: a frame from a peer, and what the leader adds to it.
const COMMAND_BYTES: usize = limits::FRAME_BYTES + (1 << 20);
