//! Upstream's surgery of mvTCR.

use crate::nn::Weights;

/// What trains in upstream's surgery: the whole table of conditions and nothing else. Running statistics of every batch norm move with
/// the query's cells, and dropout acts.
pub fn trains(_: &Weights, upstream: &str) -> bool {
    upstream == TABLE
}

/// The table of conditions.
const TABLE: &str = "cond_emb.weight";
