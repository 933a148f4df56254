//! Tests of founders whose logs hold nothing.

use super::*;

/// Three founders that have the same list, and were never started before.
fn founders() -> Group {
    let list = (1..=3).map(|node| (id(node), format!("node-{node}:1"))).collect();
    Group::with_origin(3, Origin::founded_with(&list), Options::default())
}

fn ticks(group: &mut Group) {
    (0..200).for_each(|_| group.tick());
}

fn leaders(group: &Group) -> BTreeMap<NodeId, u64> {
    group.nodes.iter().filter(|(_, node)| node.is_leader()).map(|(id, node)| (*id, node.term())).collect()
}

#[test]
fn nobody_is_elected_before_every_founder_takes_the_others_for_such() {
    let mut group = founders();
    group.tap = Some(Vec::new());
    ticks(&mut group);
    assert!(leaders(&group).is_empty() && group.tap.take().unwrap().is_empty(), "nobody even asks for a vote");
    // One that may stand gets no vote of those that may not.
    group.nodes.get_mut(&id(1)).unwrap().note_founders(true);
    ticks(&mut group);
    assert!(leaders(&group).is_empty());
    group.nodes.get_mut(&id(2)).unwrap().note_founders(true);
    group.tick_until("two elect one of them", |group| !leaders(group).is_empty());
    // What is in a log is not forgotten: whoever has an entry waits for nobody.
    group.tick_until("the third has what they have", |group| group.nodes[&id(3)].last_index() > 1);
    let leader = *leaders(&group).first_key_value().unwrap().0;
    group.kill(leader);
    group.tick_until("the others elect another", |group| !leaders(group).is_empty());
}

/// Seed 272 of the simulation: of two that know nothing, one voted in a term in which it had voted before its log was lost.
#[test]
fn a_member_founded_anew_and_a_founder_that_knows_nothing_elect_nobody() {
    let mut group = founders();
    group.nodes.values_mut().for_each(|node| node.note_founders(true));
    // The third has greeted, and is away before anything is written.
    group.cut_off.insert(id(3));
    group.tick_until("two elect one of them", |group| !leaders(group).is_empty());
    let (leader, term) = leaders(&group).pop_first().unwrap();
    let lost = if leader == id(1) { id(2) } else { id(1) };
    group.kill(lost);
    group.disks.insert(lost, Disk::default());
    group.start(lost);
    group.cut_off = BTreeSet::from([leader]);
    // Whoever knows its first life is out of reach, so it does not hear from all.
    ticks(&mut group);
    assert!(!group.nodes[&lost].is_leader() && !group.nodes[&id(3)].is_leader());
    // With its vote they would: in the term of the other, or an earlier one.
    group.nodes.get_mut(&lost).unwrap().note_founders(true);
    group.tick_until("they elect one of them", |group| {
        group.nodes[&lost].is_leader() || group.nodes[&id(3)].is_leader()
    });
    assert!(group.nodes[&lost].term() <= term);
}
