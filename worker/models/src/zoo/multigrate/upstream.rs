//! Upstream's surgery of Multigrate.

use crate::nn::Weights;

/// What `load_query_data` lets train: the whole tables of covariates that have new categories, and dispersions of groups. Old rows are
/// among those. Without cells of theirs their gradient is zero, and weight decay moves them all the same.
pub fn trains(weights: &Weights, upstream: &str) -> bool {
    let is_of_categories = upstream.starts_with("cat_covariate_embeddings.") || upstream.starts_with("theta.");
    let is_part = |name: &str| name.strip_prefix(upstream).is_some_and(|rest| rest.starts_with('.'));
    let has_rows = || {
        let mut parts = weights.iter().filter(|(name, _)| is_part(name));
        parts.any(|(_, weight)| weight.role.is_per_condition() && weight.tensor.size()[0] > 0)
    };
    is_of_categories && has_rows()
}
