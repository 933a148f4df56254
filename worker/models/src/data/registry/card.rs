//! A registry as a reference's card keeps it.
//!
//! The fields that the first models had are written in words of their own, which every card in use has and whose bytes its
//! version is the digest of. All other fields are written by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Registered, Registry};
use crate::data::{
    CATEGORICAL, CONTINUOUS, Encoding, LABELS, OBS, OBSM, Range, SIZE_FACTOR, Values,
    encoding::{LabelNames, Panel},
};

/// What a card holds.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OnCard {
    /// The category of cells without a label. The labels themselves are a field of the card.
    #[serde(skip_serializing_if = "Option::is_none")]
    unlabelled: Option<String>,
    categorical: BTreeMap<String, Vec<String>>,
    continuous: Vec<String>,
    size_factor: bool,
    /// The obs column that held it.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_factor_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proteins: Vec<String>,
    /// The key of obsm that held them, or `mod/` and the name of a modality.
    #[serde(skip_serializing_if = "Option::is_none")]
    protein_key: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, Registered>,
}

impl From<Registry> for OnCard {
    fn from(registry: Registry) -> Self {
        let mut card = Self::default();
        for (name, Registered { encoding, source }) in registry.fields {
            match (name.as_str(), encoding) {
                (LABELS, Encoding::Labels(labels)) => card.unlabelled = labels.unlabelled,
                (CATEGORICAL, Encoding::Categories(columns)) => card.categorical = columns,
                (CONTINUOUS, Encoding::Numbers(names)) => card.continuous = names,
                (SIZE_FACTOR, Encoding::Number(Range::Positive)) => {
                    card.size_factor = true;
                    card.size_factor_key = source.map(|source| stripped(OBS, source));
                }
                (PROTEINS, Encoding::Matrix(Panel { names, values: Values::Counts, may_lack: true })) => {
                    card.proteins = names;
                    card.protein_key = source.map(|source| stripped(OBSM, source));
                }
                (_, encoding) => drop(card.fields.insert(name, Registered { encoding, source })),
            }
        }
        card
    }
}

impl From<OnCard> for Registry {
    fn from(card: OnCard) -> Self {
        let mut registry = Self { fields: card.fields, ..Self::default() };
        if card.unlabelled.is_some() {
            let labels = LabelNames { names: vec![], unlabelled: card.unlabelled };
            registry = registry.with(LABELS, Encoding::Labels(labels));
        }
        if !card.categorical.is_empty() {
            registry = registry.with(CATEGORICAL, Encoding::Categories(card.categorical));
        }
        if !card.continuous.is_empty() {
            registry = registry.with(CONTINUOUS, Encoding::Numbers(card.continuous));
        }
        if card.size_factor {
            let source = card.size_factor_key.map(|key| format!("{OBS}{key}"));
            registry = registry.with(SIZE_FACTOR, Encoding::Number(Range::Positive)).found_at(SIZE_FACTOR, source);
        }
        if !card.proteins.is_empty() {
            let panel = Panel { names: card.proteins, values: Values::Counts, may_lack: true };
            let source = card.protein_key.map(|key| if key.contains('/') { key } else { format!("{OBSM}{key}") });
            registry = registry.with(PROTEINS, Encoding::Matrix(panel)).found_at(PROTEINS, source);
        }
        registry
    }
}

/// The field that cards know by a word of its own.
const PROTEINS: &str = "proteins";

/// A source in the word of its group; another source whole.
fn stripped(group: &str, source: String) -> String {
    match source.strip_prefix(group) {
        Some(key) => key.split('@').next().unwrap_or_default().to_owned(),
        None => source,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Cards that were written before fields had names.
    #[test]
    fn cards_of_the_first_models_keep_their_bytes() {
        for card in [
            json!({ "categorical": {}, "continuous": [], "size_factor": false }),
            json!({ "unlabelled": "?", "categorical": { "assay": ["a", "b"] }, "continuous": ["age"],
                    "size_factor": true, "size_factor_key": "sf" }),
            json!({ "categorical": {}, "continuous": [], "size_factor": false, "proteins": ["CD3"],
                    "protein_key": "protein_expression" }),
            json!({ "categorical": {}, "continuous": [], "size_factor": true, "proteins": ["CD3"],
                    "protein_key": "mod/prot" }),
        ] {
            let registry: Registry = serde_json::from_value(card.clone()).unwrap();
            assert_eq!(serde_json::to_value(&registry).unwrap(), card);
        }
        let registry: Registry = serde_json::from_value(json!({})).unwrap();
        assert_eq!(registry, Registry::default());
        assert!(serde_json::from_value::<Registry>(json!({ "protiens": [] })).is_err());
    }

    #[test]
    fn where_a_field_was_found_is_a_source_whatever_the_card_says() {
        let card = json!({ "size_factor": true, "size_factor_key": "sf", "proteins": ["CD3"], "protein_key": "adt" });
        let registry: Registry = serde_json::from_value(card).unwrap();
        assert_eq!(registry.obs_key(SIZE_FACTOR), Some("sf"));
        assert_eq!(registry.get(PROTEINS).unwrap().source.as_deref(), Some("obsm/adt"));
    }
}
