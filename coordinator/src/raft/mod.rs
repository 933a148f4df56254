//! Order: the replicated log and the state machine that it drives.
//!
//! [`node::Node`] is the whole of consensus as a value without sockets or clock; [`drive`] is the loop that owns it on a
//! live node, [`task`] the handle on it; [`peers`] carries its messages.

pub mod drive;
mod log_file;
pub mod log_store;
pub mod node;
pub mod peers;
mod proposals;
mod reads;
pub(crate) mod room;
pub mod state;
pub mod task;
#[cfg(test)]
pub(crate) mod test_disk;
mod timeouts;
mod trace;

pub use proposals::ProposalId;
pub use reads::ReadId;
