//! How a reference encoded its covariates, so that query data are encoded the same way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use ndarray::Array2;

use super::{Categorical, Cells, Dataset, cells::check_length};
use crate::error::{Error, Result};

/// Whether a model takes the labels of cells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelUse {
    /// It does not look at them.
    Ignored,
    /// It takes their codes.
    Encoded,
    /// It takes the codes of those cells that have one.
    Partial {
        /// The category that stands for cells without a label.
        unlabelled: String,
    },
}

/// Names and categories of everything that was registered when a model was trained.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Label names by code; empty where the model does not use labels. A card keeps them in a field of its own.
    #[serde(skip)]
    pub labels: Vec<String>,
    /// The category that stands for cells without a label, for a model that takes such cells. It is not one of the labels; its
    /// code is their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<String>,
    /// Categories of each categorical covariate, by name. Name order is the order of the blocks.
    pub categorical: BTreeMap<String, Vec<String>>,
    /// Names of the continuous covariates, in order.
    pub continuous: Vec<String>,
    /// Whether a size factor replaces the library size in the decoder.
    pub size_factor: bool,
    /// The obs column that held it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_factor_key: Option<String>,
    /// The protein panel, in order; empty where the model does not use proteins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proteins: Vec<String>,
    /// The key under which the proteins were found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protein_key: Option<String>,
}

impl Registry {
    /// The registry that these cells give to a model that takes labels (or to one that does not).
    pub fn of(cells: &Cells<'_>, labels: &LabelUse) -> Self {
        let names = cells.labels.as_ref().map(|labels| labels.names().to_vec()).unwrap_or_default();
        let (labels, unlabelled) = match labels {
            LabelUse::Ignored => (vec![], None),
            LabelUse::Encoded => (names, None),
            LabelUse::Partial { unlabelled } => (without_unlabelled(names, unlabelled), Some(unlabelled.clone())),
        };
        Self {
            labels,
            unlabelled,
            categorical: cells.categorical.iter().map(|(name, c)| (name.clone(), c.names().to_vec())).collect(),
            continuous: cells.continuous.keys().cloned().collect(),
            size_factor: cells.size_factor.is_some(),
            size_factor_key: None,
            proteins: vec![],
            protein_key: None,
        }
    }

    /// How the model that this registry belongs to takes labels.
    pub fn label_use(&self) -> LabelUse {
        match &self.unlabelled {
            Some(unlabelled) => LabelUse::Partial { unlabelled: unlabelled.clone() },
            None if self.labels.is_empty() => LabelUse::Ignored,
            None => LabelUse::Encoded,
        }
    }

    /// The same registry with the proteins of these cells, for a model that uses them.
    #[must_use]
    pub fn with_proteins(self, cells: &Cells<'_>) -> Self {
        let names = cells.proteins.as_ref().map(|proteins| proteins.names().to_vec());
        let key = cells.proteins.as_ref().and_then(|proteins| proteins.key()).map(str::to_owned);
        Self { proteins: names.unwrap_or_default(), protein_key: key, ..self }
    }

    /// Number of categories of each categorical covariate, in block order.
    pub fn covariate_sizes(&self) -> Vec<usize> {
        self.categorical.values().map(Vec::len).collect()
    }

    /// Encodes cells. `conditions` holds one code per cell into the conditions that the model is built with.
    ///
    /// # Errors  those of [`Cells::check`], [`Error::MissingCovariate`], [`Error::UnknownCategory`], [`Error::NoCommonProteins`]
    pub fn encode<'a>(&self, cells: &Cells<'a>, conditions: &[u32], n_genes: usize) -> Result<Dataset<'a>> {
        cells.check(n_genes)?;
        check_length("condition", "cells", conditions.len(), cells.n_cells())?;
        let missing = |name: &str| Error::MissingCovariate { name: name.to_owned() };
        let labels = match &cells.labels {
            _ if self.labels.is_empty() => None,
            Some(labels) => {
                let known: Vec<String> = self.labels.iter().chain(&self.unlabelled).cloned().collect();
                Some(recode("labels", labels, &known)?)
            }
            None if self.unlabelled.is_some() => Some(vec![self.labels.len() as i64; cells.n_cells()]),
            None => return Err(missing("labels")),
        };
        let unlabelled = self.unlabelled.as_ref().map(|_| self.labels.len() as i64);
        let mut covariates = Vec::new();
        for (name, known) in &self.categorical {
            let column = cells.categorical.get(name).ok_or_else(|| missing(name))?;
            covariates.push(recode(name, column, known)?);
        }
        let mut continuous = Vec::new();
        for name in &self.continuous {
            continuous.push(cells.continuous.get(name).ok_or_else(|| missing(name))?.clone());
        }
        let size_factor = match &cells.size_factor {
            Some(values) if self.size_factor => Some(values.clone()),
            None if self.size_factor => return Err(missing("size factor")),
            _ => None,
        };
        let proteins = match &cells.proteins {
            _ if self.proteins.is_empty() => None,
            Some(proteins) => Some(proteins.aligned(&self.proteins)?),
            None => Some(Array2::zeros((cells.n_cells(), self.proteins.len()))),
        };
        let conditions = conditions.iter().map(|&code| i64::from(code)).collect();
        Ok(Dataset {
            counts: cells.counts,
            conditions,
            labels,
            unlabelled,
            covariates,
            continuous,
            size_factor,
            proteins,
            minified: cells.minified.clone(),
        })
    }
}

/// The labels in upstream's order: the last category takes the place of the one that stands for cells without a label.
fn without_unlabelled(mut names: Vec<String>, unlabelled: &str) -> Vec<String> {
    if let Some(position) = names.iter().position(|name| name == unlabelled) {
        names.swap_remove(position);
    }
    names
}

/// Codes of a column in the reference's list of categories.
fn recode(covariate: &str, column: &Categorical, known: &[String]) -> Result<Vec<i64>> {
    let position: BTreeMap<&str, i64> = known.iter().zip(0..).map(|(name, code)| (name.as_str(), code)).collect();
    let codes: Vec<Option<i64>> = column.names().iter().map(|name| position.get(name.as_str()).copied()).collect();
    let translate = |&code: &u32| {
        codes[code as usize].ok_or_else(|| Error::UnknownCategory {
            covariate: covariate.to_owned(),
            category: column.names()[code as usize].clone(),
            known: known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        })
    };
    column.codes().iter().map(translate).collect()
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::Csr;

    use super::*;

    fn registry() -> Registry {
        Registry {
            labels: vec!["B".to_owned(), "T".to_owned()],
            categorical: BTreeMap::from([("assay".to_owned(), vec!["10x".to_owned(), "drop".to_owned()])]),
            continuous: vec!["percent_mito".to_owned()],
            ..Registry::default()
        }
    }

    fn check(change: impl FnOnce(&mut Cells<'_>)) -> Result<(), String> {
        let counts = Csr::from_dense(2, 1, &[1.0, 2.0]).unwrap();
        let mut cells = Cells::new(&counts);
        cells.labels = Some(Categorical::from_values(&["T", "T"]));
        cells.categorical.insert("assay".to_owned(), Categorical::from_values(&["drop", "10x"]));
        cells.continuous.insert("percent_mito".to_owned(), vec![0.1, 0.2]);
        change(&mut cells);
        let dataset = registry().encode(&cells, &[0, 0], 1).map_err(|e| e.to_string())?;
        assert_eq!((dataset.labels.unwrap(), &dataset.covariates[0]), (vec![1, 1], &vec![1, 0]));
        Ok(())
    }

    #[test]
    fn query_names_get_the_codes_of_the_reference() {
        check(|_| {}).unwrap();
    }

    #[test]
    fn what_the_reference_does_not_know_is_named() {
        let label = check(|cells| cells.labels = Some(Categorical::from_values(&["T", "NK"]))).unwrap_err();
        assert_eq!(label, "`labels` holds `NK`, which the reference does not know; it knows `B`, `T`");
        let assay = Categorical::from_values(&["10x", "smart"]);
        assert!(
            check(|cells| drop(cells.categorical.insert("assay".to_owned(), assay))).unwrap_err().contains("`smart`")
        );
    }

    #[test]
    fn cells_without_a_label_get_the_code_behind_the_labels() {
        let counts = Csr::from_dense(3, 1, &[1.0, 2.0, 3.0]).unwrap();
        let labels = |values: &[&str]| Some(Categorical::from_values(values));
        let reference = Cells { labels: labels(&["?", "B", "T"]), ..Cells::new(&counts) };
        let registry = Registry::of(&reference, &LabelUse::Partial { unlabelled: "?".to_owned() });
        assert_eq!(registry.labels, ["T", "B"], "the last category takes the place of `?`");
        let codes = |labels| {
            let cells = Cells { labels, ..Cells::new(&counts) };
            registry
                .encode(&cells, &[0; 3], 1)
                .map(|dataset| (0..3).map(|i| dataset.is_labelled(i)).collect::<Vec<_>>())
        };
        assert_eq!(codes(labels(&["B", "?", "B"])).unwrap(), [true, false, true]);
        assert_eq!(codes(None).unwrap(), [false; 3]);
        assert!(codes(labels(&["B", "NK", "B"])).is_err());
    }

    #[test]
    fn missing_covariates_and_lengths_that_differ_are_refused() {
        assert!(check(|cells| cells.labels = None).unwrap_err().contains("`labels`"));
        assert!(check(|cells| cells.categorical.clear()).unwrap_err().contains("`assay`"));
        assert!(check(|cells| cells.continuous.clear()).unwrap_err().contains("`percent_mito`"));
        let short = check(|cells| drop(cells.continuous.insert("percent_mito".to_owned(), vec![0.1]))).unwrap_err();
        assert_eq!(short, "`percent_mito` has 1 cells, expected 2");
    }

    #[test]
    fn values_that_are_not_numbers_of_their_kind_are_refused() {
        assert!(check(|cells| drop(cells.continuous.insert("percent_mito".to_owned(), vec![0.1, f32::NAN]))).is_err());
        assert!(check(|cells| cells.size_factor = Some(vec![1.0, 0.0])).is_err());
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let counts = Csr::from_dense(1, 1, &[bad]).unwrap();
            assert!(matches!(Cells::new(&counts).check(1), Err(Error::Value { .. })), "{bad}");
        }
    }
}
