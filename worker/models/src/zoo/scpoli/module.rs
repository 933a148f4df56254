//! The network of scPoli: inference, generative, loss.

use archipelago_common::part::Contribution;
use tch::{Kind, Tensor};

use super::{
    config::ScpoliConfig, contributions, embeddings::Embeddings, levels::Levels, prototypes::*, questions, recipe,
};
use crate::{
    data::{Covariates, Dataset, Minibatch, Registry},
    error::Result,
    fast::{
        AnchorFigures, AnchorSpec, ColumnsSpec, Divergence, HeadSpec, LogDispersionSpec, PosteriorSpec, Unsupported,
        VaeSpec,
    },
    losses::LossTerms,
    model::{CountModel, Embedder, LabelModel, Module, PredictFrom},
    nn::{Builder, DispersionBy, Init, LogDispersion, Pass, Posterior, VARIANCE_FLOOR, Weights},
    reference::to_array,
    results::{Answer, Asked, Given},
    train::{Recipe, Run},
    zoo::family::{Condition, Decoded, Decoder, Encoder, totals},
};

/// The network of scPoli.
#[derive(Debug)]
pub struct ScpoliModule {
    config: ScpoliConfig,
    n_genes: usize,
    levels: Levels,
    /// Log inverse dispersion, a column per condition; none where the loss has none.
    theta: Option<LogDispersion>,
    embeddings: Embeddings,
    encoder: Encoder,
    decoder: Decoder,
    prototypes: Prototypes,
    weights: Weights,
}

/// What the encoder says about cells.
#[derive(Debug)]
pub struct Inference {
    /// Posterior of the latent state.
    pub qz: Posterior,
    /// A draw from it, `[n, n_latent]`: upstream draws in evaluation too.
    pub z: Tensor,
    /// What stands for the cells' conditions, `[n, n_numbers]`.
    pub embedded: Tensor,
}

/// The terms of the loss, apart.
#[derive(Debug)]
pub struct ScpoliLoss {
    /// Reconstruction loss per cell, `[n]`.
    pub reconstruction: Tensor,
    /// Divergence of the latent state, `[n]`.
    pub kl: Tensor,
    /// How far cells are from prototypes, where these draw them.
    pub prototypes: Option<PrototypeLoss>,
}

impl ScpoliModule {
    /// Builds the network.
    ///
    /// # Errors  stored tensors that do not fit, options that do not fit the keys
    pub fn new(config: ScpoliConfig, registry: &Registry, n_genes: usize, mut b: Builder<'_>) -> Result<Self> {
        let levels = Levels::new(registry)?;
        let theta = if config.recon_loss.has_dispersion() {
            let by = DispersionBy::Condition;
            Some(LogDispersion::new(&mut b, "theta", n_genes, by, &Registry::default(), Init::Normal)?)
        } else {
            None
        };
        let embeddings =
            Embeddings::new(&mut b, &config.condition_keys, &config.embedding_dims, config.embedding_max_norm)?;
        let (n_numbers, hidden, injected) = (embeddings.n_numbers(), config.hidden(n_genes), config.inject_condition);
        let blocks = config.blocks(injected.in_encoder(), n_numbers);
        let encoder = Encoder::new(&mut b, "encoder", n_genes, &hidden, config.latent_dim, &blocks)?;
        let blocks = config.blocks(injected.in_decoder(), n_numbers);
        let reversed: Vec<usize> = hidden.iter().rev().copied().collect();
        let sizes = (config.latent_dim, n_genes);
        let decoder = Decoder::new(&mut b, "decoder", sizes, &reversed, config.recon_loss, &blocks)?;
        let prototypes = Prototypes::new(&mut b, levels.types().len(), config.latent_dim)?;
        Ok(Self { config, n_genes, levels, theta, embeddings, encoder, decoder, prototypes, weights: b.finish() })
    }

    /// The options it was built with.
    pub fn config(&self) -> &ScpoliConfig {
        &self.config
    }

    /// The types of cells.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The embeddings of conditions.
    pub fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// The prototypes.
    pub fn prototypes(&self) -> &Prototypes {
        &self.prototypes
    }

    /// Posteriors of cells with these embedded conditions.
    pub fn encode(&self, x: &Tensor, embedded: &Tensor, pass: &mut Pass<'_>) -> Posterior {
        self.encoder.forward(&self.config.recon_loss.encoder_input(x), Condition::Vectors(embedded), pass)
    }

    /// Posteriors of the cells and one draw from each.
    pub fn inference(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Inference {
        let embedded = self.embeddings.look_up(&minibatch.covariates);
        let qz = match &minibatch.minified {
            Some(kept) => Posterior::kept(kept),
            None => self.encode(&minibatch.x, &embedded, pass),
        };
        let z = qz.sample(&pass.noise.normal("z", &qz.mean.size(), qz.mean.device()));
        Inference { qz, z, embedded }
    }

    /// Decodes latent states of cells with these embedded conditions.
    pub fn generative(&self, z: &Tensor, totals: &Tensor, embedded: &Tensor, pass: &mut Pass<'_>) -> Decoded {
        self.decoder.forward(z, Condition::Vectors(embedded), totals, pass)
    }

    /// Inverse dispersion of each cell's genes, where there is one.
    pub fn dispersion(&self, minibatch: &Minibatch, covariates: &Covariates) -> Option<Tensor> {
        self.theta.as_ref().map(|theta| theta.select(minibatch, covariates).exp())
    }

    /// The terms of the loss of each cell.
    pub fn loss_terms(&self, minibatch: &Minibatch, inference: &Inference, decoded: &Decoded) -> ScpoliLoss {
        let theta = self.dispersion(minibatch, &minibatch.covariates);
        let types = self.levels.of_minibatch(minibatch);
        ScpoliLoss {
            reconstruction: decoded.output.loss(&minibatch.x, theta.as_ref()),
            kl: inference.qz.kl_standard_normal(),
            prototypes: self.prototypes.loss(&inference.z, &types, self.config.p_prototype_loss),
        }
    }
}

impl ScpoliModule {
    /// What the kernels are told about the prototypes that draw cells now.
    fn anchors(&self) -> Option<AnchorSpec> {
        let drawing = self.prototypes.drawing()?;
        let points =
            |rows: &Tensor| -> Vec<Vec<f32>> { to_array(rows).rows().into_iter().map(|row| row.to_vec()).collect() };
        let means = points(self.prototypes.mean()).into_iter().zip(self.prototypes.are_present());
        Some(AnchorSpec {
            weight: self.config.eta,
            nearest_weight: self.config.unlabeled_weight,
            norm: self.config.p_prototype_loss,
            of_groups: means.map(|(mean, is_present)| is_present.then_some(mean)).collect(),
            groups: self.levels.slots(),
            others: drawing.clusters.as_ref().map(points),
            figures: AnchorFigures {
                unweighted: UNWEIGHTED_LOSS,
                weighted: PROTOTYPE_LOSS,
                of_groups: LABELLED_LOSS,
                nearest: UNLABELLED_LOSS,
            },
        })
    }
}

impl ScpoliLoss {
    /// What the optimiser minimises, with the weight of the divergence; a scalar.
    pub fn total(&self, kl_weight: f64, config: &ScpoliConfig) -> Tensor {
        let loss = (&self.reconstruction + &self.kl * kl_weight).mean(Kind::Float);
        match &self.prototypes {
            Some(prototypes) => loss + prototypes.total(config.unlabeled_weight) * config.eta,
            None => loss,
        }
    }

    /// The figures of the terms that upstream logs while prototypes draw cells.
    pub fn figures(&self, config: &ScpoliConfig) -> Vec<(&'static str, Tensor)> {
        let Some(prototypes) = &self.prototypes else { return Vec::new() };
        let total = prototypes.total(config.unlabeled_weight);
        let unweighted = (&self.reconstruction + &self.kl).mean(Kind::Float) + &total;
        let unlabelled = prototypes.unlabelled.as_ref().map(|loss| (UNLABELLED_LOSS, loss.shallow_clone()));
        let labelled = (LABELLED_LOSS, prototypes.labelled.shallow_clone());
        [(UNWEIGHTED_LOSS, unweighted), (PROTOTYPE_LOSS, total * config.eta), labelled]
            .into_iter()
            .chain(unlabelled)
            .collect()
    }
}

impl Module for ScpoliModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.inference(minibatch, pass);
        let decoded = self.generative(&inference.z, &totals(&minibatch.x), &inference.embedded, pass);
        let terms = self.loss_terms(minibatch, &inference, &decoded);
        let (loss, further) = (terms.total(kl_weight, &self.config), terms.figures(&self.config));
        LossTerms { loss, reconstruction: terms.reconstruction, kl_local: terms.kl, further, latent: None }
    }

    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        recipe::of_run(self, run)
    }

    fn contributions(&self, dataset: &Dataset<'_>, cells: &[usize]) -> Result<Vec<Contribution>> {
        contributions::of_cells(self, dataset, cells)
    }

    fn train_spec(&self) -> Result<VaeSpec, Unsupported> {
        let PosteriorSpec { layers: mut encoder, mean, var } = self.encoder.spec()?;
        let (mut decoder, head, dropout) = self.decoder.spec()?;
        let theta = self.theta.as_ref().map(|_| "theta.condition".to_owned());
        let embedded = self.embeddings.spec().ok_or(Unsupported("there are several condition keys"))?;
        for layer in [&mut encoder[0], &mut decoder[0]] {
            if let Some(ColumnsSpec::Vectors { rows, .. }) = &mut layer.columns {
                *rows = Some(embedded.clone());
            }
        }
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
            discrepancy: None,
            anchors: self.anchors(),
            labels: None,
            modalities: None,
        })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }

    fn as_count_model(&self) -> Option<&dyn CountModel> {
        Some(self)
    }

    fn as_label_model(&self) -> Option<&dyn LabelModel> {
        self.prototypes.are_present().contains(&true).then_some(self as &dyn LabelModel)
    }

    fn answer(&self, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
        questions::answer(self, question, asked, given)
    }
}

impl Embedder for ScpoliModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        match &minibatch.minified {
            Some(kept) => Posterior::kept(kept),
            None => self.encode(&minibatch.x, &self.embeddings.look_up(&minibatch.covariates), pass),
        }
    }

    fn first_decoded(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Tensor> {
        let Inference { z, embedded, .. } = self.inference(minibatch, pass);
        Some(self.generative(&z, &totals(&minibatch.x), &embedded, pass).first)
    }
}

impl LabelModel for ScpoliModule {
    /// Those of the first level: the softmax of distances, nearest first. Types without a prototype have none.
    fn label_probabilities(&self, minibatch: &Minibatch, from: PredictFrom, pass: &mut Pass<'_>) -> Tensor {
        let z = match from {
            PredictFrom::Mean => self.posterior(minibatch, pass).mean,
            PredictFrom::Draw => self.inference(minibatch, pass).z,
        };
        let types = Tensor::from_slice(self.levels.of_level(0)).to_device(z.device());
        let away = distances(&z, &self.prototypes.mean().index_select(0, &types), EUCLIDEAN);
        let present = Tensor::from_slice(&self.prototypes.are_present()).to_device(z.device()).index_select(0, &types);
        away.masked_fill(&present.logical_not(), f64::INFINITY).neg().softmax(-1, Kind::Float)
    }
}

/// Upstream's name of the loss with every divergence at full weight, and the distance to prototypes without theirs.
pub(super) const UNWEIGHTED_LOSS: &str = "unweighted_loss";
/// Upstream's names of the distances to prototypes: all with their weight, those to types, those to clusters.
const PROTOTYPE_LOSS: &str = "prototype_loss";
const LABELLED_LOSS: &str = "labeled_loss";
const UNLABELLED_LOSS: &str = "unlabeled_loss";
/// The norm that types are told by where nothing else is asked for.
pub(super) const EUCLIDEAN: f64 = 2.0;
