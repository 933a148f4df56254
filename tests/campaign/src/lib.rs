//! Proof with real processes: three coordinators and several sites, real TLS, real files, on one machine. A seeded schedule
//! kills, stops and cuts off leaders, followers, sites and a publisher in the middle of what they do, starts them
//! again, and in the end an audit compares what was acknowledged with what is there, on every node.
//!
//! Start at [`campaign`]; [`fault`] is what can happen, [`windows`] when it happens, [`site`] who works meanwhile,
//! [`audit`] what must hold, [`recorder`] what clients saw meanwhile. Simulated is the work itself: a site's columns are random numbers, so that hours of training
//! take none.

pub mod args;
pub mod audit;
pub mod board;
pub mod campaign;
pub mod event;
pub mod fault;
pub mod fleet;
pub mod guests;
pub mod journal;
pub mod network;
pub mod operator;
pub mod payload;
pub mod printer;
pub mod recorder;
pub mod resent;
pub mod site;
pub mod stage;
pub mod summary;
pub mod windows;
pub mod worker_death;
pub mod workload;
