//! What an operator's tools see: metrics.

pub mod consortium;
pub mod metrics;
pub mod requests;
