//! totalVI: RNA and surface proteins of the same cells in one latent space (Gayoso et al. 2021).

mod adversary;
mod background;
mod block;
mod config;
mod likelihood;
mod module;
mod networks;
mod proteins;
mod results;
mod start;
mod upstream;

pub use adversary::Adversary;
pub use config::{BackgroundActivation, Behaviour, DecoderOptions, GeneDispersion, ProteinDispersion, TotalviConfig};
pub use likelihood::ProteinParameters;
pub(crate) use module::MEASURED;
pub use module::{Generative, Inference, TotalviLoss, TotalviModule};
pub use proteins::{ProteinAsk, foreground_probability_of, protein_expression_of};

use crate::{
    data::{Field, FieldKind, Need, Registry, Values},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    results::QuestionCard,
    start::Drawn,
    surgery::upstream::{Flags, UpstreamRules},
    train::{AdamOptions, EarlyStopping, Monitor, Plateau, TrainDefaults, WarmupDefault},
    upstream::Upstream,
    zoo::family::{masks::Masks, scvi_tools::fields_of_counts},
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
            example: "cite.h5ad --model totalvi --protein-obsm-key protein_expression --out reference",
            training: TRAINING,
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

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Masks(*flags)))
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::ScviTools(&Totalvi))
    }

    fn questions(&self) -> &'static [QuestionCard] {
        &[proteins::QUESTION]
    }
}

impl Configured for TotalviConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let counts = FieldKind::Matrix(Values::Counts);
        let proteins = Field::new(PROTEINS, counts, Need::ToTrain, "counts of surface proteins");
        let takes_labels = self.takes_labels();
        fields_of_counts().into_iter().chain([proteins]).chain(takes_labels.then(Field::labels)).collect()
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
/// The field of protein counts.
pub const PROTEINS: &str = "proteins";

/// Upstream's: a warm-up by steps, and a learning rate that falls where the validation ELBO stalls.
const TRAINING: TrainDefaults = TrainDefaults {
    minibatch: 256,
    adam: AdamOptions { rate: 4e-3, ..TrainDefaults::SCVI_TOOLS.adam },
    kl_warmup: WarmupDefault::StepsPerCell(0.75),
    early_stopping: Some(EarlyStopping::new(Monitor::Validation, 45, 0.0, 0)),
    plateau: Some(Plateau::new(0.6, 30, 0.0, 0.0)),
    ..TrainDefaults::SCVI_TOOLS
};
