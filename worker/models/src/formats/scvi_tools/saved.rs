//! A saved model as a value.

use std::collections::BTreeMap;

use archipelago_common::StateDict;
use serde_json::Value as Json;

use super::{SavedRegistry, ToolsVersion, arguments};
use crate::formats::pickle::Scalar;

/// A model as scvi-tools saved it.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedModel {
    /// The version that saved it; what the tensors mean can depend on it.
    pub version: ToolsVersion,
    /// The class: `SCVI`, `SCANVI`, `TOTALVI`…
    pub model_name: String,
    /// The tensors under upstream's names.
    pub state_dict: StateDict,
    /// Names of the variables it was trained on.
    pub var_names: VarNames,
    /// Arguments of the constructor, all levels merged.
    pub init_params: BTreeMap<String, Json>,
    /// What was registered of the data.
    pub registry: SavedRegistry,
    /// The label that stands for unlabelled cells, in scANVI.
    pub unlabeled_category: Option<Scalar>,
    /// Whether it was trained.
    pub is_trained: bool,
    /// Which cells were used for what.
    pub indices: Indices,
}

/// Names of the variables, in the order of the tensors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VarNames {
    /// One list: the genes.
    Flat(Vec<String>),
    /// One list per modality.
    ByModality(Vec<(String, Vec<String>)>),
}

/// Positions of cells in the training data; empty where the model did not keep them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Indices {
    /// Cells it was trained on.
    pub train: Vec<usize>,
    /// Cells it was validated on.
    pub validation: Vec<usize>,
    /// Cells held out.
    pub test: Vec<usize>,
}

impl SavedModel {
    /// The gene panel: what was registered as `X`, or the only list of variables.
    pub fn genes(&self) -> &[String] {
        match &self.var_names {
            _ if !self.registry.genes.is_empty() => &self.registry.genes,
            VarNames::Flat(names) => names,
            VarNames::ByModality(lists) => lists.first().map_or(&[], |(_, names)| names),
        }
    }

    /// Constructor arguments that this program does not know. They are kept, and what they do is not.
    pub fn unknown_arguments(&self) -> Vec<&str> {
        self.init_params
            .keys()
            .map(String::as_str)
            .filter(|name| !arguments::is_known(&self.model_name, name))
            .collect()
    }

    /// Whether the classifier ends in a softmax and so yields probabilities, not logits: scANVI before 1.1.
    pub fn classifier_yields_probabilities(&self) -> bool {
        self.model_name == "SCANVI" && self.version.is_before([1, 1, 0])
    }

    /// Whether the standard deviation of the protein background is an exponential, not a softplus: totalVI before 1.2.
    pub fn has_exponential_background(&self) -> bool {
        self.model_name == "TOTALVI" && self.version.is_before([1, 2, 0])
    }

    /// Whether the encoder sees counts scaled by their means, and the efficiency per batch and log-normal terms are in
    /// the loss: totalVI from 1.3.1.
    pub fn has_scaled_encoder_input(&self) -> bool {
        self.model_name == "TOTALVI" && !self.version.is_before([1, 3, 1])
    }
}
