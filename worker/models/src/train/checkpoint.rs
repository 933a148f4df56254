//! Where a training run leaves off and takes up again.

use archipelago_common::{StateDict, progress::EpochReport};
use serde::{Deserialize, Serialize};

use super::Seen;
use crate::error::{Error, Result};

/// Keeps the latest checkpoint of one run: a file, usually.
pub trait CheckpointStore {
    /// The latest checkpoint, if there is one.
    ///
    /// # Errors  of the medium
    fn load(&mut self) -> Result<Option<Vec<u8>>>;

    /// Replaces the checkpoint.
    ///
    /// # Errors  of the medium
    fn save(&mut self, checkpoint: &[u8]) -> Result<()>;

    /// Epochs from one checkpoint to the next.
    fn every(&self) -> u32 {
        10
    }
}

/// Keeps nothing.
pub struct NoCheckpoints;

impl CheckpointStore for NoCheckpoints {
    fn load(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn save(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn every(&self) -> u32 {
        u32::MAX
    }
}

/// The part of a checkpoint that is not tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progressed {
    /// Identifies the run: plan, seeds, tensors, cells. A checkpoint of another run is refused.
    pub run: String,
    /// Finished epochs.
    pub epoch: u32,
    /// Finished optimiser steps.
    pub step: u64,
    /// Current learning rate.
    pub rate: f64,
    /// Steps of each optimiser slot.
    pub slot_steps: Vec<i64>,
    /// What the rule that ends training has seen, to be shown to it again.
    pub seen: Vec<Seen>,
    /// Reports of the finished epochs.
    pub history: Vec<EpochReport>,
}

/// Bytes of a checkpoint: one safetensors file.
pub(super) fn write(tensors: &StateDict, progressed: &Progressed) -> Vec<u8> {
    let text = serde_json::to_string(progressed).expect("numbers and names serialize to JSON");
    tensors.to_safetensors(Some(&text))
}

/// Reads what [`write`] wrote, for a run of this identity.
pub(super) fn read(bytes: &[u8], run: &str) -> Result<(StateDict, Progressed)> {
    let misfit = |detail: String| Error::Checkpoint { detail };
    let (tensors, text) = StateDict::from_safetensors("checkpoint", bytes).map_err(|e| misfit(e.to_string()))?;
    let text = text.ok_or_else(|| misfit("the file has no metadata `archipelago`".to_owned()))?;
    let progressed: Progressed = serde_json::from_str(&text).map_err(|e| misfit(e.to_string()))?;
    if progressed.run == run {
        Ok((tensors, progressed))
    } else {
        Err(misfit("it was made by another training run".to_owned()))
    }
}
