//! What a trained network says about cells: expression, marginal likelihood, draws.

use tch::{Kind, Tensor};

use super::{ScviModule, module::Inference};
use crate::{data::Minibatch, distributions::normal, nn::Pass};

/// Which expression is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct ExpressionAsk {
    /// Condition codes that cells are decoded as, averaged over; empty decodes every cell as its own.
    pub transform: Vec<i64>,
    /// What a cell's expression adds up to.
    pub library: LibraryAsk,
}

/// What a cell's expression adds up to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum LibraryAsk {
    /// This number; 1 gives shares.
    Scaled(f64),
    /// The cell's own library size: expected counts.
    Latent,
}

impl ScviModule {
    /// Expression from one draw per cell and condition asked for, `[n, n_genes]`.
    pub fn expression(&self, minibatch: &Minibatch, ask: &ExpressionAsk, pass: &mut Pass<'_>) -> Tensor {
        if ask.transform.is_empty() {
            return self.decode(minibatch, None, ask.library, pass);
        }
        let mut sum = self.decode(minibatch, Some(ask.transform[0]), ask.library, pass);
        for &code in &ask.transform[1..] {
            sum += self.decode(minibatch, Some(code), ask.library, pass);
        }
        sum / ask.transform.len() as f64
    }

    fn decode(&self, minibatch: &Minibatch, code: Option<i64>, library: LibraryAsk, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, None, pass);
        let transformed = code.map(|code| minibatch.covariates.with_condition(code));
        let covariates = transformed.as_ref().unwrap_or(&minibatch.covariates);
        let out = self.generative(&inference.z, &inference.library, minibatch, covariates, pass);
        match library {
            LibraryAsk::Scaled(size) => out.px_scale * size,
            LibraryAsk::Latent => out.px.rate,
        }
    }

    /// Log of one importance weight `p(x, z) / q(z | x)` per cell, `[n]`; the marginal likelihood is the mean of many.
    pub fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let inference = self.inference(minibatch, None, pass);
        let covariates = &minibatch.covariates;
        let out = self.generative(&inference.z, &inference.library, minibatch, covariates, pass);
        let reconstruction = out.px.reconstruction(self.config().gene_likelihood, &minibatch.x);
        let z = &inference.z;
        let prior = normal::log_prob(z, &z.zeros_like(), &z.ones_like());
        let posterior = normal::log_prob(z, &inference.qz.mean, &inference.qz.var);
        -reconstruction + row_sums(&(prior - posterior)) + self.library_log_ratio(minibatch, &inference)
    }

    /// `log p(l) - log q(l | x)` per cell, 0 with an observed library size.
    fn library_log_ratio(&self, minibatch: &Minibatch, inference: &Inference) -> Tensor {
        match (self.library_prior(&minibatch.covariates), &inference.ql) {
            (Some(prior), Some(ql)) => {
                let library = &inference.library;
                let ratio =
                    normal::log_prob(library, &prior.mean, &prior.var) - normal::log_prob(library, &ql.mean, &ql.var);
                row_sums(&ratio)
            }
            _ => Tensor::zeros([], (Kind::Float, minibatch.x.device())),
        }
    }
}

fn row_sums(values: &Tensor) -> Tensor {
    values.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
}
