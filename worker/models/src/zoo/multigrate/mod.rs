//! Multigrate: any modalities of the same cells, or of some of them, in one latent space (Lotfollahi, Litinetskaya, Theis 2022).

mod alignment;
mod config;
mod covariates;
mod decoder;
mod experts;
mod module;
mod questions;
mod recipe;
mod results;
mod saved;
mod upstream;

pub use config::{
    Aligned, Alignment, Curve, Initialization, KernelType, Mix, ModalityLoss, MultigrateConfig, Normalization, Release,
};
pub use decoder::Decoded;
pub use experts::Latent;
pub use module::{Inference, MultigrateLoss, MultigrateModule};
pub use recipe::Grouped;
pub use upstream::trains;

use std::borrow::Cow;

use archipelago_common::{Figure, figure::Better};

use crate::{
    data::{Field, FieldKind, Need, Registry, Values},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    results::QuestionCard,
    surgery::upstream::{Flags, UpstreamRules},
    train::{AdamOptions, Decay, EarlyStopping, Epochs, Monitor, TrainDefaults, WarmupDefault, Watched},
    upstream::Upstream,
    zoo::family::{Frozen, keys},
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

    fn questions(&self) -> &'static [QuestionCard] {
        &[questions::IMPUTE, questions::MODALITY_LATENT]
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::ScviTools(&Self))
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Frozen { unfrozen: flags.unfrozen, trains }))
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
            partial: true,
            none: vec![],
        };
        let axes = keys::axes(&self.condition_keys, &self.common_condition_keys);
        let has_counts = (0..self.n_modalities()).any(|m| self.loss(m).is_of_counts());
        let modalities = (1..).zip(&self.modalities).map(modality);
        let further = [Field::continuous()].into_iter().chain(has_counts.then(Field::size_factor));
        [Field::rna(of_genes)].into_iter().chain(modalities).chain(axes).chain(further).collect()
    }

    fn figures(&self) -> &'static [Figure] {
        let n = self.n_modalities().min(MAX_MODALITIES);
        match self.pulls_together() {
            true => &FIGURES[..3 + n],
            false => &FIGURES_WITHOUT[..2 + n],
        }
    }

    fn moves_embedding(&self) -> bool {
        self.condition_encoders
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(MultigrateModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// Modalities that figures tell apart, gene expression among them.
const MAX_MODALITIES: usize = 8;
/// The figures of the modalities' losses, upstream's names.
const MODALITY_FIGURES: [(&str, &str); MAX_MODALITIES] = [
    ("modality_0_reconstruction_loss", "loss of the first modality"),
    ("modality_1_reconstruction_loss", "loss of the second modality"),
    ("modality_2_reconstruction_loss", "loss of the third modality"),
    ("modality_3_reconstruction_loss", "loss of the fourth modality"),
    ("modality_4_reconstruction_loss", "loss of the fifth modality"),
    ("modality_5_reconstruction_loss", "loss of the sixth modality"),
    ("modality_6_reconstruction_loss", "loss of the seventh modality"),
    ("modality_7_reconstruction_loss", "loss of the eighth modality"),
];
/// The figure of what pulls together, without its weight.
const INTEG: &str = "integ_loss";

/// These figures, and behind them those of all modalities.
macro_rules! before_modalities {
    ($($figure:expr),+) => {
        [$($figure,)+ modality(0), modality(1), modality(2), modality(3), modality(4), modality(5), modality(6), modality(7)]
    };
}

/// What is reported of a fit where something pulls together: the sum of the modalities, and each of them.
static FIGURES: [Figure; 3 + MAX_MODALITIES] = before_modalities![Figure::ELBO, Figure::RECONSTRUCTION, APART];
/// What is reported of a fit where nothing does.
static FIGURES_WITHOUT: [Figure; 2 + MAX_MODALITIES] = before_modalities![Figure::ELBO, Figure::RECONSTRUCTION];

const APART: Figure = Figure {
    name: Cow::Borrowed(INTEG),
    title: Cow::Borrowed("distance of groups and modalities"),
    unit: Cow::Borrowed("without its weight"),
    better: Better::Lower,
    opposed_to: None,
};

const fn modality(m: usize) -> Figure {
    let (name, title) = MODALITY_FIGURES[m];
    Figure {
        name: Cow::Borrowed(name),
        title: Cow::Borrowed(title),
        unit: Cow::Borrowed("per cell, weighted"),
        better: Better::Lower,
        opposed_to: None,
    }
}

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
