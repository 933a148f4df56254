//! How expiMap is trained: as the other native models, with proximal steps.

use super::{
    ExpimapModule,
    proximal::{Penalty, Proximal},
};
use crate::{
    error::Result,
    losses::hsic,
    model::Module as _,
    train::{Recipe, Run, Seen},
    zoo::family::recipe::{self, unweighted_loss},
};

/// The recipe of a run of a module.
///
/// # Errors  options of the plan that the rule does not take
pub(super) fn of_run<'a>(module: &'a ExpimapModule, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    let mut recipe = recipe::of_run_watching(module.weights(), run, watched)?;
    let penalties = Penalty::all(module);
    if !penalties.is_empty() {
        recipe.hooks.insert(0, Box::new(Proximal(penalties)));
    }
    Ok(recipe)
}

/// Loss of an epoch with its divergence and its criterion of independence at full weight.
fn watched(seen: &Seen) -> Option<f64> {
    let figure = seen.figure(recipe::monitor(seen), hsic::FIGURE).unwrap_or_default();
    Some(unweighted_loss(seen)? + figure)
}
