//! Everything that determines a training run beside data and module.

use archipelago_common::task::{Stopping, TrainSpec, Warmup};

use super::{
    AdamOptions, Decay, EarlyStopping, KlWarmup, Monitor, Plateau, TrainDefaults, WarmupDefault, Watched,
    pretrained_epochs,
};
use crate::{
    data::TrainSize,
    error::{Error, Result},
    model::Model,
};

/// What a training is for. Each has rules of its own, which come before a model's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// A reference, or upstream's surgery: everything that a model's authors do.
    Reference,
    /// A reference that starts from a pretrained one: few epochs.
    FromPretrained,
    /// The columns of a new condition and nothing else: no weight decay.
    ExactSurgery,
}

/// How a module is trained.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainPlan {
    /// What it is for.
    pub aim: Aim,
    /// Passes over the training cells.
    pub n_epochs: u32,
    /// Steps after which training ends, wherever it is in an epoch.
    pub max_steps: Option<u64>,
    /// Cells per minibatch; the last one may be smaller.
    pub minibatch: usize,
    /// The optimiser's options.
    pub adam: AdamOptions,
    /// The weight of the KL term.
    pub kl: KlWarmup,
    /// Share of training cells.
    pub train_size: TrainSize,
    /// Share of validation cells; `None` is all that are not trained on.
    pub validation_size: Option<f64>,
    /// When to stop early.
    pub early_stopping: Option<EarlyStopping>,
    /// When to lower the learning rate.
    pub plateau: Option<Plateau>,
    /// How many epochs the learning rate falls along a cosine before it starts anew; it stays where unset.
    pub rate_period: Option<u32>,
    /// What stopping and plateau look at.
    pub watched: Watched,
    /// Epochs between validations that nothing else asks for.
    pub validate_every: Option<u32>,
    /// Gradients are cut to this size, element by element.
    pub clip: Option<f64>,
    /// Which state training ends with, of a model that looks for the best.
    pub kept: Kept,
    /// How cells are drawn, of a model that can balance conditions.
    pub sampling: Sampling,
    /// How strongly latent states are drawn to where the reference's cells lie; exact surgery only.
    pub reference_pull: f64,
}

/// The state that training ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kept {
    /// That of the epoch with the best watched value.
    #[default]
    Best,
    /// The last one.
    Last,
}

/// How a model that can balance conditions draws cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sampling {
    /// Whether conditions are balanced, if not as usual for the model; else every cell is taken once, in new order.
    pub balances: Option<bool>,
    /// Draws of an epoch that balances, if not as many as there are cells to train on.
    pub n_draws: Option<usize>,
}

/// Whether the learning rate falls in a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Slowing {
    /// It stays.
    Never,
    /// It falls where what is watched stands still.
    On(Plateau),
}

/// What a reference's training can be told beyond a [`TrainSpec`]. Tasks carry none of it, so surgery has none of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FurtherOptions {
    /// Share of the cells to validate on; `None` is all that are not trained on.
    pub validation_size: Option<f64>,
    /// Weight of the KL term at the beginning of its warm-up, 0 if unset.
    pub min_kl_weight: Option<f64>,
    /// Weight of the KL term after its warm-up, 1 if unset.
    pub max_kl_weight: Option<f64>,
    /// How often the warm-up of the KL term begins in a run, at even distances; once if unset.
    pub kl_cycles: Option<u32>,
    /// How often the learning rate falls along a cosine and starts anew, at even distances (Loshchilov, Hutter 2017); no plateau lowers
    /// it then. It stays if unset.
    pub rate_cycles: Option<u32>,
    /// How weight decay acts.
    pub decay: Option<Decay>,
    /// What early stopping watches, the validation cells if unset.
    pub monitor: Option<Monitor>,
    /// Smallest change that counts for early stopping.
    pub stopping_min_delta: Option<f64>,
    /// Epochs at the beginning that early stopping does not look at.
    pub stopping_warmup: u32,
    /// Whether the learning rate falls, and when.
    pub slowing: Option<Slowing>,
    /// Epochs between validations that nothing else asks for.
    pub validate_every: Option<u32>,
    /// Gradients are cut to this size, element by element.
    pub clip: Option<f64>,
    /// Which state training ends with.
    pub kept: Kept,
    /// How cells are drawn.
    pub sampling: Sampling,
}

impl FurtherOptions {
    fn check(&self) -> Result<()> {
        let refuse = |what, found: String, expected| {
            Err(Error::Common(archipelago_common::Error::InvalidValue { what, found, expected }))
        };
        if let Some(share) = self.validation_size.filter(|share| !(0.0..1.0).contains(share)) {
            return refuse("validation size", share.to_string(), "a share of at least 0 and below 1");
        }
        let cycles = [("cycles of the KL weight", self.kl_cycles), ("cycles of the learning rate", self.rate_cycles)];
        if let Some((what, _)) = cycles.into_iter().find(|(_, n)| *n == Some(0)) {
            return refuse(what, "0".to_owned(), "at least 1");
        }
        let weights = [("smallest KL weight", self.min_kl_weight), ("largest KL weight", self.max_kl_weight)];
        for (what, weight) in weights {
            if let Some(weight) = weight.filter(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                return refuse(what, weight.to_string(), "0 or a number above it");
            }
        }
        if let Some(bound) = self.clip.filter(|bound| !(bound.is_finite() && *bound > 0.0)) {
            return refuse("bound of gradients", bound.to_string(), "a number above 0");
        }
        if self.sampling.n_draws == Some(0) {
            return refuse("draws of an epoch", "0".to_owned(), "at least 1");
        }
        let Some(Slowing::On(Plateau { factor, min_rate, threshold, .. })) = self.slowing else { return Ok(()) };
        if !(factor > 0.0 && factor < 1.0) {
            return refuse("plateau factor", factor.to_string(), "a number between 0 and 1");
        }
        if !(min_rate.is_finite() && min_rate >= 0.0 && threshold.is_finite()) {
            return refuse("smallest learning rate", min_rate.to_string(), "0 or a number above it");
        }
        Ok(())
    }
}

impl TrainPlan {
    /// The plan of a training on so many cells: the defaults on the model's card, the rules of its aim, and what was asked. The
    /// one place where these three meet, for references, surgery, tasks and all that tells how long they take.
    ///
    /// # Errors  those of [`TrainSpec::check`]
    pub fn new(model: &dyn Model, aim: Aim, spec: &TrainSpec, n_cells: usize) -> Result<Self> {
        spec.check()?;
        let usual = model.card().training;
        let weight_decay = if aim == Aim::ExactSurgery { 0.0 } else { usual.adam.weight_decay };
        let usual_epochs = match aim {
            Aim::FromPretrained => pretrained_epochs(n_cells),
            Aim::Reference | Aim::ExactSurgery => usual.epochs.for_cells(n_cells),
        };
        let minibatch = spec.minibatch.map_or(usual.minibatch, |n| n as usize);
        let train_size = match spec.train_size {
            None => usual.train_size,
            Some(share) if share == TrainSize::DEFAULT_SHARE => TrainSize::Default,
            Some(share) => TrainSize::Share(share),
        };
        let n_train = (train_size.share() * n_cells as f64).ceil();
        let epochs_of = |steps: u64| epochs_of(steps, (n_train / minibatch as f64).ceil());
        let n_epochs = spec.epochs.or(spec.max_steps.map(epochs_of)).unwrap_or(usual_epochs);
        Ok(Self {
            aim,
            n_epochs,
            max_steps: spec.max_steps,
            minibatch,
            adam: AdamOptions {
                rate: spec.learning_rate.unwrap_or(usual.adam.rate),
                eps: spec.adam_eps.unwrap_or(usual.adam.eps),
                weight_decay: spec.weight_decay.unwrap_or(weight_decay),
                decay: usual.adam.decay,
            },
            kl: KlWarmup {
                over: spec.kl_warmup.unwrap_or_else(|| warmup(&usual, n_epochs, n_cells)),
                min: 0.0,
                max: spec.max_kl_weight.unwrap_or(usual.max_kl_weight),
                period: None,
            },
            train_size,
            validation_size: None,
            early_stopping: match spec.early_stopping {
                None => usual.early_stopping,
                Some(Stopping::Never) => None,
                Some(Stopping::After(rule)) => {
                    Some(EarlyStopping::new(Monitor::Validation, rule.patience, rule.min_delta, 0))
                }
            },
            plateau: usual.plateau,
            rate_period: None,
            watched: usual.watched,
            validate_every: None,
            clip: None,
            kept: Kept::default(),
            sampling: Sampling::default(),
            reference_pull: match aim {
                Aim::ExactSurgery => spec.reference_pull.unwrap_or(usual.reference_pull),
                Aim::Reference | Aim::FromPretrained => 0.0,
            },
        })
    }

    /// This plan with what a spec cannot say.
    ///
    /// # Errors  [`Error::Common`] naming the option
    pub fn with(mut self, further: &FurtherOptions) -> Result<Self> {
        further.check()?;
        self.validation_size = further.validation_size.or(self.validation_size);
        self.kl.min = further.min_kl_weight.unwrap_or(self.kl.min);
        self.kl.max = further.max_kl_weight.unwrap_or(self.kl.max);
        if let Some(cycles) = further.kl_cycles.filter(|cycles| *cycles > 1) {
            let Warmup::Epochs(n) = self.kl.over else {
                let (found, expected) = (format!("{:?}", self.kl.over), "a warm-up of the KL weight over epochs");
                return Err(Error::Common(archipelago_common::Error::InvalidValue {
                    what: "warm-up of cycles",
                    found,
                    expected,
                }));
            };
            let period = self.n_epochs.div_ceil(cycles).max(1);
            // Each cycle is a warm-up of its own: one that is longer than its cycle would never end.
            (self.kl.period, self.kl.over) = (Some(period), Warmup::over_epochs(n.min(period)));
        }
        self.adam.decay = further.decay.unwrap_or(self.adam.decay);
        self.early_stopping = self.early_stopping.map(|stop| {
            let monitor = further.monitor.unwrap_or(stop.monitor);
            let min_delta = further.stopping_min_delta.unwrap_or(stop.min_delta);
            EarlyStopping::new(monitor, stop.patience, min_delta, further.stopping_warmup)
        });
        let plateau = match further.slowing {
            None => self.plateau,
            Some(Slowing::Never) => None,
            Some(Slowing::On(plateau)) => Some(plateau),
        };
        self.plateau = plateau.filter(|_| further.rate_cycles.is_none());
        self.rate_period = further.rate_cycles.map(|cycles| self.n_epochs.div_ceil(cycles).max(1));
        self.validate_every = further.validate_every.or(self.validate_every);
        self.clip = further.clip.or(self.clip);
        (self.kept, self.sampling) = (further.kept, further.sampling);
        Ok(self)
    }

    /// The learning rate of an epoch, counted from 0, where it goes in cycles.
    pub fn cyclic_rate(&self, epoch: u32) -> Option<f64> {
        let period = self.rate_period?;
        let share = f64::from(epoch % period) / f64::from(period);
        Some(self.adam.rate * (1.0 + (std::f64::consts::PI * share).cos()) / 2.0)
    }

    /// Whether validation is asked for after an epoch, counted from 0, whatever the rule that ends training wants.
    pub fn validates_after(&self, epoch: u32) -> bool {
        self.validate_every.is_some_and(|every| (epoch + 1).is_multiple_of(every.max(1)))
    }
}

/// Epochs in which so many steps are taken, some of them in the last one.
fn epochs_of(n_steps: u64, steps_per_epoch: f64) -> u32 {
    (n_steps as f64 / steps_per_epoch.max(1.0)).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
}

fn warmup(usual: &TrainDefaults, n_epochs: u32, n_cells: usize) -> Warmup {
    match usual.kl_warmup {
        WarmupDefault::Off => Warmup::Off,
        WarmupDefault::Epochs(n) => Warmup::over_epochs(n),
        WarmupDefault::AtMostEpochs(n) => Warmup::over_epochs(n.min(n_epochs)),
        WarmupDefault::ShareOfEpochs(share) => Warmup::over_epochs(((share * f64::from(n_epochs)) as u32).max(1)),
        WarmupDefault::StepsPerCell(n) => Warmup::over_steps((n * n_cells as f64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use archipelago_common::task;

    use super::*;
    use crate::zoo::{self, ZOO};

    const N_CELLS: usize = 1_000;

    fn of(model: &str, aim: Aim, spec: &TrainSpec) -> TrainPlan {
        TrainPlan::new(zoo::model(model).unwrap(), aim, spec, N_CELLS).unwrap()
    }

    fn further(spec: &TrainSpec, further: &FurtherOptions) -> Result<TrainPlan> {
        TrainPlan::new(zoo::model("scvi")?, Aim::Reference, spec, N_CELLS)?.with(further)
    }

    #[test]
    fn nothing_asked_is_what_the_card_says() {
        for model in ZOO {
            let plan = TrainPlan::new(*model, Aim::Reference, &TrainSpec::default(), N_CELLS).unwrap();
            let usual = model.card().training;
            assert_eq!((plan.minibatch, plan.adam, plan.plateau), (usual.minibatch, usual.adam, usual.plateau));
            assert_eq!((plan.n_epochs, plan.early_stopping), (usual.epochs.for_cells(N_CELLS), usual.early_stopping));
        }
        let plan = of("totalvi", Aim::Reference, &TrainSpec::default());
        assert_eq!((plan.minibatch, plan.adam.rate, plan.kl.over), (256, 4e-3, Warmup::Steps(750)));
    }

    #[test]
    fn what_was_asked_comes_before_the_card_in_every_model() {
        let rule = task::EarlyStopping { patience: 3, min_delta: 0.5 };
        let asked = TrainSpec {
            epochs: Some(7),
            minibatch: Some(9),
            learning_rate: Some(0.5),
            adam_eps: Some(0.25),
            weight_decay: Some(0.125),
            kl_warmup: Some(Warmup::Epochs(5)),
            train_size: Some(0.75),
            early_stopping: Some(Stopping::After(rule)),
            ..TrainSpec::default()
        };
        for model in ZOO {
            let plan = TrainPlan::new(*model, Aim::Reference, &asked, N_CELLS).unwrap();
            assert_eq!((plan.n_epochs, plan.minibatch, plan.train_size), (7, 9, TrainSize::Share(0.75)));
            assert_eq!((plan.adam.rate, plan.adam.eps, plan.adam.weight_decay), (0.5, 0.25, 0.125));
            assert_eq!(plan.kl.over, Warmup::Epochs(5));
            assert_eq!(plan.early_stopping, Some(EarlyStopping::new(Monitor::Validation, 3, 0.5, 0)));
            let never = TrainSpec { early_stopping: Some(Stopping::Never), ..TrainSpec::default() };
            assert_eq!(TrainPlan::new(*model, Aim::Reference, &never, N_CELLS).unwrap().early_stopping, None);
        }
    }

    #[test]
    fn a_warmup_that_is_off_is_the_full_weight_from_the_start_in_every_model() {
        let off = TrainSpec { kl_warmup: Some(Warmup::over_epochs(0)), ..TrainSpec::default() };
        for model in ZOO {
            let plan = TrainPlan::new(*model, Aim::Reference, &off, N_CELLS).unwrap();
            assert_eq!(plan.kl.weight(0, 0), plan.kl.max, "{}", model.card().name);
        }
    }

    #[test]
    fn the_weight_of_the_divergence_rises_once_or_in_cycles() {
        let spec = TrainSpec { epochs: Some(8), kl_warmup: Some(Warmup::over_epochs(2)), ..TrainSpec::default() };
        let weights = |cycles: Option<u32>| -> Vec<f64> {
            let plan = further(&spec, &FurtherOptions { kl_cycles: cycles, ..FurtherOptions::default() }).unwrap();
            (0..8).map(|epoch| plan.kl.weight(epoch, 0)).collect()
        };
        assert_eq!(weights(None), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(weights(Some(2)), [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]);
        // A warm-up ends with its cycle.
        assert_eq!(weights(Some(8)), [0.0; 8]);
        let none = further(&spec, &FurtherOptions { kl_cycles: Some(0), ..FurtherOptions::default() });
        assert!(none.is_err());
        let steps = TrainSpec { kl_warmup: Some(Warmup::over_steps(5)), ..spec.clone() };
        let by_steps = further(&steps, &FurtherOptions { kl_cycles: Some(2), ..FurtherOptions::default() });
        assert!(by_steps.unwrap_err().to_string().contains("over epochs"));
    }

    #[test]
    fn the_learning_rate_stays_or_falls_in_cycles() {
        let spec = TrainSpec { epochs: Some(8), learning_rate: Some(1.0), ..TrainSpec::default() };
        let plan = |cycles: Option<u32>| {
            let slowing = Some(Slowing::On(Plateau::new(0.5, 1, 0.0, 0.0)));
            further(&spec, &FurtherOptions { rate_cycles: cycles, slowing, ..FurtherOptions::default() })
        };
        let twice = plan(Some(2)).unwrap();
        let rates: Vec<f64> = (0..8).filter_map(|epoch| twice.cyclic_rate(epoch)).collect();
        let half = (2.0_f64).sqrt() / 4.0;
        let expected = [1.0, 0.5 + half, 0.5, 0.5 - half].repeat(2);
        assert!(rates.iter().zip(&expected).all(|(rate, expected)| (rate - expected).abs() < 1e-12), "{rates:?}");
        assert_eq!((rates.len(), twice.plateau), (8, None), "nothing else moves it");
        let still = plan(None).unwrap();
        assert_eq!(still.cyclic_rate(3), None);
        assert!(still.plateau.is_some());
        assert!(plan(Some(0)).unwrap_err().to_string().contains("cycles of the learning rate"));
    }

    #[test]
    fn steps_say_how_many_epochs_there_are_where_these_are_not_asked_for() {
        let plan = |spec: TrainSpec| of("scvi", Aim::ExactSurgery, &spec);
        let steps = |max_steps: u64| TrainSpec { max_steps: Some(max_steps), ..TrainSpec::default() };
        // 900 cells train, 8 minibatches of 128.
        assert_eq!((plan(steps(100)).n_epochs, plan(steps(100)).max_steps), (13, Some(100)));
        assert_eq!(plan(steps(3)).n_epochs, 1);
        assert_eq!(plan(TrainSpec { epochs: Some(2), ..steps(100) }).n_epochs, 2);
        let lighter = TrainSpec { max_kl_weight: Some(0.5), kl_warmup: Some(Warmup::Off), ..TrainSpec::default() };
        assert_eq!(plan(lighter).kl.weight(0, 0), 0.5);
    }

    #[test]
    fn each_aim_has_its_rules() {
        let nothing = TrainSpec::default();
        assert_eq!(of("scvi", Aim::Reference, &nothing).adam.weight_decay, 1e-6);
        assert_eq!(of("scvi", Aim::ExactSurgery, &nothing).adam.weight_decay, 0.0);
        assert_eq!(of("scanvi", Aim::FromPretrained, &nothing).n_epochs, 10);
        let asked = TrainSpec { epochs: Some(50), ..nothing };
        assert_eq!(of("scanvi", Aim::FromPretrained, &asked).n_epochs, 50);
    }

    #[test]
    fn nothing_further_changes_nothing() {
        let spec = TrainSpec::default();
        assert_eq!(further(&spec, &FurtherOptions::default()).unwrap(), of("scvi", Aim::Reference, &spec));
    }

    #[test]
    fn early_stopping_watches_what_it_is_told_to() {
        let rule = task::EarlyStopping { patience: 3, min_delta: 0.5 };
        let spec = TrainSpec { early_stopping: Some(Stopping::After(rule)), ..TrainSpec::default() };
        let told = FurtherOptions { monitor: Some(Monitor::Train), stopping_warmup: 2, ..FurtherOptions::default() };
        let plan = further(&spec, &told).unwrap();
        assert_eq!(plan.early_stopping, Some(EarlyStopping::new(Monitor::Train, 3, 0.5, 2)));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let refused = |told| further(&TrainSpec::default(), &told).unwrap_err().to_string();
        let none = FurtherOptions::default;
        assert!(refused(FurtherOptions { validation_size: Some(1.0), ..none() }).contains("validation size"));
        assert!(refused(FurtherOptions { max_kl_weight: Some(-1.0), ..none() }).contains("largest KL weight"));
        let slowing = Some(Slowing::On(Plateau::new(1.0, 3, 0.0, 0.0)));
        assert!(refused(FurtherOptions { slowing, ..none() }).contains("plateau factor"));
    }
}
