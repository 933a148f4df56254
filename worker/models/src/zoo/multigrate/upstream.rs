//! Upstream's surgery of Multigrate.

use tch::Tensor;

use crate::{
    nn::{LayerRules, Weights},
    surgery::upstream::{Flags, UpstreamRules},
    train::GradientUse,
    zoo::family::Freeze,
};

/// What `load_query_data` lets train: the whole tables of covariates that have new categories, and dispersions of groups.
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
    /// Old rows are among those that train. Without cells of theirs their gradient is zero, and weight decay moves them all the same.
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
        let is_of_categories = |part: &str| part.starts_with("cat_covariate_embeddings.") || part.starts_with("theta.");
        let is_part =
            |name: &str, upstream: &str| name.strip_prefix(upstream).is_some_and(|rest| rest.starts_with('.'));
        let has_rows = |upstream: &str| {
            let mut parts = weights.iter().filter(|(name, _)| is_part(name, upstream));
            parts.any(|(_, weight)| weight.role.is_per_condition() && weight.tensor.size()[0] > 0)
        };
        let owns_rows = |upstream: &str| is_of_categories(upstream) && has_rows(upstream);
        Freeze::those(weights, |upstream| self.unfrozen || owns_rows(upstream))
    }
}
