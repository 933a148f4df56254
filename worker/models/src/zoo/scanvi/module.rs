//! The network of scANVI: scVI, a classifier, and a second latent state that labels shape.

use archipelago_common::ConditionKey;
use tch::{Kind, Tensor};

use super::{Classifier, ScanviConfig, classifier::LabelNetworks, labelled::Labelled};
use crate::{
    data::{Dataset, LABELS, Minibatch, Registry, Slot, Split, slot::Labels},
    distributions::normal,
    error::{Error, Result},
    fast::{LabelSpec, Unsupported, VaeSpec},
    losses::LossTerms,
    model::{CountModel, Embedder, LabelModel, Module, PredictFrom},
    nn::{Builder, Init, Pass, Posterior, Role, Weights},
    train::{Recipe, Run},
    zoo::scvi::{ScviLoss, ScviModule},
};

/// The network of scANVI.
#[derive(Debug)]
pub struct ScanviModule {
    config: ScanviConfig,
    scvi: ScviModule,
    classifier: Classifier,
    networks: LabelNetworks,
    /// `[1, n_labels]`
    y_prior: Tensor,
    labels: Slot<Labels>,
    n_labels: i64,
    weights: Weights,
}

/// What follows for cells from each label they could have. Rows of the posteriors are label by label: row `y * n + i` is cell
/// `i` with label `y`.
#[derive(Debug)]
pub struct OverLabels {
    /// Probability of each label, from the drawn latent state, `[n, n_labels]`.
    pub probabilities: Tensor,
    /// `q(z2 | z1, y)`, `[n_labels * n, n_latent]`.
    pub qz2: Posterior,
    /// `p(z1 | z2, y)`, `[n_labels * n, n_latent]`.
    pub pz1: Posterior,
    /// `-log p(z1 | z2, y)`, `[n, n_labels]`, in nats.
    pub negative_log_pz1: Tensor,
    /// `log q(z1 | x)`, `[n]`, in nats.
    pub log_qz1: Tensor,
    /// `KL(q(z2 | z1, y) || N(0, 1))`, `[n, n_labels]`, in nats.
    pub kl_z2: Tensor,
    /// `KL(probabilities || prior)`, `[n]`, in nats.
    pub kl_y: Tensor,
}

impl ScanviModule {
    /// Builds the network.
    ///
    /// # Errors  [`Error::MissingField`] without labels, stored tensors that do not fit
    pub fn new(config: ScanviConfig, registry: &Registry, n_genes: usize, mut builder: Builder<'_>) -> Result<Self> {
        let labels = registry.slot::<Labels>(LABELS)?;
        let n_labels = labels.width();
        if n_labels == 0 {
            return Err(Error::MissingField { name: LABELS.to_owned() });
        }
        let b = &mut builder;
        let scvi = ScviModule::within(config.scvi.clone(), registry, n_genes, b)?;
        let classifier = Classifier::new(b, &config, n_labels)?;
        let networks = LabelNetworks::new(b, &config.scvi, n_labels)?;
        let y_prior = b.tensor("y_prior", &[1, n_labels], Role::Buffer, Init::Constant(1.0 / n_labels as f64))?;
        let n_labels = n_labels as i64;
        Ok(Self { config, scvi, classifier, networks, y_prior, labels, n_labels, weights: builder.finish() })
    }

    /// The part that is scVI.
    pub fn scvi(&self) -> &ScviModule {
        &self.scvi
    }

    /// The part that predicts labels.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// What each possible label says about cells with these posteriors and draws `z1` from them.
    pub fn over_labels(&self, posterior: &Posterior, z1: &Tensor, pass: &mut Pass<'_>) -> OverLabels {
        let (n, n_latent) = z1.size2().expect("one draw per cell is a matrix");
        let labels = Tensor::arange(self.n_labels, (Kind::Int64, z1.device()));
        let labels = labels.repeat_interleave_self_int(n, None, self.n_labels * n);
        let repeated = z1.repeat([self.n_labels, 1]);
        let qz2 = self.networks.encode(&repeated, &labels, pass);
        let z2 = qz2.sample(&pass.noise.normal("z2", &[self.n_labels * n, n_latent], z1.device()));
        let pz1 = self.networks.decode(&z2, &labels, pass);
        let by_cell = |per_row: Tensor| per_row.view([self.n_labels, n]).tr();
        let probabilities = self.classifier.probabilities(z1, pass);
        OverLabels {
            negative_log_pz1: by_cell(-row_sums(&normal::log_prob(&repeated, &pz1.mean, &pz1.var))),
            log_qz1: row_sums(&normal::log_prob(z1, &posterior.mean, &posterior.var)),
            kl_z2: by_cell(qz2.kl_standard_normal()),
            kl_y: kl_categorical(&probabilities, &self.y_prior),
            probabilities,
            qz2,
            pz1,
        }
    }

    /// The labels it learns from.
    pub fn labels(&self) -> Slot<Labels> {
        self.labels
    }

    /// How many labelled cells of each label an epoch trains on at most; all of them without a number.
    pub fn n_samples_per_label(&self) -> Option<usize> {
        self.config.own.n_samples_per_label
    }

    /// What training adds to the loss of a step for labelled cells: the cross entropy of what the classifier makes of the
    /// posterior mean. A head that ends in probabilities is treated as if it gave logits, as upstream does.
    pub fn label_loss(&self, labelled: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let labels = labelled.get(self.labels);
        let mean = self.posterior(labelled, pass).mean;
        self.classifier.forward(&mean, pass).cross_entropy_for_logits(labels) * self.config.own.classification_ratio
    }

    /// The loss of cells whose labels nobody knows. The warm-up weight covers every divergence, that of the library size too.
    pub fn terms(&self, scvi: ScviLoss, over: &OverLabels, kl_weight: f64) -> LossTerms {
        let p = &over.probabilities;
        let reconstruction = scvi.reconstruction + &over.log_qz1 + row_sums(&(p * &over.negative_log_pz1));
        let kl = row_sums(&(p * &over.kl_z2)) + &over.kl_y;
        let kl = match scvi.kl_l {
            Some(kl_l) => kl + kl_l,
            None => kl,
        };
        LossTerms::new(reconstruction, &kl, None, kl_weight)
    }
}

impl Module for ScanviModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn prepare(&self, dataset: &Dataset<'_>, keys: &[ConditionKey]) -> Result<()> {
        self.scvi.prepare(dataset, keys)
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.scvi.inference(minibatch, None, pass);
        let (z, library) = (&inference.z, &inference.library);
        let generative = self.scvi.generative(z, library, minibatch, &minibatch.covariates, pass);
        let scvi = self.scvi.loss_terms(minibatch, &inference, &generative);
        let over = self.over_labels(&inference.qz, z, pass);
        self.terms(scvi, &over, kl_weight)
    }

    /// Labelled cells are held out apart from the others, and every step has some of its own.
    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        let (labelled, rest) = (0..run.dataset.n_cells()).partition(|&cell| run.dataset.is_labelled(self.labels, cell));
        let (size, validation) = (run.plan.train_size, run.plan.validation_size);
        let split = Split::of_groups(&[labelled, rest], size, validation, run.seeds.numpy());
        let labelled = Labelled::new(self, run);
        Ok(Recipe { split: Some(split), hooks: vec![Box::new(labelled)], ..Recipe::default() })
    }

    fn train_spec(&self) -> Result<VaeSpec, Unsupported> {
        let (classifier, head, logits) = self.classifier.spec()?;
        let (encoder, decoder) = self.networks.spec()?;
        let labels = LabelSpec {
            labels: self.labels,
            classifier,
            head,
            logits,
            classification_ratio: self.config.own.classification_ratio,
            encoder,
            decoder,
            prior: "y_prior".to_owned(),
        };
        Ok(VaeSpec { labels: Some(labels), ..self.scvi.train_spec()? })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }

    fn as_count_model(&self) -> Option<&dyn CountModel> {
        Some(&self.scvi)
    }

    fn as_label_model(&self) -> Option<&dyn LabelModel> {
        Some(self)
    }
}

impl Embedder for ScanviModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        self.scvi.posterior(minibatch, pass)
    }

    fn latent_mean(&self, posterior: &Posterior, pass: &mut Pass<'_>) -> Tensor {
        self.scvi.latent_mean(posterior, pass)
    }

    fn posterior_spec(&self) -> Result<VaeSpec, Unsupported> {
        self.scvi.posterior_spec()
    }
}

impl LabelModel for ScanviModule {
    fn label_probabilities(&self, minibatch: &Minibatch, from: PredictFrom, pass: &mut Pass<'_>) -> Tensor {
        let z = match from {
            PredictFrom::Mean => self.posterior(minibatch, pass).mean,
            PredictFrom::Draw => self.scvi.draw(minibatch, pass).z,
        };
        self.classifier.probabilities(&z, pass)
    }
}

/// `KL(p || prior)` per row; finite where a probability is 0, because logarithms are taken of clamped values.
fn kl_categorical(p: &Tensor, prior: &Tensor) -> Tensor {
    let normalised = |values: &Tensor| values / values.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float);
    let log = |values: &Tensor| values.clamp(EPS, 1.0 - EPS).log();
    let (p, prior) = (normalised(p), normalised(prior));
    row_sums(&(&p * (log(&p) - log(&prior))))
}

fn row_sums(values: &Tensor) -> Tensor {
    values.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
}

/// Distance from 1 to the next single-precision number.
const EPS: f64 = f32::EPSILON as f64;
