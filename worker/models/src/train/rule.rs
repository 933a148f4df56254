//! What is decided after an epoch: whether training goes on, and how fast.

use serde::{Deserialize, Serialize};

use super::{EarlyStopping, Evaluation, Monitor, Plateau, TrainPlan, Verdict};

/// What an epoch has brought.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Finished epochs.
    pub epoch: u32,
    /// Over the training cells, while they were trained on.
    pub train: Evaluation,
    /// Over the validation cells, where they were looked at.
    pub validation: Option<Evaluation>,
}

impl Seen {
    /// A figure of the cells that are watched.
    pub fn figure(&self, monitor: Monitor, name: &str) -> Option<f64> {
        match monitor {
            Monitor::Train => self.train.figure(name),
            Monitor::Validation => self.validation.as_ref()?.figure(name),
        }
    }
}

/// What a rule decides.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decision {
    /// Whether there is another epoch.
    pub verdict: Verdict,
    /// The learning rate to go on with.
    pub rate: f64,
}

/// Decides after each epoch. Its decisions follow from what it has seen and nothing else: a run that is taken up shows it all
/// of that again.
pub trait Rule {
    /// Whether it looks at the validation cells, so that they are evaluated after every epoch.
    fn validates(&self) -> bool;

    /// Takes what an epoch has brought; `rate` is the learning rate so far.
    fn decide(&mut self, seen: &Seen, rate: f64) -> Decision;
}

/// The plan's own rules: a plateau lowers the rate, early stopping ends the run. Both look at what a model calls its figure of
/// progress.
#[derive(Debug)]
pub struct PlanRules {
    stopping: Option<EarlyStopping>,
    plateau: Option<Plateau>,
    watched: Watched,
}

/// A figure of a model and whether more of it is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// Its name.
    pub figure: &'static str,
    /// 1 where less is better, -1 where more is.
    pub sign: i8,
}

impl Watched {
    /// The ELBO, of which more is better.
    pub const ELBO: Self = Self { figure: "elbo", sign: -1 };
    /// The loss as it is minimised, of which less is better.
    pub const LOSS: Self = Self { figure: "loss", sign: 1 };
}

impl PlanRules {
    /// The rules of a plan.
    pub fn new(plan: &TrainPlan) -> Self {
        Self { stopping: plan.early_stopping, plateau: plan.plateau, watched: plan.watched }
    }

    fn value(&self, seen: &Seen, monitor: Monitor) -> Option<f64> {
        Some(seen.figure(monitor, self.watched.figure)? * f64::from(self.watched.sign))
    }
}

impl Rule for PlanRules {
    fn validates(&self) -> bool {
        self.stopping.is_some() || self.plateau.is_some()
    }

    fn decide(&mut self, seen: &Seen, mut rate: f64) -> Decision {
        let value = self.value(seen, Monitor::Validation);
        if let (Some(plateau), Some(value)) = (&mut self.plateau, value) {
            rate = plateau.observe(value, rate);
        }
        let watched = self.stopping.and_then(|stopping| self.value(seen, stopping.monitor));
        let verdict = match (&mut self.stopping, watched) {
            (Some(stopping), Some(value)) => stopping.observe(value),
            _ => Verdict::Continue,
        };
        Decision { verdict, rate }
    }
}
