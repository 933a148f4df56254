//! Tests of changing members: every step is chosen by the test, and no clock runs.

use super::*;

const FOUNDERS: [u64; 3] = [1, 2, 3];

impl Group {
    /// A group of three whose founders are written down.
    fn founded() -> (Self, NodeId) {
        let (mut group, leader) = Group::with_leader(3);
        let addresses = FOUNDERS.map(|node| (id(node), format!("h{node}:1"))).into();
        group.carry_out(leader, Principal::Coordinator(leader), Body::AdoptMembers { addresses });
        (group, leader)
    }

    /// A node with an empty disk that knows nobody.
    fn join(&mut self, node: u64) {
        let disk = Disk::default();
        let beginning = Beginning::joining(Cluster::founded().snapshot().unwrap());
        let store = LogStore::open_backend(disk.clone(), id(node), &beginning, node).unwrap();
        self.disks.insert(id(node), disk);
        self.nodes.insert(id(node), Node::new(id(node), store, self.options).unwrap());
    }

    fn carry_out(&mut self, leader: NodeId, principal: Principal, body: Body) {
        let proposal = self.propose_body(leader, principal, body);
        self.settle();
        let answer = self.answer(leader, proposal);
        assert!(matches!(answer, Some(Ok(Ok(Outcome::Members)))), "{answer:?}");
    }

    fn propose_body(&mut self, leader: NodeId, principal: Principal, body: Body) -> ProposalId {
        let key = [self.events.values().map(Vec::len).sum::<usize>() as u8; 16];
        let command = Command { key, principal, now_ms: 1, body };
        self.nodes.get_mut(&leader).unwrap().propose(command.to_bytes().unwrap()).unwrap()
    }

    fn as_operator(&mut self, leader: NodeId, body: Body) {
        self.carry_out(leader, Principal::Operator("anna".parse().unwrap()), body);
    }

    fn add(&mut self, leader: NodeId, node: u64) {
        self.as_operator(leader, Body::AddMember { node: id(node), address: format!("h{node}:1") });
    }

    fn promote(&mut self, leader: NodeId, node: u64) {
        self.as_operator(leader, Body::PromoteMember { node: id(node) });
        self.voters.insert(id(node));
    }

    fn remove(&mut self, leader: NodeId, node: u64) {
        self.as_operator(leader, Body::RemoveMember { node: id(node) });
        self.voters.remove(&id(node));
    }

    fn tick_until_settled(&mut self, voters: &[u64], learners: &[u64]) {
        let set = |ids: &[u64]| ids.iter().map(|node| id(*node)).collect::<BTreeSet<_>>();
        let wanted = Configuration { voters: set(voters), outgoing: BTreeSet::new(), learners: set(learners) };
        let present: Vec<_> = voters.iter().chain(learners).map(|node| id(*node)).collect();
        self.tick_until("the configuration is everywhere", |group| {
            let mut nodes = present.iter().filter_map(|node| group.nodes.get(node));
            nodes.all(|node| node.configuration() == wanted)
        });
    }
}

#[test]
fn a_learner_gets_a_snapshot_catches_up_and_becomes_a_voter() {
    let (mut group, leader) = Group::founded();
    (0..5).for_each(|number| group.commit(leader, number));
    group.add(leader, 4);
    group.join(4);
    group.tick_until_settled(&FOUNDERS, &[4]);
    assert!(group.snapshots_sent > 0, "an empty log starts from a snapshot");
    group.assert_agree(0..5);
    let standings = group.nodes[&leader].standings();
    let (_, of_four) = standings.iter().find(|(node, _)| *node == id(4)).unwrap();
    assert!(of_four.entries_behind == 0 && of_four.is_active, "{standings:?}");
    group.promote(leader, 4);
    group.tick_until_settled(&[1, 2, 3, 4], &[]);
    group.commit(leader, 5);
    group.assert_agree(0..6);
}

#[test]
fn a_lost_disk_is_replaced_and_the_group_then_survives_another_loss() {
    let (mut group, leader) = Group::founded();
    let lost = *group.voters.iter().find(|voter| **voter != leader).unwrap();
    group.kill(lost);
    group.commit(leader, 0);
    group.add(leader, 4);
    group.join(4);
    let others: Vec<_> = group.voters.iter().map(|voter| voter.as_u64()).collect();
    group.tick_until("the learner is there", |group| group.nodes[&id(4)].applied() > 0);
    group.promote(leader, 4);
    group.remove(leader, lost.as_u64());
    let staying: Vec<_> = others.into_iter().filter(|node| id(*node) != lost).chain([4]).collect();
    group.tick_until_settled(&staying, &[]);
    group.kill(leader);
    let next = group.elect();
    group.commit(next, 1);
    group.assert_agree(0..2);
}

#[test]
fn a_learner_counts_for_nothing() {
    let (mut group, leader) = Group::founded();
    group.add(leader, 4);
    group.join(4);
    group.tick_until_settled(&FOUNDERS, &[4]);
    let others: Vec<_> = group.voters.iter().copied().filter(|voter| *voter != leader).collect();
    group.cut_off.extend(others);
    let proposal = group.propose(leader, 0).unwrap();
    group.settle();
    assert!(group.answer(leader, proposal).is_none(), "leader and learner are no majority");
}

#[test]
fn an_accepted_change_is_carried_out_by_the_next_leader() {
    let (mut group, leader) = Group::founded();
    let body = Body::AddMember { node: id(4), address: "h4:1".to_owned() };
    group.propose_body(leader, Principal::Operator("anna".parse().unwrap()), body);
    // The command reaches the others, and the leader dies before it can change anything.
    let mut sent = Vec::new();
    while group.nodes.get_mut(&leader).unwrap().handle_ready(&mut |message| sent.push(message)).unwrap().is_some() {}
    group.kill(leader);
    group.messages.extend(sent);
    group.settle();
    let next = group.elect();
    group.join(4);
    group.tick_until("the next leader has changed the members", |group| {
        group.nodes[&next].configuration().learners.contains(&id(4))
    });
    group.start(leader);
    group.tick_until_settled(&FOUNDERS, &[4]);
}

/// Found by the simulation (seed 149): a leader died between entering a joint configuration and leaving it, its successor
/// found it applied already, and nobody left it any more.
#[test]
fn a_change_is_completed_wherever_in_it_the_leader_dies() {
    for n_messages in 0..30 {
        let (mut group, leader) = Group::founded();
        let gone = *group.voters.iter().find(|voter| **voter != leader).unwrap();
        let body = Body::RemoveMember { node: gone };
        group.propose_body(leader, Principal::Operator("anna".parse().unwrap()), body);
        group.deliver(n_messages);
        group.kill(leader);
        group.settle();
        (0..60).for_each(|_| group.tick());
        group.start(leader);
        (0..60).for_each(|_| group.tick());
        let is_known = group.nodes.values().any(|node| !node.cluster().voters().contains(&gone));
        let staying: Vec<_> = FOUNDERS.into_iter().filter(|node| !is_known || id(*node) != gone).collect();
        group.tick_until_settled(&staying, &[]);
    }
}

/// Found by the simulation (seeds 755 and 846): whoever is to go came to lead in the middle of its own removal, completed
/// it, stayed leader without being a member, and failed at the next entry.
#[test]
fn who_is_removed_survives_to_lead_in_the_middle_of_it() {
    let mut n_led = 0;
    for n_messages in 0..40 {
        let (mut group, leader) = Group::founded();
        let gone = *group.voters.iter().find(|voter| **voter != leader).unwrap();
        group.propose_body(leader, Principal::Operator("anna".parse().unwrap()), Body::RemoveMember { node: gone });
        group.deliver(n_messages);
        group.kill(leader);
        group.start(leader);
        // Its clock is fast, so it stands for election before the others do.
        for _ in 0..60 {
            let candidate = group.nodes.get_mut(&gone).unwrap();
            (0..4).for_each(|_| candidate.tick());
            group.tick();
            let candidate = &group.nodes[&gone];
            n_led += usize::from(candidate.is_leader() && !candidate.configuration().outgoing.is_empty());
        }
        let is_known = group.nodes.values().any(|node| !node.cluster().voters().contains(&gone));
        let staying: Vec<_> = FOUNDERS.into_iter().filter(|node| !is_known || id(*node) != gone).collect();
        group.tick_until_settled(&staying, &[]);
    }
    assert!(n_led > 0, "it never led between the two configurations");
}

#[test]
fn a_leader_that_is_removed_hands_over_first() {
    let (mut group, leader) = Group::founded();
    group.remove(leader, leader.as_u64());
    let next = group.elect();
    assert_ne!(next, leader);
    let staying: Vec<_> = FOUNDERS.into_iter().filter(|node| id(*node) != leader).collect();
    group.tick_until_settled(&staying, &[]);
    group.commit(next, 0);
}

#[test]
fn a_removed_node_disturbs_nobody() {
    let (mut group, leader) = Group::founded();
    let gone = *group.voters.iter().find(|voter| **voter != leader).unwrap();
    group.remove(leader, gone.as_u64());
    let staying: Vec<_> = FOUNDERS.into_iter().filter(|node| id(*node) != gone).collect();
    group.tick_until_settled(&staying, &[]);
    let term = group.nodes[&leader].term();
    (0..100).for_each(|_| group.tick());
    assert!(group.nodes[&leader].is_leader() && group.nodes[&leader].term() == term);
    group.commit(leader, 0);
}

#[test]
fn a_change_survives_the_death_of_all_nodes_in_the_middle_of_it() {
    let (mut group, leader) = Group::founded();
    group.add(leader, 4);
    group.join(4);
    group.tick_until_settled(&FOUNDERS, &[4]);
    let body = Body::PromoteMember { node: id(4) };
    group.propose_body(leader, Principal::Operator("anna".parse().unwrap()), body);
    // Message by message, until the leader is between the two majorities.
    group.cut_off.insert(id(4));
    group.settle();
    for node in [1, 2, 3, 4].map(id) {
        group.kill(node);
        group.start(node);
    }
    group.cut_off.clear();
    group.voters.insert(id(4));
    group.elect();
    group.tick_until_settled(&[1, 2, 3, 4], &[]);
}

#[test]
fn the_leadership_goes_to_the_named_voter_and_never_to_a_learner() {
    let (mut group, leader) = Group::founded();
    group.add(leader, 4);
    group.join(4);
    group.tick_until_settled(&FOUNDERS, &[4]);
    group.nodes.get_mut(&leader).unwrap().hand_over(Some(id(4)));
    group.settle();
    assert!(group.nodes[&leader].is_leader());
    let named = *group.voters.iter().rfind(|voter| **voter != leader).unwrap();
    group.nodes.get_mut(&leader).unwrap().hand_over(Some(named));
    group.settle();
    assert_eq!(group.leader(), Some(named));
}
