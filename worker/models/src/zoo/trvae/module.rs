//! The network of trVAE: inference, generative, loss.

use tch::{Kind, Tensor};

use super::config::{MmdOn, TrvaeConfig};
use crate::{
    data::{Covariates, Minibatch, Registry},
    error::Result,
    fast::{DiscrepancySpec, Divergence, HeadSpec, LogDispersionSpec, PosteriorSpec, Unsupported, VaeSpec},
    losses::{LossTerms, mmd},
    model::{CountModel, Embedder, Module},
    nn::{Builder, DispersionBy, Init, LogDispersion, Pass, Posterior, VARIANCE_FLOOR, Weights},
    train::{Recipe, Run},
    zoo::family::{Condition, Decoded, Decoder, Encoder, recipe, totals},
};

/// The network of trVAE.
#[derive(Debug)]
pub struct TrvaeModule {
    config: TrvaeConfig,
    n_genes: usize,
    /// Log inverse dispersion, a column per condition; none for a squared difference.
    theta: Option<LogDispersion>,
    encoder: Encoder,
    decoder: Decoder,
    weights: Weights,
}

/// What the encoder says about cells.
#[derive(Debug)]
pub struct Inference {
    /// Posterior of the latent state.
    pub qz: Posterior,
    /// A draw from it, `[n, n_latent]`: upstream draws in evaluation too.
    pub z: Tensor,
}

/// The terms of the loss, apart.
#[derive(Debug)]
pub struct TrvaeLoss {
    /// Reconstruction loss per cell, `[n]`.
    pub reconstruction: Tensor,
    /// Divergence of the latent state, `[n]`.
    pub kl: Tensor,
    /// Discrepancy between the minibatch's conditions times its weight, a scalar; none where it is off.
    pub mmd: Option<Tensor>,
}

impl TrvaeModule {
    /// Builds the network.
    ///
    /// # Errors  stored tensors that do not fit
    pub fn new(config: TrvaeConfig, n_genes: usize, mut b: Builder<'_>) -> Result<Self> {
        let likelihood = config.recon_loss.likelihood();
        let theta = match likelihood {
            Some(_) => Some(LogDispersion::new(
                &mut b,
                "theta",
                n_genes,
                DispersionBy::Condition,
                &Registry::default(),
                Init::Normal,
            )?),
            None => None,
        };
        let (blocks, hidden) = (config.blocks(), &config.hidden_layer_sizes);
        let encoder = Encoder::new(&mut b, "encoder", n_genes, hidden, config.latent_dim, &blocks)?;
        let reversed: Vec<usize> = hidden.iter().rev().copied().collect();
        let sizes = (config.latent_dim, n_genes);
        let decoder = Decoder::new(&mut b, "decoder", sizes, &reversed, config.recon_loss, &blocks)?;
        Ok(Self { config, n_genes, theta, encoder, decoder, weights: b.finish() })
    }

    /// The options it was built with.
    pub fn config(&self) -> &TrvaeConfig {
        &self.config
    }

    /// Posteriors of the cells and one draw from each.
    pub fn inference(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Inference {
        let qz = self.posterior(minibatch, pass);
        let z = qz.sample(&pass.noise.normal("z", &qz.mean.size(), qz.mean.device()));
        Inference { qz, z }
    }

    /// Decodes latent states. `covariates` may name other conditions than the cells' own.
    pub fn generative(&self, z: &Tensor, totals: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Decoded {
        self.decoder.forward(z, Condition::Codes(covariates), totals, pass)
    }

    /// Inverse dispersion of each cell's genes, where there is one.
    pub fn dispersion(&self, minibatch: &Minibatch, covariates: &Covariates) -> Option<Tensor> {
        self.theta.as_ref().map(|theta| theta.select(minibatch, covariates).exp())
    }

    /// The terms of the loss of each cell.
    pub fn loss_terms(&self, minibatch: &Minibatch, inference: &Inference, decoded: &Decoded) -> TrvaeLoss {
        let theta = self.dispersion(minibatch, &minibatch.covariates);
        let mmd = self.config.use_mmd.then(|| {
            let features = match self.config.mmd_on {
                MmdOn::Z => &inference.z,
                MmdOn::Y => &decoded.first,
            };
            mmd::mmd(features, &minibatch.covariates.condition, self.config.mmd_boundary) * self.config.beta
        });
        TrvaeLoss {
            reconstruction: decoded.output.loss(&minibatch.x, theta.as_ref()),
            kl: inference.qz.kl_standard_normal(),
            mmd,
        }
    }
}

impl TrvaeLoss {
    /// What the optimiser minimises, with the weight of the divergence; a scalar.
    pub fn total(&self, kl_weight: f64) -> Tensor {
        let loss = (&self.reconstruction + &self.kl * kl_weight).mean(Kind::Float);
        match &self.mmd {
            Some(mmd) => loss + mmd,
            None => loss,
        }
    }
}

impl Module for TrvaeModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.inference(minibatch, pass);
        let decoded = self.generative(&inference.z, &totals(&minibatch.x), &minibatch.covariates, pass);
        let terms = self.loss_terms(minibatch, &inference, &decoded);
        let loss = terms.total(kl_weight);
        // Of one condition it is 0, whatever the cells are.
        let mmd = terms.mmd.filter(|_| self.weights.n_conditions() > 1);
        let further = mmd.map(|mmd| (mmd::FIGURE, mmd)).into_iter().collect();
        LossTerms { loss, reconstruction: terms.reconstruction, kl_local: terms.kl, further, latent: None }
    }

    fn as_count_model(&self) -> Option<&dyn CountModel> {
        Some(self)
    }

    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        recipe::of_run(&self.weights, run)
    }

    fn train_spec(&self) -> Result<VaeSpec, Unsupported> {
        let PosteriorSpec { layers: encoder, mean, var } = self.encoder.spec()?;
        let (decoder, head, dropout) = self.decoder.spec()?;
        let theta = self.theta.as_ref().map(|_| "theta.condition".to_owned());
        let pulls = self.config.use_mmd && self.config.beta > 0.0 && self.weights.n_conditions() > 1;
        if pulls && self.config.mmd_on == MmdOn::Y {
            return Err(Unsupported("what the decoder's first block gives is pulled together"));
        }
        let boundary = self.config.mmd_boundary;
        Ok(VaeSpec {
            n_genes: self.n_genes,
            n_latent: self.config.latent_dim,
            encoder,
            mean,
            var,
            variance_floor: VARIANCE_FLOOR,
            divergence: Divergence::Times(1.0),
            decoder,
            head: HeadSpec::Full(head),
            dropout,
            log_r: theta.map(LogDispersionSpec::Condition),
            reconstruction: self.config.recon_loss.spec()?,
            input: self.config.recon_loss.input_spec(),
            discrepancy: pulls.then_some(DiscrepancySpec { weight: self.config.beta, boundary, figure: mmd::FIGURE }),
            anchors: None,
            labels: None,
            modalities: None,
        })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }
}

impl Embedder for TrvaeModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        if let Some(kept) = &minibatch.minified {
            return Posterior::kept(kept);
        }
        let input = self.config.recon_loss.encoder_input(&minibatch.x);
        self.encoder.forward(&input, Condition::Codes(&minibatch.covariates), pass)
    }

    /// Upstream's `y`, which the discrepancy can be computed on.
    fn first_decoded(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Tensor> {
        let z = self.inference(minibatch, pass).z;
        Some(self.generative(&z, &totals(&minibatch.x), &minibatch.covariates, pass).first)
    }
}
