//! What determines a module beside its tensors, as a reference's card keeps it.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{BaseCard, ConditionKey, Layout, Name, Section, StateDict, layout::Axis};
use serde_json::Value;

use crate::{
    data::{CellConditions, Cells, Dataset, Field, FieldKind, GrownAxis, Names, Registry},
    error::{Error, Result},
    extension::Extension,
    model::{Config, Configured, Model, Module},
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
        Self::made(card, |model, options| model.configure(options))
    }

    /// The blueprint of a card with what a site adds.
    ///
    /// # Errors  those of [`Self::of_card`], and an addition that the model does not take
    pub fn extended(card: &BaseCard, extension: &Extension) -> Result<Self> {
        Self::made(card, |model, options| model.extended(options, extension))
    }

    /// The blueprint of a card with what sites have added, as [kept](crate::kept) tensors tell.
    ///
    /// # Errors  those of [`Self::of_card`]
    pub fn with_kept(card: &BaseCard, kept: &StateDict) -> Result<Self> {
        Self::made(card, |model, options| model.with_kept(options, kept))
    }

    /// The blueprint of a card after upstream's surgery has made an addition part of it.
    ///
    /// # Errors  those of [`Self::extended`]
    pub fn grown(card: &BaseCard, extension: &Extension) -> Result<Self> {
        let Self { model, registry, n_genes } = Self::of_card(card)?;
        let (model, registry) = zoo::model(&card.model)?.grown(&model.options(), registry, extension)?;
        Ok(Self { model, registry, n_genes })
    }

    fn made(
        card: &BaseCard,
        configure: impl FnOnce(&dyn Model, &Config) -> Result<Box<dyn Configured>>,
    ) -> Result<Self> {
        let mut options = card.config.clone();
        let registry = options.remove(REGISTRY).unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let registry: Registry = serde_json::from_value(registry)
            .map_err(|e| Error::Config { model: "reference", detail: format!("registry: {e}") })?;
        let registry = registry.with_labels_of_card(card.labels.clone(), card.labels_key.as_deref());
        let model = configure(zoo::model(&card.model)?, &options)?;
        let registry = registry.of_model(&model.fields());
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

    /// The further axes that the model grows along, in its order, and whose the names on them are.
    pub fn axes(&self) -> Vec<(Name, Names)> {
        let axis = |field: Field| match field.kind {
            FieldKind::Axis(names) => Some((field.name.parse().expect("an axis is made of a name"), names)),
            _ => None,
        };
        self.model.fields().into_iter().filter_map(axis).collect()
    }

    /// Checks that cells have keys on these axes, and on no others.
    ///
    /// # Errors  [`Error::MissingField`], [`Error::OtherAxes`]
    pub fn check_axes(&self, conditions: &CellConditions) -> Result<()> {
        let expected: Vec<Section> = self.axes().into_iter().map(|(name, _)| Section::Axis(name)).collect();
        let mut found = Vec::new();
        for axis in conditions.further() {
            let sections: BTreeSet<&Section> = axis.keys().iter().map(ConditionKey::section).collect();
            found.extend(sections.into_iter().cloned());
        }
        if found == expected {
            return Ok(());
        }
        match expected.iter().find(|axis| !found.contains(axis)) {
            Some(Section::Axis(axis)) => Err(Error::MissingField { name: axis.to_string() }),
            _ => Err(Error::OtherAxes { found: list(&found), expected: list(&expected) }),
        }
    }

    /// Encodes cells, whose codes on every axis are those of `conditions`.
    ///
    /// # Errors  data that the reference does not know or cannot take
    pub fn encode<'a>(&self, cells: &Cells<'a>, conditions: &CellConditions) -> Result<Dataset<'a>> {
        self.check_axes(conditions)?;
        self.registry.encode(cells, conditions.codes(), self.n_genes)?.with_axes(conditions.further())
    }

    /// Encodes cells by which a base grows that has this layout: codes on further axes are those of the rows that the base keeps for
    /// everybody, and behind them of the cells' own keys.
    ///
    /// # Errors  data that the reference does not know or cannot take
    pub(crate) fn encode_to_grow<'a>(
        &self,
        cells: &Cells<'a>,
        conditions: &CellConditions,
        layout: &Layout,
    ) -> Result<(Dataset<'a>, Vec<GrownAxis>)> {
        self.check_axes(conditions)?;
        let grown = |((name, _), cells): ((Name, Names), &CellConditions)| {
            let section = Section::Axis(name.clone());
            match layout.axis(&section) {
                Some(axis) => GrownAxis::new(name, axis, cells),
                None => GrownAxis::new(name, &Axis::new(section, BTreeMap::new()), cells),
            }
        };
        let axes: Vec<GrownAxis> = self.axes().into_iter().zip(conditions.further()).map(grown).collect();
        let dataset = self.registry.encode(cells, conditions.codes(), self.n_genes)?;
        let dataset = axes.iter().try_fold(dataset, |cells, axis| cells.with_codes(&axis.codes))?;
        Ok((dataset, axes))
    }

    /// Builds the module from fresh or stored tensors.
    ///
    /// # Errors  tensors that do not fit
    pub fn build(&self, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        self.model.build(&self.registry, self.n_genes, builder)
    }
}

fn list(axes: &[Section]) -> String {
    match axes {
        [] => "no axis".to_owned(),
        axes => axes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Key of the registry among the options of a card.
const REGISTRY: &str = "registry";
