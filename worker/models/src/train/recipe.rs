//! How a module wants to be trained, beside its plan.

use super::{Aim, GroupSpec, Hook, Rule, Sampler, Seeds, Shuffled, TrainPlan};
use crate::{
    data::{Dataset, Split},
    nn::Mode,
};

/// How a module wants to be trained. By default: some cells drawn to validate on, every training cell once an epoch in new
/// order, one Adam for all tensors, the plan's rules, and nothing beside.
pub struct Recipe<'a> {
    /// Which cells train and which validate, if not drawn as scvi-tools draws them.
    pub split: Option<Split>,
    /// In which order cells come.
    pub sampler: Box<dyn Sampler + 'a>,
    /// Tensors that move in another way than the plan's Adam moves the rest.
    pub groups: Vec<GroupSpec>,
    /// Gradients are cut to this size, element by element.
    pub clip: Option<f64>,
    /// The learning rate of a step, by its epoch and its number in the run, both from 0, where it follows a schedule.
    pub rate: Option<fn(u32, u64) -> f64>,
    /// What figures of an epoch are means over.
    pub means: Means,
    /// Smaller minibatches are left out; by default those without a variance where one is taken.
    pub smallest_minibatch: Option<usize>,
    /// What decides when to stop and how fast to go, if not the plan's rules.
    pub rule: Option<Box<dyn Rule + 'a>>,
    /// What is done beside the steps, in this order.
    pub hooks: Vec<Box<dyn Hook + 'a>>,
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self {
            split: None,
            sampler: Box::new(Shuffled),
            groups: Vec::new(),
            clip: None,
            rate: None,
            means: Means::OverCells,
            smallest_minibatch: None,
            rule: None,
            hooks: Vec::new(),
        }
    }
}

/// What figures of an epoch are means over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    /// Cells.
    OverCells,
    /// Minibatches, however many cells they have.
    OverMinibatches,
}

/// The run that a recipe is for.
#[derive(Clone, Copy)]
pub struct Run<'a, 'r> {
    /// The cells.
    pub dataset: &'a Dataset<'a>,
    /// How to train.
    pub plan: &'r TrainPlan,
    /// Seeds of the run.
    pub seeds: &'r Seeds,
    /// In which mode steps run.
    pub mode: Mode,
}

impl Run<'_, '_> {
    /// Whether a condition's columns are trained and nothing else: what depends on other cells than its own has no place there.
    pub fn is_exact(&self) -> bool {
        self.plan.aim == Aim::ExactSurgery
    }

    /// The smallest minibatch of any use: batch statistics of a single cell have no variance.
    pub fn smallest_minibatch(&self) -> usize {
        match self.mode {
            Mode::Training => 2,
            Mode::Evaluation => 1,
        }
    }
}
