//! The loop that owns the [`Node`] of a live coordinator, and the handle that everybody else holds.
//!
//! A node that could not make durable what it must **aborts the process**. After a failed fsync nobody knows what is on
//! the disk: the kernel may have dropped the dirty pages and report success the next time, so a retry proves nothing,
//! and going on in memory would mean to vote or acknowledge without a record of it. A crash is the one state of which
//! the others make no assumption, and a start reads what is really there.

use std::{collections::BTreeMap, time::Duration};

use archipelago_cluster::{Cluster, Command, Effect, Outcome, Refusal};
use archipelago_common::NodeId;
use raft::{SnapshotStatus, eraftpb::Message};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    ProposalId, ReadId,
    node::{Dropped, Event, Node},
    peers::Peers,
};
use crate::{
    error::{Error, Result},
    ops::metrics,
};

/// A way to the node from any other task. Clones are the same node.
#[derive(Clone)]
pub struct Raft {
    inbox: mpsc::Sender<Input>,
    view: watch::Receiver<View>,
    effects: broadcast::Sender<Effect>,
}

/// The node from outside, as of its last step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// This node.
    pub node: NodeId,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// The last entry it applied.
    pub applied: u64,
    /// The last entry it knows to be committed.
    pub committed: u64,
    /// The voting members.
    pub voters: Vec<NodeId>,
}

impl View {
    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.node)
    }

    fn of(node: &Node, id: NodeId) -> Self {
        Self {
            node: id,
            leader: node.leader(),
            term: node.term(),
            applied: node.applied(),
            committed: node.committed(),
            voters: node.voters(),
        }
    }
}

/// The answer to a proposal: the state machine's, or why there is none.
pub type Answer = Result<Result<Outcome, Refusal>, Dropped>;

type Query = Box<dyn FnOnce(Result<&Cluster, Dropped>) + Send>;

enum Input {
    Message(Box<Message>),
    Propose { command: Vec<u8>, answer: oneshot::Sender<Answer> },
    Read(Query),
    Peek(Query),
    Unreachable(NodeId),
    SnapshotSent { to: NodeId, status: SnapshotStatus },
    HandOver,
}

impl Raft {
    /// Makes the handle, and the loop to be run: [`Task::run`].
    pub fn new(id: NodeId, node: Node) -> (Self, Task) {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let (view_sender, view) = watch::channel(View::of(&node, id));
        let (effects, _) = broadcast::channel(EFFECTS);
        let task = Task {
            id,
            node,
            inputs,
            view: view_sender,
            effects: effects.clone(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
        };
        (Self { inbox, view, effects }, task)
    }

    /// Has a command committed and applied.
    ///
    /// # Errors  [`Dropped`]: nobody knows then whether it will be; ask again under the same key
    pub async fn propose(&self, command: &Command) -> Answer {
        let Ok(command) = command.to_bytes() else {
            let reason = "the command is larger than a log entry may be".to_owned();
            return Ok(Err(Refusal::Invalid { reason }));
        };
        let (answer, answered) = oneshot::channel();
        self.inbox.try_send(Input::Propose { command, answer }).map_err(|_| Dropped::Busy)?;
        answered.await.unwrap_or(Err(Dropped::NotLeader { leader: None }))
    }

    /// Looks at the state as it is now or later, cluster-wide.
    ///
    /// # Errors  [`Dropped`]
    pub async fn read<R: Send + 'static>(
        &self,
        query: impl FnOnce(&Cluster) -> R + Send + 'static,
    ) -> Result<R, Dropped> {
        self.query(Input::Read, query).await
    }

    /// Looks at the state as this node has it; it may be behind.
    ///
    /// # Errors  [`Dropped`] if the node is too busy or ends
    pub async fn peek<R: Send + 'static>(
        &self,
        query: impl FnOnce(&Cluster) -> R + Send + 'static,
    ) -> Result<R, Dropped> {
        self.query(Input::Peek, query).await
    }

    /// The node as of its last step.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Follows the node's steps.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Follows what is to be done on this node. Who falls behind starts again from [`Cluster::outstanding`].
    pub fn effects(&self) -> broadcast::Receiver<Effect> {
        self.effects.subscribe()
    }

    /// Passes on a message from another coordinator; dropped if the node cannot keep up, as Raft allows.
    pub fn deliver(&self, message: Message) {
        let _ = self.inbox.try_send(Input::Message(Box::new(message)));
    }

    /// Reports that messages to a node are lost.
    pub fn report_unreachable(&self, node: NodeId) {
        let _ = self.inbox.try_send(Input::Unreachable(node));
    }

    /// Reports what became of a snapshot. Waits for room, because a lost report would stop replication to the node.
    pub async fn report_snapshot(&self, to: NodeId, status: SnapshotStatus) {
        let _ = self.inbox.send(Input::SnapshotSent { to, status }).await;
    }

    /// Gives the leadership away, if this node has it, and waits until it is gone or `patience` is over.
    pub async fn hand_over(&self, patience: Duration) {
        let _ = self.inbox.send(Input::HandOver).await;
        let _ = tokio::time::timeout(patience, self.watch().wait_for(|view| !view.is_leader())).await;
    }

    async fn query<R: Send + 'static>(
        &self,
        input: impl FnOnce(Query) -> Input,
        query: impl FnOnce(&Cluster) -> R + Send + 'static,
    ) -> Result<R, Dropped> {
        let (answer, answered) = oneshot::channel();
        let query = move |cluster: Result<&Cluster, Dropped>| {
            // Nobody waits any more for an answer that cannot be sent.
            let _ = answer.send(cluster.map(query));
        };
        self.inbox.try_send(input(Box::new(query))).map_err(|_| Dropped::Busy)?;
        answered.await.unwrap_or(Err(Dropped::NotLeader { leader: None }))
    }
}

/// The loop and all it owns.
pub struct Task {
    id: NodeId,
    node: Node,
    inputs: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
    effects: broadcast::Sender<Effect>,
    proposals: BTreeMap<ProposalId, (oneshot::Sender<Answer>, Instant)>,
    reads: BTreeMap<ReadId, Query>,
}

impl Task {
    /// Drives the node until every [`Raft`] handle is gone.
    ///
    /// # Errors  [`Error::Entry`], [`Error::Raft`]. What cannot be made durable aborts the process, see the module
    pub async fn run(mut self, peers: Peers) -> Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        // After a stall, one tick and not all that were missed: those would look like a silent leader.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.node.tick(),
                input = self.inputs.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return Ok(()),
                },
            }
            // What has come meanwhile shares the fsync.
            for _ in 0..BATCH {
                let Ok(input) = self.inputs.try_recv() else { break };
                self.handle(input);
            }
            // The fsync is in here; other tasks must not wait for this thread.
            tokio::task::block_in_place(|| self.handle_readies(&peers))?;
        }
    }

    fn handle_readies(&mut self, peers: &Peers) -> Result<()> {
        loop {
            let mut unreachable = Vec::new();
            let events = self.node.handle_ready(&mut |message| unreachable.extend(peers.send(message).err()));
            unreachable.into_iter().for_each(|node| self.node.report_unreachable(node));
            match events {
                Ok(Some(events)) => events.into_iter().for_each(|event| self.handle_event(event)),
                Ok(None) => break,
                Err(error @ (Error::Log { .. } | Error::LogCorrupted { .. })) => stop_at_once(&error),
                Err(error) => return Err(error),
            }
        }
        let view = View::of(&self.node, self.id);
        metrics::raft(&view, self.node.n_log_entries());
        self.view.send_if_modified(|old| std::mem::replace(old, view.clone()) != view);
        Ok(())
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Message(message) => self.node.step(*message),
            Input::Propose { command, answer } => match self.node.propose(command) {
                Ok(id) => drop(self.proposals.insert(id, (answer, Instant::now()))),
                Err(dropped) => drop(answer.send(Err(dropped))),
            },
            Input::Read(query) => match self.node.read() {
                Ok(id) => drop(self.reads.insert(id, query)),
                Err(dropped) => query(Err(dropped)),
            },
            Input::Peek(query) => query(Ok(self.node.cluster())),
            Input::Unreachable(node) => self.node.report_unreachable(node),
            Input::SnapshotSent { to, status } => self.node.report_snapshot(to, status),
            Input::HandOver => self.node.hand_over(),
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Proposal { id, result } => {
                if let Some((answer, asked)) = self.proposals.remove(&id) {
                    metrics::RAFT_COMMIT_SECONDS.observe(asked.elapsed().as_secs_f64());
                    let _ = answer.send(result);
                }
            }
            Event::Read { id, result } => {
                if let Some(query) = self.reads.remove(&id) {
                    query(result.map(|()| self.node.cluster()));
                }
            }
            // No receiver is no session.
            Event::Effect(effect) => drop(self.effects.send(effect)),
            Event::Leader(leader) => {
                tracing::info!(leader = leader.map(NodeId::as_u64), term = self.node.term(), "leader")
            }
        }
    }
}

fn stop_at_once(error: &Error) -> ! {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, cause, "this node must not go on: what it has promised may not be durable");
    std::process::abort()
}

/// With 15 to 24 ticks to an election, a dead leader is replaced within about a second.
const TICK: Duration = Duration::from_millis(50);
/// Inputs that may wait; beyond them requests are refused as busy and messages dropped.
const INBOX: usize = 4_096;
/// Inputs that share one pass, and so one fsync.
const BATCH: usize = 256;
/// Effects that a session may be behind.
const EFFECTS: usize = 1_024;
