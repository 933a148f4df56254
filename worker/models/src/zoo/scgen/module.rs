//! The network of scGen: inference, generative, loss.

use std::cmp::Ordering;

use archipelago_common::part::Contribution;
use ndarray::Array2;
use tch::{Kind, Tensor};

use super::{
    ScgenConfig, arithmetic, label_means,
    layers::{Decoder, Encoder},
    questions, recipe,
};
use crate::{
    data::{Categorical, Dataset, LABELS, Minibatch, Registry, Slot, slot::Labels},
    error::{Error, Result},
    fast::{
        Autoencoder, Divergence, EncoderInput, HeadSpec, Link, PosteriorSpec, Purpose, ReconstructionSpec, Unsupported,
        VaeSpec,
    },
    losses::LossTerms,
    model::{Embedder, Module, Moments},
    nn::{Builder, Mode, Pass, Posterior, SeededNoise, Weights},
    parts::Parts,
    reference::to_array,
    results::{Answer, Asked, Given},
    train::{EVALUATION_MINIBATCH, Recipe, Run},
};

/// The network of scGen.
#[derive(Debug)]
pub struct ScgenModule {
    config: ScgenConfig,
    encoder: Encoder,
    decoder: Decoder,
    /// The types of cells, and those of them that the reference knows.
    labels: Option<(Slot<Labels>, Vec<String>)>,
    weights: Weights,
}

/// The terms of the loss, apart.
#[derive(Debug)]
pub struct ScgenLoss {
    /// Squared error of each cell, the mean over its genes, `[n]`.
    pub error: Tensor,
    /// Divergence of the latent state, `[n]`.
    pub kl: Tensor,
}

impl ScgenModule {
    /// Builds the network.
    ///
    /// # Errors  stored tensors that do not fit
    pub fn new(config: ScgenConfig, registry: &Registry, n_genes: usize, mut b: Builder<'_>) -> Result<Self> {
        let ScgenConfig { hidden_layer_sizes: hidden, z_dimension, dr_rate, .. } = &config;
        let encoder = Encoder::new(&mut b, n_genes, hidden, *z_dimension, *dr_rate)?;
        let decoder = Decoder::new(&mut b, *z_dimension, hidden, n_genes, *dr_rate)?;
        let labels = registry.find(LABELS)?.map(|slot| (slot, registry.labels().to_vec()));
        Ok(Self { config, encoder, decoder, labels, weights: b.finish() })
    }

    /// The options it was built with.
    pub fn config(&self) -> &ScgenConfig {
        &self.config
    }

    /// The posterior of each cell of `x`, `[n, n_genes]`.
    pub fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Posterior {
        self.encoder.forward(x, pass)
    }

    /// One draw of each cell's latent state, `[n, z_dimension]`.
    pub fn draw(&self, x: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let qz = self.encode(x, pass);
        qz.sample(&pass.noise.normal("z", &qz.mean.size(), qz.mean.device()))
    }

    /// Expression of latent states, `[n, n_genes]`.
    pub fn decode(&self, z: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        self.decoder.forward(z, pass)
    }

    /// The types of cells.
    ///
    /// # Errors  [`Error::MissingField`] where the cells' types are not known
    pub(super) fn types(&self, dataset: &Dataset<'_>) -> Result<Categorical> {
        let missing = || Error::MissingField { name: LABELS.to_owned() };
        let (slot, known) = self.labels.as_ref().ok_or_else(missing)?;
        let names = known.iter().chain(dataset.new_labels(*slot)).cloned().collect();
        // Between the codes of known types and those of new ones is that of cells without a type.
        let place = |&code: &i64| match code.cmp(&(known.len() as i64)) {
            Ordering::Less => Ok(code as u32),
            Ordering::Equal => Err(missing()),
            Ordering::Greater => Ok(code as u32 - 1),
        };
        Categorical::new(LABELS, dataset.codes(*slot).iter().map(place).collect::<Result<_>>()?, names)
    }

    /// Means of the latent states of some cells: by the kernels where these can, so that they are those that cells are embedded with.
    fn latent_means(&self, dataset: &Dataset<'_>, cells: &[usize]) -> Array2<f32> {
        if let Ok(mut fast) = Autoencoder::new(self, dataset, Purpose::Embed(Moments::Mean), &|_| false) {
            let (means, _) = fast.embed_cells(cells);
            let shape = (cells.len(), self.config.z_dimension);
            return Array2::from_shape_vec(shape, means).expect("every cell has as many dimensions");
        }
        let _guard = tch::no_grad_guard();
        let mut none = SeededNoise::new([0; 32]);
        let mut of_some = |cells: &[usize]| {
            let minibatch = dataset.minibatch(cells, self.weights.device());
            self.encode(&minibatch.x, &mut Pass { mode: Mode::Evaluation, noise: &mut none }).mean
        };
        to_array(&Tensor::cat(&cells.chunks(EVALUATION_MINIBATCH).map(&mut of_some).collect::<Vec<_>>(), 0))
    }

    /// The terms of the loss of each cell.
    pub fn loss_terms(&self, x: &Tensor, qz: &Posterior, decoded: &Tensor) -> ScgenLoss {
        let error = (decoded - x).square().mean_dim([1_i64].as_slice(), false, Kind::Float);
        ScgenLoss { error, kl: qz.kl_standard_normal() }
    }
}

impl ScgenLoss {
    /// What the optimiser minimises, a scalar: the error is a mean over cells, the divergence is a sum over them.
    pub fn total(&self, kl_weight: f64) -> Tensor {
        self.error.mean(Kind::Float) + self.kl.sum(Kind::Float) * kl_weight
    }
}

impl Module for ScgenModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let qz = self.encode(&minibatch.x, pass);
        let z = qz.sample(&pass.noise.normal("z", &qz.mean.size(), qz.mean.device()));
        let decoded = self.decode(&z, pass);
        let terms = self.loss_terms(&minibatch.x, &qz, &decoded);
        let loss = terms.total(kl_weight);
        LossTerms { loss, reconstruction: terms.error, kl_local: terms.kl, further: Vec::new(), latent: None }
    }

    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        recipe::of_run(&self.config, &self.weights, run)
    }

    fn contributions(&self, dataset: &Dataset<'_>, cells: &[usize]) -> Result<Vec<Contribution>> {
        let Ok(types) = self.types(dataset) else { return Ok(Vec::new()) };
        if cells.is_empty() {
            return Ok(Vec::new());
        }
        let latent = self.latent_means(dataset, cells);
        let named = cells.iter().map(|&cell| (cell, types.names()[types.codes()[cell] as usize].as_str()));
        Ok(vec![label_means::contribution(latent.view(), named)?])
    }

    fn place(&self, mut latent: Array2<f32>, dataset: &Dataset<'_>, parts: &Parts) -> Result<Array2<f32>> {
        let types = self.types(dataset)?;
        let conditions = arithmetic::groups(dataset);
        let reference = label_means::means(parts.of_reference(label_means::PART))?;
        let shifts = arithmetic::shifts_onto(&reference, &arithmetic::means(latent.view(), &types, &conditions));
        arithmetic::shift(&mut latent, &types, &conditions, &shifts);
        Ok(latent)
    }

    fn train_spec(&self) -> std::result::Result<VaeSpec, Unsupported> {
        let PosteriorSpec { layers: encoder, mean, var } = self.encoder.spec();
        let (decoder, head) = self.decoder.spec();
        Ok(VaeSpec {
            n_genes: encoder[0].n_in,
            n_latent: self.config.z_dimension,
            encoder,
            mean,
            var,
            variance_floor: 0.0,
            divergence: Divergence::Summed,
            decoder,
            head: HeadSpec::Full(head),
            dropout: None,
            log_r: None,
            reconstruction: ReconstructionSpec::Squared { link: Link::Identity, is_mean: true },
            input: EncoderInput::Count,
            discrepancy: None,
            anchors: None,
            labels: None,
            modalities: None,
        })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }

    fn answer(&self, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
        questions::answer(self, question, asked, given)
    }
}

impl Embedder for ScgenModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        self.encode(&minibatch.x, pass)
    }
}
