//! A saved model as a value.

use std::{collections::BTreeMap, path::PathBuf};

use archipelago_common::StateDict;

use super::{Arguments, SavedRegistry, ToolsVersion, read::MODEL};
use crate::{error::Error, formats::pickle::Scalar};

/// A model as scvi-tools saved it.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedModel {
    /// The version that saved it; what the tensors mean can depend on it.
    pub version: ToolsVersion,
    /// The class; not kept before 0.15.
    pub model_name: Option<String>,
    /// The tensors under upstream's names.
    pub state_dict: StateDict,
    /// Names of the variables it was trained on.
    pub var_names: VarNames,
    /// Arguments of the constructor.
    pub init_params: Arguments,
    /// What whoever imports it says of options that upstream does not have.
    pub chosen: BTreeMap<String, serde_json::Value>,
    /// What was registered of the data.
    pub registry: SavedRegistry,
    /// The label that stands for unlabelled cells, where the model takes such.
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

    /// An error about it.
    pub fn refuse(&self, detail: impl Into<String>) -> Error {
        Error::Import { file: PathBuf::from(MODEL), detail: detail.into() }
    }
}
