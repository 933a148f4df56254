//! Messages that no correct member sends: none of them ends the node that hears it.

use raft::eraftpb::ConfState;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// Today's fault: one heartbeat with a commit index beyond the log ended the process.
#[test]
fn a_heartbeat_that_commits_what_is_not_there_is_dropped() {
    let (mut group, leader) = Group::with_leader(3);
    let follower = group.voters.iter().copied().find(|node| *node != leader).unwrap();
    let node = group.nodes.get_mut(&follower).unwrap();
    let (term, committed) = (node.term(), node.committed());
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgHeartbeat);
    (message.from, message.to, message.term) = (leader.as_u64(), follower.as_u64(), term);
    message.commit = committed + 1_000;
    node.step(message);
    assert_eq!(node.committed(), committed);
    group.settle();
}

/// A message about points near those that the node knows, of any kind and with anything in it.
fn hostile(rng: &mut StdRng, node: &Node, to: NodeId) -> Message {
    let last = node.raw.raft.raft_log.last_index();
    let near = |rng: &mut StdRng, value: u64| match rng.random_range(0..8) {
        0 => 0,
        1 => u64::MAX,
        2 => rng.random(),
        _ => (value + rng.random_range(0..4)).saturating_sub(2),
    };
    let kinds = [
        MessageType::MsgAppend,
        MessageType::MsgAppend,
        MessageType::MsgHeartbeat,
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgPropose,
        MessageType::MsgTransferLeader,
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgSnapStatus,
        MessageType::MsgUnreachable,
        MessageType::MsgCheckQuorum,
    ];
    let mut message = Message::default();
    message.set_msg_type(kinds[rng.random_range(0..kinds.len())]);
    (message.from, message.to) = (rng.random_range(0..5), to.as_u64());
    message.term = near(rng, node.term());
    message.log_term = near(rng, node.term());
    message.index = near(rng, last);
    message.commit = near(rng, last);
    message.commit_term = near(rng, node.term());
    message.reject = rng.random();
    message.reject_hint = near(rng, last);
    if rng.random_range(0..8) == 0 {
        message.request_snapshot = near(rng, last);
    }
    for ahead in 1..=rng.random_range(0..3) {
        let mut entry =
            Entry { term: near(rng, node.term()), index: message.index.wrapping_add(ahead), ..Entry::default() };
        if rng.random_range(0..6) == 0 {
            entry.index = near(rng, last);
        }
        message.mut_entries().push(entry);
    }
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let ids = |rng: &mut StdRng| (0..rng.random_range(0..4)).map(|_| rng.random_range(0..5)).collect();
        let mut state = ConfState { voters: ids(rng), learners: ids(rng), ..ConfState::default() };
        if rng.random_range(0..3) == 0 {
            (state.voters_outgoing, state.learners_next, state.auto_leave) = (ids(rng), ids(rng), rng.random());
        }
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (near(rng, last), near(rng, node.term()));
        metadata.set_conf_state(state);
        message.mut_snapshot().data = node.cluster().snapshot().unwrap().into();
    }
    message
}

#[test]
fn no_message_of_a_member_ends_a_node() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut group, _) = Group::with_leader(3);
        let voters: Vec<_> = group.voters.iter().copied().collect();
        for _ in 0..40 {
            let to = voters[rng.random_range(0..voters.len())];
            let message = hostile(&mut rng, &group.nodes[&to], to);
            let node = group.nodes.get_mut(&to).unwrap();
            node.step(message);
            // What it answers goes nowhere: only the node itself is looked at.
            while node.handle_ready(&mut |_| ()).unwrap().is_some() {}
            if rng.random_range(0..4) == 0 {
                node.tick();
                while node.handle_ready(&mut |_| ()).unwrap().is_some() {}
            }
        }
    }
}
