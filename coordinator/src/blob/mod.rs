//! Memory: blobs, addressed by what is in them.
//!
//! [`store`] keeps them on this node's disk, [`replicate`] on a majority of coordinators, `relay` gives the others an upload
//! while it still comes in, and `gather` takes from them what has come where it goes on; `chunks` go over a stream. [`gc`] removes what nothing refers to, [`erase`] at once what was erased, [`verify`] finds what a disk has spoilt or
//! lost, with the help of [`digests`].

pub(crate) mod chunks;
pub mod digests;
pub mod erase;
pub mod file;
pub(crate) mod gather;
pub mod gc;
pub mod receiving;
pub(crate) mod relay;
pub mod replicate;
pub mod store;
#[cfg(test)]
pub(crate) mod test_blobs;
pub mod verify;

pub use store::BlobStore;
