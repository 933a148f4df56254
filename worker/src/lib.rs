//! Data and training at a site: what the program `archipelago-worker` does, as a library.
//!
//! Start at [`cli`] for the commands and at [`session`] for the worker's life with the coordinators. [`egress`] is the one
//! door through which anything leaves, [`audit`] the log of what did. [`mapping`] is surgery with and without a consortium.

pub mod additions;
mod anchors;
pub mod annotations;
pub mod audit;
pub mod bounds;
pub mod cells;
pub mod chain;
pub mod checkpoint;
pub mod cli;
pub mod colours;
pub mod commands;
pub mod config;
pub mod consent;
pub mod data;
pub mod egress;
pub mod error;
pub mod existing;
pub mod expression;
pub mod faults;
pub mod fields;
pub mod fit;
#[cfg(test)]
mod fuzz_tests;
pub mod generate;
mod gmt;
pub mod graph_file;
pub mod holding;
mod lease;
pub mod ledger;
pub mod lists;
pub mod local;
pub mod mapping;
pub mod memory;
pub mod naming;
pub mod network;
pub mod offer;
pub mod ops;
pub mod output;
pub mod privacy;
pub mod recipe;
mod renewal;
pub mod report;
pub mod results;
pub mod secret;
pub mod session;
pub mod shared_tree;
mod surgery_task;
pub mod table;
pub mod task_summary;
pub mod tree_dir;
pub mod tree_pickle;
pub mod vouched;

pub use error::{Error, Result};
