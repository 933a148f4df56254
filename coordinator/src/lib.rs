//! The coordinator: keeps versioned references and publishes surgery tasks, on several nodes that agree through Raft.
//!
//! Start with [`raft`] (order), [`blob`] (memory) and [`server`] (what peers reach, and [`server::serve`], which puts a node
//! together); [`cli`] is what a person types. What is decided is in `archipelago-cluster`, what is said in
//! `archipelago-protocol`. Builds without libtorch and HDF5.

pub mod acquaintance;
pub mod blob;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod condition;
pub mod config;
pub mod contacts;
pub mod error;
pub(crate) mod frames;
pub mod links;
pub mod ops;
pub mod output;
mod page;
pub mod quota;
pub mod raft;
pub mod server;

pub use error::{Error, Result};
