//! The training loop.

use std::{cell::OnceCell, time::Instant};

use archipelago_common::progress::{Continue, EpochReport, Progress};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{
    CheckpointStore, Epoch, Evaluation, GradientUse, Optimiser, Order, PlanRules, Recipe, Rule, Run, Seeds, Seen, Step,
    TrainPlan, Verdict,
    ahead::RowsAhead,
    evaluation::{Sums, evaluate, evaluate_minibatches},
    pull::Pull,
};
use crate::{
    aggregate::Aggregate,
    data::{Dataset, Minibatches, Split},
    device::Engine,
    error::{Error, Result},
    fast::{Autoencoder, MOST_GROUPS, Purpose},
    model::Module,
    nn::{Mode, Pass, SeededNoise},
};

/// Trains one module on one data set.
pub struct Trainer<'a> {
    pub(super) module: &'a dyn Module,
    pub(super) dataset: &'a Dataset<'a>,
    minibatches: Minibatches<'a>,
    pub(super) plan: TrainPlan,
    pub(super) recipe: Recipe<'a>,
    rule: Box<dyn Rule + 'a>,
    split: Split,
    smallest: usize,
    pub(super) seeds: Seeds,
    pub(super) mode: Mode,
    pub(super) optimiser: Optimiser,
    pub(super) fast: Option<Autoencoder<'a>>,
    pub(super) epoch: u32,
    pub(super) step: u64,
    /// What the rule has seen, to be shown to it again.
    pub(super) seen: Vec<Seen>,
    pub(super) history: Vec<EpochReport>,
    stopped: bool,
    /// Digest of what makes this run this run; made when the first checkpoint is met.
    pub(super) identity: OnceCell<String>,
}

impl<'a> Trainer<'a> {
    /// A trainer that moves every tensor of the module that takes a gradient. In `Mode::Evaluation` batch statistics and dropout
    /// stay out of it: exact surgery.
    ///
    /// # Errors  [`Error::TooFewCells`] if no cell is left to train on, and those of the module's recipe
    pub fn new(
        module: &'a dyn Module,
        dataset: &'a Dataset<'a>,
        plan: TrainPlan,
        seeds: Seeds,
        mode: Mode,
    ) -> Result<Self> {
        let run = Run { dataset, plan: &plan, seeds: &seeds, mode };
        let mut recipe = module.recipe(run)?;
        recipe.clip = recipe.clip.or(plan.clip);
        let smallest = recipe.smallest_minibatch.unwrap_or(run.smallest_minibatch());
        if plan.minibatch < smallest {
            return Err(Error::Common(archipelago_common::Error::InvalidValue {
                what: "minibatch size",
                found: plan.minibatch.to_string(),
                expected: "at least 2: a single cell has no statistics of a minibatch",
            }));
        }
        let split = recipe.split.take().unwrap_or_else(|| {
            let (n_cells, size, validation) = (dataset.n_cells(), plan.train_size, plan.validation_size);
            Split::new(n_cells, size, validation, plan.minibatch, seeds.numpy())
        });
        if split.train.len() < smallest {
            let (what, found) = ("the training set".to_owned(), split.train.len());
            return Err(Error::TooFewCells { what, found, expected: smallest });
        }
        let tensors = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
        let tensors = tensors.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
        let optimiser = Optimiser::new(plan.adam, &recipe.groups, recipe.clip, tensors);
        let rule = recipe.rule.take().unwrap_or_else(|| Box::new(PlanRules::new(&plan)));
        Ok(Self {
            module,
            dataset,
            minibatches: Minibatches::new(dataset, module.weights().device()),
            plan,
            recipe,
            rule,
            split,
            smallest,
            seeds,
            mode,
            optimiser,
            fast: None,
            epoch: 0,
            step: 0,
            seen: Vec::new(),
            history: Vec::new(),
            stopped: false,
            identity: OnceCell::new(),
        })
    }

    /// The same trainer of these tensors only, by autograd.
    #[must_use]
    pub fn with_tensors(self, tensors: Vec<(String, Tensor, GradientUse)>) -> Self {
        let optimiser = Optimiser::new(self.plan.adam, &self.recipe.groups, self.recipe.clip, tensors);
        Self { optimiser, fast: None, ..self }
    }

    /// The same trainer with this engine, or with autograd where the kernels do not know the module, its options or what it
    /// does beside its steps.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        let trains = |name: &str| self.optimiser.slots().any(|slot| slot.name == name);
        let purpose = Purpose::Train(self.mode, self.plan.minibatch);
        let fast = match engine {
            Engine::Autograd => None,
            Engine::Fast => match self.foreign_to_kernels() {
                Some(why) => Err(why.to_owned()),
                None => Autoencoder::new(self.module, self.dataset, purpose, &trains).map_err(|why| why.to_string()),
            }
            .inspect_err(|why| tracing::info!(why, "training goes through autograd"))
            .ok(),
        };
        self.fast = fast;
        if let Some(fast) = &mut self.fast {
            fast.assign(|name| self.optimiser.group_of(name));
        }
        self
    }

    /// The same trainer, which draws the latent states of the cells to this mixture as strongly as the plan says.
    ///
    /// # Panics  if the module embeds no cells: only models that do have one
    #[must_use]
    pub fn drawing_to(mut self, aggregate: Aggregate) -> Self {
        let (embedder, weight) = (self.module.as_embedder().expect("its cells have places"), self.plan.reference_pull);
        if let Some(fast) = &mut self.fast {
            fast.draw_to(&aggregate, weight);
        }
        self.recipe.hooks.push(Box::new(Pull { embedder, aggregate, weight }));
        self
    }

    /// What of plan and recipe the kernels cannot do.
    fn foreign_to_kernels(&self) -> Option<&'static str> {
        if self.optimiser.adams().is_none_or(|adams| adams.len() > MOST_GROUPS) {
            return Some("tensors move in other ways than by Adam");
        }
        let is_foreign = self.recipe.hooks.iter().any(|hook| !hook.is_in_kernels());
        is_foreign.then_some("the model does something beside its steps")
    }

    /// Who computes.
    pub fn engine(&self) -> Engine {
        if self.fast.is_some() { Engine::Fast } else { Engine::Autograd }
    }

    /// Mean figures of some cells in evaluation mode, by the trainer's engine.
    pub fn evaluate(&mut self, cells: &[usize], kl_weight: f64, mut noise: SeededNoise) -> Evaluation {
        match &mut self.fast {
            Some(fast) => Evaluation::of_sums(&fast.evaluate(cells, kl_weight, &mut noise), cells.len()),
            None => evaluate(self.module, &self.minibatches, cells, kl_weight, noise),
        }
    }

    /// Trains to the end of the plan or until the rule ends it, from the latest checkpoint if there is one.
    ///
    /// # Errors  [`Error::Cancelled`], [`Error::Diverged`], [`Error::Checkpoint`], those of hooks, or the store's own
    pub fn run(
        &mut self,
        progress: &mut dyn Progress,
        checkpoints: &mut dyn CheckpointStore,
    ) -> Result<Vec<EpochReport>> {
        if let Some(bytes) = checkpoints.load()? {
            self.resume(&bytes)?;
        }
        let start = Instant::now();
        let before_ms = self.history.last().map_or(0, |report| report.elapsed_ms);
        while self.epoch < self.plan.n_epochs && !self.stopped && !self.has_taken_all_steps() {
            let seen = self.run_epoch()?;
            let elapsed_ms = before_ms + start.elapsed().as_millis() as u64;
            let report = self.report(&seen, elapsed_ms);
            self.history.push(report.clone());
            if !seen.train.loss.is_finite() {
                return Err(Error::Diverged { epoch: self.epoch, loss: seen.train.loss });
            }
            self.decide(seen);
            let goes_on = progress.epoch(&report);
            if goes_on == Continue::No || self.epoch.is_multiple_of(checkpoints.every()) {
                checkpoints.save(&self.checkpoint())?;
            }
            if goes_on == Continue::No {
                return Err(Error::Cancelled { last: report });
            }
        }
        self.settle();
        self.recipe.hooks.iter_mut().for_each(|hook| hook.after_training());
        if let Some(fast) = self.fast.as_mut().filter(|_| !self.recipe.hooks.is_empty()) {
            fast.load(self.module.weights(), self.optimiser.slots());
        }
        Ok(std::mem::take(&mut self.history))
    }

    /// Gives module and optimiser what the kernels hold.
    pub(super) fn settle(&mut self) {
        if let Some(fast) = &mut self.fast {
            fast.store(self.module.weights(), self.optimiser.slots_mut());
        }
    }

    fn run_epoch(&mut self) -> Result<Seen> {
        let round = u64::from(self.epoch);
        let epoch = Epoch {
            number: self.epoch,
            n_steps: self.step,
            minibatches: &self.minibatches,
            split: &self.split,
            seeds: &self.seeds,
        };
        self.recipe.hooks.iter_mut().try_for_each(|hook| hook.before_epoch(epoch))?;
        if let Some(fast) = self.fast.as_mut().filter(|_| !self.recipe.hooks.is_empty()) {
            fast.renew(self.module);
        }
        let train = self.take_steps(round);
        let validation = self.validate(round);
        let mut seen = Seen { epoch: self.epoch + 1, train, validation };
        if self.recipe.hooks.iter().any(|hook| hook.looks_at_tensors()) {
            self.settle();
        }
        let epoch = Epoch {
            number: self.epoch,
            n_steps: self.step,
            minibatches: &self.minibatches,
            split: &self.split,
            seeds: &self.seeds,
        };
        self.recipe.hooks.iter_mut().try_for_each(|hook| hook.after_epoch(epoch, &mut seen))?;
        self.epoch += 1;
        Ok(seen)
    }

    /// Whether the plan has no step left.
    fn has_taken_all_steps(&self) -> bool {
        self.plan.max_steps.is_some_and(|most| self.step >= most)
    }

    fn take_steps(&mut self, round: u64) -> Evaluation {
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of("order", round));
        let order = self.recipe.sampler.training(&self.split.train, self.plan.minibatch, &mut rng);
        let mut noise = SeededNoise::new(self.seeds.of("noise", round));
        let mut sums = Sums::new(self.recipe.means);
        let smallest = self.smallest;
        let kept = self.fast.as_ref().and_then(Autoencoder::kept_rows);
        let ahead = RowsAhead::start(self.dataset.counts, kept, &order);
        for cells in order.minibatches().filter(|cells| cells.len() >= smallest) {
            if self.has_taken_all_steps() {
                break;
            }
            ahead.step();
            let scheduled = self.recipe.rate.map(|rate| rate(self.epoch, self.step));
            if let Some(rate) = scheduled.or(self.plan.cyclic_rate(self.epoch)) {
                self.optimiser.set_rate(rate);
            }
            let weight = self.plan.kl.weight(self.epoch, self.step);
            match &mut self.fast {
                Some(fast) => {
                    let further = self.recipe.hooks.iter_mut().flat_map(|hook| hook.before_step(cells)).copied();
                    let further: Vec<usize> = further.collect();
                    let adams = self.optimiser.adams().expect("the kernels were given groups of Adam only");
                    sums.add_sums(fast.step(cells, &further, weight, &mut noise, &adams), cells.len());
                    let (epoch, rate) = (self.epoch, self.optimiser.rate());
                    for shrinking in self.recipe.hooks.iter().flat_map(|hook| hook.shrinks(epoch, rate)) {
                        fast.shrink(&shrinking);
                    }
                }
                None => self.take_step(cells, weight, &mut noise, &mut sums),
            }
            self.step += 1;
        }
        sums.mean()
    }

    /// One step by autograd.
    fn take_step(&mut self, cells: &[usize], kl_weight: f64, noise: &mut SeededNoise, sums: &mut Sums) {
        let minibatch = self.minibatches.of(cells);
        let step = Step {
            epoch: self.epoch,
            number: self.step,
            cells,
            minibatch: &minibatch,
            minibatches: &self.minibatches,
            kl_weight,
            rate: self.optimiser.rate(),
        };
        let mut pass = Pass { mode: self.mode, noise };
        let hooks = &mut self.recipe.hooks;
        for hook in hooks.iter_mut() {
            hook.before_step(cells);
        }
        let mut terms = self.module.loss(&minibatch, kl_weight, &mut pass);
        hooks.iter_mut().for_each(|hook| hook.add_to_loss(step, &mut terms, &mut pass));
        self.optimiser.minimise(&terms.loss);
        hooks.iter_mut().for_each(|hook| hook.after_step(step, &mut pass));
        sums.add(&terms, cells.len());
    }

    fn validate(&mut self, round: u64) -> Option<Evaluation> {
        let is_due = self.rule.validates() || self.plan.validates_after(self.epoch);
        if !is_due || self.split.validation.is_empty() {
            return None;
        }
        let weight = self.plan.kl.weight(self.epoch, self.step);
        let mut noise = SeededNoise::new(self.seeds.of("validation", round));
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of("validation order", round));
        let order: Order = self.recipe.sampler.validation(&self.split.validation, self.plan.minibatch, &mut rng);
        Some(match &mut self.fast {
            Some(fast) => {
                let mut sums = Sums::new(self.recipe.means);
                for cells in order.minibatches() {
                    sums.add_sums(fast.evaluate_minibatches(std::iter::once(cells), weight, &mut noise), cells.len());
                }
                sums.mean()
            }
            None => {
                let how = (weight, self.recipe.means);
                evaluate_minibatches(self.module, &self.minibatches, order.minibatches(), how, noise)
            }
        })
    }

    /// Shows the rule what an epoch brought.
    pub(super) fn decide(&mut self, seen: Seen) {
        let decision = self.rule.decide(&seen, self.optimiser.rate());
        self.seen.push(seen);
        if decision.rate != self.optimiser.rate() {
            self.optimiser.set_rate(decision.rate);
        }
        self.stopped |= decision.verdict == Verdict::Stop;
    }

    fn report(&self, seen: &Seen, elapsed_ms: u64) -> EpochReport {
        let validation = seen.validation.as_ref();
        EpochReport {
            epoch: seen.epoch,
            n_epochs: self.plan.n_epochs,
            loss: seen.train.loss,
            validation_loss: validation.map(|validation| validation.loss),
            elapsed_ms,
            figures: seen.train.figures.clone(),
            validation_figures: validation.map(|validation| validation.figures.clone()).unwrap_or_default(),
        }
    }
}
