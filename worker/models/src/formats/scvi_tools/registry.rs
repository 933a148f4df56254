//! What scvi-tools remembers of the data a model was trained on.

use std::collections::BTreeMap;

use archipelago_anndata::names;
use serde_json::Value as Json;

use crate::formats::pickle::Scalar;

/// The registry, in one form for all versions.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct SavedRegistry {
    /// How the data were set up: `setup_anndata`, `setup_mudata`…
    pub setup_method: String,
    /// The arguments of that set-up, as they were given.
    pub setup_args: BTreeMap<String, Json>,
    /// Whether the set-up takes these arguments and none of scvi-tools' own beside them: another package's.
    pub is_foreign: bool,
    /// Number of cells, where it was kept.
    pub n_cells: Option<u64>,
    /// Names of the genes, where they were registered (not before 0.15).
    pub genes: Vec<String>,
    /// The batch.
    pub batch: CategoricalField,
    /// The labels; a category for unlabelled cells is the last one.
    pub labels: CategoricalField,
    /// The obs column of size factors.
    pub size_factor_key: Option<String>,
    /// Further categorical covariates, in the order of their columns.
    pub categorical_covariates: Vec<CategoricalField>,
    /// Continuous covariates, in the order of their columns.
    pub continuous_covariates: Vec<String>,
    /// The proteins, where there are some.
    pub proteins: Option<ProteinField>,
    /// Registered fields that this program does not know.
    pub other_fields: Vec<String>,
}

/// A categorical column. Without one in the data, scvi-tools registers one category `0` under a key of its own.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct CategoricalField {
    /// The obs column.
    pub key: String,
    /// Its categories by code, of the type they had in the data.
    pub categories: Vec<Scalar>,
}

/// Proteins of a CITE-seq model.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ProteinField {
    /// Where the counts are: a key of obsm.
    pub key: Option<String>,
    /// Their names, in order.
    pub names: Vec<String>,
    /// Which proteins were measured, by code of the batch; empty where all were.
    pub measured: BTreeMap<usize, Vec<bool>>,
}

impl CategoricalField {
    /// Whether the data had such a column.
    pub fn is_registered(&self) -> bool {
        !self.key.is_empty() && !Self::is_made_up(&self.key)
    }

    /// Whether scvi-tools made up the key of a column that the data did not have.
    pub fn is_made_up(key: &str) -> bool {
        key.starts_with(INTERNAL)
    }

    /// Categories by their names.
    pub fn names(&self) -> Vec<String> {
        self.categories.iter().map(|category| Self::name(category).unwrap_or_else(|| category.to_string())).collect()
    }

    /// The name of a category as a column of its type is named when a file of cells is read; NaN, a missing value, has none.
    pub fn name(category: &Scalar) -> Option<String> {
        match category {
            Scalar::Float(number) => names::of_number(*number),
            other => Some(other.to_string()),
        }
    }
}

/// What the keys of columns begin with that scvi-tools made up.
const INTERNAL: &str = "_scvi_";
