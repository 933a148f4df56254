//! scVI: a variational autoencoder of counts, conditioned on the batch (Lopez et al. 2018; surgery: Lotfollahi et al. 2021).

pub(super) mod config;
mod module;
mod results;
pub(super) mod start;

pub use config::{BatchRepresentation, Dispersion, LatentDistribution, Norms, ScviConfig};
pub use module::{Generative, Inference, ScviLoss, ScviModule};

use crate::{
    data::LabelUse,
    error::Result,
    model::{Blueprint, Config, Model, ModelCard, Module, OptionCard},
    nn::Builder,
    start::Drawn,
};

/// The zoo's entry.
pub struct Scvi;

impl Model for Scvi {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: "scvi",
            title: "scVI",
            paper: "Lopez et al., Nature Methods 2018; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds and integrates cells from raw counts, without labels",
            federation: "exact: a condition owns one column of each layer that takes the batch",
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        config::OPTIONS.to_vec()
    }

    fn resolve(&self, options: &Config) -> Result<Config> {
        ScviConfig::parse(options).map(|config| config.to_options())
    }

    fn options_for_surgery(&self) -> Config {
        ScviConfig::for_surgery().to_options()
    }

    fn label_use(&self, config: &Config) -> Result<LabelUse> {
        let uses_labels = ScviConfig::parse(config)?.dispersion == Dispersion::GeneLabel;
        Ok(if uses_labels { LabelUse::Encoded } else { LabelUse::Ignored })
    }

    fn moves_embedding(&self, config: &Config) -> Result<bool> {
        ScviConfig::parse(config).map(|config| config.encode_covariates)
    }

    fn upstream_start(&self, blueprint: &Blueprint, n_conditions: usize) -> Result<Option<Vec<Drawn>>> {
        let config = ScviConfig::parse(&blueprint.config)?;
        Ok(start::order(&config, &blueprint.registry, blueprint.n_genes, n_conditions))
    }

    fn build(&self, blueprint: &Blueprint, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        let config = ScviConfig::parse(&blueprint.config)?;
        Ok(Box::new(ScviModule::new(config, &blueprint.registry, blueprint.n_genes, builder)?))
    }
}
