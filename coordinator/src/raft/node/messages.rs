//! Messages of other members, before Raft sees them.
//!
//! Raft-rs trusts its peers: an index or a term that no correct member would send ends the process that hears it. What could
//! do so is dropped here, with the reason in the log. Raft allows every message to be lost.

use raft::{
    RawNode,
    eraftpb::{ConfState, Entry, Message, MessageType},
};

use crate::raft::log_store::LogStore;

/// Why a message is dropped, if it is.
pub(super) fn fault(raw: &RawNode<LogStore>, message: &Message) -> Option<&'static str> {
    let log = &raw.raft.raft_log;
    let last = log.last_index();
    if message.from == raft::INVALID_ID || message.from == raw.raft.id {
        return Some("it comes from nobody else");
    }
    if message.term == 0 {
        return Some("it is of no term");
    }
    if message.term > HIGHEST_TERM {
        return Some("its term leaves no room for a later one");
    }
    match message.get_msg_type() {
        MessageType::MsgAppend => append_fault(raw, message),
        MessageType::MsgHeartbeat if message.commit > last => Some("it commits entries that are not here"),
        MessageType::MsgSnapshot => snapshot_fault(message),
        MessageType::MsgAppendResponse if message.index > last && !message.reject => {
            Some("it acknowledges entries that were never sent")
        }
        MessageType::MsgAppendResponse if message.request_snapshot != 0 => Some("it asks for a snapshot by name"),
        MessageType::MsgTimeoutNow if message.from != raw.raft.leader_id => Some("only a leader gives its place away"),
        MessageType::MsgHeartbeat
        | MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => None,
        // Proposals and reads are put before a leader by its own node only; the rest never leaves a node.
        _ => Some("members do not send messages of its kind"),
    }
}

/// Whether it asks for a vote, or for an election.
pub(super) fn is_of_election(message: &Message) -> bool {
    let kind = message.get_msg_type();
    matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote | MessageType::MsgTimeoutNow)
}

fn append_fault(raw: &RawNode<LogStore>, message: &Message) -> Option<&'static str> {
    let log = &raw.raft.raft_log;
    let mut before = message.index;
    let follows = |entry: &Entry| {
        let is_next = before.checked_add(1) == Some(entry.index) && entry.term <= message.term;
        before = entry.index;
        is_next
    };
    if !message.entries.iter().all(follows) {
        return Some("its entries do not follow one another");
    }
    if message.index < log.committed {
        // It is answered and not looked at.
        return None;
    }
    let committed_term = log.term(log.committed).unwrap_or_default();
    if message.log_term < committed_term {
        return Some("its log is older than what is committed here");
    }
    None
}

fn snapshot_fault(message: &Message) -> Option<&'static str> {
    let metadata = message.get_snapshot().get_metadata();
    if metadata.index == 0 || metadata.term == 0 || metadata.term > message.term {
        return Some("its snapshot is of no point in the log");
    }
    if !is_configuration(metadata.get_conf_state()) {
        return Some("its snapshot is of no configuration");
    }
    None
}

/// Whether a configuration is one that Raft could have come to.
fn is_configuration(state: &ConfState) -> bool {
    let is_set = |ids: &[u64]| {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.windows(2).all(|pair| pair[0] != pair[1]) && !ids.contains(&raft::INVALID_ID)
    };
    let (voters, outgoing) = (state.get_voters(), state.get_voters_outgoing());
    let (learners, next) = (state.get_learners(), state.get_learners_next());
    !voters.is_empty()
        && [voters, outgoing, learners, next].iter().all(|ids| is_set(ids))
        && learners.iter().all(|id| !voters.contains(id) && !outgoing.contains(id))
        && next.iter().all(|id| outgoing.contains(id) && !voters.contains(id))
        && (!outgoing.is_empty() || (next.is_empty() && !state.get_auto_leave()))
}

/// Terms above it are no term that a cluster reaches by elections.
const HIGHEST_TERM: u64 = 1 << 48;
