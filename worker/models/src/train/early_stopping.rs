//! When training no longer helps.

/// Ends training when a value no longer falls.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EarlyStopping {
    /// What is watched.
    pub monitor: Monitor,
    /// Evaluations in a row without improvement before training stops.
    pub patience: u32,
    /// Smallest change that counts as improvement.
    pub min_delta: f64,
    /// Evaluations at the beginning that neither count nor set the best value.
    pub warmup: u32,
    best: f64,
    n_worse: u32,
    n_seen: u32,
}

/// A value that falls while training helps: negative ELBOs, without warm-up weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Monitor {
    /// On the validation cells.
    Validation,
    /// On the training cells, accumulated over the epoch.
    Train,
}

/// What an evaluation says about going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Stop here.
    Stop,
}

impl EarlyStopping {
    /// A rule that has seen nothing yet.
    pub const fn new(monitor: Monitor, patience: u32, min_delta: f64, warmup: u32) -> Self {
        Self { monitor, patience, min_delta, warmup, best: f64::INFINITY, n_worse: 0, n_seen: 0 }
    }

    /// Takes the value of one evaluation.
    pub fn observe(&mut self, value: f64) -> Verdict {
        self.n_seen += 1;
        if self.n_seen <= self.warmup {
            return Verdict::Continue;
        }
        if !value.is_finite() {
            return Verdict::Stop;
        }
        if value + self.min_delta < self.best {
            (self.best, self.n_worse) = (value, 0);
            return Verdict::Continue;
        }
        self.n_worse += 1;
        if self.n_worse >= self.patience { Verdict::Stop } else { Verdict::Continue }
    }
}
