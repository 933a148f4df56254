//! How scGen is trained: cells shuffled once, then always in the same order.

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::ScgenConfig;
use crate::{
    data::Split,
    error::Result,
    nn::Weights,
    train::{InOrder, Kept, Means, Recipe, Run},
    zoo::family::recipe::{KeepBest, StoppingRule, loss},
};

/// The recipe of a run of a module with these tensors. What is watched is the loss as it is minimised: its divergence has a
/// millionth of the weight of the error, and would drown it at full weight.
///
/// # Errors  options of the plan that the rule does not take
pub(super) fn of_run<'a>(config: &ScgenConfig, weights: &'a Weights, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    let (n_cells, share) = (run.dataset.n_cells(), run.plan.train_size.share());
    let shuffled = config.shuffle.then(|| run.seeds.of("split", 0));
    let mut recipe = Recipe {
        split: Some(split(n_cells, share, shuffled)),
        sampler: Box::new(InOrder),
        means: Means::OverMinibatches,
        smallest_minibatch: Some(2),
        rule: Some(Box::new(StoppingRule::new(run.plan, loss)?)),
        ..Recipe::default()
    };
    if run.plan.early_stopping.is_some() && run.plan.kept == Kept::Best {
        recipe.hooks.push(Box::new(KeepBest::new(weights, loss)));
    }
    Ok(recipe)
}

/// The first cells train, the others validate. With a seed all are shuffled before, and both once more.
fn split(n_cells: usize, share: f64, seed: Option<[u8; 32]>) -> Split {
    let mut rng = seed.map(ChaCha8Rng::from_seed);
    let mut shuffle = |cells: &mut Vec<usize>| rng.iter_mut().for_each(|rng| cells.shuffle(rng));
    let mut train: Vec<usize> = (0..n_cells).collect();
    shuffle(&mut train);
    let mut validation = train.split_off(((share * n_cells as f64) as usize).min(n_cells));
    shuffle(&mut train);
    shuffle(&mut validation);
    Split { train, validation, test: vec![] }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use archipelago_anndata::Csr;
    use archipelago_common::task::TrainSpec;

    use super::*;
    use crate::{
        data::{Dataset, Registry},
        nn::{Builder, ConditionSource, Mode, Source, Trainable},
        train::{Aim, Evaluation, Seeds, Seen, TrainPlan, Verdict},
        zoo::scgen::{Scgen, ScgenConfig, ScgenModule},
    };

    /// Seen over epochs in which the loss gets worse and the divergence better.
    #[test]
    fn a_better_divergence_does_not_keep_a_run_going_whose_loss_gets_worse() {
        let counts = Csr::zeros(10, 3);
        let dataset = Dataset::new(&counts, vec![0; 10]);
        let plan = TrainPlan::new(&Scgen, Aim::Reference, &TrainSpec::default(), 10).unwrap();
        let none = ConditionSource::Fresh(0);
        let builder = Builder::new(Source::Fresh, none, Trainable::Nothing, [0; 32], tch::Device::Cpu);
        let module = ScgenModule::new(ScgenConfig::default(), &Registry::default(), 3, builder).unwrap();
        let seeds = Seeds::new(0, "test");
        let run = Run { dataset: &dataset, plan: &plan, seeds: &seeds, mode: Mode::Training };
        let mut rule = of_run(module.config(), crate::model::Module::weights(&module), run).unwrap().rule.unwrap();
        let stops = (1..=100).find(|&epoch| {
            let figures = BTreeMap::from([("elbo".to_owned(), f64::from(epoch))]);
            let fit = Evaluation { loss: 1.0 + f64::from(epoch) / 1e3, figures };
            let seen = Seen { epoch, train: fit.clone(), validation: Some(fit) };
            rule.decide(&seen, 1e-3).verdict == Verdict::Stop
        });
        // The 20th epoch is the first that counts, the 20 after it are waited for.
        assert_eq!(stops, Some(41));
    }

    #[test]
    fn a_split_takes_every_cell_once_and_rounds_down() {
        let Split { train, validation, test } = split(19, 0.9, Some([3; 32]));
        assert_eq!((train.len(), validation.len(), test.len()), (17, 2, 0));
        let mut all = [train, validation].concat();
        all.sort_unstable();
        assert_eq!(all, (0..19).collect::<Vec<_>>());
        let in_order = split(19, 0.9, None);
        assert_eq!((in_order.train, in_order.validation), ((0..17).collect(), vec![17, 18]));
    }
}
