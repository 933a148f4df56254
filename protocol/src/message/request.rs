//! What can be asked in a session.

use archipelago_common::{
    act::Anchored,
    blob::BlobRef,
    condition::{ConditionKey, Section},
    enrolment::Fingerprint,
    hash::Digest,
    id::{Name, NodeId, SiteId, TaskId, VersionId},
    manifest::Version,
    principal::Principal,
    proposal::Demand,
    record::{Progress, Submission},
    signature::{Signature, Subject},
    task::{Asks, ConditionMetrics, QualityGates, SurgeryTask},
};
use serde::{Deserialize, Serialize};

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
    /// What time it is for the coordinators. Any role. Since version 5.
    ShowTime,
    /// Invite a site: whoever comes with this key may ask, once, to have the site's own key certified. Operator. Since version 7, as
    /// all about invitations.
    Invite {
        /// The site.
        site: SiteId,
        /// The key that comes with the invitation.
        invitation: Fingerprint,
        /// The last moment at which anything comes of it, Unix milliseconds.
        expires_ms: u64,
    },
    /// Ask to have a key certified as the site's that is invited. Whoever is invited.
    RequestCertificate {
        /// The signing request, PEM.
        request: String,
    },
    /// What came of an invitation, or of one's last request. Whoever is invited; site, since version 8.
    ShowEnrolment,
    /// The invitations after one. Operator or auditor.
    ListEnrolments {
        /// From the first if there is none.
        after: Option<Fingerprint>,
    },
    /// Let a site in whose request waits. Operator.
    ApproveSite {
        /// The site.
        site: SiteId,
        /// The certificate of the key that asked, PEM.
        certificate: String,
    },
    /// Say no to a request that waits, or take an invitation back. Operator.
    RefuseSite {
        /// The site.
        site: SiteId,
        /// In words.
        reason: String,
    },
    /// The keys of sites that came in by an invitation, after one, and until when they are certified. Operator or auditor.
    ListKeys {
        /// From the first if there is none.
        after: Option<SiteId>,
    },
    /// Publish a reference that its publisher signed. Operator. Since version 7 too.
    PublishSignedReference {
        /// Its name.
        name: Name,
        /// Its first version.
        version: Version,
        /// The publisher's signature.
        signature: Box<Signature>,
    },
    /// Publish a task that its publisher signed. Operator.
    PublishSignedTask {
        /// The task.
        task: Box<SurgeryTask>,
        /// What its submissions must meet; not signed, because it binds the coordinators and not the sites.
        gates: QualityGates,
        /// The publisher's signature.
        signature: Box<Signature>,
    },
    /// The publisher's signature of a reference or a task, if there is one. Any role.
    ShowSignature {
        /// Of what.
        of: Subject,
    },
    /// Ask to have another key of one's own certified, over the session that one has. Site. Since version 8, as all that follows.
    RenewCertificate {
        /// The signing request of the new key, PEM.
        request: String,
        /// The site's signature of that, with the key that it has.
        signature: Box<Signature>,
    },
    /// How everybody stands, after this one: until when they are certified, and who is shut out. Operator or auditor.
    ListStandings {
        /// From the first if there is none.
        after: Option<Principal>,
    },
    /// Shut somebody out for good, or one key of theirs, and cut its sessions. Operator.
    Revoke {
        /// Who.
        who: Principal,
        /// The key that counts no more; without one, the name.
        key: Option<Fingerprint>,
        /// In words.
        reason: String,
    },
    /// What the consortium demands. Any role. Since version 9, as all that follows.
    ShowDemands,
    /// Demand something from here on, or no more. Administrator.
    Demand {
        /// What.
        demand: Demand,
        /// Whether it is demanded.
        holds: bool,
    },
    /// The proposals after one. Whoever is no site.
    ListProposals {
        /// From the first if there is none.
        after: Option<u64>,
    },
    /// Approve, and have done, what another person has proposed. Publisher, enroller or administrator, as the proposal says.
    ApproveProposal {
        /// Which.
        number: u64,
    },
    /// Say no to what was proposed, or take it back. As `ApproveProposal`.
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
    /// How far one's own log is, as one said last. Site.
    ShowAnchor,
    /// What was done, after this act; a site sees what it did itself. Site or auditor.
    ListActs {
        /// The number of an act.
        after: u64,
    },
    /// Take conditions out of a reference, and have what they hold deleted on every coordinator. A site its own, a publisher any.
    Erase {
        /// The reference.
        reference: Name,
        /// Which conditions.
        what: Withdrawal,
    },
    /// The receipts of erasures, after this one; a site sees its own. Any role.
    ListErasures {
        /// From the first if there is none.
        after: Option<(Name, ConditionKey)>,
    },
    /// Which sites the leader hears, or has heard since it started, after this one. Roles that know the names of sites.
    ListContacts {
        /// From the first if there is none.
        after: Option<SiteId>,
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
            Self::ShowTime => 5,
            Self::Invite { .. }
            | Self::RequestCertificate { .. }
            | Self::ShowEnrolment
            | Self::ListEnrolments { .. }
            | Self::ApproveSite { .. }
            | Self::RefuseSite { .. }
            | Self::ListKeys { .. }
            | Self::PublishSignedReference { .. }
            | Self::ShowSignature { .. } => 7,
            Self::PublishSignedTask { task, .. } => since_asked(task).max(7),
            Self::RenewCertificate { .. } => 8,
            Self::ListStandings { after } => after.as_ref().map_or(8, since_named),
            Self::Revoke { who, .. } => since_named(who),
            Self::ShowDemands
            | Self::Demand { .. }
            | Self::ListProposals { .. }
            | Self::ApproveProposal { .. }
            | Self::DeclineProposal { .. }
            | Self::Anchor { .. }
            | Self::ShowAnchor
            | Self::ListActs { .. }
            | Self::Erase { .. }
            | Self::ListErasures { .. } => 9,
            Self::ListContacts { .. } => 10,
            _ => 1,
        }
    }
}

/// The protocol version in which somebody can be named: before 8 nobody was, before 9 people had all roles or none.
pub(super) fn since_named(who: &Principal) -> u16 {
    if matches!(who, Principal::Officer(..)) { 9 } else { 8 }
}

/// The protocol version in which these keys can be said: an earlier peer cannot read those of further axes and of parts.
pub(super) fn since_keys<'a>(keys: impl IntoIterator<Item = &'a ConditionKey>) -> u16 {
    if keys.into_iter().all(|key| *key.section() == Section::Condition) { 1 } else { 3 }
}

/// The protocol version in which this request for work can be said: before 3 a task said everything about its training, and asked for
/// everything; before 4 none asked for annotations; before 6 none said how many steps are taken; before 9 none said how
/// strongly a query is drawn to the reference.
pub(super) fn since_asked(task: &SurgeryTask) -> u16 {
    match task.asks {
        _ if !task.train.is_in_third_layout() => 9,
        _ if !task.train.is_in_second_layout() => 6,
        Asks::Annotations => 4,
        Asks::Both | Asks::Columns | Asks::Parts if task.is_in_first_layout() => 1,
        Asks::Both | Asks::Columns | Asks::Parts => 3,
    }
}

/// The same of gates: before 3 they knew two figures.
pub(super) fn since_gates(gates: &QualityGates) -> u16 {
    if gates.are_in_first_layout() { 2 } else { 3 }
}

/// The same of what is handed in.
pub(super) fn since_submission(submission: &Submission) -> u16 {
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
