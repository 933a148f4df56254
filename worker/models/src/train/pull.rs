//! What draws the latent states of a query to where cells of the reference lie, through autograd.

use tch::Kind;

use super::{Hook, Step};
use crate::{aggregate::Aggregate, losses::LossTerms, model::Embedder, nn::Pass};

/// Adds to the loss how far the cells' posteriors lie from the mixture that the base keeps.
pub(super) struct Pull<'a> {
    pub(super) embedder: &'a dyn Embedder,
    pub(super) aggregate: Aggregate,
    pub(super) weight: f64,
}

impl Hook for Pull<'_> {
    fn is_in_kernels(&self) -> bool {
        true
    }

    fn add_to_loss(&mut self, step: Step<'_>, terms: &mut LossTerms, pass: &mut Pass<'_>) {
        let posterior = self.embedder.posterior(step.minibatch, pass);
        terms.loss = &terms.loss + self.aggregate.divergence(&posterior).mean(Kind::Float) * self.weight;
    }
}
