//! One coordinator as a value: consensus, log and state machine, without sockets, threads or a clock.
//!
//! Inputs are [`Node::tick`], [`Node::step`], [`Node::propose`], [`Node::read`] and the two reports; after any of them,
//! call [`Node::handle_ready`] until it has nothing left. It follows the order that raft-rs documents: the leader's
//! messages leave first and overlap with the local fsync; everything that must be durable is written in one transaction;
//! then the messages that promise durability leave, then committed entries are applied and answered.

use std::sync::RwLockReadGuard;

use archipelago_cluster::{
    Cluster, Command, Effect, Outcome, Refusal,
    mutation::{self, Rule},
};
use archipelago_common::{
    NodeId,
    member::{Incarnation, Origin},
};
use raft::{
    Config, GetEntriesContext, RawNode, SnapshotStatus, StateRole,
    eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, Snapshot},
};

use super::{
    log_store::{Batch, LogStore},
    proposals::{ProposalId, Proposals},
    reads::{ReadId, Reads},
    state::State,
    timeouts::Timeouts,
    trace,
};
use crate::error::{Error, Result};

mod membership;
mod messages;

pub use membership::{Configuration, Standing};

/// A member of the Raft group.
pub struct Node {
    id: NodeId,
    raw: RawNode<LogStore>,
    state: State,
    applied: (u64, u64),
    conf_state: ConfState,
    proposals: Proposals,
    reads: Reads,
    now_ticks: u64,
    timeouts: Timeouts,
    announced_leader: Option<NodeId>,
    /// Every other founder takes this node for one; counts as long as its log holds nothing.
    is_taken_by_founders: bool,
    /// The last snapshot does not know a new member, who would refuse it.
    needs_snapshot: bool,
    /// Where the state was last too large for a snapshot.
    too_large_at: Option<u64>,
    options: Options,
}

/// What may differ between clusters; the same on every node of one.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ticks without a word from the leader after which a node supports another, and three more before it stands
    /// for election itself; at most twice as many.
    pub election_ticks: usize,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// Entries after which the state is snapshotted and the log cut.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot, for followers that are a little behind.
    pub keep_entries: u64,
    /// Varies the election timeouts: another value, other timeouts; the same one, the same again.
    pub timeout_seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { election_ticks: 12, heartbeat_ticks: 2, snapshot_every: 10_000, keep_entries: 1_000, timeout_seed: 0 }
    }
}

/// Something that came of a `Ready`.
#[derive(Debug)]
pub enum Event {
    /// A proposal of this node was applied, or given up.
    Proposal {
        /// Which.
        id: ProposalId,
        /// The state machine's answer, or why nobody knows it.
        result: Result<Result<Outcome, Refusal>, Dropped>,
    },
    /// A read may look at the state now, or was given up.
    Read {
        /// Which.
        id: ReadId,
        /// Whether [`Node::cluster`] is fresh enough for it.
        result: Result<(), Dropped>,
    },
    /// Something to do outside, on this node.
    Effect(Effect),
    /// The node knows of another leader, or of none any more.
    Leader(Option<NodeId>),
}

/// Why a proposal or read was not carried out by this node. Asking again is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Dropped {
    /// Another node leads, or none does.
    #[error("this coordinator is not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too much is under way, or a new leader is not settled yet.
    #[error("the coordinator is busy")]
    Busy,
}

impl Node {
    /// Starts a node on its log: loads the last snapshot; the entries after it are applied by the first `Ready`s.
    ///
    /// # Errors  [`Error::Raft`], [`Error::Entry`] if the snapshot is of a later version
    pub fn new(id: NodeId, store: LogStore, options: Options) -> Result<Self> {
        let snapshot = store.last_snapshot().clone();
        let metadata = snapshot.get_metadata();
        let config = Config {
            id: id.as_u64(),
            election_tick: options.election_ticks,
            min_election_tick: options.election_ticks + VOTE_SKEW,
            heartbeat_tick: options.heartbeat_ticks,
            applied: if mutation::is_broken(Rule::ApplyOnce) { 0 } else { metadata.index },
            // The default of 0 means one entry per message.
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: IN_FLIGHT,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: APPLIED_BYTES,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let starts = store.starts();
        let raw = RawNode::new(&config, store, &trace::logger()).map_err(refused)?;
        let span = options.election_ticks + VOTE_SKEW..2 * options.election_ticks;
        let mut node = Self {
            id,
            raw,
            state: State::new(load_state(&snapshot)?),
            applied: (metadata.index, metadata.term),
            conf_state: metadata.get_conf_state().clone(),
            proposals: Proposals::new(id.as_u64(), starts),
            reads: Reads::default(),
            now_ticks: 0,
            timeouts: Timeouts::new([options.timeout_seed, id.as_u64(), starts], span),
            announced_leader: None,
            is_taken_by_founders: false,
            needs_snapshot: false,
            too_large_at: None,
            options,
        };
        node.set_timeout();
        Ok(node)
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.now_ticks += 1;
        if self.awaits_founders() {
            return;
        }
        if self.raw.tick() {
            self.timeouts.pass();
        }
        self.set_timeout();
    }

    /// A message from another member. Malformed, late and misdirected ones are ignored, as messages may be lost anyway.
    pub fn step(&mut self, message: Message) {
        if message.to != self.id.as_u64() {
            tracing::debug!(from = message.from, to = message.to, "a Raft message for somebody else");
            return;
        }
        if self.awaits_founders() && messages::is_of_election(&message) {
            tracing::debug!(from = message.from, "no part is taken in an election before every founder is there");
            return;
        }
        if let Some(fault) = messages::fault(&self.raw, &message) {
            tracing::warn!(from = message.from, kind = ?message.get_msg_type(), fault, "a Raft message is dropped");
            return;
        }
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(%error, "a Raft message was not taken");
        }
        self.set_timeout();
    }

    /// Puts a command, as [`Command::to_bytes`] gives it, before the cluster; an [`Event::Proposal`] follows.
    ///
    /// # Errors  [`Dropped`]; nothing was proposed then
    pub fn propose(&mut self, command: Vec<u8>) -> Result<ProposalId, Dropped> {
        // Checked first, because Raft would forward the proposal and nobody would wait for it there.
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        let id = self.proposals.next_id();
        self.raw.propose(id.to_bytes(), command).map_err(|_| Dropped::Busy)?;
        self.proposals.made(self.raw.raft.term);
        Ok(id)
    }

    /// Asks to read the state as it is now or later, cluster-wide; an [`Event::Read`] follows.
    ///
    /// # Errors  [`Dropped`]
    pub fn read(&mut self) -> Result<ReadId, Dropped> {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        self.reads.add(self.now_ticks).ok_or(Dropped::Busy)
    }

    /// A message could not be delivered.
    pub fn report_unreachable(&mut self, node: NodeId) {
        self.raw.report_unreachable(node.as_u64());
    }

    /// A snapshot left for `node`, or did not. Without this report a follower would get nothing more for ever.
    pub fn report_snapshot(&mut self, node: NodeId, status: SnapshotStatus) {
        self.raw.report_snapshot(node.as_u64(), status);
    }

    /// Whether this node is a founder whose log holds nothing yet: founded just now, or founded anew after its disk was lost.
    /// It knows of nothing that it promised before, so it neither votes nor stands for election until all founders say that
    /// they take it for the one that they know ([`Self::note_founders`]).
    pub fn is_founding(&self) -> bool {
        self.raw.store().is_founding()
    }

    /// Whether every other founder takes this node for one.
    pub fn note_founders(&mut self, is_taken_by_all: bool) {
        self.is_taken_by_founders = is_taken_by_all;
    }

    /// Handles one `Ready`, if there is one, and passes messages for other members to `send`. Returns what came of it,
    /// or none when there is nothing left to do.
    ///
    /// # Errors  [`Error::Log`]: what should be durable is not, so this node must stop at once, before it says
    /// anything else; [`Error::Entry`]
    pub fn handle_ready(&mut self, send: &mut dyn FnMut(Message)) -> Result<Option<Vec<Event>>> {
        if let Some(context) = self.reads.poll_request(self.now_ticks) {
            self.raw.read_index(context);
        }
        let mut events = Vec::new();
        if self.raw.has_ready() {
            let mut ready = self.raw.ready();
            ready.take_messages().into_iter().for_each(&mut *send);
            self.persist(&ready)?;
            if !ready.snapshot().is_empty() {
                self.restore(&ready.snapshot().clone(), &mut events)?;
            }
            ready.take_persisted_messages().into_iter().for_each(&mut *send);
            self.apply(ready.take_committed_entries(), &mut events)?;
            for read in ready.take_read_states() {
                self.reads.confirm(&read.request_ctx, read.index);
            }
            let mut light = self.raw.advance(ready);
            light.take_messages().into_iter().for_each(&mut *send);
            self.apply(light.take_committed_entries(), &mut events)?;
            self.raw.advance_apply();
            self.compact()?;
            self.follow_members();
        } else if !self.reads.has_expired(self.now_ticks) {
            return Ok(None);
        }
        self.settle(&mut events);
        Ok(Some(events))
    }

    /// The state machine as this node has applied it; fresh only where an [`Event::Read`] says so.
    pub fn cluster(&self) -> RwLockReadGuard<'_, Cluster> {
        self.state.read()
    }

    /// The same, to be looked at beside this node while it goes on.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The leader that this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        NodeId::new(self.raw.raft.leader_id)
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Index of the last entry known to be committed.
    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Index of the last entry applied.
    pub fn applied(&self) -> u64 {
        self.applied.0
    }

    /// Which life of this node's log it is.
    pub fn incarnation(&self) -> Incarnation {
        self.raw.store().incarnation()
    }

    /// How this node's log began.
    pub fn origin(&self) -> Origin {
        self.raw.store().origin()
    }

    /// Index of the last entry in the log, which is what this node may have acknowledged.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Entries in the log, for the tests of compaction and for metrics.
    pub fn n_log_entries(&self) -> u64 {
        let log = &self.raw.raft.raft_log;
        (log.last_index() + 1).saturating_sub(log.first_index())
    }

    /// Bytes of the last snapshot, for metrics.
    pub fn n_snapshot_bytes(&self) -> u64 {
        self.raw.store().last_snapshot().data.len() as u64
    }

    /// The entries that this node has from an index on, as far as its log reaches: for whoever compares logs.
    pub fn log_from(&self, index: u64) -> Vec<Entry> {
        let log = &self.raw.raft.raft_log;
        let context = GetEntriesContext::empty(false);
        log.entries(index.max(log.first_index()), None, context).unwrap_or_default()
    }

    fn awaits_founders(&self) -> bool {
        self.is_founding() && !self.is_taken_by_founders && !mutation::is_broken(Rule::FoundersFirst)
    }

    fn set_timeout(&mut self) {
        let ticks = self.timeouts.ticks(self.raw.raft.term);
        self.raw.raft.set_randomized_election_timeout(ticks);
    }

    /// A commit index alone is not worth an fsync: it is found again by the next election, and whatever is durable
    /// next takes it along.
    fn persist(&mut self, ready: &raft::Ready) -> Result<()> {
        if !ready.must_sync() {
            return Ok(());
        }
        let hard_state = self.raw.raft.hard_state();
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        self.raw.mut_store().write(&Batch {
            snapshot: snapshot.as_ref(),
            entries: ready.entries(),
            hard_state: Some(&hard_state),
        })
    }

    fn restore(&mut self, snapshot: &Snapshot, events: &mut Vec<Event>) -> Result<()> {
        let metadata = snapshot.get_metadata();
        tracing::info!(index = metadata.index, term = metadata.term, "caught up by a snapshot");
        let restored = load_state(snapshot)?;
        *self.state.write() = restored;
        self.applied = (metadata.index, metadata.term);
        self.conf_state = metadata.get_conf_state().clone();
        events.extend(self.cluster().outstanding().into_iter().map(Event::Effect));
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>, events: &mut Vec<Event>) -> Result<()> {
        for entry in entries {
            match entry.get_entry_type() {
                EntryType::EntryNormal => self.apply_command(&entry, events)?,
                EntryType::EntryConfChange => {
                    let change: ConfChange = parse_change(&entry)?;
                    let conf_state = self.raw.apply_conf_change(&change).map_err(refused)?;
                    self.reconfigured(conf_state);
                }
                EntryType::EntryConfChangeV2 => {
                    let change: ConfChangeV2 = parse_change(&entry)?;
                    let conf_state = self.raw.apply_conf_change(&change).map_err(refused)?;
                    self.reconfigured(conf_state);
                }
            }
            self.applied = (entry.index, entry.term);
        }
        Ok(())
    }

    fn apply_command(&mut self, entry: &Entry, events: &mut Vec<Event>) -> Result<()> {
        // A new leader's first entry is empty.
        if entry.data.is_empty() {
            return Ok(());
        }
        let command = Command::from_bytes(&entry.data).map_err(|source| Error::Entry { index: entry.index, source })?;
        let applied = self.state.write().apply(&command);
        if let Some(id) = self.proposals.applied(&entry.context) {
            events.push(Event::Proposal { id, result: Ok(applied.outcome) });
        }
        events.extend(applied.effects.into_iter().map(Event::Effect));
        Ok(())
    }

    /// Answers what the new role, term and index decide.
    fn settle(&mut self, events: &mut Vec<Event>) {
        let leader = self.leader();
        if leader != self.announced_leader {
            self.announced_leader = leader;
            events.push(Event::Leader(leader));
        }
        let leading_term = self.is_leader().then_some(self.raw.raft.term);
        let not_leader = self.not_leader();
        for id in self.proposals.give_up_all_but(leading_term) {
            events.push(Event::Proposal { id, result: Err(not_leader) });
        }
        let given_up = if self.is_leader() { Vec::new() } else { self.reads.take_all() };
        events.extend(given_up.into_iter().map(|id| Event::Read { id, result: Err(not_leader) }));
        let ready = self.reads.take_ready(self.applied.0);
        events.extend(ready.into_iter().map(|id| Event::Read { id, result: Ok(()) }));
        let expired = self.reads.take_expired(self.now_ticks);
        events.extend(expired.into_iter().map(|id| Event::Read { id, result: Err(Dropped::Busy) }));
    }

    fn compact(&mut self) -> Result<()> {
        let last = self.raw.store().last_snapshot().get_metadata().index;
        if !self.needs_snapshot && self.applied.0 < last + self.options.snapshot_every {
            return Ok(());
        }
        if self.too_large_at.is_some_and(|index| self.applied.0 < index + self.options.snapshot_every) {
            return Ok(());
        }
        self.needs_snapshot = false;
        let state = self.cluster().snapshot();
        let data = match state {
            Ok(data) => data,
            // Not for a state that grew under today's limits. The log grows instead, and an operator can still withdraw.
            Err(error) => {
                tracing::error!(%error, "no snapshot was taken: the log is not cut");
                self.too_large_at = Some(self.applied.0);
                return Ok(());
            }
        };
        let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = self.applied;
        metadata.set_conf_state(self.conf_state.clone());
        tracing::info!(index = self.applied.0, bytes = snapshot.data.len(), "snapshot taken");
        self.raw.mut_store().compact(snapshot, self.options.keep_entries)
    }

    fn not_leader(&self) -> Dropped {
        Dropped::NotLeader { leader: self.leader().filter(|leader| *leader != self.id) }
    }
}

/// Ticks that followers may differ in when they last heard the leader: a heartbeat and some. Without them the first
/// candidate often asks one that is still loyal, is turned down, and waits for a whole timeout more.
const VOTE_SKEW: usize = 3;
/// Bytes of entries in one append message; what one fsync of a follower covers.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Append messages on their way to one follower; with [`MESSAGE_BYTES`], the memory that it may cost.
const IN_FLIGHT: usize = 32;
/// Bytes of proposals that may wait for a majority before new ones are refused as busy.
const UNCOMMITTED_BYTES: u64 = 64 << 20;
/// Bytes of committed entries that are applied in one go: between two of them a node hears others and sends heartbeats.
const APPLIED_BYTES: u64 = 64 << 10;

fn load_state(snapshot: &Snapshot) -> Result<Cluster> {
    let index = snapshot.get_metadata().index;
    Cluster::restore(&snapshot.data).map_err(|source| Error::Entry { index, source })
}

fn parse_change<C: protobuf::Message>(entry: &Entry) -> Result<C> {
    let mut change = C::new();
    change.merge_from_bytes(&entry.data).map_err(|e| Error::Raft { detail: e.to_string() })?;
    Ok(change)
}

fn refused(error: raft::Error) -> Error {
    Error::Raft { detail: error.to_string() }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
