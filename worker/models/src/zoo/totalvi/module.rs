//! The network of totalVI: inference, generative, loss.

use std::collections::BTreeSet;

use archipelago_common::ConditionKey;
use tch::{Kind, Tensor};

use super::{
    Adversary, Behaviour, PROTEINS, ProteinParameters, TotalviConfig, background,
    networks::{Decoder, Encoder},
    proteins,
};
use crate::{
    data::{
        CONTINUOUS, Covariates, Dataset, Minibatch, Registry, SIZE_FACTOR, Slot,
        slot::{Matrix, Number, Numbers},
    },
    distributions::{CountParameters, normal},
    error::{Error, Result},
    losses::LossTerms,
    model::{CountModel, Embedder, Module},
    nn::{Builder, Init, LibraryPrior, LogDispersion, Pass, Posterior, Role, Weights, rows_of},
    results::{Answer, Asked, Given},
    train::{Recipe, Run},
    zoo::family::LatentDistribution,
};

/// The network of totalVI.
#[derive(Debug)]
pub struct TotalviModule {
    config: TotalviConfig,
    encoder: Encoder,
    decoder: Decoder,
    /// Log inverse dispersion of genes.
    px_r: LogDispersion,
    /// Log inverse dispersion of proteins.
    py_r: LogDispersion,
    /// Mean of the log background's prior, `[n_conditions, n_proteins]`.
    pub(super) background_mean: Tensor,
    /// Log of its standard deviation, `[n_conditions, n_proteins]`.
    pub(super) background_log_sd: Tensor,
    /// How well each protein is captured, `[n_conditions, n_proteins]`.
    log_efficiency: Tensor,
    /// 1 where a condition was stained for a protein, else 0, `[n_conditions, n_proteins]`.
    pub(super) measured: Tensor,
    /// Only where the library size is latent.
    library_prior: Option<LibraryPrior>,
    pub(super) proteins: Slot<Matrix>,
    continuous: Option<Slot<Numbers>>,
    size_factor: Option<Slot<Number>>,
    weights: Weights,
}

/// What the encoders say about cells.
#[derive(Debug)]
pub struct Inference {
    /// Posterior of the latent state, before the softmax of a logistic normal.
    pub qz: Posterior,
    /// A draw from it, before the softmax, `[n, n_latent]`.
    pub untransformed_z: Tensor,
    /// The draw after the softmax, `[n, n_latent]`.
    pub z: Tensor,
    /// Posterior of the log library size. With an observed library size nothing trains it.
    pub ql: Posterior,
    /// A draw from it, `[n, 1]`.
    pub log_library: Tensor,
    /// Library size, on the natural scale, `[n, 1]`.
    pub library: Tensor,
}

/// What the decoder says about cells.
#[derive(Debug)]
pub struct Generative {
    /// Expected share of each gene, `[n, n_genes]`.
    pub px_scale: Tensor,
    /// Parameters of the RNA counts.
    pub px: CountParameters,
    /// Parameters of the protein counts.
    pub py: ProteinParameters,
    /// Posterior mean of the log background, `[n, n_proteins]`.
    pub back_mean: Tensor,
    /// Its standard deviation, `[n, n_proteins]`.
    pub back_sd: Tensor,
    /// A draw of the log background, `[n, n_proteins]`.
    pub log_back: Tensor,
    /// Foreground over background, `[n, n_proteins]`.
    pub fore_scale: Tensor,
    /// Log efficiency, `[n, n_proteins]`, or `[n_proteins]` where all cells are of one condition.
    pub log_efficiency: Tensor,
}

/// The terms of the loss of each cell, `[n]` each, in nats.
#[derive(Debug)]
pub struct TotalviLoss {
    /// Negative log-likelihood of the RNA counts.
    pub reconstruction_genes: Tensor,
    /// Negative log-likelihood of the proteins that the cell's condition was stained for.
    pub reconstruction_proteins: Tensor,
    /// Divergence of the latent state.
    pub kl_z: Tensor,
    /// Divergence of the latent library size; not warmed up.
    pub kl_l: Option<Tensor>,
    /// Divergence of the protein background, with the priors of efficiency and mixture.
    pub kl_back: Tensor,
}

impl TotalviModule {
    /// Builds the network.
    ///
    /// # Errors  [`Error::MissingField`](crate::Error::MissingField) without proteins, options that contradict the registry, stored tensors that do not
    /// fit
    pub fn new(config: TotalviConfig, registry: &Registry, n_genes: usize, mut builder: Builder<'_>) -> Result<Self> {
        let proteins = registry.slot::<Matrix>(PROTEINS)?;
        let (continuous, size_factor) = (registry.find(CONTINUOUS)?, registry.find(SIZE_FACTOR)?);
        let n_proteins = proteins.width();
        let b = &mut builder;
        let encoder = Encoder::new(b, &config, registry, n_genes + n_proteins)?;
        let decoder = Decoder::new(b, &config, registry, n_genes, n_proteins)?;
        let px_r = LogDispersion::new(b, "px_r", n_genes, config.gene_dispersion.into(), registry, Init::Normal)?;
        let uniform = Init::Uniform(0.0, 2.0);
        let py_r = LogDispersion::new(b, "py_r", n_proteins, config.protein_dispersion.into(), registry, uniform)?;
        let mut rows = |name: &str, role, start| {
            b.condition_rows(&format!("{name}.condition"), &[n_proteins], role, Init::Constant(start))
        };
        let background_mean = rows("background_pro_alpha", Role::Condition, 3.0)?;
        let background_log_sd = rows("background_pro_log_beta", Role::Condition, 0.0)?;
        let log_efficiency = rows("log_per_batch_efficiency", Role::Condition, 0.0)?;
        let measured = rows(MEASURED, Role::ConditionFact, 1.0)?;
        let is_latent = !config.use_observed_lib_size && size_factor.is_none();
        let library_prior = if is_latent { Some(LibraryPrior::new(b)?) } else { None };
        let weights = builder.finish();
        Ok(Self {
            config,
            encoder,
            decoder,
            px_r,
            py_r,
            background_mean,
            background_log_sd,
            log_efficiency,
            measured,
            library_prior,
            proteins,
            continuous,
            size_factor,
            weights,
        })
    }

    /// The options it was built with.
    pub fn config(&self) -> &TotalviConfig {
        &self.config
    }

    /// Posteriors of the cells and one draw from them.
    pub fn inference(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Inference {
        let x = self.encoder_input(minibatch);
        let qz = match &minibatch.minified {
            Some(kept) => Posterior::kept(kept),
            None => self.encoder.latent(&x, &minibatch.covariates, pass),
        };
        let untransformed_z = qz.sample(&pass.noise.normal("z", &qz.mean.size(), x.device()));
        let ql = self.encoder.library(&x, &minibatch.covariates, pass);
        let log_library =
            ql.sample(&pass.noise.normal("l", &ql.mean.size(), x.device())).clamp_max(LARGEST_LOG_LIBRARY);
        let library = match (&self.library_prior, &minibatch.minified) {
            (Some(_), _) => log_library.exp(),
            (None, Some(kept)) => kept.library.shallow_clone(),
            (None, None) => minibatch.x.sum_dim_intlist([1_i64].as_slice(), true, Kind::Float),
        };
        Inference { z: self.transform(untransformed_z.shallow_clone()), untransformed_z, qz, ql, log_library, library }
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
        let input = match self.continuous {
            Some(continuous) => Tensor::cat(&[z, minibatch.get(continuous)], 1),
            None => z.shallow_clone(),
        };
        let out = self.decoder.forward(&input, covariates, pass);
        let noise = pass.noise.normal("back", &out.back_mean.size(), z.device());
        let log_back = &out.back_mean + &out.back_sd * noise;
        let rate_back = log_back.exp();
        let library = self.size_factor.map_or(library, |factor| minibatch.get(factor));
        let (px_r, py_r) = (self.px_r.select(minibatch, covariates), self.py_r.select(minibatch, covariates));
        Generative {
            px: CountParameters { rate: library * &out.scale, r: Some(px_r.exp()), dropout: out.dropout },
            px_scale: out.scale,
            py: ProteinParameters {
                rate_fore: &rate_back * &out.fore_scale,
                rate_back,
                r: py_r.exp(),
                mixing: out.mixing,
            },
            back_mean: out.back_mean,
            back_sd: out.back_sd,
            log_back,
            fore_scale: out.fore_scale,
            log_efficiency: rows_of(&self.log_efficiency, covariates),
        }
    }

    /// The terms of the loss of each cell.
    pub fn loss_terms(&self, minibatch: &Minibatch, inference: &Inference, generative: &Generative) -> TotalviLoss {
        let covariates = &minibatch.covariates;
        let measured = rows_of(&self.measured, covariates).ne(0.0);
        let observed = |values: Tensor| values.where_self(&measured, &Tensor::from(0.0_f32).to_device(values.device()));
        let (prior_mean, prior_sd) = self.background_prior(covariates);
        let background = normal::kl_terms(&generative.back_mean, &generative.back_sd, &prior_mean, &prior_sd);
        let mut kl_back = row_sums(&observed(background));
        if self.config.behaviour == Behaviour::Current {
            kl_back += background::efficiency_penalty(&generative.log_efficiency);
            kl_back += background::mixing_penalty(&generative.py.mixing);
        }
        let proteins = minibatch.get(self.proteins);
        TotalviLoss {
            reconstruction_genes: generative.px.reconstruction(self.config.gene_likelihood, &minibatch.x),
            reconstruction_proteins: -row_sums(&observed(self.protein_log_prob(proteins, generative))),
            kl_z: inference.qz.kl_standard_normal(),
            kl_l: self.library_prior.as_ref().map(|prior| {
                let (prior, ql) = (prior.of(covariates), &inference.ql);
                normal::kl(&ql.mean, &ql.var, &prior.mean, &prior.var)
            }),
            kl_back,
        }
    }

    /// The loss made of its terms. From 1.3.1 on the warm-up weighs the likelihood of proteins too.
    pub fn weighted(&self, terms: TotalviLoss, weight: f64) -> LossTerms {
        let TotalviLoss { reconstruction_genes, reconstruction_proteins, kl_z, kl_l, kl_back } = terms;
        let protein_weight = if self.config.behaviour == Behaviour::Current { weight } else { 1.0 };
        let warmed = kl_z + kl_back;
        let per_cell = &reconstruction_genes + &reconstruction_proteins * protein_weight + &warmed * weight;
        let (per_cell, kl_local) = match kl_l {
            Some(kl_l) => (per_cell + &kl_l, warmed + kl_l),
            None => (per_cell, warmed),
        };
        let reconstruction = reconstruction_genes + reconstruction_proteins;
        LossTerms { loss: per_cell.mean(Kind::Float), reconstruction, kl_local, further: Vec::new(), latent: None }
    }

    /// Mean and standard deviation of the prior of each cell's log background.
    pub fn background_prior(&self, covariates: &Covariates) -> (Tensor, Tensor) {
        (rows_of(&self.background_mean, covariates), rows_of(&self.background_log_sd, covariates).exp())
    }

    /// Prior of the log library size of each cell, `[n, 1]`, where it is latent.
    pub fn library_prior(&self, covariates: &Covariates) -> Option<Posterior> {
        self.library_prior.as_ref().map(|prior| prior.of(covariates))
    }

    /// The softmax of a logistic normal; nothing for a normal.
    pub(super) fn transform(&self, z: Tensor) -> Tensor {
        match self.config.latent_distribution {
            LatentDistribution::Normal => z,
            LatentDistribution::Ln => z.softmax(-1, Kind::Float),
        }
    }

    fn protein_log_prob(&self, y: &Tensor, generative: &Generative) -> Tensor {
        let efficiency = match self.config.behaviour {
            Behaviour::Current => Some(generative.log_efficiency.exp()),
            Behaviour::Before131 => None,
        };
        generative.py.log_prob(y, efficiency.as_ref())
    }

    fn encoder_input(&self, minibatch: &Minibatch) -> Tensor {
        let proteins = minibatch.get(self.proteins);
        let scaled = |values: &Tensor| {
            let values = match self.config.behaviour {
                Behaviour::Current => values / (values.mean_dim([1_i64].as_slice(), true, Kind::Float) + 1.0),
                Behaviour::Before131 => values.shallow_clone(),
            };
            if self.config.log_variational { values.log1p() } else { values }
        };
        let mut parts = vec![scaled(&minibatch.x), scaled(proteins)];
        if self.config.encode_covariates {
            parts.extend(self.continuous.map(|slot| minibatch.get(slot).shallow_clone()));
        }
        Tensor::cat(&parts, 1)
    }
}

impl Module for TotalviModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn prepare(&self, dataset: &Dataset<'_>, keys: &[ConditionKey]) -> Result<()> {
        self.library_prior.iter().try_for_each(|prior| prior.set(dataset, keys))?;
        background::prepare(self, dataset);
        Ok(())
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.inference(minibatch, pass);
        let (z, library) = (&inference.z, &inference.library);
        let generative = self.generative(z, library, minibatch, &minibatch.covariates, pass);
        let terms = self.weighted(self.loss_terms(minibatch, &inference, &generative), kl_weight);
        LossTerms { latent: Some(inference.z), ..terms }
    }

    /// Where a protein is missing in one of the cells' conditions, references train against a classifier, as upstream.
    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        let conditions: BTreeSet<i64> = run.dataset.conditions.iter().copied().collect();
        let lacks_some = |&code: &i64| self.measured.get(code).min().double_value(&[]) == 0.0;
        let n_conditions = self.weights.n_conditions();
        let mut recipe = Recipe::default();
        if !run.is_exact() && n_conditions > 1 && conditions.iter().any(lacks_some) {
            let (seed, device) = (run.seeds.of("adversary", 0), self.weights.device());
            let adversary = Adversary::new(self.config.n_latent, n_conditions, run.plan.adam, seed, device)?;
            recipe.hooks.push(Box::new(adversary));
        }
        Ok(recipe)
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }

    fn as_count_model(&self) -> Option<&dyn CountModel> {
        Some(self)
    }

    fn answer(&self, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
        match question {
            PROTEINS => proteins::answer(self, asked, given),
            _ => Err(Error::NotAnswered { question: question.to_owned() }),
        }
    }
}

impl Embedder for TotalviModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        if let Some(kept) = &minibatch.minified {
            return Posterior::kept(kept);
        }
        self.encoder.latent(&self.encoder_input(minibatch), &minibatch.covariates, pass)
    }

    /// For a logistic normal the mean of its softmax, over many draws as upstream.
    fn latent_mean(&self, posterior: &Posterior, pass: &mut Pass<'_>) -> Tensor {
        match self.config.latent_distribution {
            LatentDistribution::Normal => posterior.mean.shallow_clone(),
            LatentDistribution::Ln => posterior.mean_of_softmax(pass),
        }
    }
}

pub(super) fn row_sums(values: &Tensor) -> Tensor {
    values.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
}

/// Which proteins a condition was stained for.
pub(crate) const MEASURED: &str = "protein_measured";
/// Upstream's bound on a drawn log library size.
const LARGEST_LOG_LIBRARY: f64 = 15.0;
