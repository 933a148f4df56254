//! What is true of the state after every command. Tests and the simulation check it; so does a restored snapshot.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    BlobRef, ConditionKey, Name, SiteId, TaskId, Version, VersionId,
    enrolment::EnrolmentState,
    limits,
    member::MemberRole,
    proposal::ProposalState,
    record::{AssignmentRecord, AssignmentState, SubmittedCondition, TaskRecord, TaskState, Why},
    signature::{Statement, Subject},
    task::PublishMode,
};

use crate::{Cluster, Reference, proposal::Proposed, task, time};

/// Checks every invariant.
///
/// # Errors  the first one that is broken, in words
pub fn check(cluster: &Cluster) -> Result<(), String> {
    check_restored(cluster)?;
    the_index_is_that_of_the_state(cluster)
}

/// Checks every invariant but that of the index, which was just made.
///
/// # Errors  the first one that is broken, in words
pub(crate) fn check_restored(cluster: &Cluster) -> Result<(), String> {
    CHECKS.iter().try_for_each(|check| check(cluster))
}

type Check = fn(&Cluster) -> Result<(), String>;

const CHECKS: &[Check] = &[
    versions_have_the_id_of_their_content,
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
    signatures_are_of_what_they_stand_beside,
    memory_is_bounded,
    enrolments_are_of_one_site_each,
    what_two_are_demanded_for_two_did,
    acts_end_where_their_chain_does,
];

/// Else two coordinators could mean different columns by one version. All of a history is hashed where that is soon done; of
/// a long one the current version.
fn versions_have_the_id_of_their_content(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        let name = reference.name();
        let is_right = Version::id_of(reference.base(), reference.columns()) == reference.current();
        ensure(is_right, || format!("the current version of `{name}` has other content"))?;
        let n_hashed = reference.changes().len().saturating_mul(reference.n_merged());
        if n_hashed > HASHED_CONDITIONS {
            continue;
        }
        let mut columns = BTreeMap::new();
        for change in reference.changes() {
            change.apply(&mut columns);
            let is_right = Version::id_of(reference.base(), &columns) == change.version;
            ensure(is_right, || format!("version {} of `{name}` has other content", change.version))?;
        }
    }
    Ok(())
}

/// The audit trail is complete: it begins with the publication, and every change could be made.
fn lineage_explains_every_version(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        let name = reference.name();
        let mut columns: BTreeMap<&ConditionKey, BlobRef> = BTreeMap::new();
        for (change_idx, change) in reference.changes().iter().enumerate() {
            let wrong = || format!("version {} of `{name}` does not follow from its cause", change.version);
            ensure((change_idx == 0) == (change.why == Why::Published), || format!("`{name}` was not published"))?;
            ensure(change_idx == 0 || change.columns.is_empty() == change.result().is_some(), wrong)?;
            ensure(change.at_ms <= cluster.latest_ms, wrong)?;
            for (key, blob) in &change.columns {
                let was = if change.adds() { columns.insert(key, *blob) } else { columns.remove(key) };
                ensure(was == (!change.adds()).then_some(*blob), wrong)?;
            }
        }
        ensure(!reference.changes().is_empty(), || format!("`{name}` has no lineage"))?;
    }
    Ok(())
}

/// No column enters a version but by an accepted submission of the site that owns it.
fn what_is_merged_was_accepted(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        for change in reference.changes() {
            let Why::Merged { task } = &change.why else { continue };
            let handed_in = |key: &ConditionKey| {
                let assignment = cluster.tasks.get(task)?.assignments.get(key.owner())?;
                match &assignment.state {
                    AssignmentState::Accepted { submission, version: Some(_), .. } => submission.conditions.get(key),
                    _ => None,
                }
            };
            let is_own = |(key, blob): (&ConditionKey, &BlobRef)| handed_in(key).is_some_and(|c| c.columns == *blob);
            ensure(change.columns.iter().all(is_own), || {
                format!("version {} of `{}` holds columns that nobody handed in", change.version, reference.name())
            })?;
        }
    }
    Ok(())
}

/// An acknowledged submission is never lost: it is in the version that its record names, or waits for the close.
fn what_is_accepted_is_merged_or_waits(cluster: &Cluster) -> Result<(), String> {
    let timelines: BTreeMap<_, _> =
        cluster.references.iter().map(|(name, reference)| (name, Timeline::of(reference))).collect();
    for (task, site, assignment) in assignments(cluster) {
        let AssignmentState::Accepted { submission, version, at_ms } = &assignment.state else { continue };
        let lost = || format!("the submission of `{site}` for task {} is lost", task.id);
        ensure(submission.task == task.id && submission.epoch == assignment.epoch, lost)?;
        ensure(submission.version == task.task.version && *at_ms <= cluster.latest_ms, lost)?;
        let waits_for = matches!(task.state, TaskState::Open | TaskState::Cancelled);
        ensure(version.is_none() == (task.task.publish == PublishMode::AtClose && waits_for), lost)?;
        let Some(version) = version else { continue };
        let timeline = timelines.get(&task.task.reference).ok_or_else(lost)?;
        let holds =
            |(key, given): (&ConditionKey, &SubmittedCondition)| timeline.holds(*version, key) == Some(given.columns);
        ensure(submission.conditions.iter().all(holds), lost)?;
    }
    Ok(())
}

/// What every version of a reference holds, condition by condition.
struct Timeline<'a> {
    firsts: BTreeMap<VersionId, usize>,
    /// By condition, the changes at which it came (with its columns) or went.
    of_keys: BTreeMap<&'a ConditionKey, Vec<(usize, Option<BlobRef>)>>,
}

impl<'a> Timeline<'a> {
    fn of(reference: &'a Reference) -> Self {
        let mut timeline = Self { firsts: BTreeMap::new(), of_keys: BTreeMap::new() };
        for (change_idx, change) in reference.changes().iter().enumerate() {
            timeline.firsts.entry(change.version).or_insert(change_idx);
            for (key, blob) in &change.columns {
                timeline.of_keys.entry(key).or_default().push((change_idx, change.adds().then_some(*blob)));
            }
        }
        timeline
    }

    fn holds(&self, version: VersionId, key: &ConditionKey) -> Option<BlobRef> {
        let (first, steps) = (self.firsts.get(&version)?, self.of_keys.get(key)?);
        let n_until = steps.partition_point(|(change_idx, _)| change_idx <= first);
        steps.get(n_until.checked_sub(1)?)?.1
    }
}

/// Closing a task cannot fail.
fn what_waits_can_be_merged(cluster: &Cluster) -> Result<(), String> {
    let mut waiting: BTreeMap<(&Name, &ConditionKey), BlobRef> = BTreeMap::new();
    for task in cluster.open_tasks() {
        let name = &task.task.reference;
        for (key, columns) in task::waiting_in(task) {
            let merged = cluster.references.get(name).and_then(|reference| reference.columns().get(key));
            let other = *waiting.entry((name, key)).or_insert(columns);
            ensure(other == columns && merged.is_none_or(|merged| *merged == columns), || {
                format!("task {} cannot be closed: `{key}` is there with other columns", task.id)
            })?;
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
        let exists = reference.is_some_and(|reference| reference.has(task.task.version));
        ensure(exists, || format!("task {id} maps onto a version that does not exist"))?;
    }
    Ok(())
}

/// Time has passed for every lease and deadline.
fn nothing_that_is_over_is_open(cluster: &Cluster) -> Result<(), String> {
    ensure(cluster.now_ms <= cluster.latest_ms, || "it is later than it ever was".to_owned())?;
    for task in cluster.open_tasks() {
        let first_ms = time::first_due_ms(task);
        ensure(first_ms.is_none_or(|first_ms| cluster.now_ms < first_ms), || {
            format!("task {} is overlooked", task.id)
        })?;
    }
    Ok(())
}

/// What is kept beside the state, so that nobody has to walk it, is what follows from the state.
fn the_index_is_that_of_the_state(cluster: &Cluster) -> Result<(), String> {
    let mut anew = cluster.clone();
    anew.index();
    ensure(anew == *cluster, || "the index does not follow from the state".to_owned())
}

/// A site that has the name of a publisher could withdraw, or submit, in the publisher's namespace.
fn owners_do_not_share_names(cluster: &Cluster) -> Result<(), String> {
    for reference in cluster.references.values() {
        let is_site = cluster.sites.contains_key(&SiteId::from(reference.publisher().clone()));
        ensure(!is_site, || format!("`{}` is a site and a publisher", reference.publisher()))?;
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
        let layout = cluster.tasks.get(id).and_then(|task| cluster.layout(&task.task.reference));
        let is_right = layout.is_some_and(|layout| !gates.is_open() && gates.check(&layout.figures).is_ok());
        ensure(is_right, || format!("the quality gates of task {id} are not sound"))?;
    }
    Ok(())
}

/// A signature of something else would be refused by every site.
fn signatures_are_of_what_they_stand_beside(cluster: &Cluster) -> Result<(), String> {
    for (of, signature) in &cluster.signatures {
        let signed = match of {
            Subject::Reference(name) => {
                cluster.references.get(name).and_then(|reference| Some(reference.changes().first()?.version.0))
            }
            Subject::Task(id) => {
                let statement = |task: &TaskRecord| Statement::of_task(&task.task, signature.signed_ms).ok();
                cluster.tasks.get(id).and_then(statement).map(|statement| statement.of)
            }
        };
        let is_right = signed.is_some_and(|signed| signature.check(signed).is_ok());
        ensure(is_right, || format!("the signature of {of:?} is of something else"))?;
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
        let name = reference.name();
        let layout = cluster.layout(name).ok_or_else(|| format!("`{name}` has no layout"))?;
        let mut keys = reference.changes().iter().flat_map(|change| change.columns.keys());
        let stranger = keys.find(|key| !layout.knows(key.section()));
        ensure(stranger.is_none(), || format!("`{name}` holds a key that its layout does not know"))?;
    }
    Ok(())
}

/// No peer can make the state grow without bound; and what is remembered has its place in the order of forgetting.
/// Else an operator could approve another request than the one that was looked at. Whoever was approved is enrolled.
fn enrolments_are_of_one_site_each(cluster: &Cluster) -> Result<(), String> {
    let mut sites = BTreeSet::new();
    for (invitation, record) in &cluster.enrolments {
        let site = &record.site;
        ensure(record.invitation == *invitation, || format!("the invitation of `{site}` is under another key"))?;
        ensure(sites.insert(site), || format!("`{site}` has two invitations"))?;
        let is_approved = matches!(record.state, EnrolmentState::Approved { .. });
        ensure(!is_approved || cluster.sites.contains_key(site), || format!("`{site}` was approved and is no site"))?;
    }
    let stranger =
        cluster.certified.keys().chain(cluster.renewed.keys()).find(|site| !cluster.sites.contains_key(*site));
    stranger.map_or(Ok(()), |site| Err(format!("`{site}` has a key and is no site")))
}

/// Whoever approved is not who proposed, and what is left to be done is what waits.
fn what_two_are_demanded_for_two_did(cluster: &Cluster) -> Result<(), String> {
    for (number, Proposed { proposal, deed }) in &cluster.proposals {
        ensure(proposal.number == *number, || format!("proposal {number} is called {}", proposal.number))?;
        let waits = proposal.state == ProposalState::Waits;
        ensure(deed.is_none() || waits, || format!("proposal {number} is left to be done, and was answered"))?;
        if let ProposalState::Done { by, key, .. } = &proposal.state {
            let are_two = by.person() != proposal.by.person() && *key != proposal.key;
            ensure(are_two, || format!("proposal {number} was approved by whoever proposed it: `{by}`"))?;
        }
    }
    Ok(())
}

fn memory_is_bounded(cluster: &Cluster) -> Result<(), String> {
    ensure(cluster.requests.is_consistent(), || "remembered requests disagree with their order".to_owned())?;
    let n_open = cluster.tasks.values().filter(|task| task.state == TaskState::Open).count();
    let counts = [
        ("sites", cluster.sites.len(), limits::SITES),
        ("references", cluster.references.len(), limits::REFERENCES),
        ("tasks", cluster.tasks.len(), limits::TASKS),
        ("open tasks", n_open, limits::OPEN_TASKS),
        ("members", cluster.members.len(), limits::MEMBERS),
        // An invitation of somebody else, and a request of each site.
        ("invitations", cluster.enrolments.len(), limits::INVITATIONS + limits::SITES),
        ("names whose certificates are known", cluster.met.len(), limits::PRINCIPALS),
        ("names that are shut out", cluster.revoked.len(), limits::REVOCATIONS),
        ("proposals", cluster.proposals.len(), limits::PROPOSALS_KEPT + limits::PROPOSALS),
        ("keys that are shut out", cluster.revoked_keys.len(), limits::REVOCATIONS),
    ];
    let over = counts.iter().find(|(_, found, limit)| found > limit);
    over.map_or(Ok(()), |(what, found, limit)| Err(format!("{found} {what}, more than {limit}")))
}

fn assignments(cluster: &Cluster) -> impl Iterator<Item = (&TaskRecord, &SiteId, &AssignmentRecord)> {
    let tasks = cluster.tasks.values();
    tasks.flat_map(|task| task.assignments.iter().map(move |(site, assignment)| (task, site, assignment)))
}

/// Else an auditor could not go on where the last export ended.
fn acts_end_where_their_chain_does(cluster: &Cluster) -> Result<(), String> {
    ensure(cluster.acts.as_ref().is_none_or(crate::acts::Acts::are_whole), || {
        "acts are missing from the record".to_owned()
    })
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Conditions that are hashed to check a history; a second's work.
const HASHED_CONDITIONS: usize = 1 << 23;
