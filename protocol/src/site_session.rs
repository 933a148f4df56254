//! A site's, operator's or auditor's side: one session with whichever coordinator leads, for as long as it is wanted.
//!
//! The machine picks a coordinator, says hello, follows the leader, and sends every request again, under the key
//! it had at first, until it has an answer: after a lost connection, a silent coordinator, `NotLeader`, `Busy`. The
//! coordinators answer a repeated key with its first answer, so a request is carried out once however often it is sent.
//!
//! It owns no socket and no clock. Inputs are `handle_*`, with the time in milliseconds on any monotonic clock; after
//! each, call [`SiteSession::poll_output`] until `None` and do what it says, then come back with
//! [`SiteSession::handle_time`] at [`SiteSession::poll_timeout`] or earlier with another input. The driver reports on
//! the connection that was asked for last and on no earlier one.

mod requests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

use archipelago_common::{NodeId, limits};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

use requests::{Pending, Sending};

use crate::{
    error::{Error, Result},
    frame,
    message::{FromCoordinator, Hello, Notice, Refusal, Reply, Request, RequestKey, ToCoordinator, Welcome},
    version,
};

/// How a session behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    /// All coordinators.
    pub nodes: BTreeSet<NodeId>,
    /// What is known of the cluster from earlier sessions.
    pub known: Known,
    /// Name and version of this software, for the coordinator's log.
    pub software: String,
    /// How long dialling and the welcome may take together, at first: a dead coordinator does not say that it is.
    pub connect_timeout_min_ms: u64,
    /// The same after many failures, for lines that are slow and not dead.
    pub connect_timeout_max_ms: u64,
    /// How long an answer may take before the request is sent to the next coordinator, even if this one is alive.
    pub request_timeout_ms: u64,
    /// How long an answer may take before the coordinator is asked whether it is alive.
    pub ping_after_ms: u64,
    /// How long it may take to say so.
    pub pong_timeout_ms: u64,
    /// Longest pause before another coordinator is tried, at first.
    pub backoff_min_ms: u64,
    /// Longest pause after many failures.
    pub backoff_max_ms: u64,
}

impl SessionConfig {
    /// The usual timing. An answer takes a commit and an fsync on a majority, so ten seconds mean that something is
    /// wrong. A coordinator that died is noticed after a second, about when its successor is being elected, although QUIC
    /// waits longer; a new session passes by a dead one after a second too, which is three round trips of a slow line.
    /// Pauses of up to five seconds keep a thousand sites from trampling a cluster that comes back.
    pub fn new(nodes: BTreeSet<NodeId>, software: impl Into<String>) -> Self {
        Self {
            nodes,
            known: Known::default(),
            software: software.into(),
            connect_timeout_min_ms: 1_000,
            connect_timeout_max_ms: 6_000,
            request_timeout_ms: 10_000,
            ping_after_ms: 300,
            pong_timeout_ms: 700,
            backoff_min_ms: 100,
            backoff_max_ms: 5_000,
        }
    }
}

/// What is known of the cluster from earlier sessions: an authority has one cluster, and whoever has been with it goes to no
/// other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The coordinators that were told last, as `host:port` by node; none before the first session.
    pub coordinators: BTreeMap<NodeId, String>,
    /// Coordinators of the configuration that are not among them: each has to name one that is.
    pub strangers: BTreeSet<NodeId>,
}

/// Names a request for [`SiteSession::handle_cancel`] and [`Output::Answer`].
pub type RequestId = u64;

/// What the driver is to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Dial this coordinator, open a control stream with [`SiteSession::hello`], and pass on its frames; or report
    /// [`SiteSession::handle_disconnected`].
    Connect(NodeId),
    /// Send this frame on the control stream.
    Send(Vec<u8>),
    /// Drop the connection, or the attempt at one.
    Disconnect(Parting),
    /// A request has its answer. Never `NotLeader` or `Busy`.
    Answer {
        /// Which request.
        id: RequestId,
        /// Its answer.
        result: Result<Reply, Refusal>,
    },
    /// The coordinator says something.
    Notice(Notice),
}

/// Why a session leaves a coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parting {
    /// It does not lead.
    NotLeader,
    /// It does not answer.
    Silence,
    /// It says what it should not.
    Fault,
    /// It sends us away.
    Farewell,
}

/// The machine; see the module.
#[derive(Debug)]
pub struct SiteSession {
    config: SessionConfig,
    rng: ChaCha8Rng,
    /// The coordinator that the session is with, or will be.
    node: NodeId,
    state: State,
    requests: BTreeMap<RequestId, Pending>,
    next_id: RequestId,
    /// Failures since the last sign of a leader, for the back-off.
    n_failures: u32,
    /// Moves to a named leader since the last sign of one: two confused nodes must not pass us to and fro for ever.
    n_hops: u32,
    /// Coordinators that fell silent since the last sign of a leader: others may not know it yet and go on naming one.
    silent: BTreeSet<NodeId>,
    /// How long to stay with a coordinator that knows of no leader who can be followed.
    leaderless_until_ms: Option<u64>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not connected until then.
    Waiting { until_ms: u64 },
    /// Dialling, or waiting for the welcome, at most until then.
    Connecting { until_ms: u64 },
    /// Welcome.
    Ready {
        /// The protocol version that both sides speak.
        protocol: u16,
        /// When the coordinator was last heard.
        heard_ms: u64,
        /// When it must have answered a ping, if it was sent one since.
        pong_until_ms: Option<u64>,
    },
}

impl SiteSession {
    /// A session that begins to connect at once. `seed` picks the first coordinator, the jitter of pauses and the
    /// request keys: take it from the operating system's random numbers, except in tests.
    ///
    /// # Panics  if `config.nodes` is empty
    pub fn new(config: SessionConfig, seed: [u8; 32], now_ms: u64) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let first = rng.next_u64() as usize % config.nodes.len().max(1);
        let node = *config.nodes.iter().nth(first).expect("a session needs at least one coordinator");
        let mut session = Self {
            config,
            rng,
            node,
            state: State::Waiting { until_ms: now_ms },
            requests: BTreeMap::new(),
            next_id: 1,
            n_failures: 0,
            n_hops: 0,
            silent: BTreeSet::new(),
            leaderless_until_ms: None,
            outputs: VecDeque::new(),
        };
        session.handle_time(now_ms);
        session
    }

    /// What to say when a control stream opens.
    pub fn hello(&self) -> Hello {
        Hello { protocol: version::NEWEST, software: self.config.software.clone() }
    }

    /// The coordinator that the session stands with.
    pub fn node(&self) -> Option<NodeId> {
        matches!(self.state, State::Ready { .. }).then_some(self.node)
    }

    /// Asks something. The answer comes as [`Output::Answer`], however long it takes, unless cancelled.
    ///
    /// # Errors  [`Error::Malformed`] if the request is larger than a frame
    pub fn handle_request(&mut self, now_ms: u64, body: Request) -> Result<RequestId> {
        let mut key = [0; 16];
        self.rng.fill_bytes(&mut key);
        let id = self.next_id;
        let since = body.since();
        let frame = frame::encode(&ToCoordinator::Request { id, key: RequestKey(key), body })?;
        self.next_id += 1;
        self.requests.insert(id, Pending { frame, since, progress: Sending::Due { at_ms: now_ms } });
        self.send_due(now_ms);
        Ok(id)
    }

    /// Forgets a request. It may have been carried out.
    pub fn handle_cancel(&mut self, id: RequestId) {
        self.requests.remove(&id);
    }

    /// The connection, or the attempt at one, has failed.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        if !matches!(self.state, State::Waiting { .. }) {
            self.silent.insert(self.node);
            self.try_next(now_ms);
        }
    }

    /// A frame from the control stream. After an error the session has given up this coordinator by itself.
    ///
    /// # Errors  [`Error::Malformed`], [`Error::OutOfTurn`], [`Error::ProtocolTooOld`], [`Error::AnotherCluster`]
    pub fn handle_frame(&mut self, now_ms: u64, frame: &[u8]) -> Result<()> {
        if let State::Ready { heard_ms, pong_until_ms, .. } = &mut self.state {
            (*heard_ms, *pong_until_ms) = (now_ms, None);
        }
        let handled = frame::decode(frame).and_then(|message| self.handle_message(now_ms, message));
        if handled.is_err() {
            self.part(now_ms, Parting::Fault);
        }
        handled
    }

    /// Coordinator `from` said, on a stream outside the session (a transfer), that it does not lead but `leader` does.
    pub fn handle_leader_hint(&mut self, now_ms: u64, from: NodeId, leader: Option<NodeId>) {
        if self.node() == Some(from) && !self.waits_for_leader(now_ms, leader) {
            self.follow(now_ms, leader);
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now_ms: u64) {
        match self.state {
            State::Waiting { until_ms } if until_ms <= now_ms => self.connect(now_ms),
            State::Connecting { until_ms } if until_ms <= now_ms => self.part(now_ms, Parting::Silence),
            State::Ready { protocol, heard_ms, pong_until_ms } => {
                let until_ms = self.silence_ends(pong_until_ms);
                if until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
                    return self.part(now_ms, Parting::Silence);
                }
                if pong_until_ms.is_none() && self.ping_due(heard_ms).is_some_and(|at_ms| at_ms <= now_ms) {
                    let pong_until_ms = Some(now_ms + self.config.pong_timeout_ms);
                    self.state = State::Ready { protocol, heard_ms, pong_until_ms };
                    let ping = frame::encode(&ToCoordinator::Ping).expect("a ping is smaller than a frame");
                    self.outputs.push_back(Output::Send(ping));
                }
                self.send_due(now_ms);
            }
            State::Waiting { .. } | State::Connecting { .. } => {}
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_time`] is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ms } | State::Connecting { until_ms } => Some(until_ms),
            State::Ready { heard_ms, pong_until_ms, .. } => {
                let has_room = self.n_sent() < limits::REQUESTS_IN_FLIGHT;
                let due = self.requests.values().filter_map(|request| match request.progress {
                    Sending::Due { at_ms } if has_room => Some(at_ms),
                    Sending::Due { .. } | Sending::Sent { .. } => None,
                });
                let ping = if pong_until_ms.is_none() { self.ping_due(heard_ms) } else { None };
                due.chain(ping).chain(self.silence_ends(pong_until_ms)).min()
            }
        }
    }

    fn handle_message(&mut self, now_ms: u64, message: FromCoordinator) -> Result<()> {
        match (message, self.state) {
            (FromCoordinator::Welcome(welcome), State::Connecting { .. }) => self.handle_welcome(now_ms, &welcome),
            (FromCoordinator::Response { id, result }, State::Ready { .. }) => {
                self.handle_response(now_ms, id, result);
                Ok(())
            }
            // A coordinator that has to send us away may do so before it welcomes us.
            (
                FromCoordinator::Notice(notice @ Notice::Closing { .. }),
                State::Connecting { .. } | State::Ready { .. },
            ) => {
                self.outputs.push_back(Output::Notice(notice));
                self.part(now_ms, Parting::Farewell);
                Ok(())
            }
            (FromCoordinator::Notice(Notice::LeaderChanged { leader }), State::Ready { .. }) => {
                // While nobody leads, it is as good here as anywhere.
                if let Some(leader) = leader.filter(|leader| *leader != self.node) {
                    // Whoever was elected just now is alive.
                    self.silent.remove(&leader);
                    self.follow(now_ms, Some(leader));
                }
                Ok(())
            }
            (FromCoordinator::Notice(notice @ Notice::MembersChanged { .. }), State::Ready { .. }) => {
                self.learn_members(&notice)?;
                self.outputs.push_back(Output::Notice(notice));
                Ok(())
            }
            (FromCoordinator::Notice(notice @ Notice::TasksChanged), State::Ready { .. }) => {
                self.outputs.push_back(Output::Notice(notice));
                Ok(())
            }
            (FromCoordinator::Pong, State::Ready { .. }) => Ok(()),
            (FromCoordinator::Welcome(_), _) => {
                Err(Error::OutOfTurn { what: "a welcome", expected: "a response or a notice" })
            }
            (FromCoordinator::Response { .. } | FromCoordinator::Notice(_) | FromCoordinator::Pong, _) => {
                Err(Error::OutOfTurn { what: "a response or a notice", expected: "a welcome" })
            }
        }
    }

    fn handle_welcome(&mut self, now_ms: u64, welcome: &Welcome) -> Result<()> {
        let protocol = version::negotiate(welcome.protocol)?;
        self.state = State::Ready { protocol, heard_ms: now_ms, pong_until_ms: None };
        match welcome.leader {
            Some(leader) if leader == self.node => self.leader_found(),
            Some(leader) if self.may_move_to(leader) => {
                self.follow(now_ms, Some(leader));
                return Ok(());
            }
            // It will say so when it is asked something; until then it is as good as any other.
            _ => {}
        }
        self.send_due(now_ms);
        Ok(())
    }

    /// From now on these are the coordinators, whatever the configuration said.
    fn learn_members(&mut self, notice: &Notice) -> Result<()> {
        let Notice::MembersChanged { addresses } = notice else { return Ok(()) };
        if addresses.is_empty() {
            return Ok(());
        }
        let Known { coordinators, strangers } = &self.config.known;
        let is_known = |(node, address): (&NodeId, &String)| coordinators.get(node) == Some(address);
        if !coordinators.is_empty() && strangers.contains(&self.node) && !addresses.iter().any(is_known) {
            let (told, known) = (listed(addresses), listed(coordinators));
            return Err(Error::AnotherCluster { node: self.node, told, known });
        }
        self.config.nodes = addresses.keys().copied().collect();
        self.config.known = Known { coordinators: addresses.clone(), strangers: BTreeSet::new() };
        Ok(())
    }

    fn handle_response(&mut self, now_ms: u64, id: RequestId, result: Result<Reply, Refusal>) {
        let waits = matches!(result, Err(Refusal::NotLeader { leader }) if self.waits_for_leader(now_ms, leader));
        let Some(request) = self.requests.get_mut(&id) else { return }; // cancelled meanwhile
        match result {
            Err(Refusal::NotLeader { .. }) if waits => {
                let jitter_ms = self.rng.next_u64() % LEADERLESS_PAUSE_MS;
                request.progress = Sending::Due { at_ms: now_ms + LEADERLESS_PAUSE_MS + jitter_ms };
            }
            Err(Refusal::NotLeader { leader }) => self.follow(now_ms, leader),
            Err(Refusal::Busy { retry_after_ms }) => {
                // Whoever is told to come again with everybody else comes a little later than told.
                let pause_ms = retry_after_ms.clamp(1, LONGEST_BUSY_MS);
                let jitter_ms = self.rng.next_u64() % pause_ms;
                request.progress = Sending::Due { at_ms: now_ms + pause_ms + jitter_ms };
                self.leader_found();
            }
            result => {
                self.requests.remove(&id);
                self.outputs.push_back(Output::Answer { id, result });
                self.leader_found();
                self.send_due(now_ms);
            }
        }
    }

    /// Whether to stay with a coordinator that does not lead: no leader is known there, or only one that fell silent and
    /// whom it will miss soon. A new one is then announced here as soon as anywhere. After an election's time it is
    /// left all the same: it may be cut off from the others, and the silent one from us only.
    fn waits_for_leader(&mut self, now_ms: u64, leader: Option<NodeId>) -> bool {
        if leader.is_some_and(|leader| !self.silent.contains(&leader)) {
            return false;
        }
        let waits = now_ms < *self.leaderless_until_ms.get_or_insert(now_ms + LEADERLESS_MS);
        if !waits {
            self.silent.clear();
        }
        waits
    }

    /// Leaves this coordinator for the leader it names, or for the next one if it names none that helps.
    fn follow(&mut self, now_ms: u64, leader: Option<NodeId>) {
        match leader {
            Some(leader) if self.may_move_to(leader) => {
                self.disconnect(Parting::NotLeader);
                self.n_hops += 1;
                self.make_all_due(now_ms);
                self.node = leader;
                self.connect(now_ms);
            }
            _ => self.part(now_ms, Parting::NotLeader),
        }
    }

    /// Gives up this coordinator.
    fn part(&mut self, now_ms: u64, parting: Parting) {
        if parting != Parting::NotLeader {
            self.silent.insert(self.node);
        }
        self.disconnect(parting);
        self.try_next(now_ms);
    }

    fn may_move_to(&self, leader: NodeId) -> bool {
        let is_another = leader != self.node && self.config.nodes.contains(&leader);
        is_another && !self.silent.contains(&leader) && self.n_hops < MOST_HOPS
    }

    /// Turns to the next coordinator that has not fallen silent after a pause that grows with every round of failures.
    fn try_next(&mut self, now_ms: u64) {
        let longest_ms = doubled(self.config.backoff_min_ms, self.rounds(), self.config.backoff_max_ms).max(1);
        self.n_failures = self.n_failures.saturating_add(1);
        self.n_hops = 0;
        self.make_all_due(now_ms);
        if self.config.nodes.is_subset(&self.silent) {
            self.silent.clear();
        }
        // The one that failed need not be among them: it may have been removed.
        let after = self.config.nodes.range((Bound::Excluded(self.node), Bound::Unbounded));
        let before = self.config.nodes.range(..=self.node);
        let next = after.chain(before).find(|node| !self.silent.contains(node));
        self.node = next.copied().unwrap_or(self.node);
        let pause_ms = longest_ms / 2 + self.rng.next_u64() % (longest_ms / 2 + 1);
        self.state = State::Waiting { until_ms: now_ms + pause_ms };
    }

    /// How often every coordinator has failed since the last sign of a leader.
    fn rounds(&self) -> u32 {
        self.n_failures / self.config.nodes.len().max(1) as u32
    }

    fn leader_found(&mut self) {
        self.n_failures = 0;
        self.n_hops = 0;
        self.silent.clear();
        self.leaderless_until_ms = None;
    }

    fn connect(&mut self, now_ms: u64) {
        self.leaderless_until_ms = None;
        let (min_ms, max_ms) = (self.config.connect_timeout_min_ms, self.config.connect_timeout_max_ms);
        self.state = State::Connecting { until_ms: now_ms + doubled(min_ms, self.rounds(), max_ms) };
        self.outputs.push_back(Output::Connect(self.node));
    }

    fn disconnect(&mut self, parting: Parting) {
        // Frames for the old connection must not reach the next one.
        self.outputs.retain(|output| !matches!(output, Output::Send(_) | Output::Connect(_)));
        self.outputs.push_back(Output::Disconnect(parting));
    }
}

fn listed(coordinators: &BTreeMap<NodeId, String>) -> String {
    let each = coordinators.iter().map(|(node, address)| format!("{node}={address}"));
    each.collect::<Vec<_>>().join(",")
}

/// `first_ms`, doubled `n_times` but no more than `longest_ms`.
fn doubled(first_ms: u64, n_times: u32, longest_ms: u64) -> u64 {
    first_ms.saturating_mul(1 << n_times.min(20)).min(longest_ms)
}

/// Moves to a named leader in a row: a change of leadership may be seen late once or twice, not more often.
const MOST_HOPS: u32 = 3;
/// Longer than two elections.
const LEADERLESS_MS: u64 = 2_500;
/// Pause before a coordinator that knew of no leader is asked again; its notice of a new one comes sooner.
const LEADERLESS_PAUSE_MS: u64 = 50;
/// The longest pause that a coordinator can impose.
const LONGEST_BUSY_MS: u64 = 60_000;

#[cfg(test)]
#[path = "site_session_tests.rs"]
mod tests;
