//! The course of a request to its answer, as a value: what to look at, have durable, read and propose, in which order.
//!
//! [`begin`] gives the first [`Step`]; whoever carries it out hands the result to the step and gets the next, until
//! [`Step::Done`]. The executor does so on a live node, the simulation in virtual time. Two orders matter here: a
//! command that names blobs is proposed only when they are durable on a majority, and a question about the state is
//! answered from a read that the whole cluster orders.

use std::{collections::BTreeMap, sync::Arc};

use archipelago_cluster::{
    Body, Cluster, Command, Edition, Outcome, Room, Selection,
    mutation::{self, Rule},
};
use archipelago_common::{
    BlobRef, ConditionKey, Fingerprint, Layout, Name, NodeId, Principal, TaskId, Version, VersionId,
    layout::Derivation,
    member::{MemberRecord, MemberStatus, MembersRecord},
    part,
    record::Submission,
    signature::Signature,
    task::Asks,
};
use archipelago_protocol::message::{Refusal, Reply, Request, RequestKey, Withdrawal};

use super::{
    answers,
    checks::{self, Shelf},
    enrolment, proposals, refusal,
};

/// What is to be done next for a request. A step that cannot be carried out ends it, with the refusal that says why.
pub enum Step {
    /// Look at the state as it is now or later, cluster-wide.
    Read(Look),
    /// Look at the state as this node has it.
    Peek(Look),
    /// Go on only if this node leads: before any work is done for a request that another must carry out.
    Lead(Then),
    /// Go on when all of these blobs are durable on a majority of coordinators, this one included.
    Durable(Vec<BlobRef>, Then),
    /// Read in blobs of this node.
    Inspect(Inspection),
    /// Stamp a command with this node's clock, have it committed and applied.
    Propose(Proposal, Box<dyn FnOnce(Outcome) -> Step + Send>),
    /// The answer.
    Done(Result<Reply, Refusal>),
}

/// Whoever asks, as their session shows it.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Who it is.
    pub who: Arc<Principal>,
    /// The key of the certificate that they came with; none where no certificate is shown, as within a process.
    pub key: Option<Fingerprint>,
}

impl From<Arc<Principal>> for Asker {
    fn from(who: Arc<Principal>) -> Self {
        Self { who, key: None }
    }
}

impl From<Principal> for Asker {
    fn from(who: Principal) -> Self {
        Arc::new(who).into()
    }
}

/// A look at the state, with this node's clock at that moment (Unix milliseconds).
pub type Look = Box<dyn FnOnce(&Cluster, u64) -> Step + Send>;
/// What comes after a step without a result.
pub type Then = Box<dyn FnOnce() -> Step + Send>;
/// A look into blobs.
pub type Inspection = Box<dyn FnOnce(&dyn Shelf) -> Step + Send>;

/// A [`Command`] that still lacks the leader's stamp.
#[derive(Clone, PartialEq, Debug)]
pub struct Proposal {
    /// Names the request across sessions and leaders.
    pub key: RequestKey,
    /// Who asks.
    pub principal: Principal,
    /// What is asked.
    pub body: Body,
}

impl Proposal {
    /// The command, at this time on the leader's clock.
    pub fn stamped(self, now_ms: u64) -> Command {
        Command { key: self.key.0, principal: self.principal, now_ms, body: self.body }
    }
}

/// The course of a peer's request. What is no question to the cluster but to its nodes, [`Request::Status`] say, is refused
/// here; a change of members is checked by the executor before it comes here. An answer that is a list takes no more than `room`.
pub fn begin(asker: impl Into<Asker>, key: RequestKey, request: Request, room: Room) -> Step {
    let asker = asker.into();
    let who = (*asker.who).clone();
    match request {
        Request::ListReferences => ask(who, |cluster, _| answers::references(cluster)),
        Request::ShowReference { name } => ask(who, move |cluster, _| answers::reference(cluster, &name)),
        Request::ListTasks => ask(who, answers::tasks),
        Request::ShowTask { task } => ask(who, move |cluster, who| answers::task(cluster, who, task)),
        Request::ShowGates { task } => ask(who, move |cluster, _| answers::gates(cluster, task)),
        Request::ListSites => ask(who, |cluster, _| answers::sites(cluster)),
        Request::ShowSignature { of } => ask(who, move |cluster, who| answers::signature(cluster, who, &of)),
        request @ (Request::ListReferenceHeads { .. }
        | Request::ShowReferenceHead { .. }
        | Request::ListConditions { .. }
        | Request::ListChanges { .. }
        | Request::ListChanged { .. }
        | Request::ListTaskHeads { .. }
        | Request::ShowTaskHead { .. }
        | Request::ListAssignments { .. }
        | Request::ListSubmitted { .. }
        | Request::ListSitesAfter { .. }
        | Request::ListEnrolments { .. }
        | Request::ListStandings { .. }
        | Request::ListActs { .. }
        | Request::ListErasures { .. }
        | Request::ListProposals { .. }
        | Request::ShowDemands
        | Request::ListKeys { .. }) => ask(who, move |cluster, who| answers::page(cluster, room, who, request)),
        Request::ShowEnrolment => ask(who, answers::own_enrolment),
        Request::ShowAnchor => ask(who, answers::anchored),
        request => Step::Lead(Box::new(move || {
            let step = lead(who, asker.key, key, request);
            proposals::propose_what_is_for_two(step, asker.key)
        })),
    }
}

/// The course of what only a leader does.
fn lead(who: Principal, with: Option<Fingerprint>, key: RequestKey, request: Request) -> Step {
    match request {
        Request::PublishReference { name, version } => publish(who, key, name, version, None),
        Request::PublishSignedReference { name, version, signature } => {
            publish(who, key, name, version, Some(signature))
        }
        Request::Submit(submission) => submit(who, key, submission),
        Request::Derive { reference, version, value, result } => {
            derive(who, key, Derived { reference, version, value, result })
        }
        Request::RequestCertificate { request } => enrolment::request(who, key, request),
        Request::RenewCertificate { request, signature } => enrolment::renew(who, key, request, signature),
        Request::ApproveSite { site, certificate } => enrolment::approve(who, key, site, certificate),
        Request::ApproveProposal { number } => match proposals::require_key(with) {
            Ok(with) => command(who, key, Body::ApproveProposal { number, key: with }),
            Err(refusal) => Step::Done(Err(refusal)),
        },
        request => match body(request) {
            Ok(body) => command(who, key, body),
            Err(refusal) => Step::Done(Err(refusal)),
        },
    }
}

/// The course of a command that nobody asked for, in a node's own name.
pub fn begin_own(node: NodeId, key: RequestKey, body: Body) -> Step {
    command(Principal::Coordinator(node), key, body)
}

/// The course of a request that may be refused for what is, or is not, in blobs. It may have been carried out already,
/// by a leader that died before it could say so, and this node may lack the blobs for the moment: then it gets the
/// answer that it was to get, and no refusal.
fn unless_answered(who: Principal, key: RequestKey, otherwise: impl FnOnce(&Cluster) -> Step + Send + 'static) -> Step {
    Step::Read(Box::new(move |cluster, _| match cluster.answered(&who, key.0).cloned() {
        Some(outcome) => reply(who, outcome),
        None => otherwise(cluster),
    }))
}

/// The base is read before the reference is proposed, because the state machine knows names of blobs only.
fn publish(who: Principal, key: RequestKey, name: Name, version: Version, signature: Option<Box<Signature>>) -> Step {
    unless_answered(who.clone(), key, move |_| publish_checked(who, key, name, version, signature))
}

fn publish_checked(
    who: Principal,
    key: RequestKey,
    name: Name,
    version: Version,
    signature: Option<Box<Signature>>,
) -> Step {
    let blobs = version.blobs().collect();
    let inspect = move |shelf: &dyn Shelf| match (checks::reference(shelf, &version), signature) {
        (Ok((summary, layout)), Some(signature)) => {
            let (summary, layout) = (Box::new(summary), Box::new(layout));
            command(who, key, Body::PublishSignedReference { name, version, summary, layout, signature })
        }
        // The earlier command where it says it all, so that nodes of an earlier version still read the log.
        (Ok((summary, layout)), None) if layout.is_plain() => {
            command(who, key, Body::PublishReference { name, version, summary: Box::new(summary) })
        }
        (Ok((summary, layout)), None) => {
            let (summary, layout) = (Box::new(summary), Box::new(layout));
            command(who, key, Body::PublishLaidOutReference { name, version, summary, layout })
        }
        (Err(refusal), _) => Step::Done(Err(refusal)),
    };
    Step::Durable(blobs, Box::new(move || Step::Inspect(Box::new(inspect))))
}

fn submit(who: Principal, key: RequestKey, submission: Submission) -> Step {
    unless_answered(who.clone(), key, move |cluster| match asked(cluster, submission.task) {
        Some((layout, max_norm)) => submit_checked(who, key, submission, layout, max_norm),
        // Of an unknown task the state machine speaks better.
        None => command(who, key, Body::Submit(submission)),
    })
}

fn submit_checked(who: Principal, key: RequestKey, submission: Submission, layout: Layout, max_norm: f64) -> Step {
    let blobs = submission.blobs().collect();
    let inspect = move |shelf: &dyn Shelf| {
        let columns = submission.conditions.iter().map(|(key, condition)| (key, condition.columns));
        match checks::members(shelf, columns, &layout, max_norm) {
            Ok(()) => command(who, key, Body::Submit(submission)),
            Err(refusal) => Step::Done(Err(refusal)),
        }
    };
    Step::Durable(blobs, Box::new(move || Step::Inspect(Box::new(inspect))))
}

/// What a task asks of what is handed in: the reference's layout, and the bound on the norm of columns.
fn asked(cluster: &Cluster, id: TaskId) -> Option<(Layout, f64)> {
    let task = &cluster.task(id)?.task;
    Some((cluster.layout(&task.reference)?.into_owned(), task.max_column_norm))
}

/// A value that somebody derived from a version.
struct Derived {
    reference: Name,
    version: VersionId,
    value: Name,
    result: BlobRef,
}

fn derive(who: Principal, key: RequestKey, derived: Derived) -> Step {
    unless_answered(who.clone(), key, move |cluster| {
        let members = members_behind(cluster, &derived);
        let Derived { reference, version, value, result } = derived;
        let body = Body::Derive { reference, version, value, result };
        // Of what is not there the state machine speaks better.
        let Some((derivation, layout, members)) = members else { return command(who, key, body) };
        let blobs = members.values().copied().chain([result]).collect();
        let inspect = move |shelf: &dyn Shelf| match checks::derived(shelf, &derivation, &layout, &members, result) {
            Ok(()) => command(who, key, body),
            Err(refusal) => Step::Done(Err(refusal)),
        };
        Step::Durable(blobs, Box::new(move || Step::Inspect(Box::new(inspect))))
    })
}

/// How a value is derived, what the reference's versions hold, and the members of the current one that the value is made of.
fn members_behind(
    cluster: &Cluster,
    derived: &Derived,
) -> Option<(Derivation, Layout, BTreeMap<ConditionKey, BlobRef>)> {
    let layout = cluster.layout(&derived.reference)?.into_owned();
    let derivation = layout.derived.get(&derived.value)?.clone();
    let reference = cluster.reference(&derived.reference).filter(|record| record.current() == derived.version)?;
    let members = reference.columns().iter().filter(|(key, _)| part::reads(&derivation, key.section()));
    let members = members.map(|(key, blob)| (key.clone(), *blob)).collect();
    Some((derivation, layout, members))
}

/// A renewal that comes too soon after the last is answered without a log entry, and what a member could not read is refused;
/// everything else is proposed.
pub(super) fn command(principal: Principal, key: RequestKey, body: Body) -> Step {
    if let Some((since, what)) = later_edition(&principal, &body) {
        return Step::Read(Box::new(move |cluster, _| match cluster.edition() >= since {
            true => propose(principal, key, body),
            false => {
                let reason = format!("a coordinator does not know {what} yet; upgrade all of them");
                Step::Done(Err(Refusal::Invalid { reason }))
            }
        }));
    }
    if let (Principal::Site(site), Body::Renew { task, epoch, .. }) = (&principal, &body) {
        let (site, task, epoch) = (site.clone(), *task, *epoch);
        return Step::Read(Box::new(move |cluster, now_ms| {
            match cluster.renewal_without_log(&site, task, epoch, now_ms) {
                Some(outcome) => reply(principal, outcome),
                None => propose(principal, key, body),
            }
        }));
    }
    propose(principal, key, body)
}

/// The edition with which something could first be said, and what of it, where that is a later one than the log is read with.
fn later_edition(principal: &Principal, body: &Body) -> Option<(Edition, &'static str)> {
    match body {
        Body::Demand { .. } | Body::Propose { .. } | Body::ApproveProposal { .. } | Body::DeclineProposal { .. } => {
            Some((Edition::Eighth, "what two persons do together"))
        }
        _ if matches!(principal, Principal::Officer(..)) => Some((Edition::Eighth, "people with some roles")),
        Body::Revoke { who: Principal::Officer(..), .. } => Some((Edition::Eighth, "people with some roles")),
        Body::Invite { .. } => Some((Edition::Sixth, "invitations")),
        Body::RenewCertificate { .. } => Some((Edition::Seventh, "renewals over a session")),
        Body::Anchor { .. } => Some((Edition::Eighth, "anchors of logs")),
        Body::Erase { .. } => Some((Edition::Eighth, "erasures")),
        Body::Revoke { .. } => Some((Edition::Seventh, "who is shut out")),
        Body::PublishSignedTask { task, .. } | Body::PublishGatedTask { task, .. } | Body::PublishTask(task)
            if !task.train.is_in_third_layout() =>
        {
            Some((Edition::Eighth, "tasks that say how strongly a query is drawn to the reference"))
        }
        Body::PublishSignedReference { .. } | Body::PublishSignedTask { .. } => Some((Edition::Sixth, "signatures")),
        Body::PublishTask(task) | Body::PublishGatedTask { task, .. } => match task.asks {
            _ if !task.train.is_in_second_layout() => {
                Some((Edition::Fifth, "tasks of so many steps, or with a weight of the KL term"))
            }
            Asks::Annotations => Some((Edition::Fourth, "tasks for annotations")),
            Asks::Both | Asks::Columns | Asks::Parts => None,
        },
        _ => None,
    }
}

fn propose(principal: Principal, key: RequestKey, body: Body) -> Step {
    let who = principal.clone();
    Step::Propose(Proposal { key, principal, body }, Box::new(move |outcome| reply(who, outcome)))
}

/// The whole record where the outcome only names one. This node has applied the command, so its own state will do.
fn reply(who: Principal, outcome: Outcome) -> Step {
    match outcome {
        Outcome::Ticked | Outcome::Released => Step::Done(Ok(Reply::Released)),
        Outcome::Site(record) => Step::Done(Ok(Reply::Site(record))),
        Outcome::Assigned { epoch, lease_until_ms } => Step::Done(Ok(Reply::Assigned { epoch, lease_until_ms })),
        Outcome::Accepted { version } => Step::Done(Ok(Reply::Accepted { version })),
        Outcome::Reference { name, .. } => {
            Step::Peek(Box::new(move |cluster, _| Step::Done(answers::changed_reference(cluster, &name))))
        }
        Outcome::Members => Step::Peek(Box::new(|cluster, _| Step::Done(Ok(members(cluster))))),
        Outcome::Enrolment(invitation) => {
            Step::Peek(Box::new(move |cluster, _| Step::Done(answers::enrolment(cluster, &invitation))))
        }
        Outcome::Standing(of) => {
            Step::Peek(Box::new(move |cluster, _| Step::Done(Ok(Reply::Standing(Box::new(cluster.standing(&of)))))))
        }
        Outcome::Proposal(number) => Step::Peek(Box::new(move |cluster, _| {
            let proposal = cluster.proposal(number).cloned().map(|proposal| Reply::Proposal(Box::new(proposal)));
            Step::Done(proposal.ok_or_else(|| Refusal::NotFound { what: format!("proposal {number}") }))
        })),
        Outcome::Demands => {
            Step::Peek(Box::new(|cluster, _| Step::Done(Ok(Reply::Demands(cluster.demands().clone())))))
        }
        Outcome::Task(task) => {
            Step::Peek(Box::new(move |cluster, _| Step::Done(answers::changed_task(cluster, &who, task))))
        }
    }
}

/// A question to the state. A session outlives the right to hold one by a moment, so whether its peer may ask is part of the answer.
fn ask(who: Principal, question: impl FnOnce(&Cluster, &Principal) -> Result<Reply, Refusal> + Send + 'static) -> Step {
    let read = if mutation::is_broken(Rule::ReadIndex) { Step::Peek } else { Step::Read };
    read(Box::new(move |cluster, _| {
        let admitted = cluster.admit(&who).map_err(refusal::from_cluster);
        Step::Done(admitted.and_then(|()| question(cluster, &who)))
    }))
}

/// The command that a request stands for, where it needs no look into blobs.
fn body(request: Request) -> Result<Body, Refusal> {
    Ok(match request {
        Request::Claim { task } => Body::Claim { task },
        Request::Renew { task, epoch, progress } => Body::Renew { task, epoch, progress },
        Request::GiveUp { task, epoch, reason } => Body::GiveUp { task, epoch, reason },
        Request::Withdraw { reference, what } => Body::Withdraw { reference, selection: selection(what) },
        Request::Erase { reference, what } => Body::Erase { reference, selection: selection(what) },
        Request::Anchor { after, hashes } => Body::Anchor { after, hashes },
        Request::AddSite { site } => Body::AddSite { site },
        Request::RevokeSite { site } => Body::RevokeSite { site },
        Request::PublishTask(task) => Body::PublishTask(task),
        Request::PublishGatedTask { task, gates } => Body::PublishGatedTask { task, gates },
        Request::AddMember { node, address } => Body::AddMember { node, address },
        Request::PromoteMember { node } => Body::PromoteMember { node },
        Request::RemoveMember { node } => Body::RemoveMember { node },
        Request::CloseTask { task } => Body::CloseTask { task },
        Request::CancelTask { task } => Body::CancelTask { task },
        Request::SetClock { now_ms } => Body::SetClock { now_ms },
        Request::Invite { site, invitation, expires_ms } => Body::Invite { site, invitation, expires_ms },
        Request::Revoke { who, key, reason } => Body::Revoke { who, key, reason },
        Request::Demand { demand, holds } => Body::Demand { demand, holds },
        Request::DeclineProposal { number, reason } => Body::DeclineProposal { number, reason },
        Request::RefuseSite { site, reason } => Body::RefuseSite { site, reason },
        Request::PublishSignedTask { task, gates, signature } => Body::PublishSignedTask { task, gates, signature },
        Request::Status
        | Request::ShowTime
        | Request::ShowSignature { .. }
        | Request::PublishSignedReference { .. }
        | Request::ListReferences
        | Request::ShowReference { .. }
        | Request::ListTasks
        | Request::ShowTask { .. }
        | Request::ShowGates { .. }
        | Request::ListSites
        | Request::ListMembers
        | Request::TransferLeadership { .. }
        | Request::ShowHealth
        | Request::CollectBlobs { .. }
        | Request::VerifyBlobs
        | Request::PublishReference { .. }
        | Request::ListReferenceHeads { .. }
        | Request::ShowReferenceHead { .. }
        | Request::ListConditions { .. }
        | Request::ListChanges { .. }
        | Request::ListChanged { .. }
        | Request::ListTaskHeads { .. }
        | Request::ShowTaskHead { .. }
        | Request::ListAssignments { .. }
        | Request::ListSubmitted { .. }
        | Request::ListSitesAfter { .. }
        | Request::Derive { .. }
        | Request::ShowEnrolment
        | Request::ListEnrolments { .. }
        | Request::ListKeys { .. }
        | Request::ListStandings { .. }
        | Request::ShowAnchor
        | Request::ListActs { .. }
        | Request::ListErasures { .. }
        | Request::ListContacts { .. }
        | Request::RenewCertificate { .. }
        | Request::RequestCertificate { .. }
        | Request::ApproveSite { .. }
        | Request::ShowDemands
        | Request::ListProposals { .. }
        | Request::ApproveProposal { .. }
        | Request::Submit(_) => {
            return Err(Refusal::Invalid { reason: "this request is no command as it stands".to_owned() });
        }
    })
}

fn selection(what: Withdrawal) -> Selection {
    match what {
        Withdrawal::Site(site) => Selection::Site(site),
        Withdrawal::Keys(keys) => Selection::Keys(keys),
    }
}

/// The members as they should be. How they are, only a live leader can say.
fn members(cluster: &Cluster) -> Reply {
    let wanted = |member: &MemberRecord| MemberStatus {
        member: member.clone(),
        is_settled: false,
        is_active: false,
        entries_behind: 0,
    };
    Reply::Members(MembersRecord { leader: None, members: cluster.members().map(wanted).collect() })
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
