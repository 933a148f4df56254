//! The loop that owns the [`Node`] of a live coordinator.
//!
//! A node that could not make durable what it must **does not go on with what it has in memory**. After a failed fsync
//! nobody knows what is on the disk: the kernel may have dropped the dirty pages and report success the next time, so a
//! retry proves nothing, and going on would mean to vote or acknowledge without a record of it. A crash is the one
//! state of which the others make no assumption, and a start reads what is really there.
//!
//! - If the disk is **full**, the node forgets everything in memory, as in a crash, and stays away from the others while
//!   its process lives on: it answers what it last knew, says what is wrong, and starts again from its log when there is
//!   room (`room.rs`), and not before a least time is over. A process that ended would only be started again, in a
//!   circle.
//! - After **any other** failure it aborts the process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archipelago_cluster::Effect;
use archipelago_common::{NodeId, member::MemberRecord};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    ProposalId, ReadId,
    node::{Dropped, Event, Node},
    peers::Peers,
    room::HasRoom,
    state::State,
    task::{Answer, Identity, Input, Settled, View},
};
use crate::{
    condition::Condition,
    error::{Error, Result},
    ops::metrics,
};

/// Starts the node from its log; called again when there is space after the disk was full.
pub type Open = Box<dyn FnMut() -> Result<Node> + Send>;

/// The loop and all it owns.
pub struct Task {
    pub(super) id: NodeId,
    pub(super) open: Open,
    pub(super) has_room: HasRoom,
    pub(super) condition: Arc<Condition>,
    pub(super) life: Life,
    pub(super) members: Arc<Vec<MemberRecord>>,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) view: watch::Sender<View>,
    pub(super) effects: broadcast::Sender<Effect>,
    pub(super) proposals: BTreeMap<ProposalId, (oneshot::Sender<Answer>, Instant)>,
    pub(super) reads: BTreeMap<ReadId, oneshot::Sender<Settled>>,
    /// Where everybody else finds the state; none as long as the node has never been up.
    pub(super) state: watch::Sender<Option<State>>,
    /// The last pass ended before all was done.
    pub(super) is_behind: bool,
}

/// Whether the node takes part.
pub(super) enum Life {
    /// It does.
    Running(Box<Node>),
    /// Its disk is full, since then. What it knew last may be looked at, if it was ever up in this process.
    Suspended(Instant),
}

impl Task {
    /// Drives the node until every [`super::task::Raft`] handle is gone.
    ///
    /// # Errors  [`Error::Entry`], [`Error::Raft`], and whatever keeps the node from starting again after a full disk.
    /// What cannot be made durable otherwise aborts the process, see the module
    pub async fn run(mut self, mut peers: Peers) -> Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        // After a stall, one tick and not all that were missed: those would look like a silent leader.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => if let Life::Running(node) = &mut self.life { node.tick() },
                input = self.inputs.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return Ok(()),
                },
                () = std::future::ready(()), if self.is_behind => {}
            }
            // What has come meanwhile shares the fsync.
            for _ in 0..BATCH {
                let Ok(input) = self.inputs.try_recv() else { break };
                self.handle(input);
            }
            match &self.life {
                // The fsync is in here; other tasks must not wait for this thread.
                Life::Running(_) => tokio::task::block_in_place(|| self.handle_readies(&mut peers))?,
                Life::Suspended(since) => self.try_again(*since, &mut ticks).await?,
            }
        }
    }

    fn handle_readies(&mut self, peers: &mut Peers) -> Result<()> {
        let Life::Running(node) = &mut self.life else { return Ok(()) };
        let (mut all, begun) = (Vec::new(), Instant::now());
        self.is_behind = false;
        loop {
            // Ticks and others' messages do not wait until everything is applied.
            if begun.elapsed() > PASS {
                self.is_behind = true;
                break;
            }
            let mut unreachable = Vec::new();
            let events = node.handle_ready(&mut |message| unreachable.extend(peers.send(message).err()));
            unreachable.into_iter().for_each(|other| node.report_unreachable(other));
            match events {
                Ok(Some(events)) => all.extend(events),
                Ok(None) => break,
                Err(error) if error.is_disk_full() => {
                    self.suspend(&error);
                    return Ok(());
                }
                Err(error @ (Error::Log { .. } | Error::LogCorrupted { .. })) => stop_at_once(&error),
                Err(error) => return Err(error),
            }
        }
        for event in all {
            self.handle_event(event);
        }
        self.publish();
        Ok(())
    }

    /// Leaves the others, as in a crash.
    fn suspend(&mut self, error: &Error) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(%error, cause, "the disk is full: this node takes no part until there is space");
        self.condition.note_log_full(true);
        self.life = Life::Suspended(Instant::now());
        self.is_behind = false;
        self.view.send_modify(|view| view.leader = None);
        metrics::RAFT_IS_LEADER.set(0);
        metrics::RAFT_HAS_LEADER.set(0);
        // Nobody knows whether they were carried out: the callers ask again, elsewhere, under the same key.
        let nobody = Dropped::NotLeader { leader: None };
        for (_, (answer, _)) in std::mem::take(&mut self.proposals) {
            let _ = answer.send(Err(nobody));
        }
        for (_, settled) in std::mem::take(&mut self.reads) {
            let _ = settled.send(Err(nobody));
        }
    }

    /// Starts the node again if there is room; otherwise waits a little.
    async fn try_again(&mut self, since: Instant, ticks: &mut tokio::time::Interval) -> Result<()> {
        let may_return = since.elapsed() >= LEAST_AWAY && self.condition.spare_bytes() > 0;
        if may_return && tokio::task::block_in_place(&mut self.has_room) {
            match tokio::task::block_in_place(&mut self.open) {
                Ok(node) => {
                    tracing::info!("there is room again: this node takes part from what is on its disk");
                    self.condition.note_log_full(false);
                    self.state.send_replace(Some(node.state().clone()));
                    self.life = Life::Running(Box::new(node));
                    self.publish();
                    return Ok(());
                }
                Err(error) if error.is_disk_full() => {}
                Err(error) => return Err(error),
            }
        }
        // A start that fails reads all of the log: once in twenty ticks is often enough.
        for _ in 0..RETRY_TICKS {
            tokio::select! {
                _ = ticks.tick() => {}
                input = self.inputs.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        let Life::Running(node) = &self.life else { return };
        let view = View::of(node, self.id, &mut self.members);
        note(&view, node.n_log_entries(), node.n_snapshot_bytes());
        self.view.send_if_modified(|old| std::mem::replace(old, view.clone()) != view);
    }

    fn handle(&mut self, input: Input) {
        let node = match &mut self.life {
            Life::Running(node) => node,
            Life::Suspended(_) => return answer_suspended(input),
        };
        match input {
            Input::Message(message) => node.step(*message),
            Input::Propose { command, answer } => match node.propose(command) {
                Ok(id) => drop(self.proposals.insert(id, (answer, Instant::now()))),
                Err(dropped) => drop(answer.send(Err(dropped))),
            },
            Input::Read(settled) => match node.read() {
                Ok(id) => drop(self.reads.insert(id, settled)),
                Err(dropped) => drop(settled.send(Err(dropped))),
            },
            Input::Unreachable(other) => node.report_unreachable(other),
            Input::SnapshotSent { to, status } => node.report_snapshot(to, status),
            Input::HandOver(successor) => node.hand_over(successor),
            Input::Founders { is_taken_by_all } => node.note_founders(is_taken_by_all),
            // Who asked may have gone.
            Input::Standings(answer) => drop(answer.send(node.standings())),
            Input::Identity(answer) => drop(answer.send(Identity::of(node))),
        }
    }

    fn handle_event(&mut self, event: Event) {
        let Life::Running(node) = &self.life else { return };
        match event {
            Event::Proposal { id, result } => {
                if let Some((answer, asked)) = self.proposals.remove(&id) {
                    metrics::RAFT_COMMIT_SECONDS.observe(asked.elapsed().as_secs_f64());
                    let _ = answer.send(result);
                }
            }
            Event::Read { id, result } => {
                if let Some(settled) = self.reads.remove(&id) {
                    let _ = settled.send(result.map(|()| node.applied()));
                }
            }
            // No receiver is no session.
            Event::Effect(effect) => drop(self.effects.send(effect)),
            Event::Leader(leader) => {
                tracing::info!(leader = leader.map(NodeId::as_u64), term = node.term(), "leader");
            }
        }
    }
}

/// What a node answers that takes no part.
fn answer_suspended(input: Input) {
    let nobody = Dropped::NotLeader { leader: None };
    match input {
        Input::Propose { answer, .. } => drop(answer.send(Err(nobody))),
        Input::Read(settled) => drop(settled.send(Err(nobody))),
        Input::Standings(answer) => drop(answer.send(Vec::new())),
        Input::Identity(_)
        | Input::Message(_)
        | Input::Unreachable(_)
        | Input::SnapshotSent { .. }
        | Input::HandOver(_)
        | Input::Founders { .. } => {}
    }
}

/// Notes where Raft stands.
fn note(view: &View, n_log_entries: u64, n_snapshot_bytes: u64) {
    metrics::RAFT_HAS_LEADER.set(view.leader.is_some().into());
    metrics::RAFT_SNAPSHOT_BYTES.set(n_snapshot_bytes as i64);
    metrics::RAFT_IS_LEADER.set(view.is_leader().into());
    metrics::RAFT_TERM.set(view.term as i64);
    metrics::RAFT_APPLIED_INDEX.set(view.applied as i64);
    metrics::RAFT_COMMITTED_INDEX.set(view.committed as i64);
    metrics::RAFT_LOG_ENTRIES.set(n_log_entries as i64);
    metrics::MEMBERS.with_label_values(&["voter"]).set(view.configuration.voters.len() as i64);
    metrics::MEMBERS.with_label_values(&["learner"]).set(view.configuration.learners.len() as i64);
}

fn stop_at_once(error: &Error) -> ! {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, cause, "this node must not go on: what it has promised may not be durable");
    std::process::abort()
}

/// With 15 to 24 ticks to an election, a dead leader is replaced within about a second.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two attempts to start again on a full disk.
const RETRY_TICKS: usize = 20;
/// Least time that a node with a full disk stays away: one that came and went would cost the others more than it gives.
const LEAST_AWAY: Duration = Duration::from_secs(3);
/// Longest pass; what is not done then is done in the next.
const PASS: Duration = Duration::from_millis(20);
/// Inputs that share one pass, and so one fsync.
const BATCH: usize = 256;

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
