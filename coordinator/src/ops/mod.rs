//! What an operator's tools see, on a port of its own: metrics and health.

pub mod http;
pub mod metrics;
