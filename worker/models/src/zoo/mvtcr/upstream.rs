//! Upstream's surgery of mvTCR.

use tch::Tensor;

use crate::{
    nn::{LayerRules, Weights},
    surgery::upstream::{Flags, UpstreamRules},
    train::GradientUse,
    zoo::family::Freeze,
};

/// What trains in upstream's surgery: the whole table of conditions and nothing else. Running statistics of every batch norm move with
/// the query's cells, and dropout acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frozen {
    /// Whether everything trains instead, as in a new model.
    pub unfrozen: bool,
}

impl From<&Flags> for Frozen {
    fn from(flags: &Flags) -> Self {
        Self { unfrozen: flags.unfrozen }
    }
}

impl LayerRules for Frozen {}

impl UpstreamRules for Frozen {
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
        Freeze::those(weights, |upstream| self.unfrozen || upstream == TABLE)
    }
}

/// The table of conditions.
const TABLE: &str = "cond_emb.weight";
