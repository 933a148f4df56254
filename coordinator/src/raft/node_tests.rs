//! Tests of whole groups of nodes over messages in memory: every step is chosen by the test, and no clock runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use archipelago_cluster::Body;
use archipelago_common::{Principal, SiteId};
use raft::eraftpb::MessageType;

use super::*;
use crate::raft::{log_store::Beginning, test_disk::Disk};

#[path = "founding_tests.rs"]
mod founding;
#[path = "fuzz_tests.rs"]
mod fuzz;
#[path = "hostile_tests.rs"]
mod hostile;
#[path = "membership_tests.rs"]
mod membership;

/// Nodes, their disks, and the messages between them.
struct Group {
    voters: BTreeSet<NodeId>,
    origin: Origin,
    options: Options,
    disks: BTreeMap<NodeId, Disk>,
    nodes: BTreeMap<NodeId, Node>,
    cut_off: BTreeSet<NodeId>,
    messages: VecDeque<Message>,
    snapshots_sent: usize,
    /// All messages that were sent, where somebody wants them.
    tap: Option<Vec<Message>>,
    events: BTreeMap<NodeId, Vec<Event>>,
}

fn id(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

impl Group {
    /// Nodes of an earlier build, which wait for no founder.
    fn new(n_nodes: u64, options: Options) -> Self {
        Self::with_origin(n_nodes, Origin::Unknown, options)
    }

    fn with_origin(n_nodes: u64, origin: Origin, options: Options) -> Self {
        let voters: BTreeSet<_> = (1..=n_nodes).map(id).collect();
        let mut group = Self {
            disks: voters.iter().map(|voter| (*voter, Disk::default())).collect(),
            voters,
            origin,
            options,
            nodes: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            messages: VecDeque::new(),
            snapshots_sent: 0,
            tap: None,
            events: BTreeMap::new(),
        };
        group.voters.clone().into_iter().for_each(|voter| group.start(voter));
        group
    }

    fn with_leader(n_nodes: u64) -> (Self, NodeId) {
        let mut group = Self::new(n_nodes, Options::default());
        let leader = group.elect();
        (group, leader)
    }

    fn start(&mut self, voter: NodeId) {
        let (voters, state) = (self.voters.clone(), Cluster::founded().snapshot().unwrap());
        let beginning = Beginning { voters, origin: self.origin, state };
        let store = LogStore::open_backend(self.disks[&voter].clone(), voter, &beginning, voter.as_u64()).unwrap();
        self.nodes.insert(voter, Node::new(voter, store, self.options).unwrap());
    }

    /// The process dies; its disk stays.
    fn kill(&mut self, voter: NodeId) {
        self.nodes.remove(&voter);
        let bytes = self.disks[&voter].bytes();
        self.disks.insert(voter, Disk::holding(bytes));
    }

    /// Delivers messages until none is left.
    fn settle(&mut self) {
        self.deliver(usize::MAX);
    }

    /// Delivers this many messages, or all there are.
    fn deliver(&mut self, most: usize) {
        for _ in 0..most {
            for (node_id, node) in &mut self.nodes {
                let mut sent = Vec::new();
                while let Some(events) = node.handle_ready(&mut |message| sent.push(message)).unwrap() {
                    self.events.entry(*node_id).or_default().extend(events);
                }
                for message in sent {
                    if message.get_msg_type() == MessageType::MsgSnapshot {
                        self.snapshots_sent += 1;
                        node.report_snapshot(id(message.to), SnapshotStatus::Finish);
                    }
                    self.tap.iter_mut().for_each(|tap| tap.push(message.clone()));
                    self.messages.push_back(message);
                }
            }
            let Some(message) = self.messages.pop_front() else { return };
            let is_cut = |node: u64| self.cut_off.contains(&id(node));
            if is_cut(message.from) || is_cut(message.to) {
                continue;
            }
            if let Some(node) = self.nodes.get_mut(&id(message.to)) {
                node.step(message);
            }
        }
    }

    fn tick(&mut self) {
        self.nodes.values_mut().for_each(Node::tick);
        self.settle();
    }

    fn tick_until(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        for _ in 0..200 {
            if is_done(self) {
                return;
            }
            self.tick();
        }
        panic!("not after 200 ticks: {what}");
    }

    /// The one leader that a majority follows.
    fn leader(&self) -> Option<NodeId> {
        self.voters.iter().copied().find(|candidate| {
            let follows = |(node_id, node): &(&NodeId, &Node)| {
                !self.cut_off.contains(node_id) && node.leader() == Some(*candidate)
            };
            let leads = self.nodes.get(candidate).is_some_and(Node::is_leader) && !self.cut_off.contains(candidate);
            leads && self.nodes.iter().filter(follows).count() > self.voters.len() / 2
        })
    }

    fn elect(&mut self) -> NodeId {
        self.tick_until("a leader", |group| group.leader().is_some());
        self.leader().unwrap()
    }

    fn propose(&mut self, node: NodeId, number: u8) -> Result<ProposalId, Dropped> {
        let command = Command {
            key: [number; 16],
            principal: Principal::Operator("op".parse().unwrap()),
            now_ms: number.into(),
            body: Body::AddSite { site: site(number) },
        };
        self.nodes.get_mut(&node).unwrap().propose(command.to_bytes().unwrap())
    }

    /// Proposes and expects that the proposal is carried out.
    fn commit(&mut self, leader: NodeId, number: u8) {
        let proposal = self.propose(leader, number).unwrap();
        self.settle();
        assert!(matches!(self.answer(leader, proposal), Some(Ok(Ok(Outcome::Site(_))))));
    }

    fn answer(&self, node: NodeId, proposal: ProposalId) -> Option<&Result<Result<Outcome, Refusal>, Dropped>> {
        self.events[&node].iter().find_map(|event| match event {
            Event::Proposal { id, result } if *id == proposal => Some(result),
            _ => None,
        })
    }

    fn read_answer(&self, node: NodeId, read: ReadId) -> Option<Result<(), Dropped>> {
        self.events[&node].iter().find_map(|event| match event {
            Event::Read { id, result } if *id == read => Some(*result),
            _ => None,
        })
    }

    fn sites(&self, node: NodeId) -> Vec<SiteId> {
        self.nodes[&node].cluster().sites().map(|record| record.site.clone()).collect()
    }

    fn assert_agree(&mut self, numbers: impl IntoIterator<Item = u8>) {
        (0..10).for_each(|_| self.tick());
        let expected: Vec<_> = numbers.into_iter().map(site).collect();
        for node in self.nodes.keys() {
            assert_eq!(self.sites(*node), expected, "node {node}");
        }
    }
}

fn site(number: u8) -> SiteId {
    format!("site-{number:03}").parse().unwrap()
}

#[test]
fn groups_of_one_three_and_five_elect_a_leader_and_agree() {
    for n_nodes in [1, 3, 5] {
        let (mut group, leader) = Group::with_leader(n_nodes);
        (0..5).for_each(|number| group.commit(leader, number));
        group.assert_agree(0..5);
    }
}

#[test]
fn commands_go_on_while_a_minority_is_gone_and_it_catches_up() {
    let (mut group, leader) = Group::with_leader(3);
    let follower = *group.voters.iter().find(|v| **v != leader).unwrap();
    group.kill(follower);
    (0..3).for_each(|number| group.commit(leader, number));
    group.start(follower);
    group.assert_agree(0..3);
}

#[test]
fn a_dead_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let (mut group, first) = Group::with_leader(5);
    (0..3).for_each(|number| group.commit(first, number));
    group.kill(first);
    let second = group.elect();
    assert_ne!(second, first);
    group.commit(second, 3);
    group.start(first);
    group.assert_agree(0..4);
}

#[test]
fn all_nodes_may_die_at_once() {
    let (mut group, leader) = Group::with_leader(3);
    (0..3).for_each(|number| group.commit(leader, number));
    for voter in group.voters.clone() {
        group.kill(voter);
        group.start(voter);
    }
    let leader = group.elect();
    group.commit(leader, 3);
    group.assert_agree(0..4);
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_the_caller_is_sent_on() {
    let (mut group, old) = Group::with_leader(3);
    group.cut_off.insert(old);
    let lost = group.propose(old, 0).unwrap();
    group.settle();
    assert!(group.answer(old, lost).is_none());
    let new = group.elect();
    group.commit(new, 1);
    // The old leader finds out by itself, from the silence.
    group.tick_until("the old leader steps down", |group| group.answer(old, lost).is_some());
    assert!(matches!(group.answer(old, lost), Some(Err(Dropped::NotLeader { .. }))));
    group.cut_off.clear();
    group.assert_agree([1]);
    assert!(matches!(group.propose(old, 2), Err(Dropped::NotLeader { leader: Some(leader) }) if leader == new));
}

#[test]
fn a_repeated_request_is_carried_out_once() {
    let (mut group, leader) = Group::with_leader(3);
    group.commit(leader, 7);
    let digest = group.nodes[&leader].cluster().digest().unwrap();
    group.commit(leader, 7);
    assert_eq!(group.nodes[&leader].cluster().digest().unwrap(), digest);
}

#[test]
fn a_follower_that_is_far_behind_is_caught_up_by_a_snapshot() {
    let options = Options { snapshot_every: 10, keep_entries: 2, ..Options::default() };
    let mut group = Group::new(3, options);
    let leader = group.elect();
    let behind = *group.voters.iter().find(|v| **v != leader).unwrap();
    group.kill(behind);
    (0..40).for_each(|number| group.commit(leader, number));
    assert!(group.nodes[&leader].n_log_entries() < 20, "the log was cut");
    group.start(behind);
    group.assert_agree(0..40);
    assert!(group.snapshots_sent > 0);
    // What came by snapshot is durable as well.
    group.kill(behind);
    group.start(behind);
    group.assert_agree(0..40);
}

#[test]
fn a_single_node_restarts_from_its_snapshot_and_its_log() {
    let options = Options { snapshot_every: 10, keep_entries: 0, ..Options::default() };
    let mut group = Group::new(1, options);
    group.elect();
    (0..25).for_each(|number| group.commit(id(1), number));
    group.kill(id(1));
    group.start(id(1));
    group.elect();
    group.assert_agree(0..25);
}

#[test]
fn a_read_sees_every_earlier_command() {
    let (mut group, leader) = Group::with_leader(3);
    group.commit(leader, 0);
    let read = group.nodes.get_mut(&leader).unwrap().read().unwrap();
    group.settle();
    assert_eq!(group.read_answer(leader, read), Some(Ok(())));
    let follower = *group.voters.iter().find(|v| **v != leader).unwrap();
    assert!(matches!(group.nodes.get_mut(&follower).unwrap().read(), Err(Dropped::NotLeader { .. })));
}

#[test]
fn a_leader_that_was_cut_off_answers_no_read() {
    let (mut group, old) = Group::with_leader(3);
    group.cut_off.insert(old);
    let read = group.nodes.get_mut(&old).unwrap().read().unwrap();
    let new = group.elect();
    group.commit(new, 0);
    group.tick_until("the read is given up", |group| group.read_answer(old, read).is_some());
    assert!(group.read_answer(old, read).unwrap().is_err());
}

#[test]
fn too_much_at_once_is_refused_as_busy() {
    let (mut group, leader) = Group::with_leader(3);
    group.cut_off.insert(leader);
    let node = group.nodes.get_mut(&leader).unwrap();
    let answers: Vec<_> = (0..20).map(|_| node.propose(vec![1; 4 << 20]).map(drop)).collect();
    assert_eq!(answers.first(), Some(&Ok(())));
    assert_eq!(answers.last(), Some(&Err(Dropped::Busy)));
}

#[test]
fn the_leadership_is_handed_over_on_request() {
    let (mut group, old) = Group::with_leader(3);
    group.commit(old, 0);
    group.nodes.get_mut(&old).unwrap().hand_over(None);
    group.settle();
    let new = group.leader().unwrap();
    assert_ne!(new, old);
    group.commit(new, 1);
    group.assert_agree(0..2);
}

#[test]
fn messages_for_somebody_else_change_nothing() {
    let (mut group, leader) = Group::with_leader(3);
    let term = group.nodes[&leader].term();
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgRequestVote);
    (message.to, message.from, message.term) = (99, 2, term + 100);
    group.nodes.get_mut(&leader).unwrap().step(message);
    group.settle();
    assert_eq!(group.nodes[&leader].term(), term);
}
