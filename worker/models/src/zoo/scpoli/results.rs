//! What a trained network says about cells: draws, decoded counts, importance weights.

use tch::Tensor;

use super::ScpoliModule;
use crate::{
    data::{Covariates, Minibatch},
    model::{CountModel, LatentDraw},
    nn::{Pass, Posterior},
    results::{Block, BlockCard},
    zoo::family::{library, log_importance_weight, totals},
};

impl CountModel for ScpoliModule {
    fn blocks(&self) -> Vec<BlockCard> {
        vec![self.config().recon_loss.block()]
    }

    fn draw(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> LatentDraw {
        LatentDraw { z: self.inference(minibatch, pass).z, library: library(minibatch) }
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
        let theta = self.dispersion(minibatch, covariates);
        let decoded = self.generative(&draw.z, &draw.library, &self.embeddings().look_up(covariates), pass);
        vec![decoded.output.into_block(theta)]
    }

    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, pass);
        let decoded = self.generative(&inference.z, &totals(&minibatch.x), &inference.embedded, pass);
        let theta = self.dispersion(minibatch, &minibatch.covariates);
        let reconstruction = decoded.output.loss(&minibatch.x, theta.as_ref());
        log_importance_weight(&reconstruction, &inference.z, &inference.qz)
    }

    fn library(&self, _minibatch: &Minibatch, _pass: &mut Pass<'_>) -> Option<Posterior> {
        None
    }
}
