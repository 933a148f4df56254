//! Answers to questions about the state: in pages, or about one thing. Peers of protocol 2 and earlier ask for whole lists;
//! they get them as long as these are short, and are told to upgrade when they are not.

use std::collections::BTreeMap;

use archipelago_cluster::{Cluster, Reference, Room, Which};
use archipelago_common::{
    Fingerprint, Name, Principal, TaskId, limits,
    record::{ReferenceRecord, TaskHead, TaskRecord},
    signature::Subject,
};
use archipelago_protocol::message::{self, Refusal, Reply, Request};

/// A page, or one thing without what may be long.
pub(super) fn page(cluster: &Cluster, room: Room, who: &Principal, request: Request) -> Result<Reply, Refusal> {
    match request {
        Request::ListReferenceHeads { after } => {
            Ok(Reply::ReferenceHeads(cluster.reference_page(room, after.as_ref())))
        }
        Request::ShowReferenceHead { name } => {
            Ok(Reply::ReferenceHead(Box::new(require_reference(cluster, &name)?.head())))
        }
        Request::ListConditions { reference, version, owner, after } => {
            require_reference(cluster, &reference)?;
            let found = cluster.version_page(room, (&reference, version), owner.as_ref(), after.as_ref());
            let what = || format!("version `{version}` of reference `{reference}`");
            found.map(Reply::Conditions).ok_or_else(|| Refusal::NotFound { what: what() })
        }
        Request::ListChanges { reference, from } => {
            let found = cluster.change_heads(room, &reference, from).map(Reply::Changes);
            found.ok_or_else(|| no_reference(&reference))
        }
        Request::ListChanged { reference, change, after } => {
            require_reference(cluster, &reference)?;
            let found = cluster.change_page(room, &reference, change, after.as_ref()).map(Reply::Conditions);
            found.ok_or_else(|| Refusal::NotFound { what: format!("change {change} of reference `{reference}`") })
        }
        Request::ListTaskHeads { which, after } => {
            let which = match which {
                message::Which::Open => Which::Open,
                message::Which::All => Which::All,
            };
            Ok(Reply::TaskHeads(cluster.task_page(room, who, which, after)))
        }
        Request::ShowTaskHead { task } => {
            let head = cluster.task_head(who, task).map(|head| Reply::TaskHead(Box::new(head)));
            head.ok_or_else(|| no_task(task))
        }
        Request::ListAssignments { task, after } => {
            let found = cluster.assignment_page(room, who, task, after.as_ref()).map(Reply::Assignments);
            found.ok_or_else(|| no_task(task))
        }
        Request::ListSubmitted { task, site, after } => {
            let found = cluster.submission_page(room, who, (task, &site), after.as_ref()).map(Reply::Submitted);
            found.ok_or_else(|| Refusal::NotFound { what: format!("submission of `{site}` for task {task}") })
        }
        Request::ListKeys { after } => Ok(Reply::Keys(cluster.key_page(room, after.as_ref()))),
        Request::ListEnrolments { after } => Ok(Reply::Enrolments(cluster.enrolment_page(room, after.as_ref()))),
        Request::ListProposals { after } => Ok(Reply::Proposals(cluster.proposal_page(room, after))),
        Request::ShowDemands => Ok(Reply::Demands(cluster.demands().clone())),
        Request::ListStandings { after } => Ok(Reply::Standings(cluster.standing_page(room, after.as_ref()))),
        Request::ListActs { after } => Ok(Reply::Acts(cluster.act_page(room, who, after))),
        Request::ListErasures { after } => Ok(Reply::Erasures(cluster.erasure_page(room, who, after.as_ref()))),
        Request::ListSitesAfter { after } => Ok(Reply::SitePage(cluster.site_page(room, after.as_ref()))),
        _ => Err(Refusal::Invalid { reason: "this request asks for no page".to_owned() }),
    }
}

/// All references with all their versions.
pub(super) fn references(cluster: &Cluster) -> Result<Reply, Refusal> {
    let mut room = limits::PAGE_BYTES;
    let whole = |reference: &Reference| -> Option<ReferenceRecord> {
        is_short(reference, &mut room).then(|| reference.history().record())
    };
    let records: Option<_> = cluster.references().map(whole).collect();
    records.map(Reply::References).ok_or_else(too_long)
}

/// One reference with all its versions.
pub(super) fn reference(cluster: &Cluster, name: &Name) -> Result<Reply, Refusal> {
    let reference = require_reference(cluster, name)?;
    match is_short(reference, &mut { limits::PAGE_BYTES }) {
        true => Ok(Reply::Reference(Box::new(reference.history().record()))),
        false => Err(too_long()),
    }
}

/// A reference that a command has just changed: as much of it as fits, because the command was carried out.
pub(super) fn changed_reference(cluster: &Cluster, name: &Name) -> Result<Reply, Refusal> {
    let reference = require_reference(cluster, name)?;
    let record = match is_short(reference, &mut { limits::PAGE_BYTES }) {
        true => reference.history().record(),
        false => bare_record(reference),
    };
    Ok(Reply::Reference(Box::new(record)))
}

/// All tasks with what sites made of them.
pub(super) fn tasks(cluster: &Cluster, who: &Principal) -> Result<Reply, Refusal> {
    cluster.tasks_for(who).map(Reply::Tasks).ok_or_else(too_long)
}

/// One task with what sites made of it.
pub(super) fn task(cluster: &Cluster, who: &Principal, task: TaskId) -> Result<Reply, Refusal> {
    let record = cluster.task_for(who, task).ok_or_else(|| no_task(task))?.ok_or_else(too_long)?;
    Ok(Reply::Task(Box::new(record)))
}

/// A task that a command has just changed: without what sites made of it where that is long.
pub(super) fn changed_task(cluster: &Cluster, who: &Principal, task: TaskId) -> Result<Reply, Refusal> {
    let record = match cluster.task_for(who, task).ok_or_else(|| no_task(task))? {
        Some(record) => record,
        None => bare_task(cluster.task_head(who, task).ok_or_else(|| no_task(task))?),
    };
    Ok(Reply::Task(Box::new(record)))
}

/// All sites.
pub(super) fn sites(cluster: &Cluster) -> Result<Reply, Refusal> {
    let page = cluster.site_page(Room::default(), None);
    if page.more { Err(too_long()) } else { Ok(Reply::Sites(page.items)) }
}

/// What a task asks of quality.
pub(super) fn gates(cluster: &Cluster, task: TaskId) -> Result<Reply, Refusal> {
    let known = cluster.task(task).map(|_| Reply::Gates(cluster.gates(task)));
    known.ok_or_else(|| no_task(task))
}

/// What came of an invitation, and what it was for.
pub(super) fn enrolment(cluster: &Cluster, invitation: &Fingerprint) -> Result<Reply, Refusal> {
    let found = cluster.enrolment(invitation).map(|record| Reply::Enrolment(Box::new(record.clone())));
    found.ok_or_else(|| Refusal::NotFound { what: format!("invitation {invitation}") })
}

/// What came of the invitation that somebody comes with, or of the last request of a site.
pub(super) fn own_enrolment(cluster: &Cluster, who: &Principal) -> Result<Reply, Refusal> {
    match who {
        Principal::Invited(invitation) => enrolment(cluster, invitation),
        Principal::Site(site) => {
            let found = cluster.enrolment_of(site).map(|record| Reply::Enrolment(Box::new(record.clone())));
            found.ok_or_else(|| Refusal::NotFound { what: format!("request of `{site}`") })
        }
        _ => Err(Refusal::Invalid { reason: format!("`{who}` does not come with an invitation") }),
    }
}

/// How far the log of the site that asks is, as it said last.
pub(super) fn anchored(cluster: &Cluster, who: &Principal) -> Result<Reply, Refusal> {
    match who {
        Principal::Site(site) => Ok(Reply::Anchored(cluster.anchored(site))),
        _ => Err(Refusal::Invalid { reason: format!("`{who}` is no site and has no log of releases") }),
    }
}

/// Who vouches for something.
pub(super) fn signature(cluster: &Cluster, who: &Principal, of: &Subject) -> Result<Reply, Refusal> {
    match of {
        Subject::Reference(name) => drop(require_reference(cluster, name)?),
        Subject::Task(task) => drop(cluster.task_head(who, *task).ok_or_else(|| no_task(*task))?),
    }
    Ok(Reply::Signature(cluster.signature(of).cloned().map(Box::new)))
}

fn require_reference<'a>(cluster: &'a Cluster, name: &Name) -> Result<&'a Reference, Refusal> {
    cluster.reference(name).ok_or_else(|| no_reference(name))
}

/// Whether a reference with all its versions, each with all that it holds, fits into an answer. Found out without making it.
fn is_short(reference: &Reference, room: &mut usize) -> bool {
    let mut n_held = 0_usize;
    for change in reference.changes() {
        let n_changed = change.columns.len();
        n_held = if change.adds() { n_held + n_changed } else { n_held.saturating_sub(n_changed) };
        match room.checked_sub((1 + n_held + n_changed).saturating_mul(CONDITION_BYTES)) {
            Some(rest) => *room = rest,
            None => return false,
        }
    }
    true
}

fn bare_record(reference: &Reference) -> ReferenceRecord {
    ReferenceRecord {
        name: reference.name().clone(),
        publisher: reference.publisher().clone(),
        summary: reference.summary().clone(),
        current: reference.current(),
        lineage: Vec::new(),
        versions: BTreeMap::new(),
    }
}

fn bare_task(TaskHead { id, task, publisher, published_ms, state, .. }: TaskHead) -> TaskRecord {
    TaskRecord { id, task, publisher, published_ms, state, assignments: BTreeMap::new() }
}

fn no_reference(name: &Name) -> Refusal {
    Refusal::NotFound { what: format!("reference `{name}`") }
}

fn no_task(task: TaskId) -> Refusal {
    Refusal::NotFound { what: format!("task {task}") }
}

fn too_long() -> Refusal {
    let reason =
        "the answer is too long for one message; a program of this version asks for it in pages: upgrade yours";
    Refusal::Invalid { reason: reason.to_owned() }
}

/// Bytes of a condition's key and its blob, usually; three times as much still fits into a frame.
const CONDITION_BYTES: usize = 128;

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
