//! The handle on the [`Node`] of a live coordinator that everybody but its loop ([`super::drive`]) holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use archipelago_cluster::{Cluster, Command, Effect, Outcome, Refusal};
use archipelago_common::{
    BlobRef, NodeId,
    member::{Incarnation, MemberRecord, MemberRole, Origin},
};
use raft::{SnapshotStatus, eraftpb::Message};
use tokio::{
    sync::{Semaphore, broadcast, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    drive::{Life, Open, Task},
    node::{Configuration, Dropped, Node, Standing},
    room::HasRoom,
    state::State,
};
use crate::{condition::Condition, error::Result};

/// A way to the node from any other task. Clones are the same node.
#[derive(Clone)]
pub struct Raft {
    inbox: mpsc::Sender<Input>,
    view: watch::Receiver<View>,
    effects: broadcast::Sender<Effect>,
    state: watch::Receiver<Option<State>>,
    /// Who looks at the state at one time: enough for the processors, and not so many that the loop gets none.
    looks: Arc<Semaphore>,
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
    /// Who counts, as Raft has it.
    pub configuration: Configuration,
    /// Whether it is a founder whose log holds nothing yet ([`Node::is_founding`]).
    pub is_founding: bool,
    /// Who is, or should be, a member, and where it is reached.
    pub members: Arc<Vec<MemberRecord>>,
}

impl View {
    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.node)
    }

    /// Whether this node was taken out of the cluster: the state says so, and no leader wants it any more.
    pub fn is_removed(&self) -> bool {
        let is_out = self.members.iter().any(|m| m.node == self.node && m.role == MemberRole::Removed);
        is_out && (self.leader.is_none() || !self.configuration.contains(self.node))
    }

    /// Every set of nodes of which a majority must hold what is acknowledged: the voters, those that voted before a
    /// change that is under way, and those that will after one that was accepted.
    pub fn electorates(&self) -> Vec<BTreeSet<NodeId>> {
        let wanted = self.members.iter().filter(|m| m.role == MemberRole::Voter).map(|m| m.node).collect();
        self.configuration.electorates(wanted)
    }

    /// Of a node that has not been up yet.
    fn unknown(node: NodeId) -> Self {
        let (configuration, members) = (Configuration::default(), Arc::default());
        Self { node, leader: None, term: 0, applied: 0, committed: 0, configuration, is_founding: false, members }
    }

    pub(super) fn of(node: &Node, id: NodeId, members: &mut Arc<Vec<MemberRecord>>) -> Self {
        let cluster = node.cluster();
        if !cluster.members().eq(members.iter()) {
            *members = Arc::new(cluster.members().cloned().collect());
        }
        Self {
            node: id,
            leader: node.leader(),
            term: node.term(),
            applied: node.applied(),
            committed: node.committed(),
            configuration: node.configuration(),
            is_founding: node.is_founding(),
            members: members.clone(),
        }
    }
}

/// What a node can say of its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Which life of it this is.
    pub incarnation: Incarnation,
    /// How it began.
    pub origin: Origin,
    /// The last entry in it.
    pub last_index: u64,
}

impl Identity {
    pub(super) fn of(node: &Node) -> Self {
        Self { incarnation: node.incarnation(), origin: node.origin(), last_index: node.last_index() }
    }
}

/// The answer to a proposal: the state machine's, or why there is none.
pub type Answer = Result<Result<Outcome, Refusal>, Dropped>;

/// The index that was applied when a read was settled, or why it was not.
pub(super) type Settled = Result<u64, Dropped>;

pub(super) enum Input {
    Message(Box<Message>),
    Propose { command: Vec<u8>, answer: oneshot::Sender<Answer> },
    Read(oneshot::Sender<Settled>),
    Unreachable(NodeId),
    SnapshotSent { to: NodeId, status: SnapshotStatus },
    HandOver(Option<NodeId>),
    Standings(oneshot::Sender<Vec<(NodeId, Standing)>>),
    Identity(oneshot::Sender<Identity>),
    Founders { is_taken_by_all: bool },
}

impl Raft {
    /// Starts the node, and makes the handle and the loop to be run: [`Task::run`]. A node whose disk is full starts
    /// when `has_room`.
    ///
    /// # Errors  those of `open`, but for a full disk
    pub fn start(id: NodeId, mut open: Open, has_room: HasRoom, condition: Arc<Condition>) -> Result<(Self, Task)> {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let mut members = Arc::default();
        let (life, view, known) = match open() {
            Ok(node) => {
                let (view, state) = (View::of(&node, id, &mut members), node.state().clone());
                (Life::Running(Box::new(node)), view, Some(state))
            }
            Err(error) if error.is_disk_full() => {
                tracing::error!(%error, "the disk is full: this node takes no part until there is space");
                condition.note_log_full(true);
                (Life::Suspended(Instant::now()), View::unknown(id), None)
            }
            Err(error) => return Err(error),
        };
        let (view_sender, view) = watch::channel(view);
        let (effects, _) = broadcast::channel(EFFECTS);
        let (state_sender, state) = watch::channel(known);
        let task = Task {
            id,
            open,
            has_room,
            condition,
            life,
            members,
            inputs,
            view: view_sender,
            effects: effects.clone(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            state: state_sender,
            is_behind: false,
        };
        let n_looks = std::thread::available_parallelism().map_or(1, |n| n.get() / 2).max(1);
        Ok((Self { inbox, view, effects, state, looks: Arc::new(Semaphore::new(n_looks)) }, task))
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
        self.settle().await?;
        self.peek(query).await
    }

    /// An index such that whoever has applied it has seen everything that was acknowledged until now. The leader's.
    ///
    /// # Errors  [`Dropped`]
    pub async fn barrier(&self) -> Result<u64, Dropped> {
        self.settle().await
    }

    /// Looks at the state as this node has it; it may be behind.
    ///
    /// # Errors  [`Dropped`] of a node that has never been up
    pub async fn peek<R: Send + 'static>(
        &self,
        query: impl FnOnce(&Cluster) -> R + Send + 'static,
    ) -> Result<R, Dropped> {
        let nobody = Dropped::NotLeader { leader: None };
        let _turn = self.looks.acquire().await.map_err(|_| nobody)?;
        let state = self.state.borrow().clone().ok_or(nobody)?;
        Ok(query(&state.read()))
    }

    /// Every blob that the state names, looked up in pages; named in the meantime or not, all that were named throughout.
    ///
    /// # Errors  as [`Self::peek`]
    pub async fn named_blobs(&self) -> Result<BTreeSet<BlobRef>, Dropped> {
        let mut all: BTreeSet<BlobRef> = BTreeSet::new();
        loop {
            let after = all.last().copied();
            let next = self.peek(move |cluster| cluster.named_blobs(after)).await?;
            if next.is_empty() {
                return Ok(all);
            }
            all.extend(next);
        }
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

    /// Gives the leadership away, if this node has it, to `successor` or whoever is furthest, and waits until it is gone
    /// or `patience` is over. Says whether it is gone.
    pub async fn hand_over(&self, successor: Option<NodeId>, patience: Duration) -> bool {
        let _ = self.inbox.send(Input::HandOver(successor)).await;
        // Not only gone: somebody else has it.
        let taken = |view: &View| view.leader.is_some_and(|leader| leader != view.node);
        tokio::time::timeout(patience, self.watch().wait_for(taken)).await.is_ok_and(|view| view.is_ok())
    }

    /// How far the other members are, if this node leads.
    ///
    /// # Errors  [`Dropped`] if the node is too busy or ends
    pub async fn standings(&self) -> Result<Vec<(NodeId, Standing)>, Dropped> {
        let (answer, answered) = oneshot::channel();
        self.inbox.try_send(Input::Standings(answer)).map_err(|_| Dropped::Busy)?;
        answered.await.map_err(|_| Dropped::NotLeader { leader: None })
    }

    /// What this node can say of its log, as of now.
    ///
    /// # Errors  [`Dropped`] if the node is too busy, or takes no part
    pub async fn identity(&self) -> Result<Identity, Dropped> {
        let (answer, answered) = oneshot::channel();
        self.inbox.try_send(Input::Identity(answer)).map_err(|_| Dropped::Busy)?;
        answered.await.map_err(|_| Dropped::NotLeader { leader: None })
    }

    /// Says whether every other founder takes this node for one ([`Node::note_founders`]).
    pub async fn note_founders(&self, is_taken_by_all: bool) {
        let _ = self.inbox.send(Input::Founders { is_taken_by_all }).await;
    }

    /// Waits until this node has applied whatever was acknowledged before, cluster-wide; the index that it then had.
    async fn settle(&self) -> Settled {
        let (settled, answer) = oneshot::channel();
        self.inbox.try_send(Input::Read(settled)).map_err(|_| Dropped::Busy)?;
        answer.await.unwrap_or(Err(Dropped::NotLeader { leader: None }))
    }
}

/// Inputs that may wait; beyond them requests are refused as busy and messages dropped.
const INBOX: usize = 4_096;
/// Effects that a session may be behind.
const EFFECTS: usize = 1_024;
