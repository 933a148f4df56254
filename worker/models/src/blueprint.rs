//! What determines a module beside its tensors, as a reference's card keeps it.

use archipelago_common::{BaseCard, Layout};
use serde_json::Value;

use crate::{
    data::Registry,
    error::{Error, Result},
    model::{Config, Configured, Module},
    nn::Builder,
    zoo,
};

/// Everything beside tensors that determines a module.
#[derive(Debug)]
pub struct Blueprint {
    /// The model with its options.
    pub model: Box<dyn Configured>,
    /// How covariates are encoded.
    pub registry: Registry,
    /// Number of genes in the panel.
    pub n_genes: usize,
}

impl Blueprint {
    /// The blueprint that a reference's card describes.
    ///
    /// # Errors  [`Error::UnknownModel`], [`Error::Config`] if the card's options or registry cannot be read
    pub fn of_card(card: &BaseCard) -> Result<Self> {
        let mut options = card.config.clone();
        let registry = options.remove(REGISTRY).unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let registry: Registry = serde_json::from_value(registry)
            .map_err(|e| Error::Config { model: "reference", detail: format!("registry: {e}") })?;
        let registry = registry.with_labels_of_card(card.labels.clone(), card.labels_key.as_deref());
        let model = zoo::model(&card.model)?.configure(&options)?;
        Ok(Self { model, registry, n_genes: card.genes.len() })
    }

    /// What a reference's card keeps: options and registry.
    pub fn to_card_config(&self) -> Config {
        let mut config = self.model.options();
        let registry = serde_json::to_value(&self.registry).expect("names serialize to JSON");
        config.insert(REGISTRY.to_owned(), registry);
        config
    }

    /// What versions over a reference of this module hold, and what their conditions come with.
    pub fn layout(&self, module: &dyn Module) -> Layout {
        let layout = self.model.layout(module.weights().layout());
        Layout { figures: self.model.figures().to_vec(), ..layout }
    }

    /// Builds the module from fresh or stored tensors.
    ///
    /// # Errors  tensors that do not fit
    pub fn build(&self, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        self.model.build(&self.registry, self.n_genes, builder)
    }
}

/// Key of the registry among the options of a card.
const REGISTRY: &str = "registry";
