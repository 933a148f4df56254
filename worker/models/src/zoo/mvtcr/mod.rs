//! mvTCR: a T cell's transcriptome and its receptor in one latent space (Drost, An et al. 2024).

mod chains;
pub mod clonotypes;
mod conditions;
mod config;
pub mod criterion;
mod loss;
mod mlp;
mod modulation;
mod module;
mod network;
mod questions;
mod recipe;
mod saved;
mod search;
mod sequences;
mod transformer;
mod upstream;

pub use config::{Chains, Criterion, MvtcrConfig, Variant};
pub use loss::MvtcrLoss;
pub use mlp::MlpActivation;
pub use module::{Inference, MvtcrModule};
pub use network::{Decoded, Latent};
pub use upstream::trains;

use rand_chacha::ChaCha8Rng;

use crate::{
    data::{Field, FieldKind, LABELS, Need, Registry, Values},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module, Trial},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    results::QuestionCard,
    surgery::upstream::{Flags, UpstreamRules},
    train::{AdamOptions, Decay, EarlyStopping, Epochs, Monitor, TrainDefaults, WarmupDefault, Watched},
    upstream::Upstream,
    zoo::family::Frozen,
};

/// The zoo's entry.
pub struct Mvtcr;

impl Model for Mvtcr {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: config::NAME,
            title: "mvTCR",
            paper: "Drost, An et al., Nature Communications 2024",
            purpose: "embeds T cells by expression and by the amino acids of their receptors",
            federation: "exact: a condition owns one row of the embeddings. Receptors identify people: no sequence, no clonotype and no \
                         place of a single cell leaves a site, and nothing of fewer cells or donors than its policy asks for",
            example: "tcells.h5ad --model mvtcr --batch-key donor --field receptor=obsm/airr --out reference",
            training: TRAINING,
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        MvtcrConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(MvtcrConfig::parse(options)?))
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::Archive(&Self))
    }

    fn trial(&self, rng: &mut ChaCha8Rng) -> Option<Trial> {
        Some(search::draw(rng))
    }

    fn questions(&self) -> &'static [QuestionCard] {
        &[questions::MODALITIES, questions::AMINO_ACIDS]
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Frozen { unfrozen: flags.unfrozen, trains }))
    }
}

impl Configured for MvtcrConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let kind = FieldKind::Receptor { chains: self.chains.list(), length: self.max_tcr_length };
        let help = "amino acids of the receptor's chains: a table of AIRR, or a column of obs for each chain";
        let receptor = Field::new(module::RECEPTOR, kind, Need::Required, help);
        let labels = FieldKind::Labels { unlabelled: None };
        let labels = Field::new(LABELS, labels, Need::Free, "names by which a state is chosen").growing();
        let receptor = self.variant.has_tcr().then_some(receptor);
        let states = FieldKind::Labels { unlabelled: None };
        let states =
            Field::new(module::PERTURBATION, states, Need::Free, "states before and after a perturbation").growing();
        let states = (self.selected_by == Criterion::ModulationPrediction).then_some(states);
        [Field::rna(Values::LogNormalised)].into_iter().chain(receptor).chain([labels]).chain(states).collect()
    }

    fn moves_embedding(&self) -> bool {
        self.conditional
    }

    fn chosen_by(&self) -> Watched {
        match self.selected_by {
            Criterion::Reconstruction => Watched::LOSS,
            Criterion::PseudoMetric | Criterion::KnnPrediction | Criterion::ModulationPrediction => {
                Watched { figure: criterion::FIGURE, sign: -1 }
            }
        }
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(MvtcrModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// What of the loss is the expression's, weighted.
const RNA_LOSS: &str = "rna_loss";
/// What of it is the receptor's.
const TCR_LOSS: &str = "tcr_loss";
/// What of it is the divergence's, with its annealing factor.
const KL_LOSS: &str = "kld_loss";

/// Upstream's. The divergence is annealed over 30 % of the epochs, from nothing.
const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(200),
    minibatch: 512,
    adam: AdamOptions { rate: 3e-4, eps: 1e-8, weight_decay: 0.0, decay: Decay::L2 },
    kl_warmup: WarmupDefault::ShareOfEpochs(0.3),
    early_stopping: Some(EarlyStopping::new(Monitor::Validation, 5, 0.0, 0)),
    watched: Watched::LOSS,
    ..TrainDefaults::SCVI_TOOLS
};
