//! Lowers the learning rate where progress stalls.

/// After more than `patience` evaluations without improvement the rate is multiplied by `factor`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plateau {
    /// What the rate is multiplied by.
    pub factor: f64,
    /// Evaluations without improvement that are tolerated.
    pub patience: u32,
    /// Absolute change that counts as improvement.
    pub threshold: f64,
    /// The rate never falls below this.
    pub min_rate: f64,
    best: f64,
    n_bad: u32,
}

impl Plateau {
    /// A rule that has seen nothing yet.
    pub const fn new(factor: f64, patience: u32, threshold: f64, min_rate: f64) -> Self {
        Self { factor, patience, threshold, min_rate, best: f64::INFINITY, n_bad: 0 }
    }

    /// Takes the value of one evaluation and gives the rate to go on with.
    pub fn observe(&mut self, value: f64, rate: f64) -> f64 {
        if value < self.best - self.threshold {
            (self.best, self.n_bad) = (value, 0);
        } else {
            self.n_bad += 1;
        }
        if self.n_bad <= self.patience {
            return rate;
        }
        self.n_bad = 0;
        let lowered = (rate * self.factor).max(self.min_rate);
        if rate - lowered > SMALLEST_CHANGE { lowered } else { rate }
    }
}

/// Smaller changes are not made, as in torch.
const SMALLEST_CHANGE: f64 = 1e-8;
