//! What a trained network says about cells: draws, decoded counts, importance weights.

use tch::Tensor;

use super::ExpimapModule;
use crate::{
    data::{Covariates, Minibatch},
    model::{CountModel, LatentDraw},
    nn::{Pass, Posterior},
    results::{Block, BlockCard},
    zoo::family::log_importance_weight,
};

impl CountModel for ExpimapModule {
    fn blocks(&self) -> Vec<BlockCard> {
        vec![self.config().recon_loss.block()]
    }

    fn draw(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> LatentDraw {
        let z = self.inference(minibatch, pass).z;
        LatentDraw { z, library: self.totals(minibatch, pass) }
    }

    fn latent_state(&self, z: Tensor) -> Tensor {
        z
    }

    fn decode(
        &self,
        draw: &LatentDraw,
        minibatch: &Minibatch,
        covariates: &Covariates,
        _pass: &mut Pass<'_>,
    ) -> Vec<Box<dyn Block>> {
        let output = self.generative(&draw.z, &draw.library, covariates).output;
        vec![output.into_block(self.dispersion(minibatch, covariates))]
    }

    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, pass);
        let totals = self.totals(minibatch, pass);
        let decoded = self.generative(&inference.z, &totals, &minibatch.covariates);
        let theta = self.dispersion(minibatch, &minibatch.covariates);
        log_importance_weight(&decoded.output.loss(&minibatch.x, theta.as_ref()), &inference.z, &inference.qz)
    }

    fn library(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Posterior> {
        self.learnt_totals(minibatch, pass)
    }
}
