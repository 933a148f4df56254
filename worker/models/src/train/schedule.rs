//! How long to train, and how the KL weight rises.

use archipelago_common::task::Warmup;

/// The field's number of epochs: fewer for more cells, at most 400 and at least 1.
pub fn default_epochs(n_cells: usize) -> u32 {
    let epochs = (20_000.0 / n_cells.max(1) as f64 * 400.0).round_ties_even();
    epochs.clamp(1.0, 400.0) as u32
}

/// The number of epochs after a start from a pretrained model: a third of the field's, from 2 to 10.
pub fn pretrained_epochs(n_cells: usize) -> u32 {
    let epochs = (f64::from(default_epochs(n_cells)) / 3.0).round();
    epochs.clamp(2.0, 10.0) as u32
}

/// Linear warm-up of the weight of the KL term.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KlWarmup {
    /// Until when the weight rises.
    pub over: Warmup,
    /// Weight at the beginning.
    pub min: f64,
    /// Weight at the end.
    pub max: f64,
    /// Epochs after which it begins anew.
    pub period: Option<u32>,
}

impl KlWarmup {
    /// From 0 to 1.
    pub fn new(over: Warmup) -> Self {
        Self { over, min: 0.0, max: 1.0, period: None }
    }

    /// The weight in an epoch at a global step, both from 0. A warm-up that is counted in steps does not begin anew.
    pub fn weight(&self, epoch: u32, step: u64) -> f64 {
        let share = match self.over {
            Warmup::Off | Warmup::Epochs(0) | Warmup::Steps(0) => 1.0,
            Warmup::Epochs(n) => f64::from(self.period.map_or(epoch, |period| epoch % period.max(1))) / f64::from(n),
            Warmup::Steps(n) => step as f64 / n as f64,
        };
        if share < 1.0 { self.min + (self.max - self.min) * share } else { self.max }
    }
}
