//! What a trained network draws and decodes, for what is asked of cells.

use tch::Tensor;

use super::ScpoliModule;
use crate::{
    data::{Covariates, Minibatch},
    model::LatentDraw,
    nn::{Pass, Posterior},
    zoo::family::{Native, Output, ReconLoss},
};

impl Native for ScpoliModule {
    fn recon_loss(&self) -> ReconLoss {
        self.config().recon_loss
    }

    fn draw_latent(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> (Posterior, Tensor) {
        let inference = self.inference(minibatch, pass);
        (inference.qz, inference.z)
    }

    fn decode_as(
        &self,
        draw: &LatentDraw,
        minibatch: &Minibatch,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> (Output, Option<Tensor>) {
        (
            self.generative(&draw.z, &draw.library, &self.embeddings().look_up(covariates), pass).output,
            self.dispersion(minibatch, covariates),
        )
    }
}
