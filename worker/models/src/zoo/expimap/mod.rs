//! expiMap: an autoencoder whose latent numbers are gene sets (Lotfollahi, Rybakov et al. 2023).
//!
//! The decoder is one linear map from terms to genes, held to the terms' sets by a mask (`weights`); a group lasso switches terms off
//! (`proximal`). A query can bring new terms (`new_terms`), which stay with it or are `contributed`. What terms say is in `terms` and
//! `enrichment`.

mod config;
mod contributed;
mod enrichment;
mod module;
mod new_terms;
mod proximal;
mod questions;
mod recipe;
mod results;
mod start;
mod terms;
mod upstream;
mod weights;

pub use config::{ExpimapConfig, LastLayer};
pub use enrichment::{Enriched, Sides, enriched};
pub use module::{Decoded, ExpimapLoss, ExpimapModule, Inference};
pub use proximal::{Penalty, Rise, shrink_columns, shrink_each};
pub use terms::{Direction, Origin, Term, TermGene};
pub use upstream::FreezeTerms;

use archipelago_common::{ConditionKey, Layout, Name, StateDict, layout::Rule};

use self::new_terms::Wanted;
use crate::{
    data::{Encoding, Field, GENE_SETS, GeneSets, NEW_GENE_SETS, Registry, Values, slot},
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
};

/// The zoo's entry.
pub struct Expimap;

/// The model with its options, and what a site adds.
#[derive(Clone, PartialEq, Debug)]
pub struct Configuration {
    /// The reference's.
    pub reference: ExpimapConfig,
    /// Of a site that maps: its options, and the sets of its new terms.
    pub own: Option<(ExpimapConfig, Option<GeneSets>)>,
    /// The new terms that came into a version with conditions.
    contributed: Vec<(ConditionKey, Wanted)>,
}

impl Model for Expimap {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: config::NAME,
            title: "expiMap",
            paper: "Lotfollahi, Rybakov et al., Nature Cell Biology 2023",
            purpose: "embeds cells in a space of gene sets: every dimension is a term that a person can read",
            federation: "exact: a condition owns one column of both maps and its dispersions; new terms of a query stay at its site, or \
                         come to stand beside those of others and leave their cells as they are",
            example: "cells.h5ad --model expimap --batch-key study --gene-sets reactome.gmt --set-min-genes 12 --out reference",
            training: TRAINING,
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        ExpimapConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(Configuration::new(ExpimapConfig::parse(options)?, None)))
    }

    fn options_for_surgery(&self) -> Config {
        options::to_config(&ExpimapConfig::for_surgery())
    }

    fn options_of_query(&self) -> &'static [&'static str] {
        &config::OF_QUERY
    }

    fn extended(&self, options: &Config, extension: &Extension) -> Result<Box<dyn Configured>> {
        let reference = ExpimapConfig::parse(options)?;
        let refuse = |detail: String| Err(Error::Config { model: config::NAME, detail });
        if let Some(name) = extension.options.keys().find(|name| !config::OF_QUERY.contains(&name.as_str())) {
            return refuse(format!("`{name}` is the reference's: a query can have {}", config::OF_QUERY.join(", ")));
        }
        // New terms of the reference are none of the query's.
        let mut own = options::to_config(&ExpimapConfig { n_ext: 0, ..reference.clone() });
        own.extend(extension.options.clone());
        let own = ExpimapConfig::parse(&own)?;
        if own.use_hsic && own.n_ext == 0 && extension.options.contains_key("use_hsic") {
            return refuse("`use_hsic` is true and `n_ext` is 0: there is no new term to keep independent".to_owned());
        }
        Ok(Box::new(Configuration::new(reference, Some((own, extension.gene_sets.clone())))))
    }

    fn with_kept(&self, options: &Config, kept: &StateDict) -> Result<Box<dyn Configured>> {
        let reference = ExpimapConfig::parse(options)?;
        let contributed = contributed::wanted(kept)?;
        let own = new_terms::of_site(kept).map_err(|detail| Error::Config { model: config::NAME, detail })?;
        let own = own.map(|Wanted { sets, n_free }| {
            // A soft mask leaves the weights as they were kept.
            (ExpimapConfig { n_ext: n_free, soft_ext_mask: true, ..reference.clone() }, Some(sets))
        });
        Ok(Box::new(Configuration { reference, own, contributed }))
    }

    fn kept_parts(&self) -> &'static [&'static str] {
        &[contributed::PART]
    }

    fn grown(
        &self,
        options: &Config,
        registry: Registry,
        extension: &Extension,
    ) -> Result<(Box<dyn Configured>, Registry)> {
        let reference = ExpimapConfig::parse(options)?;
        let mut grown = options::to_config(&reference);
        grown.extend(extension.options.clone());
        let mut grown = ExpimapConfig::parse(&grown)?;
        if extension.options.contains_key("n_ext") {
            grown.n_ext += reference.n_ext;
        }
        let registry = match &extension.gene_sets {
            None => registry,
            Some(new) => {
                let known = registry.remembered::<slot::GeneSets>(NEW_GENE_SETS).cloned();
                let all = known.map_or_else(|| Ok(new.clone()), |known| known.and(new))?;
                registry.with(NEW_GENE_SETS, Encoding::GeneSets(all))
            }
        };
        Ok((Box::new(Configuration::new(grown, None)), registry))
    }

    fn questions(&self) -> &'static [QuestionCard] {
        &questions::ALL
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream::Scarches(&Self))
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(FreezeTerms::from(flags)))
    }
}

impl Configuration {
    /// The model of a reference, and of a site that maps.
    pub fn new(reference: ExpimapConfig, own: Option<(ExpimapConfig, Option<GeneSets>)>) -> Self {
        Self { reference, own, contributed: Vec::new() }
    }

    /// The options in force: a site's where it maps.
    pub fn in_force(&self) -> &ExpimapConfig {
        self.own.as_ref().map_or(&self.reference, |(own, _)| own)
    }

    /// New terms of the reference.
    fn of_reference(&self, registry: &Registry, n_genes: usize) -> Result<Option<Wanted>> {
        registry.find::<slot::GeneSets>(NEW_GENE_SETS)?;
        let sets = registry.remembered::<slot::GeneSets>(NEW_GENE_SETS).cloned();
        Ok(Wanted::some(sets, self.reference.n_ext, n_genes))
    }

    /// New terms of the site.
    fn of_site(&self, n_genes: usize) -> Option<Wanted> {
        let (own, sets) = self.own.as_ref()?;
        Wanted::some(sets.clone(), own.n_ext, n_genes)
    }
}

impl Configured for Configuration {
    fn options(&self) -> Config {
        options::to_config(&self.reference)
    }

    fn fields(&self) -> Vec<Field> {
        let values = match self.reference.recon_loss.likelihood() {
            Some(_) => Values::Counts,
            None => Values::LogNormalised,
        };
        vec![Field::rna(values), Field::gene_sets(), Field::new_gene_sets()]
    }

    fn moves_embedding(&self) -> bool {
        true
    }

    fn learns_library(&self) -> bool {
        self.reference.use_l_encoder
    }

    fn layout(&self, of_tensors: Layout) -> Layout {
        let part: Name = contributed::PART.parse().expect("the names of a model's parts are names");
        Layout { parts: [(part, Rule::Union)].into(), ..of_tensors }
    }

    fn upstream_start(&self, registry: &Registry, n_genes: usize, n_conditions: usize) -> Option<Vec<Drawn>> {
        let n_terms = registry.remembered::<slot::GeneSets>(GENE_SETS)?.terms().len();
        let added = self.of_reference(registry, n_genes).ok()?;
        Some(start::order(&self.reference, (n_genes, n_terms, n_conditions), added.as_ref()))
    }

    fn enlarged(&self, before: &StateDict, fresh: &StateDict) -> Result<StateDict> {
        new_terms::enlarged(before, fresh)
    }

    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(ExpimapModule::new(self, registry, n_genes, builder)?))
    }
}

/// Upstream's.
const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(400),
    adam: AdamOptions { weight_decay: 0.04, ..TrainDefaults::SCVI_TOOLS.adam },
    kl_warmup: WarmupDefault::AtMostEpochs(130),
    early_stopping: Some(EarlyStopping::new(Monitor::Validation, 20, 0.0, 0)),
    plateau: Some(Plateau::new(0.1, 13, 0.0, 0.0)),
    ..TrainDefaults::SCVI_TOOLS
};
