//! Constructor arguments, and how versions nested them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::Understood;
use crate::formats::pickle::Value;

/// Arguments of a constructor, as it was called.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Arguments {
    /// Those that its signature names.
    pub named: BTreeMap<String, Json>,
    /// Those that it passes on, under the names of the parameters that catch them.
    pub further: BTreeMap<String, BTreeMap<String, Json>>,
}

impl Arguments {
    /// The value of an argument at any level.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.further.values().find_map(|inner| inner.get(name)).or_else(|| self.named.get(name))
    }

    /// All arguments of all levels.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.named.iter().chain(self.further.values().flatten()).map(|(name, value)| (name.as_str(), value))
    }

    /// Reads `init_params_`.
    pub(super) fn read(value: Value<'_>) -> Understood<Self> {
        let Some(Json::Object(levels)) = value.to_json() else {
            return Err(format!("`init_params_` is {}, expected a dict of options", value.kind()));
        };
        let (named, nested) = match (levels.get("non_kwargs"), levels.get("kwargs")) {
            (Some(Json::Object(named)), Some(Json::Object(nested))) => (named.clone(), nested.clone()),
            // Before the split, values are arguments and dicts hold further ones.
            _ => levels.into_iter().partition(|(_, value)| !value.is_object()),
        };
        let inner = |(name, value)| match value {
            Json::Object(inner) => Some((name, options(inner))),
            _ => None,
        };
        Ok(Self { named: options(named), further: nested.into_iter().filter_map(inner).collect() })
    }

    /// `init_params_` in the form of version 1.4.
    pub(super) fn write(&self) -> Json {
        json!({ "kwargs": self.further, "non_kwargs": self.named })
    }
}

fn options(arguments: Map<String, Json>) -> BTreeMap<String, Json> {
    arguments.into_iter().filter(|(name, _)| !NOT_OPTIONS.contains(&name.as_str())).collect()
}

/// Arguments that say nothing about the network: a device, a loader, and what old versions handed on elsewhere.
const NOT_OPTIONS: [&str; 5] = ["datamodule", "pretrained_model", "registry", "unlabeled_category", "use_cuda"];
