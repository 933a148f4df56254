//! Time, as far as the state machine knows it: the greatest stamp of a leader so far.
//!
//! Clocks of different leaders differ, so a stamp may be earlier than the one before; the state then stands still
//! rather than go back. Limits are inclusive: a lease or task lives through its last millisecond.

use archipelago_common::{
    TaskId,
    record::{AssignmentState, TaskRecord, TaskState},
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

    /// When the leader should propose a [`crate::Body::Tick`]: nothing falls due before. It may come early (the lease
    /// was renewed meanwhile), never late; `None` while nothing can fall due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Moves time to `stamp_ms` unless that is in the past, and ends what is over by then. Says whether anything was.
    pub(crate) fn advance(&mut self, stamp_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(stamp_ms);
        if self.due_ms.is_none_or(|due_ms| self.now_ms < due_ms) {
            return false;
        }
        let expired = self.expired_tasks();
        for id in &expired {
            self.end_task(*id, TaskState::Expired);
        }
        let lapsed = self.lapse_leases();
        self.due_ms = self.tasks.values().filter_map(first_due_ms).min();
        lapsed || !expired.is_empty()
    }

    /// Sees to it that what ends after `limit_ms` is not overlooked.
    pub(crate) fn watch(&mut self, limit_ms: u64) {
        let due_ms = limit_ms.saturating_add(1);
        self.due_ms = Some(self.due_ms.map_or(due_ms, |earlier| earlier.min(due_ms)));
    }

    fn expired_tasks(&self) -> Vec<TaskId> {
        let is_over = |task: &&TaskRecord| task.task.deadline_ms.is_some_and(|limit_ms| limit_ms < self.now_ms);
        self.tasks.values().filter(|task| task.state == TaskState::Open).filter(is_over).map(|task| task.id).collect()
    }

    fn lapse_leases(&mut self) -> bool {
        if mutation::is_broken(Rule::LeaseEnds) {
            return false;
        }
        let mut any = false;
        let open = self.tasks.values_mut().filter(|task| task.state == TaskState::Open);
        for assignment in open.flat_map(|task| task.assignments.values_mut()) {
            if assignment.state == AssignmentState::Assigned && assignment.lease_until_ms < self.now_ms {
                assignment.state = AssignmentState::Lapsed;
                any = true;
            }
        }
        any
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
