//! scANVI: scVI with cell types, known for some cells and predicted for the others (Xu et al. 2021).

mod classifier;
mod config;
mod module;
mod start;

pub use classifier::Classifier;
pub use config::{ClassifierParameters, LabelOptions, ScanviConfig};
pub use module::{OverLabels, ScanviModule};

use crate::{
    data::LabelUse,
    error::Result,
    model::{Blueprint, Config, Model, ModelCard, Module, OptionCard},
    nn::Builder,
    start::Drawn,
    zoo::scvi,
};

/// The zoo's entry.
pub struct Scanvi;

impl Model for Scanvi {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: "scanvi",
            title: "scANVI",
            paper: "Xu et al., Molecular Systems Biology 2021; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds cells from raw counts and cell types, and predicts the types of cells that have none",
            federation: "exact: a condition owns one column of each layer that takes the batch; the classifier is frozen",
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        [scvi::config::OPTIONS, config::OPTIONS].concat()
    }

    fn resolve(&self, options: &Config) -> Result<Config> {
        ScanviConfig::parse(options).map(|config| config.to_options())
    }

    fn options_for_surgery(&self) -> Config {
        crate::zoo::scvi::ScviConfig::for_surgery().to_options()
    }

    fn label_use(&self, config: &Config) -> Result<LabelUse> {
        Ok(LabelUse::Partial { unlabelled: ScanviConfig::parse(config)?.own.unlabeled_category })
    }

    fn moves_embedding(&self, config: &Config) -> Result<bool> {
        ScanviConfig::parse(config).map(|config| config.scvi.encode_covariates)
    }

    fn upstream_start(&self, blueprint: &Blueprint, n_conditions: usize) -> Result<Option<Vec<Drawn>>> {
        let config = ScanviConfig::parse(&blueprint.config)?;
        Ok(start::order(&config, &blueprint.registry, blueprint.n_genes, n_conditions))
    }

    fn starts_from(&self) -> Option<&'static str> {
        Some("scvi")
    }

    fn build(&self, blueprint: &Blueprint, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        let config = ScanviConfig::parse(&blueprint.config)?;
        Ok(Box::new(ScanviModule::new(config, &blueprint.registry, blueprint.n_genes, builder)?))
    }
}
