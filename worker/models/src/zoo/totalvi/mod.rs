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
    data::{LabelUse, Registry},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    start::Drawn,
    train::{KlWarmup, Plateau, TrainPlan},
};

/// The zoo's entry.
pub struct Totalvi;

impl Model for Totalvi {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: NAME,
            title: "totalVI",
            paper: "Gayoso, Steier et al., Nature Methods 2021; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds and integrates cells from raw RNA and protein counts, and imputes proteins that were not measured",
            federation: "exact: a condition owns one column of each layer and head, its protein background and efficiency, and \
                         which proteins it measured; references train against a classifier of conditions where proteins are \
                         missing, surgery does not",
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        TotalviConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(TotalviConfig::parse(options)?))
    }

    fn options_for_surgery(&self) -> Config {
        options::to_config(&TotalviConfig::for_surgery())
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
}

impl Configured for TotalviConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn label_use(&self) -> LabelUse {
        if self.takes_labels() { LabelUse::Encoded } else { LabelUse::Ignored }
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
        Ok(Box::new(TotalviModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// Its name in the zoo.
const NAME: &str = "totalvi";
/// Steps of warm-up for each cell.
const WARMUP_STEPS_PER_CELL: f64 = 0.75;
