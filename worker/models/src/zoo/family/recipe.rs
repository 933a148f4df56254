//! How scArches' native models are trained: cells split and drawn per condition, a rule of their own to stop, the best state kept.

use std::collections::BTreeMap;

use archipelago_common::{StateDict, Tensor as Stored};
use tch::no_grad;

use super::stopping::{Course, Stopping, StoppingOptions};
use crate::{
    data::{Dataset, Split, TrainSize},
    error::Result,
    losses::mmd,
    nn::{Weights, from_tch, to_tch},
    train::{
        Balanced, Decision, Epoch, Hook, Kept, Monitor, Recipe, Rule, Run, Sampler, Sampling, Seen, Shuffled,
        TrainPlan, Verdict,
    },
};

/// The recipe of a run of a module with these tensors.
///
/// # Errors  options of the plan that the rule does not take
pub fn of_run<'a>(weights: &'a Weights, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    of_run_watching(weights, run, unweighted_loss)
}

/// The recipe of a run in which another loss is watched.
///
/// # Errors  options of the plan that the rule does not take
pub fn of_run_watching<'a>(weights: &'a Weights, run: Run<'a, '_>, watched: Watched) -> Result<Recipe<'a>> {
    let plan = run.plan;
    let mut recipe = Recipe {
        split: Some(split_by_condition(run.dataset, plan.train_size)),
        sampler: sampler(run, true),
        rule: Some(Box::new(StoppingRule::new(plan, watched)?)),
        ..Recipe::default()
    };
    // Without the rule there is no best state upstream either.
    if plan.early_stopping.is_some() && plan.kept == Kept::Best {
        recipe.hooks.push(Box::new(KeepBest::new(weights, watched)));
    }
    Ok(recipe)
}

/// Draws cells of balanced conditions or every cell once: what a run is told, or what is usual.
pub fn sampler(run: Run<'_, '_>, usually_balances: bool) -> Box<dyn Sampler> {
    let Sampling { balances, n_draws } = run.plan.sampling;
    match balances.unwrap_or(usually_balances) {
        true => Box::new(Balanced { groups: run.dataset.conditions.clone(), n_draws }),
        false => Box::new(Shuffled),
    }
}

/// Splits each condition by itself: the first cells in the order of the data set train, the others validate. Nothing is shuffled, as
/// upstream.
pub fn split_by_condition(dataset: &Dataset<'_>, size: TrainSize) -> Split {
    let mut by_condition: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (cell, &code) in dataset.conditions.iter().enumerate() {
        by_condition.entry(code).or_default().push(cell);
    }
    let mut split = Split { train: vec![], validation: vec![], test: vec![] };
    for mut cells in by_condition.into_values() {
        let n_train = (size.share() * cells.len() as f64).ceil() as usize;
        split.validation.extend(cells.split_off(n_train.min(cells.len())));
        split.train.extend(cells);
    }
    split
}

/// What of an epoch is watched: less of it is better.
pub type Watched = fn(&Seen) -> Option<f64>;

/// Loss of an epoch with its divergence at full weight, whatever the warm-up's. Of the training cells where none validate.
pub fn unweighted_loss(seen: &Seen) -> Option<f64> {
    let monitor = monitor(seen);
    let elbo = seen.figure(monitor, "elbo")?;
    Some(seen.figure(monitor, mmd::FIGURE).unwrap_or(0.0) - elbo)
}

/// Loss of an epoch as it is minimised. Of the training cells where none validate.
pub fn loss(seen: &Seen) -> Option<f64> {
    seen.figure(monitor(seen), "loss")
}

/// Whose loss is watched: the validation cells' where there are any.
pub fn monitor(seen: &Seen) -> Monitor {
    if seen.validation.is_some() { Monitor::Validation } else { Monitor::Train }
}

/// Upstream's rule on the watched loss; none stops and none slows down a run whose plan stops at no point.
pub struct StoppingRule {
    stopping: Option<Stopping>,
    watched: Watched,
}

impl StoppingRule {
    /// The rule of a plan: its patience and threshold, and of its plateau the patience and the factor.
    ///
    /// # Errors  those of [`StoppingOptions::check`]
    pub fn new(plan: &TrainPlan, watched: Watched) -> Result<Self> {
        let Some(stop) = plan.early_stopping else { return Ok(Self { stopping: None, watched }) };
        let (lr_patience, lr_factor) = plan.plateau.map_or((None, 1.0), |p| (Some(p.patience), p.factor));
        let options = StoppingOptions { patience: stop.patience, threshold: stop.min_delta, lr_patience, lr_factor };
        options.check()?;
        Ok(Self { stopping: Some(Stopping::new(options)), watched })
    }
}

impl Rule for StoppingRule {
    fn validates(&self) -> bool {
        self.stopping.is_some()
    }

    fn decide(&mut self, seen: &Seen, rate: f64) -> Decision {
        let course =
            self.stopping.as_mut().zip((self.watched)(seen)).map(|(stopping, value)| stopping.observe(value).course);
        let factor = self.stopping.as_ref().map_or(1.0, |stopping| stopping.options().lr_factor);
        match course {
            Some(Course::Stop) => Decision { verdict: Verdict::Stop, rate },
            Some(Course::LowerRate) => Decision { verdict: Verdict::Continue, rate: rate * factor },
            Some(Course::Continue) | None => Decision { verdict: Verdict::Continue, rate },
        }
    }
}

/// Keeps the tensors of the best epoch and puts them back at the end. Upstream means to, and puts back the last ones.
pub struct KeepBest<'a> {
    weights: &'a Weights,
    watched: Watched,
    best: f64,
    tensors: StateDict,
}

impl<'a> KeepBest<'a> {
    /// Of a module with these tensors.
    pub fn new(weights: &'a Weights, watched: Watched) -> Self {
        Self { weights, watched, best: f64::INFINITY, tensors: StateDict::new() }
    }
}

impl Hook for KeepBest<'_> {
    fn is_in_kernels(&self) -> bool {
        true
    }

    fn looks_at_tensors(&self) -> bool {
        true
    }

    fn after_epoch(&mut self, _: Epoch<'_>, seen: &mut Seen) -> Result<()> {
        if let Some(value) = (self.watched)(seen).filter(|value| *value < self.best) {
            self.best = value;
            self.tensors = self.weights.iter().map(|(name, w)| (name.to_owned(), from_tch(&w.tensor))).collect();
        }
        Ok(())
    }

    fn after_training(&mut self) {
        for (name, tensor) in self.tensors.iter() {
            let best = to_tch(name, tensor).expect("it was made of a tensor");
            no_grad(|| self.weights.require(name).0.shallow_clone().copy_(&best));
        }
    }

    fn state(&self) -> StateDict {
        let best = Stored::from_i64(&[], &[self.best.to_bits() as i64]);
        self.tensors.iter().map(|(n, t)| (format!("{TENSOR}{n}"), t.clone())).chain([(BEST.to_owned(), best)]).collect()
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        let bits = to_tch(BEST, state.require("the hook's state", BEST)?)?.int64_value(&[]);
        self.best = f64::from_bits(bits as u64);
        let own = state.iter().filter_map(|(name, t)| Some((name.strip_prefix(TENSOR)?.to_owned(), t.clone())));
        self.tensors = own.collect();
        Ok(())
    }
}

/// Names in a checkpoint.
const BEST: &str = "best";
const TENSOR: &str = "tensor/";

#[cfg(test)]
mod tests {
    use archipelago_anndata::Csr;

    use super::*;

    #[test]
    fn each_condition_trains_on_its_first_cells() {
        let counts = Csr::zeros(13, 1);
        let conditions: Vec<i64> = vec![1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let dataset = Dataset::new(&counts, conditions);
        let split = split_by_condition(&dataset, TrainSize::Default);
        // Of three cells all train: upstream rounds up.
        assert_eq!(split.train, [3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2]);
        assert_eq!((split.validation, split.test), (vec![12], vec![]));
    }
}
