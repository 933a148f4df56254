//! How scGen is trained: cells shuffled once, then always in the same order.

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

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
pub(super) fn of_run<'a>(weights: &'a Weights, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    let share = run.plan.train_size.share();
    let mut recipe = Recipe {
        split: Some(split(run.dataset.n_cells(), share, run.seeds.of("split", 0))),
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

/// The first of the shuffled cells train, the others validate; both are shuffled once more.
fn split(n_cells: usize, share: f64, seed: [u8; 32]) -> Split {
    let mut rng = ChaCha8Rng::from_seed(seed);
    let mut train: Vec<usize> = (0..n_cells).collect();
    train.shuffle(&mut rng);
    let mut validation = train.split_off(((share * n_cells as f64) as usize).min(n_cells));
    train.shuffle(&mut rng);
    validation.shuffle(&mut rng);
    Split { train, validation, test: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_takes_every_cell_once_and_rounds_down() {
        let Split { train, validation, test } = split(19, 0.9, [3; 32]);
        assert_eq!((train.len(), validation.len(), test.len()), (17, 2, 0));
        let mut all = [train, validation].concat();
        all.sort_unstable();
        assert_eq!(all, (0..19).collect::<Vec<_>>());
    }
}
