//! The state machine seen from outside: commands in, answers and effects out.
//!
//! Commands are written as lines of a small language; `script.rs` says how, `testdata/*.txt` shows it at work.

mod acts;
mod claims;
mod clocks;
mod enrolments;
mod erasures;
mod golden;
mod growth;
mod members;
mod parts;
mod properties;
mod proposals;
mod references;
mod requests;
mod roles;
mod script;
mod signatures;
mod snapshots;
mod standings;
mod submissions;
mod tasks;
mod transcripts;
mod views;
mod withdrawals;
