//! scPoli: a conditional variational autoencoder whose conditions are embedded, and whose cell types have prototypes that cells are drawn to
//! (De Donno et al. 2023).

pub mod classify;
mod config;
mod contributions;
mod embeddings;
mod file;
mod levels;
mod module;
mod phase;
pub mod prototypes;
mod questions;
mod recipe;
mod results;
mod start;
mod upstream;

pub use config::{Clustering, Injected, ScpoliConfig};
pub use embeddings::Embeddings;
pub use levels::Levels;
pub use module::{Inference, ScpoliLoss, ScpoliModule};
pub use phase::ClusterPrototypes;

use archipelago_common::{Layout, layout::Rule};

use self::prototypes::Statistics;
use crate::{
    data::{Field, Registry, Values},
    error::{Error, Result},
    extension::Extension,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    results::QuestionCard,
    start::Drawn,
    surgery::upstream::{Flags, UpstreamRules},
    train::{AdamOptions, EarlyStopping, Epochs, Monitor, Plateau, TrainDefaults, WarmupDefault},
    upstream::Upstream,
    zoo::family::{Freeze, OfConditions, keys},
};

/// The zoo's entry.
pub struct Scpoli;

impl Model for Scpoli {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: config::NAME,
            title: "scPoli",
            paper: "De Donno et al., Nature Methods 2023; surgery: Lotfollahi et al., Nature Biotechnology 2022",
            purpose: "embeds cells and samples from raw counts, and predicts cell types with their uncertainty",
            federation: "exact: a condition owns one row of the embeddings and its dispersions; cell types of several sites are \
                         put together as pooled statistics, and cells with types that draw them make surgery approximate",
            example: "cells.h5ad --model scpoli --batch-key batch --batches 10x_3pv1,10x_3pv2 --labels-key cell_type --out \
                      reference",
            training: TRAINING,
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        ScpoliConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(ScpoliConfig::parse(options)?))
    }

    fn options_for_surgery(&self) -> Config {
        options::to_config(&ScpoliConfig::for_surgery())
    }

    fn options_of_upstream_query(&self) -> &'static [&'static str] {
        &config::OF_UPSTREAM_QUERY
    }

    fn extended(&self, options: &Config, extension: &Extension) -> Result<Box<dyn Configured>> {
        if !extension.is_empty() {
            let detail = "prototypes draw the cells of a query by upstream's surgery alone; exact surgery takes neither options nor \
                          gene sets of a query";
            return Err(Error::Config { model: config::NAME, detail: detail.to_owned() });
        }
        self.configure(options)
    }

    fn grown(
        &self,
        options: &Config,
        registry: Registry,
        extension: &Extension,
    ) -> Result<(Box<dyn Configured>, Registry)> {
        let refuse = |detail: String| Err(Error::Config { model: config::NAME, detail });
        let of_query = config::OF_UPSTREAM_QUERY;
        if let Some(name) = extension.options.keys().find(|name| !of_query.contains(&name.as_str())) {
            return refuse(format!("`{name}` is the reference's: a query can have {}", of_query.join(", ")));
        }
        if extension.gene_sets.is_some() {
            return refuse("it has no terms, and takes no gene sets".to_owned());
        }
        let mut grown = options::to_config(&ScpoliConfig::parse(options)?);
        grown.extend(extension.options.clone());
        Ok((self.configure(&grown)?, registry))
    }

    fn questions(&self) -> &'static [QuestionCard] {
        &[
            questions::CLASSIFY,
            questions::PROTOTYPES_TABLE,
            questions::SAMPLE_EMBEDDINGS,
            questions::CLUSTERS_TABLE,
            questions::ADD_CELL_TYPE,
        ]
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::Scarches(&Self))
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Freeze { conditions: OfConditions::Embeddings, ..Freeze::from(flags) }))
    }
}

impl Configured for ScpoliConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let values = if self.recon_loss.likelihood().is_some() { Values::Counts } else { Values::LogNormalised };
        let axes = keys::axes(&self.condition_keys, &self.common_condition_keys);
        [Field::rna(values)]
            .into_iter()
            .chain(axes)
            .chain(levels::fields(&self.unlabeled_category, &self.unknown_ct_names))
            .collect()
    }

    fn moves_embedding(&self) -> bool {
        self.inject_condition.in_encoder()
    }

    fn settle(&mut self, n_genes: usize) {
        self.hidden_layer_sizes = Some(self.hidden(n_genes));
    }

    fn upstream_start(&self, _registry: &Registry, n_genes: usize, n_conditions: usize) -> Option<Vec<Drawn>> {
        self.condition_keys.is_empty().then(|| start::order(self, n_genes, n_conditions))
    }

    fn layout(&self, of_tensors: Layout) -> Layout {
        let tables = Statistics::tables(self.latent_dim);
        Layout { parts: [(contributions::part(), Rule::Pool { tables })].into(), ..of_tensors }
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(ScpoliModule::new(self.clone(), registry, n_genes, builder)?))
    }
}

/// Upstream's.
const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(100),
    adam: AdamOptions { weight_decay: 0.04, ..TrainDefaults::SCVI_TOOLS.adam },
    kl_warmup: WarmupDefault::Epochs(100),
    early_stopping: Some(EarlyStopping::new(Monitor::Validation, 20, 0.0, 0)),
    plateau: Some(Plateau::new(0.1, 13, 0.0, 0.0)),
    ..TrainDefaults::SCVI_TOOLS
};
