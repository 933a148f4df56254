//! What must hold in the end: everything acknowledged is there, once, on every node, with the bytes that were sent.
//!
//! [`Findings::of`] is the judgement, a pure function of what was written down and what is there; the rest collects both.
//! The state is read through every node in turn as leader, so that no node's word is taken for another's.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use archipelago_common::{
    BlobRef, ConditionKey, Fingerprint, Name, SiteId, TaskId, Version, VersionId, fs,
    record::{AssignmentState, Cause, ReferenceRecord, Submission, TaskRecord, TaskState},
};
use archipelago_histories::{Checked, History};
use archipelago_processes::consortium::wait_for_leader;

use crate::{
    journal::{Journal, OperatorEntry, SiteEntry},
    operator::Operator,
    printer::say,
    recorder,
    site::journal_path,
    stage::Stage,
};

/// What the replicated state holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct State {
    /// References by name.
    pub references: BTreeMap<Name, ReferenceRecord>,
    /// Tasks by number.
    pub tasks: BTreeMap<TaskId, TaskRecord>,
    /// Sites that came in by an invitation: the key that counts, and whether they were shut out.
    pub guests: BTreeMap<SiteId, (Fingerprint, bool)>,
}

/// What was written down by those to whom it was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// By site.
    pub sites: BTreeMap<SiteId, Vec<SiteEntry>>,
    /// By the operator and the probe.
    pub operator: Vec<OperatorEntry>,
}

/// The judgement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Of these, submissions.
    pub submissions: u64,
    /// And enrolments, renewals and revocations of sites.
    pub guests: (u64, u64, u64),
    /// Acknowledged and not there, in words.
    pub lost: Vec<String>,
    /// There more than once, in words.
    pub duplicated: Vec<String>,
    /// Everything else that should not be, in words.
    pub problems: Vec<String>,
    /// What was checked of the order of operations.
    pub checked: Checked,
}

impl Findings {
    /// Compares what was written down with what is there.
    pub fn of(written: &Written, state: &State) -> Self {
        let mut findings = Self::default();
        for (site, entries) in &written.sites {
            findings.judge_site(site, entries, state);
        }
        for entry in &written.operator {
            findings.judge_operator(entry, state);
        }
        findings.judge_guests(&written.operator, state);
        for (name, record) in &state.references {
            findings.judge_lineage(name, record);
        }
        findings
    }

    /// Whether one order of all operations explains every answer.
    fn judge_history(&mut self, history: &History) {
        match archipelago_histories::check(history) {
            Ok(checked) => self.checked = checked,
            Err(violation) => self.problems.push(violation.to_string()),
        }
    }

    /// Every guest has the key that counted last and is shut out if that was acknowledged; nobody else came in, and no two by one key.
    fn judge_guests(&mut self, entries: &[OperatorEntry], state: &State) {
        let mut expected = BTreeMap::new();
        for entry in entries {
            match entry {
                OperatorEntry::Enrolled { site, key } => {
                    self.guests.0 += 1;
                    if expected.insert(site.clone(), (*key, false)).is_some() {
                        self.duplicated.push(format!("`{site}` was let in twice"));
                    }
                }
                OperatorEntry::Renewed { site, key } => {
                    self.guests.1 += 1;
                    expected.insert(site.clone(), (*key, false));
                }
                OperatorEntry::Revoked { site } => {
                    self.guests.2 += 1;
                    expected.entry(site.clone()).and_modify(|(_, is_out)| *is_out = true);
                }
                _ => {}
            }
        }
        for (site, (key, is_out)) in &expected {
            match state.guests.get(site) {
                Some(found) if found == &(*key, *is_out) => {}
                Some((found, true)) if !is_out => {
                    self.problems.push(format!("`{site}` with key {found} is shut out, and nobody said so"));
                }
                found => {
                    let expected = if *is_out { "shut out" } else { "in" };
                    self.lost.push(format!("`{site}` is to be {expected} with key {key}, and is {found:?}"));
                }
            }
        }
        let mut keys = BTreeSet::new();
        for (site, (key, _)) in &state.guests {
            if !expected.contains_key(site) {
                self.problems.push(format!("`{site}` is in, and nobody was told so"));
            }
            if !keys.insert(key) {
                self.duplicated.push(format!("`{site}` is in with key {key} of another"));
            }
        }
    }

    fn judge_site(&mut self, site: &SiteId, entries: &[SiteEntry], state: &State) {
        let (mut sent, mut answers) = (BTreeSet::new(), BTreeMap::new());
        for entry in entries {
            match entry {
                SiteEntry::Sending(submission) => drop(sent.insert(content(submission))),
                SiteEntry::Acknowledged { submission, version } => {
                    self.acknowledged += 1;
                    self.submissions += 1;
                    if answers.insert(submission.task, version).is_some() {
                        self.duplicated.push(format!("task {} was acknowledged to {site} twice", submission.task));
                    }
                    if let Err(reason) = require_there(site, submission, *version, state) {
                        self.lost.push(format!("submission of {site} for task {}: {reason}", submission.task));
                    }
                }
            }
        }
        for (task, record) in &state.tasks {
            if let Some(AssignmentState::Accepted { submission, .. }) = record.assignments.get(site).map(|a| &a.state)
                && !sent.contains(&content(submission))
            {
                self.problems.push(format!("task {task} has a submission of {site} that {site} never sent"));
            }
        }
    }

    fn judge_operator(&mut self, entry: &OperatorEntry, state: &State) {
        self.acknowledged += 1;
        let is_there = match entry {
            OperatorEntry::Reference { name, version } => {
                state.references.get(name).is_some_and(|record| record.versions.contains_key(version))
            }
            OperatorEntry::Task(task) => state.tasks.contains_key(task),
            OperatorEntry::Closed(task) => state.tasks.get(task).is_some_and(|t| t.state == TaskState::Closed),
            OperatorEntry::Probe => true,
            // All of a guest together; see there.
            OperatorEntry::Enrolled { .. } | OperatorEntry::Renewed { .. } | OperatorEntry::Revoked { .. } => true,
        };
        if !is_there {
            self.lost.push(format!("{entry:?}"));
        }
    }

    /// Every version follows from its parent by what its event says, and no condition is merged twice.
    fn judge_lineage(&mut self, name: &Name, record: &ReferenceRecord) {
        let mut merged = BTreeSet::new();
        let mut parent: Option<&Version> = None;
        for event in &record.lineage {
            let Some(version) = record.versions.get(&event.version) else {
                return self.problems.push(format!("reference {name}: version {} is missing", event.version));
            };
            if event.parent != parent.map(Version::id) {
                self.problems.push(format!("reference {name}: the parent of {} is another version", event.version));
            }
            if let (Cause::Merged { keys, .. }, Some(parent)) = (&event.cause, parent) {
                let columns = keys.iter().filter_map(|key| Some((key.clone(), *version.columns.get(key)?)));
                let again = parent.merged(&columns.collect());
                if again.map(|again| again.id()).ok() != Some(event.version) {
                    self.problems.push(format!("reference {name}: {} is not its parent and its merge", event.version));
                }
                for key in keys.iter().filter(|key| !merged.insert((*key).clone())) {
                    self.duplicated.push(format!("reference {name}: condition {key} was merged twice"));
                }
            }
            if version.id() != event.version {
                self.problems.push(format!("reference {name}: version {} has another digest", event.version));
            }
            parent = Some(version);
        }
        if parent.map(Version::id) != Some(record.current) {
            self.problems.push(format!("reference {name}: the current version is not the last of its lineage"));
        }
    }
}

/// Task, version, and per condition the digests of columns and embeddings.
type Content = (TaskId, VersionId, BTreeMap<ConditionKey, (BlobRef, Option<BlobRef>)>);

/// What is compared of a submission: metrics are the site's own.
fn content(submission: &Submission) -> Content {
    let blobs = submission.conditions.iter().map(|(key, c)| (key.clone(), (c.columns, c.embeddings)));
    (submission.task, submission.version, blobs.collect())
}

/// Whether a submission that was acknowledged is accepted, and merged with exactly the blobs that were sent.
fn require_there(
    site: &SiteId,
    submission: &Submission,
    answered: Option<VersionId>,
    state: &State,
) -> Result<(), String> {
    let task = state.tasks.get(&submission.task).ok_or("its task is gone")?;
    let Some(AssignmentState::Accepted { submission: there, version, .. }) =
        task.assignments.get(site).map(|assignment| &assignment.state)
    else {
        return Err("it is not accepted".to_owned());
    };
    if content(there) != content(submission) {
        return Err("another one is accepted".to_owned());
    }
    let reference = state.references.get(&task.task.reference).ok_or("its reference is gone")?;
    let current = reference.versions.get(&reference.current).ok_or("the current version is gone")?;
    if version.is_none() && task.state == TaskState::Closed {
        return Err("its task is closed and no version holds it".to_owned());
    }
    for (key, condition) in &submission.conditions {
        let is_merged = |version: &Version| version.columns.get(key) == Some(&condition.columns);
        if version.is_some() && !is_merged(current) {
            return Err(format!("the current version does not have the columns of {key}"));
        }
        if answered.is_some_and(|id| !reference.versions.get(&id).is_some_and(is_merged)) {
            return Err(format!("the version of the answer does not have the columns of {key}"));
        }
    }
    Ok(())
}

/// Waits until all work is done, reads the state through every node and judges it.
pub async fn audit(stage: &mut Stage) -> Result<Findings> {
    stage.healthy().await?;
    let board = stage.fleet.board().clone();
    let is_done = board.wait(DONE, |sites| sites.values().all(|view| view.open.is_empty()).then_some(())).await;
    ensure!(is_done.is_some(), "a site does not get its work done within {} s without faults", DONE.as_secs());
    let written = written(stage)?;
    let mut first: Option<State> = None;
    let mut findings = Findings::default();
    for node in stage.consortium.nodes() {
        make_leader(stage, node)?;
        let state = read_state(&stage.operator, &written).await?;
        ensure!(stage.operator.status().await?.leader.map(|id| id.as_u64()) == Some(node), "node {node} leads no more");
        say(&format!("audit: {} tasks and {} references on node {node}", state.tasks.len(), state.references.len()));
        match &first {
            None => {
                findings = Findings::of(&written, &state);
                first = Some(state);
            }
            Some(first) if *first == state => {}
            Some(_) => findings.problems.push(format!("node {node} has another state than node 1")),
        }
    }
    let state = first.context("there is a node")?;
    for node in stage.consortium.nodes() {
        let missing = missing_blobs(&stage.consortium.node_dir(node).join("data/blobs/whole"), &state).await?;
        findings
            .problems
            .extend(missing.into_iter().map(|blob| format!("node {node} lacks blob {blob} or has it damaged")));
    }
    findings.judge_history(&history(stage)?);
    Ok(findings)
}

/// What all clients asked and were told, also as one file.
fn history(stage: &Stage) -> Result<History> {
    let dir = stage.consortium.dir();
    let mut operations = recorder::read(&dir.join("anna"), "operator/anna")?;
    for site in stage.fleet.sites() {
        operations.extend(recorder::read(&dir.join(site.as_str()), &format!("site/{site}"))?);
    }
    let history = History { operations };
    std::fs::write(dir.join("history.jsonl"), history.to_lines())?;
    Ok(history)
}

fn written(stage: &Stage) -> Result<Written> {
    let dir = stage.consortium.dir();
    let sites = stage.fleet.sites().into_iter().map(|site| {
        let entries = Journal::read(&journal_path(&dir.join(site.as_str())))?;
        Ok((site, entries))
    });
    let mut operator = Journal::read(&dir.join("anna/journal.jsonl"))?;
    operator.extend(Journal::read(&dir.join("anna/probe.jsonl"))?);
    operator.extend(Journal::read(&dir.join("anna/guests.jsonl"))?);
    Ok(Written { sites: sites.collect::<Result<_>>()?, operator })
}

/// Makes a node the leader: the leader is asked to stop while this one is the only other that runs.
fn make_leader(stage: &mut Stage, node: u64) -> Result<()> {
    for _ in 0..HAND_OVERS {
        let leader = wait_for_leader(&mut stage.consortium, PATIENCE)?;
        if leader == node {
            return Ok(());
        }
        let third = stage.consortium.nodes().find(|other| *other != node && *other != leader);
        let third = third.context("a consortium of three has a third node")?;
        stage.consortium.kill(third)?;
        stage.consortium.stop(leader)?;
        stage.consortium.start(leader)?;
        stage.consortium.start(third)?;
    }
    anyhow::bail!("node {node} did not become the leader in {HAND_OVERS} hand-overs")
}

/// Everything that the journals name, and every task.
async fn read_state(operator: &Operator, written: &Written) -> Result<State> {
    let mut state = State::default();
    let n_tasks = written.operator.iter().filter_map(|entry| match entry {
        OperatorEntry::Task(task) => Some(task.0),
        _ => None,
    });
    for task in (1..=n_tasks.max().unwrap_or(0)).map(TaskId) {
        state.tasks.insert(task, operator.task(task).await?);
    }
    let named: BTreeSet<_> = written
        .operator
        .iter()
        .filter_map(|entry| match entry {
            OperatorEntry::Reference { name, .. } => Some(name.clone()),
            _ => None,
        })
        .chain(state.tasks.values().map(|task| task.task.reference.clone()))
        .collect();
    for name in named {
        if let Some(record) = operator.reference(&name).await? {
            state.references.insert(name, record);
        }
    }
    let keys = operator.keys().await?;
    for site in operator.sites().await? {
        if let Some(certified) = keys.get(&site.site) {
            state.guests.insert(site.site, (certified.key, site.revoked_ms.is_some()));
        }
    }
    Ok(state)
}

/// Blobs of the state that a node's store does not have, after some time to fetch them, or has with other bytes.
async fn missing_blobs(store: &Path, state: &State) -> Result<Vec<BlobRef>> {
    let versions = state.references.values().flat_map(|record| record.versions.values());
    let of_versions = versions.flat_map(Version::blobs);
    let accepted = state.tasks.values().flat_map(|task| task.assignments.values());
    let of_submissions = accepted.filter_map(|assignment| match &assignment.state {
        AssignmentState::Accepted { submission, .. } => Some(submission.blobs().collect::<Vec<_>>()),
        _ => None,
    });
    let blobs: BTreeSet<_> = of_versions.chain(of_submissions.flatten()).collect();
    let path = |blob: &BlobRef| {
        let digest = blob.digest.to_string();
        store.join(&digest[..2]).join(digest)
    };
    let begun = Instant::now();
    while blobs.iter().any(|blob| !path(blob).exists()) && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(blobs.into_iter().filter(|blob| fs::blob_ref(&path(blob)).ok() != Some(*blob)).collect())
}

/// How long what is open may take once nothing is disturbed any more.
const DONE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);
const HAND_OVERS: u32 = 10;

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
