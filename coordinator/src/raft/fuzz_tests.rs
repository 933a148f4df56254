//! Bytes that a member sends, or that stand in a snapshot or an entry: none of them ends the node that reads them.

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
};

use archipelago_fuzz::Fuzz;
use protobuf::Message as _;

use super::*;

/// The kinds of messages that members send to each other.
const KINDS: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];
/// Messages of one kind in the corpus.
const OF_EACH: usize = 3;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/raft")
}

/// Three nodes that have a leader and some entries.
fn at_work() -> Group {
    let (mut group, leader) = Group::with_leader(3);
    (0..3).for_each(|number| group.commit(leader, number));
    group
}

/// What members say to each other while they elect a leader, carry out commands, send one that was away a snapshot, and
/// give the leadership away.
fn said() -> Vec<Message> {
    let mut group = Group::new(3, Options { snapshot_every: 4, keep_entries: 0, ..Options::default() });
    group.tap = Some(Vec::new());
    let leader = group.elect();
    let away = group.voters.iter().copied().find(|node| *node != leader).unwrap();
    group.kill(away);
    (0..9).for_each(|number| group.commit(leader, number));
    group.start(away);
    (0..20).for_each(|_| group.tick());
    group.nodes.get_mut(&leader).unwrap().hand_over(None);
    (0..20).for_each(|_| group.tick());
    group.tap.take().unwrap()
}

/// `UPDATE=1` writes it anew.
#[test]
fn the_corpus_holds_every_kind_of_message_that_members_send() {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(corpus()).unwrap();
        let said = said();
        for kind in KINDS {
            // The longest: they have the most in them.
            let mut of_kind: Vec<_> = said.iter().filter(|message| message.get_msg_type() == kind).collect();
            of_kind.sort_by_key(|message| std::cmp::Reverse((message.entries.len(), message.index)));
            for (number, message) in of_kind.into_iter().take(OF_EACH).enumerate() {
                // A snapshot's data come behind it on the stream.
                let mut message = message.clone();
                message.mut_snapshot().data.clear();
                let name = format!("{kind:?}-{number}.bin");
                std::fs::write(corpus().join(name), message.write_to_bytes().unwrap()).unwrap();
            }
        }
    }
    let files = std::fs::read_dir(corpus()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let kinds: BTreeSet<_> = files.map(|bytes| parsed(&bytes).unwrap().get_msg_type() as i32).collect();
    assert_eq!(kinds, KINDS.iter().map(|kind| *kind as i32).collect());
}

fn parsed(bytes: &[u8]) -> Option<Message> {
    let mut message = Message::new();
    message.merge_from_bytes(bytes).ok().map(|()| message)
}

#[test]
fn no_bytes_from_a_member_end_a_node() {
    let (group, n_heard) = (RefCell::new(at_work()), Cell::new(0_u64));
    let state = group.borrow().nodes[&id(1)].cluster().snapshot().unwrap();
    Fuzz::new("raft messages").with_files(corpus(), ".bin").within(64 << 20, 1 << 10).run(4_000, |bytes| {
        let Some(mut message) = parsed(bytes) else { return };
        n_heard.set(n_heard.get() + 1);
        let mut group = group.borrow_mut();
        let voters: Vec<NodeId> = group.voters.iter().copied().collect();
        // The stream's other end is known, and so is who reads it.
        let to = voters[(n_heard.get() % 3) as usize];
        let from = voters.iter().copied().filter(|other| *other != to).nth((message.from % 2) as usize).unwrap();
        (message.to, message.from) = (to.as_u64(), from.as_u64());
        if message.get_msg_type() == MessageType::MsgSnapshot {
            // What comes behind a snapshot is verified before the node hears of it (`peers::receive`).
            message.mut_snapshot().data = state.clone().into();
        }
        let node = group.nodes.get_mut(&to).unwrap();
        node.step(message);
        if n_heard.get().is_multiple_of(8) {
            node.tick();
        }
        // A node whose log has an entry that is no command ends in good order, and says so.
        let has_ended = loop {
            match node.handle_ready(&mut |_| ()) {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        if has_ended || n_heard.get().is_multiple_of(64) {
            *group = at_work();
        }
    });
    assert!(n_heard.get() > 100, "only {} inputs are messages at all", n_heard.get());
}

#[test]
fn any_bytes_are_a_state_or_an_error() {
    let snapshot = at_work().nodes[&id(1)].cluster().snapshot().unwrap();
    Fuzz::new("snapshots").with(snapshot).run(2_000, |bytes| {
        if let Ok(cluster) = Cluster::restore(bytes) {
            let again = cluster.snapshot().expect("what was read can be written");
            assert_eq!(Cluster::restore(&again).expect("what was written is read").snapshot().unwrap(), again);
        }
    });
}

#[test]
fn any_bytes_are_a_command_or_an_error() {
    let (principal, body) = (Principal::Operator("op".parse().unwrap()), Body::AddSite { site: site(7) });
    let command = Command { key: [7; 16], principal, now_ms: 7, body };
    Fuzz::new("commands").with(command.to_bytes().unwrap()).run(2_000, |bytes| drop(Command::from_bytes(bytes)));
}
