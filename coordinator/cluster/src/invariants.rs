//! What is true of the state after every command. Tests and the simulation check it; so does a restored snapshot.

use std::collections::BTreeSet;

use archipelago_common::{
    ConditionKey, SiteId, TaskId, Version, limits,
    member::MemberRole,
    record::{
        AssignmentRecord, AssignmentState, Cause, Event, ReferenceRecord, SubmittedCondition, TaskRecord, TaskState,
    },
    task::PublishMode,
};

use crate::{Cluster, reference, task, time};

/// Checks every invariant.
///
/// # Errors  the first one that is broken, in words
pub fn check(cluster: &Cluster) -> Result<(), String> {
    CHECKS.iter().try_for_each(|check| check(cluster))
}

type Check = fn(&Cluster) -> Result<(), String>;

const CHECKS: &[Check] = &[
    versions_have_the_id_of_their_content,
    a_reference_keeps_its_base,
    lineage_explains_every_version,
    what_is_merged_was_accepted,
    what_is_accepted_is_merged_or_waits,
    what_waits_can_be_merged,
    submissions_hold_keys_of_their_site_only,
    assignments_belong_to_sites_that_may_have_them,
    only_open_tasks_are_worked_on,
    tasks_map_onto_versions_that_exist,
    nothing_that_is_over_is_open,
    owners_do_not_share_names,
    members_can_go_on,
    gates_belong_to_tasks,
    layouts_belong_to_references,
    memory_is_bounded,
];

/// Else two coordinators could mean different columns by one version.
fn versions_have_the_id_of_their_content(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        for (id, version) in &reference.versions {
            ensure(version.id() == *id, || format!("version {id} of `{}` has other content", reference.name))?;
        }
    }
    Ok(())
}

/// A merge is exact only among columns that were trained against the same frozen weights.
fn a_reference_keeps_its_base(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        let mut bases = reference.versions.values().map(|version| version.base);
        let first = bases.next();
        ensure(bases.all(|base| Some(base) == first), || format!("`{}` has more than one base", reference.name))?;
    }
    Ok(())
}

/// The audit trail is complete: from the first version, each event leads to the next, and to the current one.
fn lineage_explains_every_version(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        let name = &reference.name;
        let Some(first) = reference.lineage.first() else { return Err(format!("`{name}` has no lineage")) };
        ensure(first.cause == Cause::Published && first.parent.is_none(), || format!("`{name}` was not published"))?;
        for pair in reference.lineage.windows(2) {
            follows(reference, &pair[0], &pair[1])?;
        }
        let last = reference.lineage.last().map(|event| event.version);
        ensure(last == Some(reference.current), || format!("`{name}` is not at the end of its lineage"))?;
        ensure(reference.lineage.iter().all(|event| event.at_ms <= cluster.now_ms), || {
            format!("`{name}` has a version from the future")
        })?;
        let named: BTreeSet<_> = reference.lineage.iter().map(|event| event.version).collect();
        ensure(reference.versions.keys().copied().eq(named), || format!("`{name}` has versions from nowhere"))?;
    }
    Ok(())
}

/// Whether one event's version is the one before with just the change that the event names.
fn follows(reference: &ReferenceRecord, before: &Event, event: &Event) -> Result<(), String> {
    let wrong = || format!("version {} of `{}` does not follow from its cause", event.version, reference.name);
    let at = |event: &Event| reference.versions.get(&event.version).ok_or_else(wrong);
    let (parent, child) = (at(before)?, at(event)?);
    ensure(event.parent == Some(before.version) && before.at_ms <= event.at_ms, wrong)?;
    let (smaller, larger, keys): (&Version, &Version, _) = match &event.cause {
        Cause::Published => return Err(wrong()),
        Cause::Merged { keys, .. } => (parent, child, keys),
        Cause::Withdrawn { keys, .. } => (child, parent, keys),
    };
    let rest = larger.without(keys).map_err(|_| wrong())?;
    ensure(!keys.is_empty() && rest == *smaller, wrong)
}

/// No column enters a version but by an accepted submission of the site that owns it.
fn what_is_merged_was_accepted(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        for event in &reference.lineage {
            let Cause::Merged { task, keys } = &event.cause else { continue };
            let version = &reference.versions[&event.version];
            let handed_in = |key: &ConditionKey| {
                let assignment = cluster.tasks.get(task)?.assignments.get(key.owner())?;
                match &assignment.state {
                    AssignmentState::Accepted { submission, version: Some(_), .. } => submission.conditions.get(key),
                    _ => None,
                }
            };
            let is_own = |key| handed_in(key).is_some_and(|given| version.columns.get(key) == Some(&given.columns));
            ensure(keys.iter().all(is_own), || {
                format!("version {} of `{}` holds columns that nobody handed in", event.version, reference.name)
            })?;
        }
    }
    Ok(())
}

/// An acknowledged submission is never lost: it is in the version that its record names, or waits for the close.
fn what_is_accepted_is_merged_or_waits(cluster: &Cluster) -> Result<(), String> {
    for (task, site, assignment) in assignments(cluster) {
        let AssignmentState::Accepted { submission, version, at_ms } = &assignment.state else { continue };
        let lost = || format!("the submission of `{site}` for task {} is lost", task.id);
        ensure(submission.task == task.id && submission.epoch == assignment.epoch, lost)?;
        ensure(submission.version == task.task.version && *at_ms <= cluster.now_ms, lost)?;
        let waits_for = matches!(task.state, TaskState::Open | TaskState::Cancelled);
        ensure(version.is_none() == (task.task.publish == PublishMode::AtClose && waits_for), lost)?;
        let Some(version) = version else { continue };
        let merged = cluster.references.get(&task.task.reference).and_then(|r| r.versions.get(version));
        let merged = merged.ok_or_else(lost)?;
        let holds =
            |(key, given): (&ConditionKey, &SubmittedCondition)| merged.columns.get(key) == Some(&given.columns);
        ensure(submission.conditions.iter().all(holds), lost)?;
    }
    Ok(())
}

/// Closing a task cannot fail.
fn what_waits_can_be_merged(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        let mut union = reference::current(reference).clone();
        for task in cluster.open_tasks().filter(|task| task.task.reference == reference.name) {
            let waiting = task::waiting_in(task).map(|(key, columns)| (key.clone(), columns)).collect();
            union = union.merged(&waiting).map_err(|e| format!("task {} cannot be closed: {e}", task.id))?;
        }
    }
    Ok(())
}

/// Keys of different sites cannot collide, and no site speaks for another.
fn submissions_hold_keys_of_their_site_only(cluster: &Cluster) -> Result<(), String> {
    for (task, site, assignment) in assignments(cluster) {
        let AssignmentState::Accepted { submission, .. } = &assignment.state else { continue };
        let own = !submission.conditions.is_empty() && submission.conditions.keys().all(|key| key.owner() == site);
        ensure(own, || format!("the submission of `{site}` for task {} holds keys of another", task.id))?;
    }
    Ok(())
}

/// Only sites that are enrolled, and on the task's allow-list where it has one; a revoked site is at work on nothing.
fn assignments_belong_to_sites_that_may_have_them(cluster: &Cluster) -> Result<(), String> {
    for (task, site, assignment) in assignments(cluster) {
        let record = cluster.sites.get(site).filter(|_| task.task.allows(site) && assignment.epoch >= 1);
        let is_at_work = assignment.state == AssignmentState::Assigned;
        let is_right = record.is_some_and(|record| !(is_at_work && record.revoked_ms.is_some()));
        ensure(is_right, || format!("`{site}` may not have its assignment of task {}", task.id))?;
    }
    Ok(())
}

/// A task that ended is held by nobody.
fn only_open_tasks_are_worked_on(cluster: &Cluster) -> Result<(), String> {
    for (task, site, assignment) in assignments(cluster) {
        let is_at_work = assignment.state == AssignmentState::Assigned;
        ensure(!is_at_work || task.state == TaskState::Open, || {
            format!("`{site}` is at work on task {}, which has ended", task.id)
        })?;
    }
    Ok(())
}

/// Tasks are numbered from 1 without gaps, and each names a version that its reference has.
fn tasks_map_onto_versions_that_exist(cluster: &Cluster) -> Result<(), String> {
    for ((id, task), number) in cluster.tasks.iter().zip(1..) {
        let numbered = task.id == *id && *id == TaskId(number);
        ensure(numbered, || format!("task {id} stands in place {number}"))?;
        let reference = cluster.references.get(&task.task.reference);
        let exists = reference.is_some_and(|reference| reference.versions.contains_key(&task.task.version));
        ensure(exists, || format!("task {id} maps onto a version that does not exist"))?;
    }
    Ok(())
}

/// Time has passed for every lease and deadline, and the next moment to look is not after the first that is due.
fn nothing_that_is_over_is_open(cluster: &Cluster) -> Result<(), String> {
    for task in cluster.tasks.values() {
        let Some(first_ms) = time::first_due_ms(task) else { continue };
        let is_watched = cluster.due_ms.is_some_and(|due_ms| due_ms <= first_ms);
        ensure(is_watched && cluster.now_ms < first_ms, || format!("task {} is overlooked", task.id))?;
    }
    Ok(())
}

/// A site that has the name of a publisher could withdraw, or submit, in the publisher's namespace.
fn owners_do_not_share_names(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        let is_site = cluster.sites.contains_key(&SiteId::from(reference.publisher.clone()));
        ensure(!is_site, || format!("`{}` is a site and a publisher", reference.publisher))?;
    }
    Ok(())
}

/// Once the founders are written down there is somebody to vote, and no two members are reached at one address.
fn members_can_go_on(cluster: &Cluster) -> Result<(), String> {
    if cluster.members.is_empty() {
        return Ok(());
    }
    ensure(!cluster.voters().is_empty(), || "no member votes".to_owned())?;
    let mut taken = BTreeSet::new();
    for (node, member) in &cluster.members {
        ensure(*node == member.node, || format!("member {node} stands under another id"))?;
        let is_removed = member.role == MemberRole::Removed;
        ensure(is_removed == member.removed_ms.is_some(), || format!("member {node} is half removed"))?;
        ensure(is_removed || taken.insert(&member.address), || format!("member {node} has the address of another"))?;
    }
    Ok(())
}

/// Gates of a task that is not there would be applied to the next one of its number.
fn gates_belong_to_tasks(cluster: &Cluster) -> Result<(), String> {
    for (id, gates) in &cluster.gates {
        let is_right = cluster.tasks.contains_key(id) && !gates.is_open() && gates.check().is_ok();
        ensure(is_right, || format!("the quality gates of task {id} are not sound"))?;
    }
    Ok(())
}

/// Every key of a version is of an axis or a part that the reference has, and a layout stands where one is needed.
fn layouts_belong_to_references(cluster: &Cluster) -> Result<(), String> {
    for (name, layout) in &cluster.layouts {
        let is_right = cluster.references.contains_key(name) && !layout.is_plain() && layout.check().is_ok();
        ensure(is_right, || format!("the layout of `{name}` is not sound"))?;
    }
    for reference in cluster.references.values() {
        let layout = cluster.layout(&reference.name).ok_or_else(|| format!("`{}` has no layout", reference.name))?;
        let mut keys = reference.versions.values().flat_map(|version| version.columns.keys());
        let stranger = keys.find(|key| !layout.knows(key.section()));
        ensure(stranger.is_none(), || format!("`{}` holds a key that its layout does not know", reference.name))?;
    }
    Ok(())
}

/// No peer can make the state grow without bound; and what is remembered has its place in the order of forgetting.
fn memory_is_bounded(cluster: &Cluster) -> Result<(), String> {
    ensure(cluster.requests.is_consistent(), || "remembered requests disagree with their order".to_owned())?;
    let n_open = cluster.open_tasks().count();
    let counts = [
        ("sites", cluster.sites.len(), limits::SITES),
        ("references", cluster.references.len(), limits::REFERENCES),
        ("tasks", cluster.tasks.len(), limits::TASKS),
        ("open tasks", n_open, limits::OPEN_TASKS),
        ("members", cluster.members.len(), limits::MEMBERS),
    ];
    let over = counts.iter().find(|(_, found, limit)| found > limit);
    over.map_or(Ok(()), |(what, found, limit)| Err(format!("{found} {what}, more than {limit}")))
}

fn assignments(cluster: &Cluster) -> impl Iterator<Item = (&TaskRecord, &SiteId, &AssignmentRecord)> {
    let tasks = cluster.tasks.values();
    tasks.flat_map(|task| task.assignments.iter().map(move |(site, assignment)| (task, site, assignment)))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
