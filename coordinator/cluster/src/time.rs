//! Time, as far as the state machine knows it: the greatest stamp of a leader so far.
//!
//! Clocks of different leaders differ, so a stamp may be earlier than the one before; the state then stands still
//! rather than go back. Limits are inclusive: a lease or task lives through its last millisecond.

use std::collections::BTreeSet;

use archipelago_common::{
    TaskId,
    record::{AssignmentRecord, AssignmentState, TaskRecord, TaskState},
};

use crate::{
    Cluster,
    mutation::{self, Rule},
};

impl Cluster {
    /// The latest stamp, Unix milliseconds; 0 before the first command.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// When the leader should propose a [`crate::Body::Tick`]: nothing falls due before; `None` while nothing can.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.index.next_limit_ms().map(|limit_ms| limit_ms.saturating_add(1))
    }

    /// Moves time to `stamp_ms` unless that is in the past, and ends what is over by then. Says whether anything was.
    pub(crate) fn advance(&mut self, stamp_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(stamp_ms);
        let mut any = false;
        // Tasks first, in the order of their numbers, as their ends may make versions.
        for id in self.expired_tasks() {
            self.end_task(id, TaskState::Expired);
            any = true;
        }
        if mutation::is_broken(Rule::LeaseEnds) {
            return any;
        }
        while let Some((id, Some(site))) = self.index.next_over(self.now_ms) {
            let Some(held) = self.tasks.get(&id).and_then(|task| task.assignments.get(&site)) else { break };
            let lapsed = AssignmentRecord { state: AssignmentState::Lapsed, ..held.clone() };
            self.assign(id, &site, lapsed);
            any = true;
        }
        any
    }

    fn expired_tasks(&self) -> BTreeSet<TaskId> {
        if self.index.next_over(self.now_ms).is_none() {
            return BTreeSet::new();
        }
        let is_over = |task: &&TaskRecord| task.task.deadline_ms.is_some_and(|limit_ms| limit_ms < self.now_ms);
        self.open_tasks().filter(is_over).map(|task| task.id).collect()
    }
}

/// The first moment at which a lease or the deadline of an open task is over.
pub(crate) fn first_due_ms(task: &TaskRecord) -> Option<u64> {
    if task.state != TaskState::Open {
        return None;
    }
    let at_work = task.assignments.values().filter(|assignment| assignment.state == AssignmentState::Assigned);
    let limits_ms = at_work.map(|assignment| assignment.lease_until_ms).chain(task.task.deadline_ms);
    limits_ms.min().map(|limit_ms| limit_ms.saturating_add(1))
}
