//! The trainer's state as bytes, and back.

use archipelago_common::{StateDict, hash::FieldHasher};
use tch::{Tensor, no_grad};

use super::{
    Adam, Trainer,
    adam::Slot,
    checkpoint::{self, Progressed},
};
use crate::{
    error::{Error, Result},
    nn::{Weights, from_tch, to_tch},
};

impl Trainer<'_> {
    /// Everything needed to go on from here.
    pub(super) fn checkpoint(&mut self) -> Vec<u8> {
        self.settle();
        let mut tensors = StateDict::new();
        keep_weights(&mut tensors, self.module.weights());
        self.optimiser.slots().for_each(|slot| keep_slot(&mut tensors, slot));
        for (at, hook) in self.recipe.hooks.iter().enumerate() {
            for (name, tensor) in hook.state().iter() {
                tensors.insert(format!("{}{name}", hook_prefix(at)), tensor.clone());
            }
        }
        let progressed = Progressed {
            run: self.identity().to_owned(),
            epoch: self.epoch,
            step: self.step,
            rate: self.optimiser.rate(),
            slot_steps: self.optimiser.slots().map(|slot| slot.n_steps).collect(),
            seen: self.seen.clone(),
            history: self.history.clone(),
        };
        checkpoint::write(&tensors, &progressed)
    }

    pub(super) fn resume(&mut self, bytes: &[u8]) -> Result<()> {
        let (tensors, progressed) = checkpoint::read(bytes, self.identity())?;
        restore_weights(&tensors, self.module.weights())?;
        if progressed.slot_steps.len() != self.optimiser.slots().count() {
            return Err(Error::Checkpoint { detail: "it has another number of optimiser slots".to_owned() });
        }
        for (slot, n_steps) in self.optimiser.slots_mut().zip(&progressed.slot_steps) {
            restore_slot(&tensors, slot, *n_steps)?;
        }
        for (at, hook) in self.recipe.hooks.iter_mut().enumerate() {
            let prefix = hook_prefix(at);
            let own = tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.to_owned(), t.clone())));
            hook.restore(&own.collect())?;
        }
        progressed.seen.into_iter().for_each(|seen| self.decide(seen));
        self.optimiser.set_rate(progressed.rate);
        (self.epoch, self.step, self.history) = (progressed.epoch, progressed.step, progressed.history);
        if let Some(fast) = &mut self.fast {
            fast.load(self.module.weights(), self.optimiser.slots());
        }
        Ok(())
    }

    fn identity(&self) -> &str {
        self.identity.get_or_init(|| self.new_identity())
    }

    fn new_identity(&self) -> String {
        let mut hasher = FieldHasher::new("archipelago/training-run/3");
        hasher.field(format!("{:?} {:?} {:?} {:?}", self.plan, self.seeds, self.mode, self.engine()).as_bytes());
        for (name, weight) in self.module.weights().iter() {
            hasher.field(format!("{name} {:?} {}", weight.tensor.size(), weight.tensor.requires_grad()).as_bytes());
        }
        hasher.field(self.dataset.digest().as_bytes());
        hasher.finish().to_string()
    }
}

/// The tensors of an optimiser that a hook owns, with its state.
pub fn state_of(weights: &Weights, adam: &Adam) -> StateDict {
    let mut tensors = StateDict::new();
    keep_weights(&mut tensors, weights);
    adam.slots().iter().for_each(|slot| keep_slot(&mut tensors, slot));
    let steps: Vec<i64> = adam.slots().iter().map(|slot| slot.n_steps).collect();
    tensors.insert(STEPS.to_owned(), archipelago_common::Tensor::from_i64(&[steps.len()], &steps));
    tensors
}

/// Gives back what [`state_of`] took.
///
/// # Errors  [`Error::Checkpoint`], tensors that are missing
pub fn restore_state(state: &StateDict, weights: &Weights, adam: &mut Adam) -> Result<()> {
    restore_weights(state, weights)?;
    let steps = to_tch(STEPS, state.require(WHAT, STEPS)?)?;
    let steps = Vec::<i64>::try_from(&steps).map_err(|source| Error::Torch { action: "read a tensor", source })?;
    if steps.len() != adam.slots().len() {
        return Err(Error::Checkpoint { detail: "it has another number of optimiser slots".to_owned() });
    }
    adam.slots_mut().iter_mut().zip(steps).try_for_each(|(slot, n_steps)| restore_slot(state, slot, n_steps))
}

fn keep_weights(tensors: &mut StateDict, weights: &Weights) {
    for (name, weight) in weights.iter() {
        tensors.insert(format!("weight/{name}"), from_tch(&weight.tensor));
    }
}

fn keep_slot(tensors: &mut StateDict, slot: &Slot) {
    tensors.insert(format!("mean/{}", slot.name), from_tch(&slot.mean));
    tensors.insert(format!("square/{}", slot.name), from_tch(&slot.square));
}

fn restore_weights(tensors: &StateDict, weights: &Weights) -> Result<()> {
    weights.iter().try_for_each(|(name, weight)| restore(tensors, format!("weight/{name}"), &weight.tensor))
}

fn restore_slot(tensors: &StateDict, slot: &mut Slot, n_steps: i64) -> Result<()> {
    restore(tensors, format!("mean/{}", slot.name), &slot.mean)?;
    restore(tensors, format!("square/{}", slot.name), &slot.square)?;
    slot.n_steps = n_steps;
    Ok(())
}

fn restore(tensors: &StateDict, name: String, target: &Tensor) -> Result<()> {
    let value = to_tch(&name, tensors.require(WHAT, &name)?)?;
    if value.size() != target.size() || value.kind() != target.kind() {
        return Err(Error::Checkpoint { detail: format!("tensor `{name}` has another shape") });
    }
    no_grad(|| target.shallow_clone().copy_(&value));
    Ok(())
}

/// What the names of a hook's tensors begin with.
fn hook_prefix(at: usize) -> String {
    format!("hook/{at}/")
}

const WHAT: &str = "checkpoint";
/// The optimiser's steps in a hook's state.
const STEPS: &str = "steps";
