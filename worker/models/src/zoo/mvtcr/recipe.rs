//! How mvTCR is trained: whole clones validate, cells of large clones are drawn less often, the best state is kept.

use super::{
    clonotypes::{ByClonotype, of_receptors, split},
    config::Criterion,
    criterion::{self, Watch},
    module::MvtcrModule,
};
use crate::{
    error::Result,
    model::Module as _,
    nn::Mode,
    train::{Kept, Recipe, Run},
    zoo::family::recipe::{KeepBest, loss},
};

/// The recipe of a run. What is said of receptors follows from the cells at hand: no name of a clonotype is kept anywhere.
pub(super) fn of_run<'a>(module: &'a MvtcrModule, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    let (config, plan) = (module.config(), run.plan);
    let clonotypes = module.receptor().map(|slot| of_receptors(run.dataset.receptors(slot)));
    let mut recipe = Recipe::default();
    if let Some(clonotypes) = &clonotypes {
        recipe.split = Some(split(clonotypes, 1.0 - plan.train_size.share(), run.seeds.of("split", 0)));
        if config.balanced_sampling && plan.sampling.balances.unwrap_or(true) {
            recipe.sampler = Box::new(ByClonotype(clonotypes.clone()));
        }
    }
    let watched = match config.selected_by {
        Criterion::Reconstruction => loss,
        Criterion::PseudoMetric | Criterion::KnnPrediction => criterion::watched,
    };
    if run.mode == Mode::Training && config.selected_by != Criterion::Reconstruction {
        let labels = module.labels().map(|slot| {
            let n = slot.width() as i64;
            run.dataset.codes(slot).iter().map(|&code| (code != n).then_some(code)).collect()
        });
        recipe.hooks.push(Box::new(Watch { module, clonotypes, labels }));
    }
    if plan.early_stopping.is_some() && plan.kept == Kept::Best {
        let watched = if run.mode == Mode::Training { watched } else { loss };
        recipe.hooks.push(Box::new(KeepBest::new(module.weights(), watched)));
    }
    Ok(recipe)
}
