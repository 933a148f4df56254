//! Time, as far as the state machine knows it: the greatest stamp of a leader so far.
//!
//! Clocks of different leaders differ, so a stamp may be earlier than the one before; the state then stands still
//! rather than go back. A stamp may also be far ahead, and what it ends would not come back: since the second edition a
//! stamp moves time by a minute at most. Longer steps, after a time without a leader say, are made when a majority's
//! clocks agree on them, up to a day; and what is beyond that, or goes back, an operator sets.
//! Limits are inclusive: a lease or task lives through its last millisecond.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    NodeId, Principal, Role, TaskId, limits,
    record::{AssignmentRecord, AssignmentState, TaskRecord, TaskState},
};

use crate::{
    Cluster, Edition, Outcome, Refusal,
    mutation::{self, Rule},
    site,
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
        let is_step = self.now_ms > 0 && stamp_ms > self.now_ms.saturating_add(limits::STAMP_STEP_MS);
        if self.edition >= Edition::Second && is_step && !mutation::is_broken(Rule::SmallSteps) {
            return false;
        }
        self.pass_to(self.now_ms.max(stamp_ms))
    }

    /// A majority's clocks agree on what time it is.
    pub(crate) fn agree_on_time(
        &mut self,
        principal: &Principal,
        clocks: &BTreeMap<NodeId, u64>,
    ) -> Result<Outcome, Refusal> {
        site::require_coordinator(principal)?;
        let voters = self.voters();
        let n_voters = if voters.is_empty() { clocks.len() } else { voters.len() };
        let of_voters = clocks.iter().filter(|(node, _)| voters.is_empty() || voters.contains(node));
        let Some(agreed_ms) = agreed_ms(of_voters.map(|(_, ms)| *ms), n_voters) else {
            return Err(Refusal::invalid("no majority of the coordinators' clocks agree"));
        };
        let step_ms = agreed_ms.saturating_sub(self.now_ms);
        if self.now_ms > 0 && step_ms > limits::AGREED_STEP_MS {
            let hours = step_ms / 3_600_000;
            return Err(Refusal::conflict(format!(
                "the coordinators' clocks are {hours} hours ahead of the state; if they are right, an operator says so \
                 with `clock set`"
            )));
        }
        self.pass_to(self.now_ms.max(agreed_ms));
        Ok(Outcome::Ticked)
    }

    /// An operator says what time it is, whatever clocks said. Who holds a lease keeps what is left of it.
    pub(crate) fn set_clock(&mut self, principal: &Principal, now_ms: u64) -> Result<Outcome, Refusal> {
        site::require_role(principal, Role::Administrator)?;
        let before_ms = self.now_ms;
        let held = self.open_tasks().flat_map(|task| {
            let at_work = task.assignments.iter().filter(|(_, a)| a.state == AssignmentState::Assigned);
            at_work.map(|(site, assignment)| (task.id, site.clone(), assignment.clone()))
        });
        let held: Vec<_> = held.collect();
        for (id, site, assignment) in held {
            let left_ms = assignment.lease_until_ms.saturating_sub(before_ms);
            let lease_until_ms = now_ms.saturating_add(left_ms);
            self.assign(id, &site, AssignmentRecord { lease_until_ms, ..assignment });
        }
        self.now_ms = now_ms;
        self.pass_to(now_ms);
        Ok(Outcome::Ticked)
    }

    /// Moves time, and ends what is over by then. Says whether anything was.
    fn pass_to(&mut self, now_ms: u64) -> bool {
        self.now_ms = now_ms;
        self.latest_ms = self.latest_ms.max(now_ms);
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

/// What time it is, if a majority of `n_voters` clocks agree within [`limits::CLOCK_TOLERANCE_MS`]: the middle one of those
/// that do. Two majorities have a clock in common, so there are not two answers that are far apart.
pub fn agreed_ms(clocks: impl Iterator<Item = u64>, n_voters: usize) -> Option<u64> {
    let mut clocks: Vec<u64> = clocks.collect();
    clocks.sort_unstable();
    let n_needed = n_voters / 2 + 1;
    let agree = |window: &&[u64]| window[window.len() - 1] - window[0] <= limits::CLOCK_TOLERANCE_MS;
    clocks.windows(n_needed).find(agree).map(|window| window[window.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_clocks_agrees_and_one_of_three_does_not_count() {
        let day_ms = 86_400_000;
        let agreed = |clocks: &[u64], n_voters| agreed_ms(clocks.iter().copied(), n_voters);
        assert_eq!(agreed(&[1_000, 1_003, 3 * day_ms], 3), Some(1_003));
        assert_eq!(agreed(&[1_000, 3 * day_ms], 3), None);
        assert_eq!(agreed(&[1_000], 1), Some(1_000));
        assert_eq!(agreed(&[1_000], 3), None);
        assert_eq!(agreed(&[0, 5 * day_ms, 5 * day_ms + 1, 5 * day_ms + 2, 9 * day_ms], 5), Some(5 * day_ms + 1));
    }
}
