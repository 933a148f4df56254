//! What a trained network says about cells: draws, decoded counts, importance weights.

use tch::{Kind, Tensor};

use super::{ScviModule, module::Inference};
use crate::{
    data::{Covariates, Minibatch},
    distributions::normal,
    model::{CountModel, LatentDraw},
    nn::{Pass, Posterior},
    results::{Block, CountBlock},
};

impl CountModel for ScviModule {
    fn draw(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> LatentDraw {
        let inference = self.inference(minibatch, None, pass);
        LatentDraw { z: inference.z, library: inference.library }
    }

    fn latent_state(&self, z: Tensor) -> Tensor {
        self.transform(z)
    }

    fn decode(
        &self,
        draw: &LatentDraw,
        minibatch: &Minibatch,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> Vec<Box<dyn Block>> {
        let out = self.generative(&draw.z, &draw.library, minibatch, covariates, pass);
        let likelihood = self.config().gene_likelihood;
        vec![Box::new(CountBlock { scale: out.px_scale, counts: out.px, likelihood })]
    }

    /// For a logistic normal the densities are taken at the transformed state, as upstream does.
    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, None, pass);
        let covariates = &minibatch.covariates;
        let out = self.generative(&inference.z, &inference.library, minibatch, covariates, pass);
        let reconstruction = out.px.reconstruction(self.config().gene_likelihood, &minibatch.x);
        let z = &inference.z;
        let prior = normal::log_prob(z, &z.zeros_like(), &z.ones_like());
        let posterior = normal::log_prob(z, &inference.qz.mean, &inference.qz.var);
        -reconstruction + row_sums(&(prior - posterior)) + self.library_log_ratio(minibatch, &inference)
    }

    fn library(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Posterior> {
        self.inference(minibatch, None, pass).ql
    }
}

impl ScviModule {
    /// `log p(l) - log q(l | x)` per cell, 0 with an observed library size.
    fn library_log_ratio(&self, minibatch: &Minibatch, inference: &Inference) -> Tensor {
        match (self.library_prior(&minibatch.covariates), &inference.ql) {
            (Some(prior), Some(ql)) => {
                let library = &inference.library;
                let log_prior = normal::log_prob(library, &prior.mean, &prior.var);
                row_sums(&(log_prior - normal::log_prob(library, &ql.mean, &ql.var)))
            }
            _ => Tensor::zeros([], (Kind::Float, minibatch.x.device())),
        }
    }
}

fn row_sums(values: &Tensor) -> Tensor {
    values.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
}
