//! When scArches' trainers lower the learning rate and when they stop.
//!
//! Not the rule of [`crate::train::EarlyStopping`]: the first epochs count for nothing but the best state, an improvement of exactly the
//! threshold is one, and the learning rate falls within the same count.

use crate::error::{Error, Result};

/// Options of the rule, with upstream's defaults.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StoppingOptions {
    /// Epochs without improvement before training stops, at least 1; so many less one at the beginning are only looked at.
    pub patience: u32,
    /// Smallest fall that is an improvement.
    pub threshold: f64,
    /// Epochs without improvement before the rate falls; never without a number.
    pub lr_patience: Option<u32>,
    /// What the rate is multiplied by then.
    pub lr_factor: f64,
}

impl Default for StoppingOptions {
    fn default() -> Self {
        Self { patience: 20, threshold: 0.0, lr_patience: Some(13), lr_factor: 0.1 }
    }
}

impl StoppingOptions {
    /// Checks that the values make sense.
    ///
    /// # Errors  [`Error::Value`] naming the option
    pub fn check(&self) -> Result<()> {
        let refuse = |part: &str, found: String, expected: &str| {
            Err(Error::Value { part: part.to_owned(), found, expected: expected.to_owned() })
        };
        if self.patience == 0 {
            return refuse("patience", "0".to_owned(), "at least 1");
        }
        if !self.threshold.is_finite() {
            return refuse("threshold", self.threshold.to_string(), "a finite number");
        }
        if !(self.lr_factor > 0.0 && self.lr_factor <= 1.0) {
            return refuse("lr_factor", self.lr_factor.to_string(), "a number above 0 and up to 1");
        }
        Ok(())
    }
}

/// The rule and what it has seen, of a value that falls while training helps.
#[derive(Clone, PartialEq, Debug)]
pub struct Stopping {
    options: StoppingOptions,
    n_seen: u32,
    wait: u32,
    wait_lr: u32,
    /// Of what counted.
    best: f64,
    /// Of all.
    best_state: f64,
}

/// What follows from an epoch's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The state is the best so far.
    pub is_best: bool,
    /// What to do.
    pub course: Course,
}

/// How training goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Course {
    /// As before.
    Continue,
    /// With a lower rate.
    LowerRate,
    /// Not at all.
    Stop,
}

impl Stopping {
    /// A rule that has seen nothing yet.
    pub fn new(options: StoppingOptions) -> Self {
        Self { options, n_seen: 0, wait: 0, wait_lr: 0, best: f64::INFINITY, best_state: f64::INFINITY }
    }

    /// Its options.
    pub fn options(&self) -> &StoppingOptions {
        &self.options
    }

    /// Takes the value of one epoch.
    pub fn observe(&mut self, value: f64) -> Verdict {
        let is_best = value < self.best_state;
        if is_best {
            self.best_state = value;
        }
        Verdict { is_best, course: self.course(value) }
    }

    fn course(&mut self, value: f64) -> Course {
        self.n_seen += 1;
        if self.n_seen < self.options.patience {
            return Course::Continue;
        }
        if self.wait >= self.options.patience {
            return Course::Stop;
        }
        let lowers = self.options.lr_patience.is_some_and(|patience| self.wait_lr >= patience);
        if lowers {
            self.wait_lr = 0;
        }
        let improvement = self.best - value;
        if improvement > 0.0 {
            self.best = value;
        }
        if improvement < self.options.threshold {
            (self.wait, self.wait_lr) = (self.wait + 1, self.wait_lr + 1);
        } else {
            (self.wait, self.wait_lr) = (0, 0);
        }
        if lowers { Course::LowerRate } else { Course::Continue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_named() {
        let refused = |options: StoppingOptions| options.check().unwrap_err().to_string();
        let default = StoppingOptions::default;
        assert!(refused(StoppingOptions { patience: 0, ..default() }).contains("patience"));
        assert!(refused(StoppingOptions { lr_factor: 0.0, ..default() }).contains("lr_factor"));
        assert!(refused(StoppingOptions { threshold: f64::NAN, ..default() }).contains("threshold"));
        assert!(default().check().is_ok());
    }
}
