//! What the trained networks of scArches' own models say about cells, all alike: draws, decoded cells, importance weights.

use tch::Tensor;

use super::{Output, ReconLoss, cells};
use crate::{
    data::{Covariates, Minibatch},
    model::{CountModel, Embedder, LatentDraw},
    nn::{Pass, Posterior},
    results::{Block, BlockCard},
};

/// A module that decodes a draw of a normal latent state, and a total count, to cells.
pub(in crate::zoo) trait Native: Embedder {
    /// How far what it decodes is from the cells.
    fn recon_loss(&self) -> ReconLoss;

    /// Posteriors of the cells' latent states, and one draw from each, `[n, n_latent]`.
    fn draw_latent(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> (Posterior, Tensor);

    /// What stands for the total count of each cell, `[n, 1]`: the count itself, or a draw where an encoder learns it.
    fn draw_total(&self, minibatch: &Minibatch, _pass: &mut Pass<'_>) -> Tensor {
        cells::library(minibatch)
    }

    /// The posterior of the logarithm of the total count, where an encoder learns it.
    fn learnt_total(&self, _minibatch: &Minibatch, _pass: &mut Pass<'_>) -> Option<Posterior> {
        None
    }

    /// Decodes draws as if the cells were of these conditions, and says how widely counts are spread, where the loss asks for that.
    fn decode_as(
        &self,
        draw: &LatentDraw,
        minibatch: &Minibatch,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> (Output, Option<Tensor>);
}

impl<M: Native> CountModel for M {
    fn blocks(&self) -> Vec<BlockCard> {
        vec![self.recon_loss().block()]
    }

    fn draw(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> LatentDraw {
        let z = self.draw_latent(minibatch, pass).1;
        LatentDraw { z, library: self.draw_total(minibatch, pass) }
    }

    fn latent_state(&self, z: Tensor) -> Tensor {
        z
    }

    fn decode(
        &self,
        draw: &LatentDraw,
        minibatch: &Minibatch,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> Vec<Box<dyn Block>> {
        let (output, theta) = self.decode_as(draw, minibatch, covariates, pass);
        vec![output.into_block(theta)]
    }

    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let (qz, z) = self.draw_latent(minibatch, pass);
        let draw = LatentDraw { z, library: self.draw_total(minibatch, pass) };
        let (output, theta) = self.decode_as(&draw, minibatch, &minibatch.covariates, pass);
        cells::log_importance_weight(&output.loss(&minibatch.x, theta.as_ref()), &draw.z, &qz)
    }

    fn library(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Posterior> {
        self.learnt_total(minibatch, pass)
    }
}
