//! What coordinators say to one another beside Raft. New variants go to the end of their enum, as in [`crate::message`].

use archipelago_common::{
    Digest,
    health::{Collected, HealthRecord},
    id::NodeId,
    member::{Incarnation, Origin},
};
use serde::{Deserialize, Serialize};

use crate::message::Refusal;

/// What coordinators ask one another beside Raft.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerAsk {
    /// The leader: an index such that whoever has applied it has seen everything that was acknowledged until now.
    Barrier,
    /// How many blobs that the state names are missing there.
    Holdings,
    /// How it is.
    Health,
    /// Remove blobs that nothing refers to.
    Collect {
        /// Only say what would be removed.
        dry_run: bool,
    },
    /// Begin to compare every blob with its digest.
    Verify,
    /// Who the asker is. The first thing that is said on a connection between coordinators, since version 3.
    Greet(Greeting),
    /// Whether a coordinator that the asker does not know is a member, with this life of its log.
    Vouch {
        /// Its id.
        node: NodeId,
        /// What it says of its log.
        incarnation: Incarnation,
    },
    /// What its clock shows.
    Clock,
    /// What it has come to at some moments; among coordinators of the third edition.
    Marks,
    /// As `Greet`, and how the asker's log began. One that does not know it ends the connection, and is greeted.
    Present(Presentation),
}

/// How coordinators say who they are; their certificates say the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Which life of its log it is.
    pub incarnation: Incarnation,
    /// The last entry in that log: a node that has less than it acknowledged has lost some.
    pub last_index: u64,
    /// The latest edition of the state machine's rules that it knows.
    pub edition: u32,
}

/// A greeting, and how the log of whoever says it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presentation {
    /// Who it is.
    pub greeting: Greeting,
    /// How its log began.
    pub origin: Origin,
}

/// The answer to [`StreamOpen::Peer`](crate::message::StreamOpen::Peer).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerReply {
    /// To `Barrier`.
    Barrier {
        /// To be applied.
        index: u64,
    },
    /// To `Holdings`.
    Holdings {
        /// The last entry applied when it was looked at.
        applied: u64,
        /// Blobs that are missing.
        missing: u64,
    },
    /// To `Health` and `Verify`.
    Health(HealthRecord),
    /// To `Collect`.
    Collected(Collected),
    /// Not now, or not here.
    Refused(Refusal),
    /// To `Greet`.
    Greeting(Greeting),
    /// To `Vouch`: it is.
    Known,
    /// To `Clock`.
    Clock {
        /// Unix milliseconds.
        now_ms: u64,
    },
    /// To `Marks`: after so many commands, the digest of all that came of them.
    Marks(Vec<(u64, Digest)>),
    /// To `Present`.
    Presentation(Presentation),
}
