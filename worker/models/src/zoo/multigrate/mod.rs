//! Multigrate: any modalities of the same cells, or of some of them, in one latent space (Lotfollahi, Litinetskaya, Theis 2022).

mod alignment;
mod config;
mod covariates;
mod decoder;
mod experts;
mod module;
mod recipe;
mod upstream;

pub use config::{Aligned, Alignment, Curve, KernelType, Mix, ModalityLoss, MultigrateConfig, Normalization, Release};
pub use decoder::Decoded;
pub use experts::Latent;
pub use module::{Inference, MultigrateLoss, MultigrateModule};
pub use recipe::Grouped;
pub use upstream::Frozen;

use std::borrow::Cow;

use crate::{
    data::{Field, FieldKind, Need, Registry, Values},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    surgery::upstream::{Flags, UpstreamRules},
    train::{AdamOptions, Decay, EarlyStopping, Epochs, Monitor, TrainDefaults, WarmupDefault, Watched},
    zoo::family::keys,
};

/// The zoo's entry.
pub struct Multigrate;

impl Model for Multigrate {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: config::NAME,
            title: "Multigrate",
            paper: "Lotfollahi, Litinetskaya, Theis, bioRxiv 2022",
            purpose: "embeds and integrates cells from several modalities, of which any cell may lack some",
            federation: "exact: a category owns one row of its covariate's embeddings, and dispersions where groups are \
                         integrated; what pulls groups together acts within a reference only",
            example: "multiome.h5mu --model multigrate --modalities atac --losses nb,mse --field atac=mod/atac --out reference",
            training: TRAINING,
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        MultigrateConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(MultigrateConfig::parse(options)?))
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Frozen::from(flags)))
    }
}

impl Configured for MultigrateConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let of_genes = match self.loss(0) {
            ModalityLoss::Mse => Values::LogNormalised,
            other => other.values(),
        };
        let modality = |(m, name): (usize, &archipelago_common::Name)| Field {
            name: Cow::Owned(name.as_str().to_owned()),
            kind: FieldKind::Matrix(self.loss(m).values()),
            need: Need::ToTrain,
            help: "values of a modality",
            grows: false,
        };
        let axes = keys::axes(&self.categorical_covariate_keys, &self.common_covariate_keys);
        let has_counts = (0..self.n_modalities()).any(|m| self.loss(m).is_of_counts());
        let modalities = (1..).zip(&self.modalities).map(modality);
        let further = [Field::continuous()].into_iter().chain(has_counts.then(Field::size_factor));
        [Field::rna(of_genes)].into_iter().chain(modalities).chain(axes).chain(further).collect()
    }

    fn moves_embedding(&self) -> bool {
        self.condition_encoders
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(MultigrateModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// Figures of the modalities' reconstruction, by their place; more modalities than these are not told apart.
const MODALITY_FIGURES: [&str; 8] = [
    "modality_0_reconstruction_loss",
    "modality_1_reconstruction_loss",
    "modality_2_reconstruction_loss",
    "modality_3_reconstruction_loss",
    "modality_4_reconstruction_loss",
    "modality_5_reconstruction_loss",
    "modality_6_reconstruction_loss",
    "modality_7_reconstruction_loss",
];
/// The figure of what pulls together, without its weight.
const INTEG: &str = "integ_loss";

/// Upstream's. The warm-up starts without any divergence and takes a third of the epochs.
const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(200),
    minibatch: 256,
    adam: AdamOptions { rate: 5e-4, eps: 1e-8, weight_decay: 1e-3, decay: Decay::Decoupled },
    kl_warmup: WarmupDefault::ShareOfEpochs(1.0 / 3.0),
    early_stopping: Some(EarlyStopping::new(Monitor::Validation, 10, 0.0, 0)),
    watched: Watched { figure: "reconstruction", sign: 1 },
    ..TrainDefaults::SCVI_TOOLS
};
