//! What a model does beside the steps of its training.

use archipelago_common::StateDict;

use super::{Seeds, Seen};
use crate::{
    data::{Minibatch, Minibatches, Split},
    error::Result,
    fast::Shrinking,
    losses::LossTerms,
    nn::Pass,
};

/// An epoch, as a hook sees it.
#[derive(Clone, Copy)]
pub struct Epoch<'e> {
    /// Its number, from 0.
    pub number: u32,
    /// Steps before it.
    pub n_steps: u64,
    /// Where minibatches come from.
    pub minibatches: &'e Minibatches<'e>,
    /// Which cells are trained on.
    pub split: &'e Split,
    /// Seeds of the run.
    pub seeds: &'e Seeds,
}

/// A step, as a hook sees it.
#[derive(Clone, Copy)]
pub struct Step<'e> {
    /// The epoch it is in, from 0.
    pub epoch: u32,
    /// Its number in the run, from 0.
    pub number: u64,
    /// The positions of its cells.
    pub cells: &'e [usize],
    /// Its cells.
    pub minibatch: &'e Minibatch,
    /// Where other minibatches come from.
    pub minibatches: &'e Minibatches<'e>,
    /// The weight of the KL term.
    pub kl_weight: f64,
    /// The learning rate.
    pub rate: f64,
}

/// What a model does beside the steps of its training. A hook may hold the module whose tensors it changes; what it keeps from
/// one epoch to the next is its state, and goes into checkpoints.
///
/// In a step the order is: [`Self::before_step`], the loss, [`Self::add_to_loss`], the optimiser, [`Self::after_step`].
pub trait Hook {
    /// Whether the kernels compute what it adds to the loss, given the cells that it draws.
    fn is_in_kernels(&self) -> bool {
        false
    }

    /// Whether it looks at the module's tensors between epochs, which the kernels have until they are asked.
    fn looks_at_tensors(&self) -> bool {
        false
    }

    /// An epoch begins.
    ///
    /// # Errors  what makes training impossible
    fn before_epoch(&mut self, _epoch: Epoch<'_>) -> Result<()> {
        Ok(())
    }

    /// A step begins. Gives the positions of further cells that it is about, if there are any.
    fn before_step(&mut self, _cells: &[usize]) -> &[usize] {
        &[]
    }

    /// The loss is there, its gradients are not.
    fn add_to_loss(&mut self, _step: Step<'_>, _terms: &mut LossTerms, _pass: &mut Pass<'_>) {}

    /// The optimiser has moved.
    fn after_step(&mut self, _step: Step<'_>, _pass: &mut Pass<'_>) {}

    /// What shrinks tensors that the kernels hold, once they have moved in an epoch at a learning rate; elsewhere [`Self::after_step`]
    /// does it.
    fn shrinks(&self, _epoch: u32, _rate: f64) -> Vec<Shrinking<'_>> {
        Vec::new()
    }

    /// An epoch is over, and nothing has been decided yet; figures can be added.
    ///
    /// # Errors  what makes training impossible
    fn after_epoch(&mut self, _epoch: Epoch<'_>, _seen: &mut Seen) -> Result<()> {
        Ok(())
    }

    /// The last epoch is over, whether planned or not; the module's tensors may be changed.
    fn after_training(&mut self) {}

    /// What it keeps from one epoch to the next.
    fn state(&self) -> StateDict {
        StateDict::new()
    }

    /// Takes back what [`Self::state`] gave.
    ///
    /// # Errors  tensors that are missing or have another shape
    fn restore(&mut self, _state: &StateDict) -> Result<()> {
        Ok(())
    }
}
