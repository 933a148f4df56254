//! Memory: blobs, addressed by what is in them.
//!
//! [`store`] keeps them on this node's disk, [`replicate`] on a majority of coordinators, [`transfer`] moves them to and
//! from peers, `relay` gives the others an upload while it still comes in, and `gather` takes from them what has come where it
//! goes on. [`gc`] removes what nothing refers to, [`verify`] finds what a disk has spoilt.

mod gather;
pub mod gc;
pub mod receiving;
mod relay;
pub mod replicate;
pub mod store;
#[cfg(test)]
pub(crate) mod test_blobs;
pub mod transfer;
pub mod verify;

pub use store::BlobStore;
