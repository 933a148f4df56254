//! What is said on the wire. New variants go to the end of their enum: the position is the encoding. A variant that came
//! after version 1 is said only in a session of a version that has it: see [`Request::since`].

use archipelago_common::blob::BlobRef;
use serde::{Deserialize, Serialize};

mod blob;
mod reply;
mod request;
mod session;

pub use self::{
    blob::{Chunk, GetReply, PutReply},
    reply::{Refusal, Reply},
    request::{Request, Which, Withdrawal},
    session::{FromCoordinator, Hello, Notice, RequestKey, ToCoordinator, Welcome},
};
pub use crate::peer::{Greeting, PeerAsk, PeerReply, Presentation};

/// The first frame on every stream: what the stream is for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum StreamOpen {
    /// A session's control stream: [`ToCoordinator`] frames one way, [`FromCoordinator`] the other.
    Control(Hello),
    /// An upload. The coordinator answers with [`PutReply::Send`] and the chunks follow.
    Put(BlobRef),
    /// A download from chunk `from_chunk` on. The coordinator answers with [`GetReply`] and the chunks.
    Get {
        /// What to send.
        blob: BlobRef,
        /// The first chunk that the receiver lacks.
        from_chunk: u64,
    },
    /// Raft messages from another coordinator, one protobuf message a frame.
    Raft,
    /// A question from another coordinator, answered with one [`PeerReply`].
    Peer(PeerAsk),
    /// As [`Self::Raft`], from a coordinator that says where it is reached: one that was added later than others know.
    RaftFrom {
        /// `host:port`.
        address: String,
    },
    /// An upload that another coordinator is receiving, chunk by chunk as they come in there. Answered as [`Self::Put`],
    /// with [`PutReply::Has`] after every chunk.
    Relay(BlobRef),
}
