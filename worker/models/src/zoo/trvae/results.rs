//! What a trained network says about cells: draws, decoded counts, importance weights.

use tch::{Kind, Tensor};

use super::{TrvaeModule, module::totals};
use crate::{
    data::{Covariates, Minibatch},
    distributions::{CountParameters, normal},
    model::{CountModel, LatentDraw},
    nn::{Pass, Posterior},
    results::{Block, CountBlock},
    zoo::family::Output,
};

impl CountModel for TrvaeModule {
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
        let likelihood = self.config().recon_loss.likelihood().expect(ONLY_COUNTS);
        match self.generative(&draw.z, &draw.library, covariates, pass).output {
            Output::Counts { share, rate, dropout } => {
                let r = self.dispersion(minibatch, covariates);
                let counts = CountParameters { rate, r, dropout };
                vec![Box::new(CountBlock { scale: share, counts, likelihood })]
            }
            Output::Values(_) => panic!("{ONLY_COUNTS}"),
        }
    }

    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, pass);
        let decoded = self.generative(&inference.z, &totals(&minibatch.x), &minibatch.covariates, pass);
        let theta = self.dispersion(minibatch, &minibatch.covariates);
        let reconstruction = decoded.output.loss(&minibatch.x, theta.as_ref());
        let z = &inference.z;
        let prior = normal::log_prob(z, &z.zeros_like(), &z.ones_like());
        let posterior = normal::log_prob(z, &inference.qz.mean, &inference.qz.var);
        -reconstruction + (prior - posterior).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
    }

    fn library(&self, _minibatch: &Minibatch, _pass: &mut Pass<'_>) -> Option<Posterior> {
        None
    }
}

/// What a module says before it is asked.
const ONLY_COUNTS: &str = "only a model of counts is asked for its counts";

/// The total count of each cell, `[n, 1]`.
fn library(minibatch: &Minibatch) -> Tensor {
    match &minibatch.minified {
        Some(kept) => kept.library.shallow_clone(),
        None => totals(&minibatch.x),
    }
}
