//! Sessions: how one begins, and the frames of its control stream.

use std::collections::BTreeMap;

use archipelago_common::id::NodeId;
use serde::{Deserialize, Serialize};

use super::{Refusal, Reply, Request};

/// How a session begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Newest protocol version the peer speaks; see [`crate::version`].
    pub protocol: u16,
    /// Name and version of the peer's software, for the log.
    pub software: String,
}

/// A frame from a site, operator or auditor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly every frame is a request, and each is moved a few times only")]
pub enum ToCoordinator {
    /// A request; the answer carries the same `id`.
    Request {
        /// Counts up within the session.
        id: u64,
        /// Names the request across sessions: a repeated one gets its first answer.
        key: RequestKey,
        /// What is asked.
        body: Request,
    },
    /// Are you there? Answered with [`FromCoordinator::Pong`] at once, so that a slow answer is told from a dead peer.
    Ping,
}

/// A frame from a coordinator.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum FromCoordinator {
    /// The session stands.
    Welcome(Welcome),
    /// The answer to a request.
    Response {
        /// The request's number.
        id: u64,
        /// The answer.
        result: Result<Reply, Refusal>,
    },
    /// Something the peer may want to know, unasked.
    Notice(Notice),
    /// The answer to [`ToCoordinator::Ping`].
    Pong,
}

/// Who the peer has reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version of this session: the lower of both sides'.
    pub protocol: u16,
    /// The node reached.
    pub node: NodeId,
    /// The leader, if known; requests to another node are answered with [`Refusal::NotLeader`].
    pub leader: Option<NodeId>,
}

/// Something a coordinator says unasked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// There may be new work: ask for the tasks.
    TasksChanged,
    /// Leadership moved; sessions with a node that is not the leader should move too.
    LeaderChanged {
        /// The new leader, if known.
        leader: Option<NodeId>,
    },
    /// The session ends, for this reason.
    Closing {
        /// In words.
        reason: String,
    },
    /// Who the coordinators are and where they are reached. Said first after the welcome, and when it changes. Since
    /// version 2.
    MembersChanged {
        /// Address by node.
        addresses: BTreeMap<NodeId, String>,
    },
}

/// A random name for a request, chosen by whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestKey(pub [u8; 16]);
