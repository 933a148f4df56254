//! How scPoli is trained: cells split type by type, embeddings without decay, prototypes from some epoch on.

use std::collections::{BTreeMap, BTreeSet};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{ScpoliModule, config::NAME, levels::Levels, module::UNWEIGHTED_LOSS, phase::PrototypePhase};
use crate::{
    data::{Dataset, Split},
    error::{Error, Result},
    model::Module as _,
    train::{AdamOptions, GroupSpec, Kept, Method, Monitor, Recipe, Run, Seen},
    zoo::family::recipe::{KeepBest, StoppingRule, sampler},
};

/// The recipe of a run of this module. In exact surgery cells are drawn to nothing: what prototypes add to the loss depends on which
/// cells of a type are in a minibatch together, and a condition's columns are to depend on its own cells alone.
///
/// # Errors  options of the plan that the rule does not take, cells of a type that the reference has no prototype of where none is made
pub(super) fn of_run<'a>(module: &'a ScpoliModule, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    let (plan, weights) = (run.plan, module.weights());
    let seen = if run.is_exact() { Types::Unseen } else { Types::Seen };
    let split = split(module.levels(), run.dataset, seen, plan.train_size.share(), run.seeds.of("split", 0));
    let mut recipe = Recipe { split: Some(split), sampler: sampler(run, false), ..Recipe::default() };
    recipe.rule = Some(Box::new(StoppingRule::new(plan, watched)?));
    if plan.adam.weight_decay != 0.0 {
        let adam = AdamOptions { weight_decay: 0.0, ..plan.adam };
        recipe.groups.push(GroupSpec { takes: |name| name.contains("embedding"), method: Method::Adam(adam) });
    }
    check_prototypes(module, run)?;
    let has_types = module.levels().finest().is_some();
    if !run.is_exact() && module.config().prototype_training && has_types {
        let keeps_best = plan.early_stopping.is_some() && plan.kept == Kept::Best;
        let best = keeps_best.then(|| KeepBest::new(weights, watched));
        recipe.hooks.push(Box::new(PrototypePhase::new(module, run, best)));
    }
    Ok(recipe)
}

/// Refuses cells of a type that has no prototype, and gets none in this run, where other types have one: the type would be lost. A reference
/// may have none at all.
fn check_prototypes(module: &ScpoliModule, run: Run<'_, '_>) -> Result<()> {
    let (config, present) = (module.config(), module.prototypes().are_present());
    let why = if !config.prototype_training {
        "`prototype_training` is false".to_owned()
    } else if config.pretraining(run.plan.n_epochs) >= run.plan.n_epochs {
        format!("`pretraining_epochs` leaves none of {} epochs", run.plan.n_epochs)
    } else {
        return Ok(());
    };
    if run.is_exact() || !present.contains(&true) {
        return Ok(());
    }
    let levels = module.levels();
    let of_cells: BTreeSet<usize> =
        (0..run.dataset.n_cells()).flat_map(|cell| levels.of_cell(run.dataset, cell)).collect();
    let lost: Vec<&str> =
        of_cells.into_iter().filter(|&code| !present[code]).map(|code| levels.types()[code].as_str()).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let detail = format!("cells are of `{}`, which the reference has no prototype of, and {why}", lost.join("`, `"));
    Err(Error::Config { model: NAME, detail })
}

/// The loss at full weights, of the validation cells where there are some. It is there once prototypes draw cells: before that nothing
/// stops a run, and no state is kept.
fn watched(seen: &Seen) -> Option<f64> {
    let monitor = if seen.validation.is_some() { Monitor::Validation } else { Monitor::Train };
    seen.figure(monitor, UNWEIGHTED_LOSS)
}

/// Whether a run may look at the types of its cells.
#[derive(Clone, Copy, PartialEq)]
enum Types {
    Seen,
    /// As if no cell had one: the order of cells is not to depend on types where nothing else does.
    Unseen,
}

/// Splits each type of the finest level by itself, cells shuffled; of cells without a type the first ones train. Without types each condition is
/// split by itself, cells shuffled.
fn split(levels: &Levels, dataset: &Dataset<'_>, types: Types, share: f64, seed: [u8; 32]) -> Split {
    let mut rng = ChaCha8Rng::from_seed(seed);
    let mut groups: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    let mut without_type = Vec::new();
    match levels.finest() {
        Some(level) => {
            for (cell, code) in levels.codes_on(level, dataset).enumerate() {
                match code.filter(|_| types == Types::Seen) {
                    Some(code) => groups.entry(code as i64).or_default().push(cell),
                    None => without_type.push(cell),
                }
            }
        }
        None => {
            for (cell, &code) in dataset.conditions.iter().enumerate() {
                groups.entry(code).or_default().push(cell);
            }
        }
    }
    groups.values_mut().for_each(|cells| cells.shuffle(&mut rng));
    let mut split = Split { train: vec![], validation: vec![], test: vec![] };
    for mut cells in groups.into_values().chain([without_type]) {
        let n_train = (share * cells.len() as f64).ceil() as usize;
        split.validation.extend(cells.split_off(n_train.min(cells.len())));
        split.train.extend(cells);
    }
    split
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::Csr;

    use super::*;
    use crate::{
        data::{Categorical, Cells, LABELS, Registry},
        zoo::scpoli::levels,
    };

    fn sorted(mut cells: Vec<usize>) -> Vec<usize> {
        cells.sort_unstable();
        cells
    }

    #[test]
    fn each_type_is_split_by_itself_and_cells_without_one_in_their_order() {
        let counts = Csr::zeros(24, 1);
        let types: Vec<&str> = (0..24).map(|cell| ["T", "?", "B"][usize::min(cell / 10, 2)]).collect();
        let cells = Cells::new(&counts).with(LABELS, Categorical::from_values(&types));
        let fields: Vec<_> = levels::fields("?", &[]).collect();
        let registry = Registry::of(&fields, &cells).unwrap();
        let (dataset, levels) = (registry.encode(&cells, &[0; 24], 1).unwrap(), Levels::new(&registry).unwrap());
        let found = split(&levels, &dataset, Types::Seen, 0.9, [7; 32]);
        assert_eq!(found.validation.iter().filter(|&&cell| cell < 10).count(), 1, "of 10 cells of T one validates");
        assert!(found.validation.contains(&19) && !found.validation.iter().any(|&cell| cell >= 20), "{found:?}");
        assert_eq!(sorted([found.train.clone(), found.validation].concat()), (0..24).collect::<Vec<_>>());
        assert_ne!(
            found.train,
            split(&levels, &dataset, Types::Seen, 0.9, [8; 32]).train,
            "another seed shuffles otherwise"
        );
    }

    #[test]
    fn without_types_conditions_are_split() {
        let counts = Csr::zeros(20, 1);
        let dataset = Dataset::new(&counts, [[0; 10], [1; 10]].concat());
        let found = split(&Levels::new(&Registry::default()).unwrap(), &dataset, Types::Seen, 0.9, [1; 32]);
        let of =
            |condition: i64| found.validation.iter().filter(|&&cell| dataset.conditions[cell] == condition).count();
        assert_eq!((of(0), of(1), found.train.len()), (1, 1, 18));
    }
}
