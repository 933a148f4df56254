//! What a trained network says about cells: draws, decoded counts, importance weights.

use tch::{Kind, Tensor};

use super::{
    block::{self, ProteinBlock},
    module::{Generative, TotalviModule, row_sums},
};
use crate::{
    data::{Covariates, Minibatch},
    distributions::normal,
    model::{CountModel, LatentDraw},
    nn::{Pass, Posterior},
    results::{Block, BlockCard, CountBlock},
};

impl CountModel for TotalviModule {
    fn blocks(&self) -> Vec<BlockCard> {
        vec![BlockCard::RNA, block::card(self.proteins)]
    }

    fn draw(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> LatentDraw {
        let inference = self.inference(minibatch, pass);
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
        let rna = CountBlock { scale: out.px_scale, counts: out.px, likelihood };
        vec![Box::new(rna), Box::new(ProteinBlock(out.py))]
    }

    /// For a logistic normal the densities are taken at the transformed state; the background counts for every protein,
    /// measured or not. Both as upstream does.
    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, pass);
        let (z, covariates) = (&inference.z, &minibatch.covariates);
        let out = self.generative(z, &inference.library, minibatch, covariates, pass);
        let terms = self.loss_terms(minibatch, &inference, &out);
        let prior = normal::log_prob(z, &z.zeros_like(), &z.ones_like());
        let posterior = normal::log_prob(z, &inference.qz.mean, &inference.qz.var);
        let library = match self.library_prior(covariates) {
            Some(prior) => log_ratio(&inference.log_library, &prior, &inference.ql),
            None => Tensor::zeros([], (Kind::Float, z.device())),
        };
        let likelihood = -(terms.reconstruction_genes + terms.reconstruction_proteins);
        likelihood + row_sums(&(prior - posterior)) + library + self.background_log_ratio(&out, covariates)
    }

    fn library(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Posterior> {
        self.library_prior(&minibatch.covariates).map(|_| self.inference(minibatch, pass).ql)
    }
}

impl TotalviModule {
    /// `log p(b) - log q(b)` of the drawn log background, `[n]`.
    fn background_log_ratio(&self, out: &Generative, covariates: &Covariates) -> Tensor {
        let (mean, sd) = self.background_prior(covariates);
        let prior = Posterior { mean, var: sd.square() };
        let posterior = Posterior { mean: out.back_mean.shallow_clone(), var: out.back_sd.square() };
        log_ratio(&out.log_back, &prior, &posterior)
    }
}

/// `log p(value) - log q(value)`, summed over the last dimension.
fn log_ratio(value: &Tensor, p: &Posterior, q: &Posterior) -> Tensor {
    row_sums(&(normal::log_prob(value, &p.mean, &p.var) - normal::log_prob(value, &q.mean, &q.var)))
}
