//! Bytes that a member sends or that stand on a disk: none ends the node that reads them.

use std::cell::{Cell, RefCell};

use archipelago_fuzz::Fuzz;
use protobuf::Message as _;

use super::*;

/// A group at work, and the bytes of what its members said to each other meanwhile.
fn at_work() -> (Group, Vec<Vec<u8>>) {
    let mut group = Group::new(3, Options::default());
    let mut said = Vec::new();
    let mut turn = |group: &mut Group| {
        group.nodes.values_mut().for_each(Node::tick);
        for node in group.nodes.values_mut() {
            let mut sent = Vec::new();
            while node.handle_ready(&mut |message| sent.push(message)).unwrap().is_some() {}
            said.extend(sent.iter().map(|message| message.write_to_bytes().unwrap()));
            group.messages.extend(sent);
        }
        group.settle();
    };
    (0..100).for_each(|_| turn(&mut group));
    let leader = group.leader().expect("a leader after a hundred ticks");
    for number in 1..4 {
        group.propose(leader, number).unwrap();
        turn(&mut group);
    }
    (group, said)
}

#[test]
fn no_bytes_from_a_member_end_a_node() {
    let (group, said) = at_work();
    assert!(said.len() > 20, "{} messages", said.len());
    let (group, n_heard) = (RefCell::new(group), Cell::new(0));
    let fuzz = said.iter().fold(Fuzz::new("raft messages"), |fuzz, bytes| fuzz.with(bytes.clone()));
    fuzz.within(64 << 20, 256).run(1_000, |bytes| {
        let mut message = Message::new();
        // A snapshot's data come behind it on the stream, and are verified before the node hears of it.
        if message.merge_from_bytes(bytes).is_err() || message.get_msg_type() == MessageType::MsgSnapshot {
            return;
        }
        n_heard.set(n_heard.get() + 1);
        let mut group = group.borrow_mut();
        if n_heard.get() % 50 == 0 {
            *group = at_work().0;
        }
        // The stream's other end is known, and so is who reads it.
        let to = group.leader().unwrap_or(id(1));
        let others: Vec<NodeId> = group.voters.iter().copied().filter(|other| *other != to).collect();
        let from = others[(message.from % 2) as usize];
        (message.to, message.from) = (to.as_u64(), from.as_u64());
        let node = group.nodes.get_mut(&to).unwrap();
        node.step(message);
        // A node whose log has an entry that is no command ends in good order, and says so.
        let ended = loop {
            match node.handle_ready(&mut |_| ()) {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        if ended {
            *group = at_work().0;
        }
    });
    assert!(n_heard.get() > 50, "{} inputs are messages at all", n_heard.get());
}

#[test]
fn any_bytes_are_a_state_or_an_error() {
    let (group, _) = at_work();
    let snapshot = group.nodes[&id(1)].cluster().snapshot().unwrap();
    Fuzz::new("snapshots").with(snapshot).run(2_000, |bytes| {
        if let Ok(cluster) = Cluster::restore(bytes) {
            let again = cluster.snapshot().expect("what was read can be written");
            assert_eq!(Cluster::restore(&again).expect("what was written is read").snapshot().unwrap(), again);
        }
    });
}

#[test]
fn any_bytes_are_a_command_or_an_error() {
    let command = Command {
        key: [7; 16],
        principal: Principal::Operator("op".parse().unwrap()),
        now_ms: 7,
        body: Body::AddSite { site: site(7) },
    };
    Fuzz::new("commands").with(command.to_bytes().unwrap()).run(2_000, |bytes| drop(Command::from_bytes(bytes)));
}
