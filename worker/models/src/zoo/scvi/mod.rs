//! scVI: a variational autoencoder of counts, conditioned on the batch (Lopez et al. 2018; surgery: Lotfollahi et al. 2021).

pub(super) mod config;
mod module;
mod results;
pub(super) mod start;
pub(super) mod upstream;

pub use config::{BatchNormAffine, BatchRepresentation, Dispersion, ScviConfig};
pub use module::{Generative, Inference, ScviLoss, ScviModule};

use crate::{
    data::{Field, Registry},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    start::Drawn,
    surgery::upstream::{Flags, UpstreamRules},
    train::TrainDefaults,
    upstream::Upstream,
    zoo::family::{masks::Masks, scvi_tools::fields_of_counts},
};

/// The zoo's entry.
pub struct Scvi;

impl Model for Scvi {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: NAME,
            title: "scVI",
            paper: "Lopez et al., Nature Methods 2018; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds and integrates cells from raw counts, without labels",
            federation: "exact: a condition owns one column of each layer that takes the batch",
            example: "cells.h5ad --batch-key batch --batches 10x_3pv1,10x_3pv2 --epochs 100 --out reference",
            // Measured: docs/quality.md.
            training: TrainDefaults { reference_pull: 2.0, ..TrainDefaults::SCVI_TOOLS },
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        ScviConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(ScviConfig::parse(options)?))
    }

    fn options_for_surgery(&self) -> Config {
        options::to_config(&ScviConfig::for_surgery())
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Masks(*flags)))
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::ScviTools(&Scvi))
    }
}

impl Configured for ScviConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let takes_labels = self.dispersion == Dispersion::GeneLabel;
        fields_of_counts().into_iter().chain(takes_labels.then(Field::labels)).collect()
    }

    fn moves_embedding(&self) -> bool {
        self.encode_covariates
    }

    fn learns_library(&self) -> bool {
        !self.use_observed_lib_size
    }

    fn upstream_start(&self, registry: &Registry, n_genes: usize, n_conditions: usize) -> Option<Vec<Drawn>> {
        start::order(self, registry, n_genes, n_conditions)
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(ScviModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// Its name in the zoo.
const NAME: &str = "scvi";
