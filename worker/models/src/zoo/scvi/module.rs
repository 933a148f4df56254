//! The network of scVI: inference, generative, loss.

use archipelago_common::ConditionKey;
use tch::{Kind, Tensor};

use super::{BatchNormAffine, BatchRepresentation, Dispersion, ScviConfig};
use crate::{
    data::{
        CONTINUOUS, Covariates, Dataset, Minibatch, Registry, SIZE_FACTOR, Slot,
        slot::{Number, Numbers},
    },
    distributions::{CountParameters, normal},
    error::Result,
    fast::{
        Divergence, EncoderInput, HeadSpec, LayerSpec, LogDispersionSpec, PosteriorSpec, ReconstructionSpec,
        Unsupported, VaeSpec,
    },
    losses::LossTerms,
    model::{CountModel, Embedder, Module},
    nn::{
        Activation, Builder, CovariateSizes, Decoder, DispersionBy, Encoder, Heads, Init, LibraryPrior, LogDispersion,
        Pass, Posterior, Role, StackOptions, VARIANCE_FLOOR, Weights,
    },
    zoo::family::LatentDistribution,
};

/// The network of scVI.
#[derive(Debug)]
pub struct ScviModule {
    config: ScviConfig,
    z_encoder: Encoder,
    /// Only where the library size is latent.
    library: Option<LatentLibrary>,
    decoder: Decoder,
    /// Log inverse dispersion; none where cells have their own or the likelihood has none.
    log_r: Option<LogDispersion>,
    /// A vector per condition, where the batch is not one-hot.
    batch_embedding: Option<Tensor>,
    continuous: Option<Slot<Numbers>>,
    size_factor: Option<Slot<Number>>,
    weights: Weights,
}

/// Encoder and prior of a latent library size.
#[derive(Debug)]
struct LatentLibrary {
    encoder: Encoder,
    prior: LibraryPrior,
}

/// What the encoders say about cells.
#[derive(Debug)]
pub struct Inference {
    /// Posterior of the latent state, before the softmax of a logistic normal.
    pub qz: Posterior,
    /// A draw from it, after the softmax, `[…, n, n_latent]`.
    pub z: Tensor,
    /// Posterior of the log library size, where it is latent.
    pub ql: Option<Posterior>,
    /// Log library size, `[…, n, 1]`.
    pub library: Tensor,
}

/// What the decoder says about cells.
#[derive(Debug)]
pub struct Generative {
    /// Expected share of each gene, `[…, n, n_genes]`.
    pub px_scale: Tensor,
    /// Parameters of the counts.
    pub px: CountParameters,
}

/// The terms of the loss, apart.
#[derive(Debug)]
pub struct ScviLoss {
    /// Negative log-likelihood per cell, `[n]`.
    pub reconstruction: Tensor,
    /// Divergence of the latent state, `[n]`.
    pub kl_z: Tensor,
    /// Divergence of the latent library size, `[n]`; not warmed up.
    pub kl_l: Option<Tensor>,
}

impl ScviModule {
    /// Builds the network.
    ///
    /// # Errors  options that contradict the registry, or stored tensors that do not fit
    pub fn new(config: ScviConfig, registry: &Registry, n_genes: usize, mut builder: Builder<'_>) -> Result<Self> {
        Self::within(config, registry, n_genes, &mut builder)
    }

    /// Builds the network as the first part of a larger one.
    ///
    /// # Errors  as [`Self::new`]
    pub fn within(config: ScviConfig, registry: &Registry, n_genes: usize, b: &mut Builder<'_>) -> Result<Self> {
        let embeds = config.batch_representation == BatchRepresentation::Embedding;
        let covariates = CovariateSizes { conditions: !embeds, categorical: registry.covariate_sizes() };
        let n_embedding = if embeds { EMBEDDING_DIM } else { 0 };
        let (continuous, size_factor) = (registry.find(CONTINUOUS)?, registry.find(SIZE_FACTOR)?);
        let n_continuous = registry.n_continuous();
        let encoded = if config.encode_covariates { n_continuous + n_embedding } else { 0 };
        let stack = |n_layers, in_encoder: bool| StackOptions {
            n_layers,
            n_hidden: config.n_hidden,
            n_out: config.n_hidden,
            covariates: if !in_encoder || config.encode_covariates {
                covariates.clone()
            } else {
                CovariateSizes::none()
            },
            inject: config.deeply_inject_covariates,
            dropout: if in_encoder { config.dropout_rate } else { 0.0 },
            batch_norm: if in_encoder {
                config.use_batch_norm.in_encoder()
            } else {
                config.use_batch_norm.in_decoder()
            },
            batch_norm_offsets: !in_encoder && config.batch_norm_affine == BatchNormAffine::Conditions,
            layer_norm: if in_encoder {
                config.use_layer_norm.in_encoder()
            } else {
                config.use_layer_norm.in_decoder()
            },
            activation: Activation::Relu,
        };
        let encoder = stack(config.n_layers, true);
        let z_encoder = Encoder::new(b, "z_encoder", n_genes + encoded, config.n_latent, &encoder)?;
        let library = if config.use_observed_lib_size {
            None
        } else {
            Some(LatentLibrary::new(b, n_genes + encoded, &stack(1, true))?)
        };
        let heads = Heads {
            dispersion: config.dispersion == Dispersion::GeneCell && config.gene_likelihood.has_dispersion(),
            dropout: config.gene_likelihood.has_dropout(),
            softplus: size_factor.is_some(),
        };
        let n_in = config.n_latent + n_continuous + n_embedding;
        let decoder = Decoder::new(b, "decoder", n_in, n_genes, &stack(config.n_layers, false), heads)?;
        let log_r = match dispersion_by(&config) {
            Some(by) => Some(LogDispersion::new(b, "px_r", n_genes, by, registry, Init::Normal)?),
            None => None,
        };
        let batch_embedding = if embeds {
            Some(b.condition_rows("batch_embedding.condition", &[EMBEDDING_DIM], Role::Condition, Init::Normal)?)
        } else {
            None
        };
        let weights = b.collected();
        Ok(Self { config, z_encoder, library, decoder, log_r, batch_embedding, continuous, size_factor, weights })
    }

    /// The options it was built with.
    pub fn config(&self) -> &ScviConfig {
        &self.config
    }

    /// Posteriors of the cells, and one draw from them (`[n, …]`) or several (`[n_samples, n, …]`).
    pub fn inference(&self, minibatch: &Minibatch, n_samples: Option<i64>, pass: &mut Pass<'_>) -> Inference {
        if let Some(kept) = &minibatch.minified {
            let qz = Posterior::kept(kept);
            let z = self.transform(draw(&qz, "z", n_samples, pass));
            return Inference { qz, z, ql: None, library: kept.library.log() };
        }
        let x = self.encoder_input(minibatch);
        let qz = self.z_encoder.forward(&x, &minibatch.covariates, pass);
        let z = self.transform(draw(&qz, "z", n_samples, pass));
        match &self.library {
            None => Inference { qz, z, ql: None, library: observed_library(&minibatch.x) },
            Some(latent) => {
                let ql = latent.encoder.forward(&x, &minibatch.covariates, pass);
                let library = draw(&ql, "l", n_samples, pass);
                Inference { qz, z, ql: Some(ql), library }
            }
        }
    }

    /// Parameters of the counts given latent states. `covariates` may name another condition than the cells' own.
    pub fn generative(
        &self,
        z: &Tensor,
        library: &Tensor,
        minibatch: &Minibatch,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> Generative {
        let mut input = vec![z.shallow_clone()];
        let per_cell = self.continuous(minibatch).into_iter().chain(self.embed(covariates));
        input.extend(
            per_cell.map(|t| if z.dim() == 3 { t.unsqueeze(0).expand([z.size()[0], -1, -1], false) } else { t }),
        );
        let input = if input.len() == 1 { z.shallow_clone() } else { Tensor::cat(&input, -1) };
        let library = match self.size_factor {
            Some(factor) => minibatch.get(factor).log(),
            None => library.shallow_clone(),
        };
        let out = self.decoder.forward(&input, &library, covariates, pass);
        let log_r = out.log_r.or_else(|| self.log_r.as_ref().map(|log_r| log_r.select(minibatch, covariates)));
        let r = log_r.map(|log_r| log_r.exp());
        Generative { px_scale: out.scale, px: CountParameters { rate: out.rate, r, dropout: out.dropout } }
    }

    /// The terms of the loss of each cell.
    pub fn loss_terms(&self, minibatch: &Minibatch, inference: &Inference, generative: &Generative) -> ScviLoss {
        ScviLoss {
            reconstruction: generative.px.reconstruction(self.config.gene_likelihood, &minibatch.x),
            kl_z: inference.qz.kl_standard_normal(),
            kl_l: self
                .library_prior(&minibatch.covariates)
                .zip(inference.ql.as_ref())
                .map(|(prior, ql)| normal::kl(&ql.mean, &ql.var, &prior.mean, &prior.var)),
        }
    }

    /// Prior of the log library size of each cell, `[n, 1]`, where it is latent.
    pub fn library_prior(&self, covariates: &Covariates) -> Option<Posterior> {
        self.library.as_ref().map(|latent| latent.prior.of(covariates))
    }

    /// The softmax of a logistic normal; nothing for a normal.
    pub fn transform(&self, z: Tensor) -> Tensor {
        match self.config.latent_distribution {
            LatentDistribution::Normal => z,
            LatentDistribution::Ln => z.softmax(-1, Kind::Float),
        }
    }

    fn encoder_input(&self, minibatch: &Minibatch) -> Tensor {
        let x = if self.config.log_variational { minibatch.x.log1p() } else { minibatch.x.shallow_clone() };
        if !self.config.encode_covariates {
            return x;
        }
        let mut parts = vec![x];
        parts.extend(self.continuous(minibatch));
        parts.extend(self.embed(&minibatch.covariates));
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 1) }
    }

    fn spec(&self) -> Result<VaeSpec, Unsupported> {
        let PosteriorSpec { layers: encoder, mean, var } = self.z_encoder.spec()?;
        let (decoder, scale, dropout) = self.decoder.spec()?;
        let n_genes = self.weights.get(&format!("{scale}.bias")).map_or(0, Tensor::numel);
        let (n_latent, first) = (self.config.n_latent, |layers: &[LayerSpec]| layers.first().map(|layer| layer.n_in));
        if self.library.is_some() {
            return Err(Unsupported("the library size is latent"));
        }
        if self.config.latent_distribution != LatentDistribution::Normal {
            return Err(Unsupported("the latent state is not normal"));
        }
        if first(&encoder) != Some(n_genes) || first(&decoder) != Some(n_latent) {
            return Err(Unsupported("there are continuous covariates or a batch embedding"));
        }
        let log_r = match self.log_r {
            None => None,
            Some(LogDispersion::Feature(_)) => Some(LogDispersionSpec::Gene("px_r".to_owned())),
            Some(LogDispersion::Condition(_)) => Some(LogDispersionSpec::Condition("px_r.condition".to_owned())),
            Some(LogDispersion::Label(..)) => return Err(Unsupported("dispersions depend on the label")),
        };
        let input = if self.config.log_variational { EncoderInput::Log1p } else { EncoderInput::Count };
        Ok(VaeSpec {
            n_genes,
            n_latent,
            encoder,
            mean,
            var,
            variance_floor: VARIANCE_FLOOR,
            divergence: Divergence::Times(1.0),
            decoder,
            head: HeadSpec::Full(scale),
            dropout,
            log_r,
            reconstruction: ReconstructionSpec::Counts(self.config.gene_likelihood),
            input,
            discrepancy: None,
            anchors: None,
            labels: None,
            modalities: None,
        })
    }

    fn continuous(&self, minibatch: &Minibatch) -> Option<Tensor> {
        self.continuous.map(|slot| minibatch.get(slot).shallow_clone())
    }

    fn embed(&self, covariates: &Covariates) -> Option<Tensor> {
        self.batch_embedding.as_ref().map(|rows| rows.index_select(0, &covariates.condition))
    }
}

impl Module for ScviModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn prepare(&self, dataset: &Dataset<'_>, keys: &[ConditionKey]) -> Result<()> {
        self.library.iter().try_for_each(|latent| latent.prior.set(dataset, keys))
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.inference(minibatch, None, pass);
        let generative = self.generative(&inference.z, &inference.library, minibatch, &minibatch.covariates, pass);
        let terms = self.loss_terms(minibatch, &inference, &generative);
        LossTerms::new(terms.reconstruction, &terms.kl_z, terms.kl_l.as_ref(), kl_weight)
    }

    fn train_spec(&self) -> Result<VaeSpec, Unsupported> {
        self.spec()
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }

    fn as_count_model(&self) -> Option<&dyn CountModel> {
        Some(self)
    }
}

impl Embedder for ScviModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        if let Some(kept) = &minibatch.minified {
            return Posterior::kept(kept);
        }
        self.z_encoder.forward(&self.encoder_input(minibatch), &minibatch.covariates, pass)
    }

    fn is_drawn(&self) -> bool {
        self.config.latent_distribution == LatentDistribution::Normal
    }

    /// For a logistic normal the mean of its softmax, over many draws as upstream.
    fn latent_mean(&self, posterior: &Posterior, pass: &mut Pass<'_>) -> Tensor {
        match self.config.latent_distribution {
            LatentDistribution::Normal => posterior.mean.shallow_clone(),
            LatentDistribution::Ln => posterior.mean_of_softmax(pass),
        }
    }
}

/// What the dispersion depends on; nothing where cells have their own or the likelihood has none.
fn dispersion_by(config: &ScviConfig) -> Option<DispersionBy> {
    match config.dispersion {
        _ if !config.gene_likelihood.has_dispersion() => None,
        Dispersion::Gene => Some(DispersionBy::Feature),
        Dispersion::GeneBatch => Some(DispersionBy::Condition),
        Dispersion::GeneLabel => Some(DispersionBy::Label),
        Dispersion::GeneCell => None,
    }
}

impl LatentLibrary {
    fn new(b: &mut Builder<'_>, n_in: usize, options: &StackOptions) -> Result<Self> {
        let encoder = Encoder::new(b, "l_encoder", n_in, 1, options)?;
        Ok(Self { encoder, prior: LibraryPrior::new(b)? })
    }
}

/// Log of the total count of each cell, `[n, 1]`; minus infinity for an empty cell.
fn observed_library(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([1_i64].as_slice(), true, Kind::Float).log()
}

fn draw(posterior: &Posterior, site: &'static str, n_samples: Option<i64>, pass: &mut Pass<'_>) -> Tensor {
    let mut shape = posterior.mean.size();
    if let Some(n) = n_samples {
        shape.insert(0, n);
    }
    posterior.sample(&pass.noise.normal(site, &shape, posterior.mean.device()))
}

/// Dimensions of a batch embedding, as upstream.
const EMBEDDING_DIM: usize = 5;
