//! How long-running work tells what it is doing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One finished epoch of training.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct EpochReport {
    /// Epochs finished so far, from 1.
    pub epoch: u32,
    /// Epochs planned; early stopping may end sooner.
    pub n_epochs: u32,
    /// Mean training loss per cell over the epoch, in nats.
    pub loss: f64,
    /// Mean validation loss per cell where validation ran.
    pub validation_loss: Option<f64>,
    /// Time since training began.
    pub elapsed_ms: u64,
    /// The model's figures of the training cells, while they were trained on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// The model's figures of the validation cells, where validation ran.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation_figures: BTreeMap<String, f64>,
}

impl EpochReport {
    /// Time that the remaining epochs will take at the pace so far.
    pub fn remaining_ms(&self) -> u64 {
        let left = u64::from(self.n_epochs.saturating_sub(self.epoch));
        self.elapsed_ms / u64::from(self.epoch.max(1)) * left
    }
}

/// Whether work should go on; the answer to every report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continue {
    /// Go on.
    Yes,
    /// Stop at this point; the work returns what it has as cancelled.
    No,
}

/// Someone who wants to know how training goes: a progress bar, a lease renewal, a test.
pub trait Progress {
    /// Called after each epoch, from the training thread.
    fn epoch(&mut self, report: &EpochReport) -> Continue;
}

/// Nobody wants to know.
pub struct Silent;

impl Progress for Silent {
    fn epoch(&mut self, _: &EpochReport) -> Continue {
        Continue::Yes
    }
}

impl<F: FnMut(&EpochReport) -> Continue> Progress for F {
    fn epoch(&mut self, report: &EpochReport) -> Continue {
        self(report)
    }
}
