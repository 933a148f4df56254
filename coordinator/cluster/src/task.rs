//! Tasks and the leases of sites on them.
//!
//! There is one assignment per task and site, so a slow site holds up nobody but itself. Its epoch grows with every
//! claim after a lapse; whatever still arrives under an earlier epoch is refused.

use std::collections::BTreeMap;

use archipelago_common::{
    BlobRef, ConditionKey, Principal, Role, SiteId, TaskId, limits,
    record::{AssignmentRecord, AssignmentState, Progress, TaskRecord, TaskState},
    task::{Asks, PublishMode, QualityGates, SurgeryTask},
    tree,
};

use crate::{
    Cluster, Outcome, Refusal, growth,
    mutation::{self, Rule},
    site,
};

impl Cluster {
    /// What a task asks of the quality of submissions beside its own bounds.
    pub fn gates(&self, id: TaskId) -> QualityGates {
        self.gates.get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn publish_unsigned_task(
        &mut self,
        principal: &Principal,
        task: &SurgeryTask,
        gates: &QualityGates,
    ) -> Result<Outcome, Refusal> {
        self.require_signed("task", false)?;
        self.publish_task(principal, task, gates)
    }

    pub(crate) fn publish_task(
        &mut self,
        principal: &Principal,
        task: &SurgeryTask,
        gates: &QualityGates,
    ) -> Result<Outcome, Refusal> {
        let publisher = site::require_role(principal, Role::Publisher)?;
        self.require_unspoilt(&task.reference, task.version)?;
        let layout = self.require_layout(&task.reference)?;
        if let Some(reason) = layout.refuses_all() {
            let reason = format!("nothing can be handed in for reference `{}`: {reason}", task.reference);
            return Err(Refusal::invalid(reason));
        }
        if task.asks == Asks::Annotations && !layout.parts.keys().any(|part| part.as_str() == tree::ANNOTATIONS) {
            let reason = format!("sites learn no tree over reference `{}`, which could annotate cells", task.reference);
            return Err(Refusal::invalid(reason));
        }
        require_sound(task, self.now_ms)?;
        gates.check(&layout.figures).map_err(|e| Refusal::invalid(e.to_string()))?;
        for site in task.allow.iter().flatten() {
            let refuse =
                |_| Refusal::invalid(format!("site `{site}` on the allow-list is not enrolled or was revoked"));
            self.require_enrolled(site).map_err(refuse)?;
        }
        site::require_room("open tasks", self.index.open().len(), limits::OPEN_TASKS)?;
        site::require_room("tasks", self.tasks.len(), limits::TASKS)?;
        let n_bytes = growth::bytes_of(task) + growth::bytes_of(gates);
        self.require_growth(n_bytes)?;
        let id = TaskId(self.tasks.len() as u64 + 1);
        let record = TaskRecord {
            id,
            task: task.clone(),
            publisher: publisher.clone(),
            published_ms: self.now_ms,
            state: TaskState::Open,
            assignments: BTreeMap::new(),
        };
        self.index.opened(&record);
        self.tasks.insert(id, record);
        if !gates.is_open() {
            self.gates.insert(id, gates.clone());
        }
        self.grew(n_bytes);
        Ok(Outcome::Task(id))
    }

    pub(crate) fn close_task(&mut self, principal: &Principal, id: TaskId) -> Result<Outcome, Refusal> {
        self.end_task_for(principal, id, TaskState::Closed)
    }

    pub(crate) fn cancel_task(&mut self, principal: &Principal, id: TaskId) -> Result<Outcome, Refusal> {
        self.end_task_for(principal, id, TaskState::Cancelled)
    }

    pub(crate) fn claim(&mut self, principal: &Principal, id: TaskId) -> Result<Outcome, Refusal> {
        let site = self.require_site(principal)?;
        let task = self.require_open(id, site)?;
        self.require_live(&task.task.reference, task.task.version)?;
        let epoch = match task.assignments.get(site) {
            None => 1,
            Some(AssignmentRecord { epoch, state, .. }) => match state {
                // A worker that was restarted goes on where it was.
                AssignmentState::Assigned => *epoch,
                AssignmentState::Lapsed | AssignmentState::GivenUp { .. } => epoch + 1,
                AssignmentState::Accepted { .. } => {
                    return Err(Refusal::conflict(format!("site `{site}` has handed in task {id} already")));
                }
            },
        };
        let lease_until_ms = self.now_ms.saturating_add(task.task.lease_ms);
        let progress = task.assignments.get(site).filter(|a| a.epoch == epoch).and_then(|a| a.progress);
        let assignment = AssignmentRecord { epoch, state: AssignmentState::Assigned, lease_until_ms, progress };
        if !task.assignments.contains_key(site) {
            self.require_growth(growth::PLACE)?;
            self.grew(growth::PLACE);
        }
        Ok(self.lease(id, site, assignment))
    }

    pub(crate) fn renew(
        &mut self,
        principal: &Principal,
        id: TaskId,
        epoch: u64,
        progress: Progress,
    ) -> Result<Outcome, Refusal> {
        let site = self.require_site(principal)?;
        let task = self.require_open(id, site)?;
        require_held(id, site, task.assignments.get(site), epoch)?;
        if progress.loss.is_some_and(|loss| !loss.is_finite()) {
            return Err(Refusal::invalid("the loss in the progress report is not a finite number"));
        }
        let lease_until_ms = self.now_ms.saturating_add(task.task.lease_ms);
        let (state, progress) = (AssignmentState::Assigned, Some(progress));
        Ok(self.lease(id, site, AssignmentRecord { epoch, state, lease_until_ms, progress }))
    }

    /// The answer to a renewal that is too soon to be worth a log entry. The leader asks here before it proposes one,
    /// with its own clock; at most one renewal per assignment and [`limits::RENEWAL_INTERVAL_MS`] is replicated, or
    /// three per lease where leases are short.
    pub fn renewal_without_log(&self, site: &SiteId, id: TaskId, epoch: u64, now_ms: u64) -> Option<Outcome> {
        let task = self.tasks.get(&id).filter(|task| task.state == TaskState::Open)?;
        let held = task.assignments.get(site)?;
        if held.epoch != epoch || held.state != AssignmentState::Assigned {
            return None;
        }
        let renewed_ms = held.lease_until_ms.saturating_sub(task.task.lease_ms);
        let interval_ms = limits::RENEWAL_INTERVAL_MS.min(task.task.lease_ms / 3);
        let lease_until_ms = held.lease_until_ms;
        (now_ms < renewed_ms.saturating_add(interval_ms)).then_some(Outcome::Assigned { epoch, lease_until_ms })
    }

    pub(crate) fn give_up(
        &mut self,
        principal: &Principal,
        id: TaskId,
        epoch: u64,
        reason: &str,
    ) -> Result<Outcome, Refusal> {
        let site = self.require_site(principal)?;
        let task = self.require_open(id, site)?;
        if reason.len() > limits::REASON_BYTES {
            let (found, limit) = (reason.len(), limits::REASON_BYTES);
            return Err(Refusal::invalid(format!("the reason has {found} bytes, more than the limit of {limit}")));
        }
        let held = require_held(id, site, task.assignments.get(site), epoch)?.clone();
        // A task can always be given back; where there is no room for words, without them.
        let n_bytes = reason.len() as u64;
        let reason = if self.require_growth(n_bytes).is_ok() { reason.to_owned() } else { String::new() };
        self.grew(reason.len() as u64);
        let state = AssignmentState::GivenUp { reason };
        self.assign(id, site, AssignmentRecord { state, ..held });
        Ok(Outcome::Released)
    }

    /// Ends an open task. What waits for the close is merged at once, unless the task is cancelled.
    pub(crate) fn end_task(&mut self, id: TaskId, state: TaskState) {
        let Some(task) = self.tasks.get(&id) else { return };
        let merges = task.task.publish == PublishMode::AtClose && state != TaskState::Cancelled;
        let columns: BTreeMap<_, _> = waiting_in(task).map(|(key, columns)| (key.clone(), columns)).collect();
        let reference = task.task.reference.clone();
        let version = (merges && !columns.is_empty()).then(|| {
            // Every acceptance looked at what is merged and at what waits, so nothing that waits can collide.
            self.merge(&reference, id, &columns).expect("conditions that wait for a close can be merged")
        });
        if let Some(reference) = self.references.get_mut(&reference) {
            columns.keys().for_each(|key| reference.end_to_wait(key));
        }
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.state = state;
        self.index.ended(task);
        for (site, assignment) in &mut task.assignments {
            match &mut assignment.state {
                AssignmentState::Assigned => {
                    let before = assignment.clone();
                    assignment.state = AssignmentState::Lapsed;
                    self.index.moved(id, site, Some(&before), Some(assignment));
                }
                AssignmentState::Accepted { version: merged, .. } => *merged = merged.or(version),
                AssignmentState::Lapsed | AssignmentState::GivenUp { .. } => {}
            }
        }
    }

    /// The task, if it is there.
    pub(crate) fn require_task(&self, id: TaskId) -> Result<&TaskRecord, Refusal> {
        self.tasks.get(&id).ok_or_else(|| Refusal::not_found(format!("task {id}")))
    }

    /// The task, if it is open and open to this site.
    pub(crate) fn require_open(&self, id: TaskId, site: &SiteId) -> Result<&TaskRecord, Refusal> {
        let task = self.require_task(id)?;
        if !task.task.allows(site) {
            return Err(Refusal::forbidden(format!("site `{site}` is not on the allow-list of task {id}")));
        }
        match task.state {
            TaskState::Open => Ok(task),
            TaskState::Closed => Err(Refusal::stale(format!("task {id} is closed"))),
            TaskState::Cancelled => Err(Refusal::stale(format!("task {id} was cancelled"))),
            TaskState::Expired => Err(Refusal::stale(format!("the deadline of task {id} has passed"))),
        }
    }

    /// The tasks that take submissions, by number.
    pub fn open_tasks(&self) -> impl Iterator<Item = &TaskRecord> {
        self.index.open().iter().filter_map(|id| self.tasks.get(id))
    }

    /// Puts an assignment in its place. The caller has looked the task up.
    pub(crate) fn assign(&mut self, id: TaskId, site: &SiteId, assignment: AssignmentRecord) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let before = task.assignments.get(site);
        self.index.moved(id, site, before, Some(&assignment));
        if let Some(reference) = self.references.get_mut(&task.task.reference) {
            // What waits anew first, so that a key that stays is not forgotten in between.
            waiting_of(&assignment).for_each(|(key, columns)| reference.begin_to_wait(key, columns));
            before.into_iter().flat_map(waiting_of).for_each(|(key, _)| reference.end_to_wait(key));
        }
        task.assignments.insert(site.clone(), assignment);
    }

    fn lease(&mut self, id: TaskId, site: &SiteId, assignment: AssignmentRecord) -> Outcome {
        let (epoch, lease_until_ms) = (assignment.epoch, assignment.lease_until_ms);
        self.assign(id, site, assignment);
        Outcome::Assigned { epoch, lease_until_ms }
    }

    fn end_task_for(&mut self, principal: &Principal, id: TaskId, state: TaskState) -> Result<Outcome, Refusal> {
        site::require_role(principal, Role::Publisher)?;
        let found = &self.require_task(id)?.state;
        if *found == TaskState::Open {
            self.end_task(id, state);
        } else if *found != state {
            return Err(Refusal::stale(format!("task {id} is not open but {}", state_name(found))));
        }
        Ok(Outcome::Task(id))
    }
}

/// The assignment, if the site holds it in this very epoch.
pub(crate) fn require_held<'a>(
    id: TaskId,
    site: &SiteId,
    assignment: Option<&'a AssignmentRecord>,
    epoch: u64,
) -> Result<&'a AssignmentRecord, Refusal> {
    let Some(held) = assignment else {
        return Err(Refusal::invalid(format!("site `{site}` has not claimed task {id}")));
    };
    let is_accepted = matches!(held.state, AssignmentState::Accepted { .. });
    if mutation::is_broken(Rule::Fencing) && !is_accepted {
        return Ok(held);
    }
    if epoch > held.epoch {
        let reason =
            format!("epoch {epoch} of task {id} does not exist; the latest of site `{site}` is {}", held.epoch);
        return Err(Refusal::invalid(reason));
    }
    if epoch < held.epoch {
        let reason = format!("epoch {epoch} of task {id} is over; site `{site}` is at epoch {}", held.epoch);
        return Err(Refusal::stale(reason));
    }
    match held.state {
        AssignmentState::Assigned => Ok(held),
        AssignmentState::Lapsed => Err(Refusal::stale(format!("the lease on task {id} has lapsed; claim it again"))),
        AssignmentState::GivenUp { .. } => Err(Refusal::stale(format!("task {id} was given up; claim it again"))),
        AssignmentState::Accepted { .. } => {
            Err(Refusal::conflict(format!("another submission of site `{site}` for task {id} was accepted")))
        }
    }
}

/// Accepted conditions of a task that are in no version yet.
pub(crate) fn waiting_in(task: &TaskRecord) -> impl Iterator<Item = (&ConditionKey, BlobRef)> {
    task.assignments.values().flat_map(waiting_of)
}

fn waiting_of(assignment: &AssignmentRecord) -> impl Iterator<Item = (&ConditionKey, BlobRef)> {
    let waits = match &assignment.state {
        AssignmentState::Accepted { submission, version: None, .. } => Some(submission),
        _ => None,
    };
    waits.into_iter().flat_map(|submission| submission.conditions.iter().map(|(key, given)| (key, given.columns)))
}

fn require_sound(task: &SurgeryTask, now_ms: u64) -> Result<(), Refusal> {
    task.train.check().map_err(|e| Refusal::invalid(e.to_string()))?;
    let refuse = |reason: String| Err(Refusal::invalid(reason));
    if let Some(decay) = task.train.weight_decay.filter(|decay| *decay != 0.0) {
        return refuse(format!("weight decay is {decay}, expected 0: it would move frozen columns"));
    }
    if !(task.max_column_norm.is_finite() && task.max_column_norm > 0.0) {
        return refuse(format!("the bound on the norm is {}, expected a number above 0", task.max_column_norm));
    }
    if !(limits::SHORTEST_LEASE_MS..=limits::LONGEST_LEASE_MS).contains(&task.lease_ms) {
        let (shortest, longest) = (limits::SHORTEST_LEASE_MS, limits::LONGEST_LEASE_MS);
        return refuse(format!("the lease is {} ms, expected {shortest} to {longest}", task.lease_ms));
    }
    if let Some(deadline_ms) = task.deadline_ms.filter(|deadline_ms| *deadline_ms < now_ms) {
        return refuse(format!("the deadline {deadline_ms} has passed; it is {now_ms}"));
    }
    if task.allow.as_ref().is_some_and(|allowed| allowed.is_empty()) {
        return refuse("the allow-list is empty, expected at least 1 site".to_owned());
    }
    Ok(())
}

fn state_name(state: &TaskState) -> &'static str {
    match state {
        TaskState::Open => "open",
        TaskState::Closed => "closed",
        TaskState::Cancelled => "cancelled",
        TaskState::Expired => "expired",
    }
}
