//! What a trained network draws and decodes of gene expression, for what is asked of cells. Other modalities are imputed.

use tch::Tensor;

use super::module::MultigrateModule;
use crate::{
    data::{Covariates, Minibatch},
    distributions::{CountParameters, Likelihood, normal},
    model::{CountModel, LatentDraw},
    nn::{Mode, Pass, Posterior},
    results::{Block, CountBlock},
};

impl CountModel for MultigrateModule {
    fn draw(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> LatentDraw {
        let z = self.inference(minibatch, pass).joint.z;
        LatentDraw { z, library: self.size_factors(minibatch) }
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
        let embedded = self.embedded(minibatch, covariates, pass);
        let decoded = self.decoded(&draw.z, &embedded, pass).swap_remove(0);
        let likelihood = if decoded.dropout.is_some() { Likelihood::Zinb } else { Likelihood::Nb };
        let scale = decoded.value();
        let (rate, r) = (&scale * &draw.library, self.dispersion(0, covariates));
        let counts = CountParameters { rate, r, dropout: decoded.dropout };
        vec![Box::new(CountBlock { scale, counts, likelihood })]
    }

    /// Of all modalities.
    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, pass);
        let (z, joint) = (&inference.joint.z, &inference.joint);
        let decoded = self.generative(z, &inference, pass);
        let terms = self.loss_terms(minibatch, &inference, &decoded, Mode::Evaluation);
        let prior = normal::log_prob(z, &z.zeros_like(), &z.ones_like());
        let posterior = normal::log_prob(z, &joint.mean, &joint.log_var.exp());
        (prior - posterior).sum_dim_intlist([-1_i64].as_slice(), false, z.kind()) - terms.reconstruction
    }

    fn library(&self, _minibatch: &Minibatch, _pass: &mut Pass<'_>) -> Option<Posterior> {
        None
    }
}
