//! How mvTCR is trained: whole clones validate, cells of large clones are drawn less often, the best state is kept.

use super::{
    clonotypes::{ByClonotype, of_receptors, split},
    config::Criterion,
    criterion::{self, Watch},
    modulation::Modulation,
    module::{MvtcrModule, PERTURBATION},
};
use crate::{
    data::{Dataset, LABELS},
    error::{Error, Result},
    model::Module as _,
    nn::Mode,
    train::{Kept, Recipe, Run},
    zoo::family::recipe::{KeepBest, loss},
};

/// The recipe of a run. What is said of receptors follows from the cells at hand: no name of a clonotype is kept anywhere.
///
/// # Errors  cells that lack what a state is chosen by
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
    let chooses = run.mode == Mode::Training && config.selected_by != Criterion::Reconstruction;
    if chooses {
        recipe.hooks.push(Box::new(watch(module, run.dataset, clonotypes)?));
    }
    if plan.early_stopping.is_some() && plan.kept == Kept::Best {
        let watched = if chooses { criterion::watched } else { loss };
        recipe.hooks.push(Box::new(KeepBest::new(module.weights(), watched)));
    }
    Ok(recipe)
}

/// What a state is chosen by, as far as the cells have it.
fn watch<'a>(module: &'a MvtcrModule, dataset: &'a Dataset<'a>, clonotypes: Option<Vec<i64>>) -> Result<Watch<'a>> {
    let labels = module.labels().map(|slot| dataset.labels(slot));
    let config = module.config();
    let lacks = |name: &str| Error::MissingField { name: name.to_owned() };
    let modulation = match config.selected_by {
        Criterion::Reconstruction => None,
        Criterion::PseudoMetric if labels.is_none() && clonotypes.is_none() => return Err(lacks(LABELS)),
        Criterion::PseudoMetric => None,
        Criterion::KnnPrediction if labels.is_none() => return Err(lacks(LABELS)),
        Criterion::KnnPrediction => None,
        Criterion::ModulationPrediction => {
            let labels = labels.as_deref().ok_or_else(|| lacks(LABELS))?;
            let states = module.states().ok_or_else(|| lacks(PERTURBATION))?.are_before(dataset);
            let modulation = Modulation::new(labels, &states, dataset.counts, config.n_perturbed_genes)?;
            Some((modulation, dataset.counts))
        }
    };
    Ok(Watch { module, clonotypes, labels, modulation })
}
