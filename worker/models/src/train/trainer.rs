//! The training loop.

use std::{cell::OnceCell, time::Instant};

use archipelago_common::{
    StateDict,
    hash::FieldHasher,
    progress::{Continue, EpochReport, Progress},
};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor, no_grad};

use super::{
    Adam, Adversary, CheckpointStore, Decay, GradientUse, Monitor, Seeds, TrainPlan, Verdict,
    ahead::RowsAhead,
    checkpoint::{self, Observed, Progressed},
    labelled::LabelledCells,
};
use crate::{
    data::{Dataset, Minibatches, Split},
    device::Engine,
    error::{Error, Result},
    fast::{Autoencoder, Purpose, Terms},
    losses::LossTerms,
    model::Module,
    nn::{Mode, Pass, SeededNoise, Weights, from_tch, to_tch},
};

/// Trains one module on one data set.
pub struct Trainer<'a> {
    module: &'a dyn Module,
    dataset: &'a Dataset<'a>,
    minibatches: Minibatches<'a>,
    plan: TrainPlan,
    split: Split,
    seeds: Seeds,
    mode: Mode,
    adam: Adam,
    /// The classifier that the module plays against, if it does.
    adversary: Option<Adversary>,
    fast: Option<Autoencoder<'a>>,
    epoch: u32,
    step: u64,
    observed: Vec<Observed>,
    history: Vec<EpochReport>,
    stopped: bool,
    /// Digest of what makes this run this run; made when the first checkpoint is met.
    identity: OnceCell<String>,
}

/// Mean terms over cells, in nats.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Evaluation {
    /// Loss with the warm-up weight.
    pub loss: f64,
    /// Negative ELBO, without the warm-up weight; lower is better.
    pub negative_elbo: f64,
    /// Negative log-likelihood.
    pub reconstruction: f64,
}

impl<'a> Trainer<'a> {
    /// A trainer that moves every tensor of the module that takes a gradient. In `Mode::Evaluation` batch statistics and dropout
    /// stay out of it: exact surgery.
    ///
    /// # Errors  [`Error::TooFewCells`] if no cell is left to train on
    pub fn new(
        module: &'a dyn Module,
        dataset: &'a Dataset<'a>,
        plan: TrainPlan,
        seeds: Seeds,
        mode: Mode,
    ) -> Result<Self> {
        let split_seed = seeds.numpy();
        let (n_cells, size, validation) = (dataset.n_cells(), plan.train_size, plan.validation_size);
        let split = match module.as_label_model() {
            None => Split::new(n_cells, size, validation, plan.minibatch, split_seed),
            Some(_) => {
                let (labelled, rest) = (0..n_cells).partition(|&cell| dataset.is_labelled(cell));
                Split::of_groups(&[labelled, rest], size, validation, split_seed)
            }
        };
        let expected = smallest_minibatch(mode);
        if split.train.len() < expected {
            let (what, found) = ("the training set".to_owned(), split.train.len());
            return Err(Error::TooFewCells { what, found, expected });
        }
        let tensors = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
        let tensors = tensors.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
        let adam = Adam::new(plan.adam, tensors.collect::<Vec<_>>());
        let n_conditions = module.weights().n_conditions();
        let guessed_from = module.guessed_from(dataset).filter(|_| mode == Mode::Training && n_conditions > 1);
        let adversary = guessed_from.map(|n_latent| {
            let (seed, device) = (seeds.of("adversary", 0), module.weights().device());
            Adversary::new(n_latent, n_conditions, plan.adam, seed, device)
        });
        let adversary = adversary.transpose()?;
        let (observed, history) = (Vec::new(), Vec::new());
        Ok(Self {
            module,
            dataset,
            minibatches: Minibatches::new(dataset, module.weights().device()),
            plan,
            split,
            seeds,
            mode,
            adam,
            adversary,
            fast: None,
            epoch: 0,
            step: 0,
            observed,
            history,
            stopped: false,
            identity: OnceCell::new(),
        })
    }

    /// The same trainer of these tensors only, by autograd.
    #[must_use]
    pub fn with_tensors(self, tensors: Vec<(String, Tensor, GradientUse)>) -> Self {
        Self { adam: Adam::new(self.plan.adam, tensors), fast: None, ..self }
    }

    /// The same trainer with this engine, or with autograd where the kernels do not know the module or its options.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        let trains = |name: &str| self.adam.slots().iter().any(|slot| slot.name == name);
        let purpose = Purpose::Train(self.mode, self.plan.minibatch);
        let decays_apart = self.plan.adam.weight_decay != 0.0 && self.plan.adam.decay == Decay::Decoupled;
        self.fast = match engine {
            Engine::Autograd => None,
            Engine::Fast if decays_apart => {
                tracing::info!(why = "weight decay is apart from the gradient", "training goes through autograd");
                None
            }
            Engine::Fast => Autoencoder::new(self.module, self.dataset, purpose, &trains)
                .inspect_err(|why| tracing::info!(%why, "training goes through autograd"))
                .ok(),
        };
        self
    }

    /// Who computes.
    pub fn engine(&self) -> Engine {
        if self.fast.is_some() { Engine::Fast } else { Engine::Autograd }
    }

    /// Mean terms over some cells in evaluation mode, by the trainer's engine.
    pub fn evaluate(&mut self, cells: &[usize], kl_weight: f64, mut noise: SeededNoise) -> Evaluation {
        match &mut self.fast {
            Some(fast) => Evaluation::of_sums(&fast.evaluate(cells, kl_weight, &mut noise), cells.len()),
            None => evaluate(self.module, &self.minibatches, cells, kl_weight, noise),
        }
    }

    /// Trains to the end of the plan or until early stopping, from the latest checkpoint if there is one.
    ///
    /// # Errors  [`Error::Cancelled`], [`Error::Diverged`], [`Error::Checkpoint`], or the store's own
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
        while self.epoch < self.plan.n_epochs && !self.stopped {
            let (train, validation) = self.run_epoch();
            let elapsed_ms = before_ms + start.elapsed().as_millis() as u64;
            let report = self.report(&train, validation.as_ref(), elapsed_ms);
            self.history.push(report);
            if !train.loss.is_finite() {
                return Err(Error::Diverged { epoch: self.epoch, loss: train.loss });
            }
            self.observe(Observed { train: train.negative_elbo, validation: validation.map(|v| v.negative_elbo) });
            let goes_on = progress.epoch(&report);
            if goes_on == Continue::No || self.epoch.is_multiple_of(checkpoints.every()) {
                checkpoints.save(&self.checkpoint())?;
            }
            if goes_on == Continue::No {
                return Err(Error::Cancelled { last: report });
            }
        }
        self.settle();
        Ok(std::mem::take(&mut self.history))
    }

    /// Gives module and optimiser what the kernels hold.
    fn settle(&mut self) {
        if let Some(fast) = &mut self.fast {
            fast.store(self.module.weights(), &mut self.adam);
        }
    }

    fn run_epoch(&mut self) -> (Evaluation, Option<Evaluation>) {
        let mut order = self.split.train.clone();
        let round = u64::from(self.epoch);
        order.shuffle(&mut ChaCha8Rng::from_seed(self.seeds.of("order", round)));
        let mut noise = SeededNoise::new(self.seeds.of("noise", round));
        let mut sums = Sums::default();
        let smallest = smallest_minibatch(self.mode);
        let is_usable = |cells: &&[usize]| cells.len() >= smallest;
        let mut labelled = self.module.as_label_model().and_then(|model| {
            let seed = self.seeds.of("labelled", round);
            LabelledCells::new(model, self.dataset, &self.split.train, smallest..=self.plan.minibatch, seed)
        });
        let kept = self.fast.as_ref().and_then(Autoencoder::kept_rows);
        let ahead = RowsAhead::start(self.dataset.counts, kept, &order, self.plan.minibatch);
        for cells in order.chunks(self.plan.minibatch).filter(is_usable) {
            ahead.step();
            let weight = self.plan.kl.weight(self.epoch, self.step);
            self.step += 1;
            if let Some(fast) = &mut self.fast {
                let labelled = labelled.as_mut().map(LabelledCells::next_cells).unwrap_or_default();
                sums.add_sums(fast.step(cells, labelled, weight, &mut noise, self.adam.options()), cells.len());
                continue;
            }
            let minibatch = self.minibatches.of(cells);
            let mut pass = Pass { mode: self.mode, noise: &mut noise };
            let mut terms = self.module.loss(&minibatch, weight, &mut pass);
            if let Some(labelled) = &mut labelled {
                terms.loss += labelled.next_loss(&self.minibatches, &mut pass);
            }
            let guessed = self.adversary.as_mut().zip(terms.latent.take());
            if let Some((adversary, latent)) = &guessed
                && weight < 1.0
            {
                let fooled = adversary.fool_loss(latent, &minibatch.covariates.condition, &mut pass);
                terms.loss += fooled * (1.0 - weight);
            }
            self.adam.minimise(&terms.loss);
            if let Some((adversary, latent)) = guessed {
                adversary.learn(&latent, &minibatch.covariates.condition, 1.0 - weight, &mut pass);
            }
            sums.add(&terms, cells.len());
        }
        drop(ahead);
        let validates = self.plan.validates_after(self.epoch) && !self.split.validation.is_empty();
        let validation = validates.then(|| {
            let weight = self.plan.kl.weight(self.epoch, self.step);
            let noise = SeededNoise::new(self.seeds.of("validation", round));
            let cells = std::mem::take(&mut self.split.validation);
            let evaluation = self.evaluate(&cells, weight, noise);
            self.split.validation = cells;
            evaluation
        });
        self.epoch += 1;
        (sums.mean(), validation)
    }

    /// Shows the schedules what an epoch brought.
    fn observe(&mut self, observed: Observed) {
        self.observed.push(observed);
        if let (Some(plateau), Some(value)) = (&mut self.plan.plateau, observed.validation) {
            let rate = plateau.observe(value, self.adam.rate());
            self.adam.set_rate(rate);
        }
        if let Some(stopping) = &mut self.plan.early_stopping {
            let value = match stopping.monitor {
                Monitor::Train => Some(observed.train),
                Monitor::Validation => observed.validation,
            };
            self.stopped |= value.is_some_and(|value| stopping.observe(value) == Verdict::Stop);
        }
    }

    fn report(&self, train: &Evaluation, validation: Option<&Evaluation>, elapsed_ms: u64) -> EpochReport {
        let (epoch, n_epochs) = (self.epoch, self.plan.n_epochs);
        EpochReport { epoch, n_epochs, loss: train.loss, validation_loss: validation.map(|v| v.loss), elapsed_ms }
    }

    /// Everything needed to go on from here.
    fn checkpoint(&mut self) -> Vec<u8> {
        self.settle();
        let mut tensors = StateDict::new();
        keep(&mut tensors, "", self.module.weights(), &self.adam);
        if let Some(adversary) = &self.adversary {
            keep(&mut tensors, ADVERSARY, adversary.weights(), adversary.adam());
        }
        let steps = |adam: &Adam| adam.slots().iter().map(|slot| slot.n_steps).collect();
        let progressed = Progressed {
            run: self.identity().to_owned(),
            epoch: self.epoch,
            step: self.step,
            rate: self.adam.rate(),
            slot_steps: steps(&self.adam),
            adversary_steps: self.adversary.as_ref().map(|adversary| steps(adversary.adam())).unwrap_or_default(),
            observed: self.observed.clone(),
            history: self.history.clone(),
        };
        checkpoint::write(&tensors, &progressed)
    }

    fn resume(&mut self, bytes: &[u8]) -> Result<()> {
        let (tensors, progressed) = checkpoint::read(bytes, self.identity())?;
        restore_weights(&tensors, "", self.module.weights())?;
        restore_adam(&tensors, "", &mut self.adam, &progressed.slot_steps)?;
        if let Some(adversary) = &mut self.adversary {
            restore_weights(&tensors, ADVERSARY, adversary.weights())?;
            restore_adam(&tensors, ADVERSARY, adversary.adam_mut(), &progressed.adversary_steps)?;
        }
        for observed in progressed.observed {
            self.observe(observed);
        }
        self.adam.set_rate(progressed.rate);
        (self.epoch, self.step, self.history) = (progressed.epoch, progressed.step, progressed.history);
        if let Some(fast) = &mut self.fast {
            fast.load(self.module.weights(), &self.adam);
        }
        Ok(())
    }

    fn identity(&self) -> &str {
        self.identity.get_or_init(|| self.new_identity())
    }

    fn new_identity(&self) -> String {
        let mut hasher = FieldHasher::new("archipelago/training-run/2");
        let mut plan = self.plan.clone();
        // The schedules' state is in the checkpoint; only their settings identify a run.
        plan.early_stopping =
            plan.early_stopping.map(|s| super::EarlyStopping::new(s.monitor, s.patience, s.min_delta, s.warmup));
        plan.plateau = plan.plateau.map(|p| super::Plateau::new(p.factor, p.patience, p.threshold, p.min_rate));
        hasher.field(format!("{plan:?} {:?} {:?} {:?}", self.seeds, self.mode, self.engine()).as_bytes());
        for (name, weight) in self.module.weights().iter() {
            hasher.field(format!("{name} {:?} {}", weight.tensor.size(), weight.tensor.requires_grad()).as_bytes());
        }
        hasher.field(self.dataset.digest().as_bytes());
        hasher.finish().to_string()
    }
}

/// Adds tensors and the optimiser's state to a checkpoint, names after `prefix`.
fn keep(tensors: &mut StateDict, prefix: &str, weights: &Weights, adam: &Adam) {
    for (name, weight) in weights.iter() {
        tensors.insert(format!("{prefix}weight/{name}"), from_tch(&weight.tensor));
    }
    for slot in adam.slots() {
        tensors.insert(format!("{prefix}mean/{}", slot.name), from_tch(&slot.mean));
        tensors.insert(format!("{prefix}square/{}", slot.name), from_tch(&slot.square));
    }
}

fn restore_weights(tensors: &StateDict, prefix: &str, weights: &Weights) -> Result<()> {
    weights.iter().try_for_each(|(name, weight)| restore(tensors, format!("{prefix}weight/{name}"), &weight.tensor))
}

fn restore_adam(tensors: &StateDict, prefix: &str, adam: &mut Adam, steps: &[i64]) -> Result<()> {
    if steps.len() != adam.slots().len() {
        return Err(Error::Checkpoint { detail: "it has another number of optimiser slots".to_owned() });
    }
    for (slot, n_steps) in adam.slots_mut().iter_mut().zip(steps) {
        restore(tensors, format!("{prefix}mean/{}", slot.name), &slot.mean)?;
        restore(tensors, format!("{prefix}square/{}", slot.name), &slot.square)?;
        slot.n_steps = *n_steps;
    }
    Ok(())
}

fn restore(tensors: &StateDict, name: String, target: &Tensor) -> Result<()> {
    let value = to_tch(&name, tensors.require("checkpoint", &name)?)?;
    if value.size() != target.size() || value.kind() != target.kind() {
        return Err(Error::Checkpoint { detail: format!("tensor `{name}` has another shape") });
    }
    no_grad(|| target.shallow_clone().copy_(&value));
    Ok(())
}

/// Batch statistics of a single cell have no variance.
fn smallest_minibatch(mode: Mode) -> usize {
    match mode {
        Mode::Training => 2,
        Mode::Evaluation => 1,
    }
}

/// Mean terms over some cells in evaluation mode, without gradients.
pub fn evaluate(
    module: &dyn Module,
    minibatches: &Minibatches<'_>,
    cells: &[usize],
    kl_weight: f64,
    mut noise: SeededNoise,
) -> Evaluation {
    let _guard = tch::no_grad_guard();
    let mut sums = Sums::default();
    for cells in cells.chunks(EVALUATION_MINIBATCH) {
        let minibatch = minibatches.of(cells);
        let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
        sums.add(&module.loss(&minibatch, kl_weight, &mut pass), cells.len());
    }
    sums.mean()
}

/// Sums over cells, on the device until they are asked for: reading a number would wait for the device.
#[derive(Default)]
struct Sums {
    total: Option<Tensor>,
    /// Those that the kernels computed.
    fast: Terms,
    n_cells: usize,
}

impl Sums {
    fn add(&mut self, terms: &LossTerms, n_cells: usize) {
        let reconstruction = terms.reconstruction.sum(Kind::Double);
        let negative_elbo = &reconstruction + terms.kl_local.sum(Kind::Double);
        let loss = terms.loss.to_kind(Kind::Double) * n_cells as f64;
        let sums = Tensor::stack(&[loss, negative_elbo, reconstruction], 0).detach();
        self.total = Some(match self.total.take() {
            Some(total) => total + sums,
            None => sums,
        });
        self.n_cells += n_cells;
    }

    fn add_sums(&mut self, terms: Terms, n_cells: usize) {
        self.fast.add(terms);
        self.n_cells += n_cells;
    }

    fn mean(&self) -> Evaluation {
        let sum = |i: i64| self.total.as_ref().map_or(0.0, |total| total.double_value(&[i]));
        let mut terms = Terms { loss: sum(0), negative_elbo: sum(1), reconstruction: sum(2) };
        terms.add(self.fast);
        Evaluation::of_sums(&terms, self.n_cells)
    }
}

impl Evaluation {
    pub(crate) fn of_sums(terms: &Terms, n_cells: usize) -> Self {
        let n = n_cells as f64;
        Self { loss: terms.loss / n, negative_elbo: terms.negative_elbo / n, reconstruction: terms.reconstruction / n }
    }
}

/// What the names of the classifier's tensors begin with.
const ADVERSARY: &str = "adversary/";
/// Cells per minibatch where nothing is trained.
pub(crate) const EVALUATION_MINIBATCH: usize = 512;
