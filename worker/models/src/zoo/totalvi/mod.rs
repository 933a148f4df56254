//! totalVI: RNA and surface proteins of the same cells in one latent space (Gayoso et al. 2021).

mod background;
mod config;
mod module;
mod networks;
mod results;
mod start;

use archipelago_common::task::{EarlyStopping, TrainSpec};

pub use config::{BackgroundActivation, Behaviour, DecoderOptions, GeneDispersion, ProteinDispersion, TotalviConfig};
pub(crate) use module::MEASURED;
pub use module::{Generative, Inference, TotalviLoss, TotalviModule};

use crate::{
    data::LabelUse,
    error::Result,
    model::{Blueprint, Config, Model, ModelCard, Module, OptionCard},
    nn::Builder,
    start::Drawn,
    train::{KlWarmup, Plateau, TrainPlan},
};

/// The zoo's entry.
pub struct Totalvi;

impl Model for Totalvi {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: "totalvi",
            title: "totalVI",
            paper: "Gayoso, Steier et al., Nature Methods 2021; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds and integrates cells from raw RNA and protein counts, and imputes proteins that were not measured",
            federation: "exact: a condition owns one column of each layer and head, its protein background and efficiency, and \
                         which proteins it measured; references train against a classifier of conditions where proteins are \
                         missing, surgery does not",
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        config::OPTIONS.to_vec()
    }

    fn resolve(&self, options: &Config) -> Result<Config> {
        TotalviConfig::parse(options).map(|config| config.to_options())
    }

    fn options_for_surgery(&self) -> Config {
        TotalviConfig::for_surgery().to_options()
    }

    fn label_use(&self, config: &Config) -> Result<LabelUse> {
        let takes_labels = TotalviConfig::parse(config)?.takes_labels();
        Ok(if takes_labels { LabelUse::Encoded } else { LabelUse::Ignored })
    }

    fn moves_embedding(&self, config: &Config) -> Result<bool> {
        TotalviConfig::parse(config).map(|config| config.encode_covariates)
    }

    fn takes_proteins(&self) -> bool {
        true
    }

    fn default_spec(&self) -> TrainSpec {
        TrainSpec {
            minibatch: 256,
            learning_rate: 4e-3,
            weight_decay: 1e-6,
            n_epochs_kl_warmup: None,
            early_stopping: Some(EarlyStopping { patience: 45, min_delta: 0.0 }),
            ..TrainSpec::default()
        }
    }

    /// Without a number of epochs the warm-up goes by steps, three for four cells; the learning rate falls where the validation
    /// ELBO stalls.
    fn plan(&self, spec: &TrainSpec, n_cells: usize) -> Result<TrainPlan> {
        let plan = TrainPlan::of_spec(spec, n_cells)?;
        let n_steps = Some((WARMUP_STEPS_PER_CELL * n_cells as f64) as u64);
        let kl = KlWarmup { n_steps, ..plan.kl };
        Ok(TrainPlan { kl, plateau: Some(Plateau::new(0.6, 30, 0.0, 0.0)), ..plan })
    }

    fn upstream_start(&self, blueprint: &Blueprint, n_conditions: usize) -> Result<Option<Vec<Drawn>>> {
        let config = TotalviConfig::parse(&blueprint.config)?;
        Ok(start::order(&config, &blueprint.registry, blueprint.n_genes, n_conditions))
    }

    fn build(&self, blueprint: &Blueprint, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        let config = TotalviConfig::parse(&blueprint.config)?;
        Ok(Box::new(TotalviModule::new(config, &blueprint.registry, blueprint.n_genes, builder)?))
    }
}

/// Steps of warm-up for each cell.
const WARMUP_STEPS_PER_CELL: f64 = 0.75;
