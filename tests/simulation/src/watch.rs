//! The rules, and all that must be remembered to hold everybody to them.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_cluster::{Cluster, Reference, Room, invariants};
use archipelago_common::{
    BlobRef, ConditionKey, Digest, Fingerprint, Name, NodeId, SiteId, TaskId, Version, VersionId,
    enrolment::EnrolmentState,
    proposal::{Act, Demand, ProposalState},
    record::{AssignmentState, Submission, Why},
    signature::Subject,
};
use archipelago_histories::History;
use archipelago_protocol::message::{Request, Withdrawal};
use raft::eraftpb::Entry;

use crate::{
    leaver::{ANNEX, LEAVER, leaver},
    pair::JOINT,
};

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) history: History,
    leaders: BTreeMap<u64, NodeId>,
    /// Digest of every entry by index and term, with the term before it.
    entries: BTreeMap<(u64, u64), (Digest, Option<u64>)>,
    /// Term of every index that some node knew to be committed.
    committed: BTreeMap<u64, u64>,
    /// What each node has applied and knew to be committed when it was last looked at, by run.
    looked_at: BTreeMap<NodeId, (u64, u64, u64)>,
    most_applied: u64,
    states: BTreeMap<u64, Digest>,
    acknowledged: BTreeMap<(TaskId, SiteId), (Submission, u64)>,
    accepted: BTreeMap<(TaskId, SiteId), (u64, u64)>,
    /// The first index at which each epoch was seen.
    epochs: BTreeMap<(TaskId, SiteId), BTreeMap<u64, u64>>,
    lapsed: BTreeSet<(TaskId, SiteId, u64)>,
    withdrawing: BTreeSet<SiteId>,
    /// Bytes that were taken from each site.
    uploaded: BTreeMap<SiteId, u64>,
    /// Days that it was to some node.
    days: BTreeSet<u64>,
    /// The most that the clock of an only voter was ahead of the true time when time was counted from it, ms.
    one_clock_ahead_ms: u64,
    lineages: BTreeMap<Name, usize>,
    versions: BTreeMap<VersionId, Name>,
    blobs: BTreeSet<BlobRef>,
    /// The key that used an invitation up.
    used_by: BTreeMap<Fingerprint, Fingerprint>,
    /// Sites that were enrolled by whoever was revoked, since then.
    left_behind: Option<usize>,
    /// References and tasks without a signature, since signatures are demanded.
    unsigned: Option<usize>,
}

type Verdict = Result<(), String>;

impl Watch {
    /// Election safety: no two nodes lead in one term.
    pub(crate) fn leads(&mut self, node: NodeId, term: u64) -> Verdict {
        let first = *self.leaders.entry(term).or_insert(node);
        ensure(first == node, || format!("election safety: n{first} and n{node} both lead in term {term}"))
    }

    /// Terms in which somebody led.
    pub(crate) fn n_leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// The greatest index that any node has ever applied.
    pub(crate) fn most_applied(&self) -> u64 {
        self.most_applied
    }

    /// Leases that ran out.
    pub(crate) fn n_lapsed(&self) -> u64 {
        self.lapsed.len() as u64
    }

    /// What a node knew when it was last looked at: its applied and committed index. A new run begins anew.
    pub(crate) fn look(&mut self, node: NodeId, run: u64, applied: u64, committed: u64) -> (u64, u64) {
        self.most_applied = self.most_applied.max(applied);
        let last = self.looked_at.insert(node, (run, applied, committed));
        last.filter(|(earlier, ..)| *earlier == run).map_or((0, 0), |(_, applied, committed)| (applied, committed))
    }

    /// Log matching: two logs that agree in index and term of an entry agree in it and in all before; and what was
    /// committed once stays.
    pub(crate) fn log(&mut self, node: NodeId, entries: &[Entry], committed: u64) -> Verdict {
        for (i, entry) in entries.iter().enumerate() {
            let place = (entry.index, entry.term);
            let before = i.checked_sub(1).map(|i| entries[i].term);
            let digest = Digest::of(&[&entry.data[..], &entry.context[..]].concat());
            let (first, first_before) = self.entries.entry(place).or_insert((digest, before));
            ensure(*first == digest, || format!("log matching: n{node} has another entry at {place:?}"))?;
            ensure(before.is_none() || first_before.is_none() || *first_before == before, || {
                format!("log matching: on n{node} another entry comes before {place:?}")
            })?;
            *first_before = first_before.or(before);
            if entry.index <= committed {
                let term = *self.committed.entry(entry.index).or_insert(entry.term);
                ensure(term == entry.term, || {
                    format!("committed entry {} of term {term} has term {} on n{node}", entry.index, entry.term)
                })?;
            }
        }
        Ok(())
    }

    /// State-machine equality: at one index there is one state.
    pub(crate) fn state(&mut self, node: NodeId, applied: u64, cluster: &Cluster) -> Verdict {
        let digest = cluster.digest().map_err(|e| e.to_string())?;
        let first = *self.states.entry(applied).or_insert(digest);
        ensure(first == digest, || format!("state-machine equality: n{node} has another state at index {applied}"))?;
        invariants::check(cluster).map_err(|broken| format!("n{node} at index {applied}: {broken}"))
    }

    /// An acknowledged submission is never lost, and none is accepted twice.
    pub(crate) fn submissions(&mut self, node: NodeId, applied: u64, cluster: &Cluster) -> Verdict {
        for ((id, site), (submission, since)) in &self.acknowledged {
            if applied < *since || self.withdrawing.contains(site) {
                continue;
            }
            let assignment = cluster.task(*id).and_then(|task| task.assignments.get(site));
            let kept = assignment.is_some_and(|assignment| match &assignment.state {
                AssignmentState::Accepted { submission: kept, .. } => kept.conditions == submission.conditions,
                _ => false,
            });
            ensure(kept, || format!("n{node} at index {applied} has lost the submission of `{site}` for task {id}"))?;
        }
        let mut seeds = BTreeSet::new();
        for task in cluster.tasks() {
            ensure(seeds.insert(task.task.train.seed), || {
                format!("accepted twice: task {} was published before, on n{node} at index {applied}", task.id)
            })?;
        }
        cluster.references().try_for_each(|reference| merged_once(reference, node))
    }

    /// Fencing: nothing is accepted under an epoch when a later one was given before, or after the lease.
    pub(crate) fn fencing(&mut self, node: NodeId, applied: u64, cluster: &Cluster) -> Verdict {
        for task in cluster.tasks() {
            for (site, assignment) in &task.assignments {
                let at = (task.id, site.clone());
                let epochs = self.epochs.entry(at.clone()).or_default();
                let seen = epochs.entry(assignment.epoch).or_insert(applied);
                *seen = (*seen).min(applied);
                if assignment.state == AssignmentState::Lapsed {
                    self.lapsed.insert((task.id, site.clone(), assignment.epoch));
                }
                let AssignmentState::Accepted { submission, at_ms, .. } = &assignment.state else { continue };
                let later = epochs.range(submission.epoch + 1..).find(|(_, seen)| **seen < applied);
                ensure(later.is_none(), || {
                    format!("fencing: n{node} accepted task {} of `{site}` under epoch {}", task.id, submission.epoch)
                })?;
                ensure(*at_ms <= assignment.lease_until_ms, || {
                    format!("fencing: n{node} accepted task {} of `{site}` after its lease", task.id)
                })?;
                let (epoch, _) = *self.accepted.entry(at).or_insert((submission.epoch, applied));
                ensure(epoch == submission.epoch || self.withdrawing.contains(site), || {
                    format!(
                        "accepted twice: task {} of `{site}` under epochs {epoch} and {}",
                        task.id, submission.epoch
                    )
                })?;
            }
        }
        Ok(())
    }

    /// An invitation is used by one key, and whoever is in was approved with it.
    pub(crate) fn invitations(&mut self, node: NodeId, cluster: &Cluster) -> Verdict {
        for record in cluster.enrolments() {
            let (key, is_in) = match &record.state {
                EnrolmentState::Asked { key, .. } => (*key, false),
                EnrolmentState::Approved { key, .. } => (*key, true),
                EnrolmentState::Invited | EnrolmentState::Refused { .. } | EnrolmentState::Renewing { .. } => continue,
            };
            let first = *self.used_by.entry(record.invitation).or_insert(key);
            ensure(first == key, || {
                format!("invitations: on n{node} that of `{}` was used by key {first} and by key {key}", record.site)
            })?;
            let is_enrolled = cluster.sites().any(|site| site.site == record.site);
            ensure(is_enrolled || !is_in, || {
                format!("invitations: on n{node} `{}` is approved and no site", record.site)
            })?;
        }
        Ok(())
    }

    /// Nothing is carried out any more for whoever was revoked: in every state after that there is as much of theirs as in every other.
    /// Whether there was anything to check.
    pub(crate) fn revocations(&mut self, node: NodeId, cluster: &Cluster) -> Result<bool, String> {
        if cluster.standing(&leaver()).revoked.is_none() {
            return Ok(false);
        }
        let found = cluster.sites().filter(|site| site.site.as_str().starts_with(ANNEX)).count();
        let first = *self.left_behind.get_or_insert(found);
        ensure(first == found, || {
            format!("revocations: n{node} has {found} sites by `{LEAVER}`, who was revoked when there were {first}")
        })?;
        Ok(true)
    }

    /// What the pair has published, both of them have agreed on: in every state there are as many of its references as proposals that one
    /// made and the other approved.
    pub(crate) fn pairs(&mut self, node: NodeId, cluster: &Cluster) -> Verdict {
        let joint = cluster.references().filter(|reference| reference.name().as_str().starts_with(JOINT)).count();
        let all = Room { items: usize::MAX, bytes: u64::MAX, ..Room::default() };
        let by_two = cluster.proposal_page(all, None).items.into_iter().filter(|proposal| match &proposal.state {
            ProposalState::Done { by, .. } => proposal.act == Act::Publish && proposal.by != *by,
            _ => false,
        });
        let by_two = by_two.count();
        ensure(joint == by_two, || {
            format!("two persons: n{node} has {joint} references of the pair, and two agreed on {by_two}")
        })
    }

    /// From the state on in which signatures are demanded, nothing comes without one.
    pub(crate) fn signatures(&mut self, node: NodeId, cluster: &Cluster) -> Verdict {
        if !cluster.demands().contains(&Demand::Signatures) {
            return Ok(());
        }
        let unsigned = |subject: Subject| cluster.signature(&subject).is_none();
        let references =
            cluster.references().filter(|reference| unsigned(Subject::Reference(reference.name().clone())));
        let tasks = cluster.tasks().filter(|task| unsigned(Subject::Task(task.id)));
        let found = references.count() + tasks.count();
        let first = *self.unsigned.get_or_insert(found);
        ensure(first == found, || {
            format!(
                "signatures: n{node} has {found} references and tasks without one, and had {first} when they were demanded"
            )
        })
    }

    /// The blobs that a state names and nobody has looked at yet, and the versions.
    pub(crate) fn new_names(&mut self, cluster: &Cluster) -> (Vec<BlobRef>, Vec<(Name, VersionId, Version)>) {
        let blobs = named_blobs(cluster).into_iter().filter(|blob| self.blobs.insert(*blob)).collect();
        let mut versions = Vec::new();
        for reference in cluster.references() {
            for id in reference.changes().iter().map(|change| change.version) {
                if self.versions.insert(id, reference.name().clone()).is_none()
                    && let Some(version) = reference.version(id)
                {
                    versions.push((reference.name().clone(), id, version));
                }
            }
        }
        (blobs, versions)
    }

    /// The reference that a version is of.
    pub(crate) fn reference_of(&self, version: VersionId) -> Option<Name> {
        self.versions.get(&version).cloned()
    }

    /// Bytes of a site's upload have come; all that have until now.
    pub(crate) fn uploaded(&mut self, site: &SiteId, bytes: u64) -> u64 {
        let uploaded = self.uploaded.entry(site.clone()).or_default();
        *uploaded += bytes;
        *uploaded
    }

    /// Some node's state has come to this time.
    pub(crate) fn note_day(&mut self, now_ms: u64) {
        // Before the first agreement it is no day.
        if now_ms > 0 {
            self.days.insert(now_ms / DAY_MS);
        }
    }

    /// Days that it has been, one at least.
    pub(crate) fn n_days(&self) -> u64 {
        self.days.len().max(1) as u64
    }

    /// Time is counted from the clock of an only voter, which is so far ahead of the true time.
    pub(crate) fn count_by_one_clock(&mut self, ahead_ms: u64) {
        self.one_clock_ahead_ms = self.one_clock_ahead_ms.max(ahead_ms);
    }

    /// How far the state's time may be ahead since a clock counted alone.
    pub(crate) fn most_ahead_by_one_clock(&self) -> u64 {
        self.one_clock_ahead_ms
    }

    /// Somebody wants conditions out.
    pub(crate) fn note_withdrawal(&mut self, what: &Withdrawal) {
        match what {
            Withdrawal::Site(site) => self.withdrawing.extend([site.clone()]),
            Withdrawal::Keys(keys) => self.withdrawing.extend(keys.iter().map(|key| key.owner().clone())),
        }
    }

    /// A site was told that its work is accepted; whoever has applied `applied` must know it.
    pub(crate) fn acknowledge(&mut self, site: &SiteId, submission: &Submission, applied: u64) -> Verdict {
        let at = (submission.task, site.clone());
        let (first, _) = self.acknowledged.entry(at).or_insert_with(|| (submission.clone(), applied));
        let is_same = first.conditions == submission.conditions || self.withdrawing.contains(site);
        ensure(is_same, || {
            format!("accepted twice: `{site}` was told so of two submissions for task {}", submission.task)
        })
    }

    /// How much of a lineage has been read by somebody when a request is made.
    pub(crate) fn lineage_seen(&self, request: &Request) -> usize {
        match request {
            Request::ShowReference { name } | Request::ShowReferenceHead { name } => {
                self.lineages.get(name).copied().unwrap_or_default()
            }
            _ => 0,
        }
    }

    /// Monotone reads: who asks after an answer sees at least as much.
    pub(crate) fn read(&mut self, reference: &Name, seen: usize, floor: usize) -> Verdict {
        ensure(seen >= floor, || {
            format!("monotone reads: `{reference}` was read with {floor} events and then with {seen}")
        })?;
        let most = self.lineages.entry(reference.clone()).or_default();
        *most = (*most).max(seen);
        Ok(())
    }
}

/// Every blob that a state names, but for those by which names what was erased was meant. Collected here and not asked of the state
/// machine, whose word is what is checked.
pub(crate) fn named_blobs(cluster: &Cluster) -> BTreeSet<BlobRef> {
    let room = Room { items: usize::MAX, bytes: u64::MAX, ..Room::default() };
    let receipts = cluster.erasure_page(room, &leaver(), None).items;
    let receipts: BTreeMap<_, _> =
        receipts.into_iter().map(|one| ((one.reference.clone(), one.key.clone()), one)).collect();
    let receipt = |reference: &Name, key: &ConditionKey| receipts.get(&(reference.clone(), key.clone()));
    let mut named: BTreeSet<BlobRef> = cluster.references().map(Reference::base).collect();
    for reference in cluster.references() {
        for (n_before, change) in (0..).zip(reference.changes()).filter(|(_, change)| change.adds()) {
            let is_erased =
                |key: &ConditionKey| receipt(reference.name(), key).is_some_and(|one| one.n_changes > n_before);
            named.extend(change.columns.iter().filter(|(key, _)| !is_erased(key)).map(|(_, blob)| *blob));
        }
    }
    for task in cluster.tasks() {
        for assignment in task.assignments.values() {
            let AssignmentState::Accepted { submission, .. } = &assignment.state else { continue };
            for (key, condition) in &submission.conditions {
                if !receipt(&task.task.reference, key).is_some_and(|one| one.tasks.contains(&task.id)) {
                    named.extend(std::iter::once(condition.columns).chain(condition.embeddings));
                }
            }
        }
    }
    named
}

/// No condition is merged again unless it was withdrawn in between.
fn merged_once(reference: &Reference, node: NodeId) -> Verdict {
    let mut present = BTreeSet::new();
    for change in reference.changes() {
        match change.why {
            Why::Published | Why::Derived { .. } => {}
            Why::Merged { .. } => {
                for key in change.columns.keys() {
                    ensure(present.insert(key), || format!("accepted twice: `{key}` was merged again on n{node}"))?;
                }
            }
            Why::Withdrawn { .. } => present.retain(|key| !change.columns.contains_key(*key)),
        }
    }
    Ok(())
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// A day of the state's time, ms.
const DAY_MS: u64 = 86_400_000;
