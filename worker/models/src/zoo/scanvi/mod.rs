//! scANVI: scVI with cell types, known for some cells and predicted for the others (Xu et al. 2021).

mod classifier;
mod config;
mod labelled;
mod module;
mod start;
mod upstream;

pub use classifier::Classifier;
pub use config::{ClassifierParameters, LabelOptions, ScanviConfig};
pub use module::{OverLabels, ScanviModule};

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
    zoo::{
        family::{masks::Masks, scvi_tools::fields_of_counts},
        scvi::ScviConfig,
    },
};

/// The zoo's entry.
pub struct Scanvi;

impl Model for Scanvi {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: NAME,
            title: "scANVI",
            paper: "Xu et al., Molecular Systems Biology 2021; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds cells from raw counts and cell types, and predicts the types of cells that have none",
            federation: "exact: a condition owns one column of each layer that takes the batch; the classifier is frozen",
            example: "cells.h5ad --model scanvi --labels-key cell_type --from-reference reference --n-samples-per-label 100 \
                      --epochs 20 --out labelled",
            training: TrainDefaults::SCVI_TOOLS,
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        ScanviConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(ScanviConfig::parse(options)?))
    }

    fn options_for_surgery(&self) -> Config {
        options::to_config(&ScviConfig::for_surgery())
    }

    fn starts_from(&self) -> Option<&'static str> {
        Some("scvi")
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Masks(*flags)))
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::ScviTools(&Scanvi))
    }
}

impl Configured for ScanviConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let labels = Field::some_labels(self.own.unlabeled_category.clone());
        fields_of_counts().into_iter().chain([labels]).collect()
    }

    fn moves_embedding(&self) -> bool {
        self.scvi.moves_embedding()
    }

    fn learns_library(&self) -> bool {
        self.scvi.learns_library()
    }

    fn upstream_start(&self, registry: &Registry, n_genes: usize, n_conditions: usize) -> Option<Vec<Drawn>> {
        start::order(self, registry, n_genes, n_conditions)
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(ScanviModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// Its name in the zoo.
const NAME: &str = "scanvi";
