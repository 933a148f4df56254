//! trVAE: a conditional variational autoencoder that pulls conditions together by their maximum mean discrepancy
//! (Lotfollahi et al. 2020; surgery: Lotfollahi et al. 2022).

mod config;
mod module;
mod results;
mod start;
mod upstream;

pub use config::{MmdOn, TrvaeConfig};
pub use module::{Inference, TrvaeLoss, TrvaeModule};

use std::borrow::Cow;

use archipelago_common::{Figure, figure::Better};

use crate::{
    data::{Field, Registry, Values},
    error::Result,
    losses::mmd,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    start::Drawn,
    surgery::upstream::{Flags, UpstreamRules},
    train::{AdamOptions, EarlyStopping, Epochs, Monitor, Plateau, TrainDefaults, WarmupDefault},
    upstream::Upstream,
    zoo::family::Freeze,
};

/// The zoo's entry.
pub struct Trvae;

impl Model for Trvae {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: config::NAME,
            title: "trVAE",
            paper: "Lotfollahi et al., Bioinformatics 2020; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds and integrates cells from raw counts, or from normalised values, and pulls conditions together",
            federation: "exact: a condition owns one column of both first layers and its dispersions; what pulls conditions \
                         together acts between the conditions of a reference only",
            example: "cells.h5ad --model trvae --batch-key batch --batches 10x_3pv1,10x_3pv2 --out reference",
            training: TRAINING,
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        TrvaeConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(TrvaeConfig::parse(options)?))
    }

    fn options_for_surgery(&self) -> Config {
        options::to_config(&TrvaeConfig::for_surgery())
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::Scarches(&Self))
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Freeze::from(flags)))
    }
}

impl Configured for TrvaeConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        vec![Field::rna(match self.recon_loss.likelihood() {
            Some(_) => Values::Counts,
            None => Values::LogNormalised,
        })]
    }

    fn moves_embedding(&self) -> bool {
        true
    }

    fn figures(&self) -> &'static [Figure] {
        match (self.recon_loss.likelihood(), self.use_mmd) {
            (Some(_), false) => &Figure::USUAL,
            (Some(_), true) => &OF_COUNTS,
            (None, true) => &OF_VALUES,
            (None, false) => &OF_VALUES[..1],
        }
    }

    fn upstream_start(&self, _registry: &Registry, n_genes: usize, n_conditions: usize) -> Option<Vec<Drawn>> {
        Some(start::order(self, n_genes, n_conditions))
    }

    fn build(&self, _registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(TrvaeModule::new(self.clone(), n_genes, builder)?))
    }
}

/// How far apart the conditions of a reference are, times its weight in the loss. A single condition has none.
const DISCREPANCY: Figure = Figure {
    name: Cow::Borrowed(mmd::FIGURE),
    title: Cow::Borrowed("discrepancy"),
    unit: Cow::Borrowed("between conditions, weighted"),
    better: Better::Lower,
    opposed_to: None,
};
const OF_COUNTS: [Figure; 3] = [Figure::ELBO, Figure::RECONSTRUCTION, DISCREPANCY];
/// A squared difference is no likelihood, so there is no bound of one.
const OF_VALUES: [Figure; 2] = [
    Figure {
        title: Cow::Borrowed("squared error"),
        unit: Cow::Borrowed("squared log values per cell"),
        ..Figure::RECONSTRUCTION
    },
    DISCREPANCY,
];

/// Upstream's; no warm-up, where its tutorial asks for one of 200 epochs.
const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(400),
    adam: AdamOptions { weight_decay: 0.04, ..TrainDefaults::SCVI_TOOLS.adam },
    kl_warmup: WarmupDefault::Off,
    early_stopping: Some(EarlyStopping::new(Monitor::Validation, 20, 0.0, 0)),
    plateau: Some(Plateau::new(0.1, 13, 0.0, 0.0)),
    ..TrainDefaults::SCVI_TOOLS
};
