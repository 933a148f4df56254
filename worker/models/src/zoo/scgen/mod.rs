//! scGen: an autoencoder of normalised expression whose latent space answers by adding and subtracting (Lotfollahi et al. 2019).
//!
//! No layer hears of conditions, so surgery has nothing to train: [`arithmetic`] maps queries, onto the means of cell types that a
//! reference holds as a [part](label_means).

pub mod arithmetic;
mod config;
pub mod label_means;
mod layers;
mod module;
mod questions;
mod recipe;
mod upstream;

pub use config::ScgenConfig;
pub use module::{ScgenLoss, ScgenModule};

use std::borrow::Cow;

use archipelago_common::{
    Layout, Name,
    figure::{Better, Figure},
    layout::{Derivation, Growth},
    part::SUM,
};

use crate::{
    data::{Field, FieldKind, LABELS, Need, Registry, Values},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    results::QuestionCard,
    train::{AdamOptions, EarlyStopping, Epochs, Monitor, Plateau, RECONSTRUCTION, TrainDefaults, WarmupDefault},
    upstream::Upstream,
};

/// The zoo's entry.
pub struct Scgen;

impl Model for Scgen {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: config::NAME,
            title: "scGen",
            paper: "Lotfollahi et al., Nature Methods 2019; mapping: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "predicts how cells answer to a perturbation, and removes batch effects between cells of known types",
            federation: "exact and trains nothing: a site lays its cells onto the means of cell types that the reference holds, and \
                         hands in numbers and sums of its own",
            training: TRAINING,
            example: "normalised.h5ad --model scgen --batch-key condition --labels-key cell_type --out reference",
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        ScgenConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(ScgenConfig::parse(options)?))
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::Scarches(&Self))
    }

    fn questions(&self) -> &'static [QuestionCard] {
        &[questions::REMOVE_BATCH, questions::PREDICT_PERTURBATION, questions::LABEL_MEANS]
    }

    fn maps_by(&self) -> &'static [&'static str] {
        &[label_means::PART]
    }
}

impl Configured for ScgenConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let kind = FieldKind::Labels { unlabelled: None };
        let labels = Field::new(LABELS, kind, Need::Free, "cell types, which batches are compared within");
        vec![Field::rna(Values::LogNormalised), labels.growing()]
    }

    /// By the means of cell types that a reference holds.
    fn moves_embedding(&self) -> bool {
        true
    }

    fn figures(&self) -> &'static [Figure] {
        &FIGURES
    }

    fn layout(&self, of_tensors: Layout) -> Layout {
        let reason = "scGen has no weights of conditions; its cells move by means of their types".to_owned();
        let name = |name: &str| -> Name { name.parse().expect("the names of a model's parts are names") };
        let part = name(label_means::PART);
        let derivation = Derivation { function: name(SUM), part: part.clone() };
        Layout {
            growth: Growth::NoSurgery { reason },
            parts: [(part, label_means::rule(self.z_dimension))].into(),
            derived: [(name(label_means::TOTALS), derivation)].into(),
            ..of_tensors
        }
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(ScgenModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// Its loss is no bound of a likelihood, so the error alone says how good a fit is.
const FIGURES: [Figure; 1] = [Figure {
    name: Cow::Borrowed(RECONSTRUCTION),
    title: Cow::Borrowed("mean squared error"),
    unit: Cow::Borrowed("squared log counts"),
    better: Better::Lower,
    opposed_to: None,
}];

/// Upstream's.
const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(100),
    minibatch: 32,
    adam: AdamOptions { eps: 1e-8, weight_decay: 0.0, ..TrainDefaults::SCVI_TOOLS.adam },
    kl_warmup: WarmupDefault::Off,
    max_kl_weight: 1e-6,
    early_stopping: Some(EarlyStopping::new(Monitor::Validation, 20, 0.0, 0)),
    plateau: Some(Plateau::new(0.1, 13, 0.0, 0.0)),
    ..TrainDefaults::SCVI_TOOLS
};
