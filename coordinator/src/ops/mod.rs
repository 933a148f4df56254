//! What an operator's tools see: metrics.

pub mod metrics;
