//! What a caller knows about cells, by name.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use archipelago_common::ConditionKey;
use ndarray::Array2;
use rayon::prelude::*;

use super::Proteins;
use crate::error::{Error, Result};

/// A column of categories: codes into a list of names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Categorical {
    codes: Vec<u32>,
    names: Vec<String>,
}

impl Categorical {
    /// Checks that every code has a name; `part` names the column in the error.
    ///
    /// # Errors  [`Error::Value`]
    pub fn new(part: &str, codes: Vec<u32>, names: Vec<String>) -> Result<Self> {
        match codes.iter().find(|&&code| code as usize >= names.len()) {
            None => Ok(Self { codes, names }),
            Some(code) => Err(Error::Value {
                part: part.to_owned(),
                found: format!("code {code}"),
                expected: format!("codes below {}", names.len()),
            }),
        }
    }

    /// The column with these values; names in sorted order, as pandas does.
    pub fn from_values<S: AsRef<str>>(values: &[S]) -> Self {
        let sorted: std::collections::BTreeSet<&str> = values.iter().map(AsRef::as_ref).collect();
        let code: BTreeMap<&str, u32> = sorted.iter().zip(0..).map(|(&name, code)| (name, code)).collect();
        let codes = values.iter().map(|value| code[value.as_ref()]).collect();
        Self { codes, names: sorted.into_iter().map(str::to_owned).collect() }
    }

    /// Code of each cell.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Name of each code.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.codes.len()
    }
}

/// Cells with everything a model may want to know about them, except their conditions.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    /// Raw counts, cells × genes, columns in panel order.
    pub counts: &'a Csr,
    /// Cell types, for models that use them.
    pub labels: Option<Categorical>,
    /// Further categorical covariates by name.
    pub categorical: BTreeMap<String, Categorical>,
    /// Continuous covariates by name.
    pub continuous: BTreeMap<String, Vec<f32>>,
    /// Size factor of each cell, above 0; replaces the library size in the decoder.
    pub size_factor: Option<Vec<f32>>,
    /// Protein counts, for models that use them. Without any, every protein is missing.
    pub proteins: Option<Proteins>,
    /// What is known instead of counts, which are all 0 then.
    pub minified: Option<Minified>,
}

/// What is kept of cells whose counts are gone: what an encoder said of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Minified {
    /// Posterior mean of the latent state, `[n_cells, n_latent]`.
    pub mean: Array2<f32>,
    /// Posterior variance of the latent state, `[n_cells, n_latent]`.
    pub var: Array2<f32>,
    /// Total count of each cell.
    pub library: Vec<f32>,
}

impl<'a> Cells<'a> {
    /// Cells of which only the counts are known.
    pub fn new(counts: &'a Csr) -> Self {
        let (categorical, continuous) = (BTreeMap::new(), BTreeMap::new());
        Self { counts, labels: None, categorical, continuous, size_factor: None, proteins: None, minified: None }
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.counts.n_rows()
    }

    /// Checks that all parts speak of the same cells, and that the counts are finite and not negative.
    ///
    /// # Errors  [`Error::Shape`], [`Error::Value`], [`Error::TooFewCells`] without any cell
    pub fn check(&self, n_genes: usize) -> Result<()> {
        let n_cells = self.n_cells();
        if n_cells == 0 {
            return Err(Error::TooFewCells { what: "the data set".to_owned(), found: 0, expected: 1 });
        }
        check_length("counts", "genes", self.counts.n_cols(), n_genes)?;
        let labels = self.labels.iter().map(|labels| ("labels", labels.n_cells()));
        let categorical = self.categorical.iter().map(|(name, column)| (name.as_str(), column.n_cells()));
        let continuous = self.continuous.iter().map(|(name, values)| (name.as_str(), values.len()));
        let size_factor = self.size_factor.iter().map(|values| ("size factor", values.len()));
        let proteins = self.proteins.iter().map(|proteins| ("proteins", proteins.n_cells()));
        let minified = self.minified.iter().flat_map(|kept| {
            [
                ("posterior mean", kept.mean.nrows()),
                ("posterior variance", kept.var.nrows()),
                ("library", kept.library.len()),
            ]
        });
        let columns = labels.chain(categorical).chain(continuous).chain(size_factor).chain(proteins).chain(minified);
        for (name, found) in columns {
            check_length(name, "cells", found, n_cells)?;
        }
        check_values("counts", self.counts.data(), "finite numbers of at least 0", |v| v.is_finite() && v >= 0.0)?;
        for (name, values) in &self.continuous {
            check_values(name, values, "finite numbers", f32::is_finite)?;
        }
        if let Some(Minified { mean, var, library }) = &self.minified {
            check_length("posterior variance", "dimensions", var.ncols(), mean.ncols())?;
            for (name, values) in [("posterior mean", mean), ("posterior variance", var)] {
                check_values(name, values.as_slice().unwrap_or_default(), "finite numbers", f32::is_finite)?;
            }
            check_values("library", library, "finite numbers of at least 0", |v| v.is_finite() && v >= 0.0)?;
        }
        let factors = self.size_factor.as_deref().unwrap_or_default();
        check_values("size factor", factors, "finite numbers above 0", |v| v.is_finite() && v > 0.0)
    }
}

/// Which condition each cell belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CellConditions {
    codes: Vec<u32>,
    keys: Vec<ConditionKey>,
}

impl CellConditions {
    /// All cells belong to one condition.
    pub fn single(key: ConditionKey, n_cells: usize) -> Self {
        Self { codes: vec![0; n_cells], keys: vec![key] }
    }

    /// The condition of each cell, key by key; codes in order of the keys.
    pub fn from_keys(per_cell: &[ConditionKey]) -> Self {
        let sorted: std::collections::BTreeSet<&ConditionKey> = per_cell.iter().collect();
        let code: BTreeMap<&ConditionKey, u32> = sorted.iter().zip(0..).map(|(&key, code)| (key, code)).collect();
        Self { codes: per_cell.iter().map(|key| code[key]).collect(), keys: sorted.into_iter().cloned().collect() }
    }

    /// Conditions made of the categories of a batch column.
    ///
    /// # Errors  those of `key_of_batch`, and [`Error::Value`] if two batches get one key
    pub fn from_batches(
        batches: &Categorical,
        key_of_batch: impl Fn(&str) -> archipelago_common::Result<ConditionKey>,
    ) -> Result<Self> {
        let keys = batches.names().iter().map(|name| key_of_batch(name)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = keys.iter().find(|key| !seen.insert(*key)) {
            let (found, expected) = (format!("two batches with the key `{twice}`"), "a key for each".to_owned());
            return Err(Error::Value { part: "batch".to_owned(), found, expected });
        }
        Ok(Self { codes: batches.codes().to_vec(), keys })
    }

    /// Code of each cell, into [`Self::keys`].
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// The conditions, by code.
    pub fn keys(&self) -> &[ConditionKey] {
        &self.keys
    }
}

pub(crate) fn check_length(part: &str, axis: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Shape { part: part.to_owned(), axis, found, expected }) }
}

fn check_values(part: &str, values: &[f32], expected: &str, is_valid: impl Fn(f32) -> bool + Sync) -> Result<()> {
    let first_invalid = |values: &[f32]| {
        // A chunk without a branch per number is checked several numbers at a time.
        let all_valid = |chunk: &&[f32]| chunk.iter().fold(true, |all, &value| all & is_valid(value));
        let invalid = values.chunks(1024).find(|chunk| !all_valid(chunk))?;
        invalid.iter().copied().find(|&value| !is_valid(value))
    };
    match values.par_chunks(1 << 16).find_map_first(first_invalid) {
        None => Ok(()),
        Some(value) => {
            Err(Error::Value { part: part.to_owned(), found: value.to_string(), expected: expected.to_owned() })
        }
    }
}
