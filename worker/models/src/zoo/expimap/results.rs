//! What a trained network draws and decodes, for what is asked of cells.

use tch::Tensor;

use super::{ExpimapModule, Inference};
use crate::{
    data::{Covariates, Minibatch},
    model::LatentDraw,
    nn::{Pass, Posterior},
    zoo::family::{Native, Output, ReconLoss},
};

impl Native for ExpimapModule {
    fn recon_loss(&self) -> ReconLoss {
        self.config().recon_loss
    }

    fn draw_latent(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> (Posterior, Tensor) {
        let Inference { qz, z } = self.decoding(self.inference(minibatch, pass), &minibatch.covariates);
        (qz, z)
    }

    fn draw_total(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        self.totals(minibatch, pass)
    }

    fn learnt_total(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Posterior> {
        self.learnt_totals(minibatch, pass)
    }

    fn decode_as(
        &self,
        draw: &LatentDraw,
        minibatch: &Minibatch,
        covariates: &Covariates,
        _pass: &mut Pass<'_>,
    ) -> (Output, Option<Tensor>) {
        (self.generative(&draw.z, &draw.library, covariates).output, self.dispersion(minibatch, covariates))
    }
}
