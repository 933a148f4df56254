//! What coordinator and site say, and when. Sans-IO: no sockets, no clock, no tasks.
//!
//! [`message`] holds every message; [`frame`] makes bytes of them. [`site_session`] and [`coordinator_session`] are the two
//! ends of a session, [`transfer`] the two ends of a blob's way, [`role`] the table of who may ask for what. All are values
//! with `handle_*` inputs and `poll_*` outputs; `archipelago-client` and the coordinator's server drive them.

pub mod coordinator_session;
pub mod error;
pub mod frame;
pub mod message;
mod peer;
pub mod role;
pub mod site_session;
pub mod transfer;
pub mod version;

pub use coordinator_session::{Asked, CoordinatorSession};
pub use error::{Error, Result};
pub use site_session::{Known, Output, Parting, RequestId, SessionConfig, SiteSession};
pub use transfer::{ChunkReceiver, ChunkRecord, ChunkSender, Piece};
