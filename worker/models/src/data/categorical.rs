//! Columns of names, and the conditions that the batch column makes.

use std::collections::BTreeMap;

use archipelago_common::ConditionKey;

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

    /// The column of some cells, with the names that these have. Panics for a cell that is not there.
    #[must_use]
    pub fn select_cells(&self, cells: &[usize]) -> Self {
        let names: Vec<&str> = cells.iter().map(|&cell| self.names[self.codes[cell] as usize].as_str()).collect();
        Self::from_values(&names)
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

/// Which condition each cell belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CellConditions {
    codes: Vec<u32>,
    keys: Vec<ConditionKey>,
    /// The same on each further axis, in the model's order.
    further: Vec<CellConditions>,
}

impl CellConditions {
    /// All cells belong to one condition.
    pub fn single(key: ConditionKey, n_cells: usize) -> Self {
        Self { codes: vec![0; n_cells], keys: vec![key], further: vec![] }
    }

    /// The condition of each cell, key by key; codes in order of the keys.
    pub fn from_keys(per_cell: &[ConditionKey]) -> Self {
        let sorted: std::collections::BTreeSet<&ConditionKey> = per_cell.iter().collect();
        let code: BTreeMap<&ConditionKey, u32> = sorted.iter().zip(0..).map(|(&key, code)| (key, code)).collect();
        Self {
            codes: per_cell.iter().map(|key| code[key]).collect(),
            keys: sorted.into_iter().cloned().collect(),
            further: vec![],
        }
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
        Ok(Self { codes: batches.codes().to_vec(), keys, further: vec![] })
    }

    /// The same with a key for each cell on a further axis, for a model that grows along one more covariate. Keys of cells with
    /// several are made by [`super::CellNames`].
    #[must_use]
    pub fn with_axis(mut self, axis: Self) -> Self {
        self.further.push(axis);
        self
    }

    /// The further axes, in the model's order.
    pub fn further(&self) -> &[Self] {
        &self.further
    }

    /// The keys of every axis, conditions first.
    pub fn all_keys(&self) -> Vec<ConditionKey> {
        self.keys.iter().chain(self.further.iter().flat_map(|axis| &axis.keys)).cloned().collect()
    }

    /// Code of each cell, into [`Self::keys`].
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// The key of a cell. Panics for a cell that is not there.
    pub fn key_of(&self, cell: usize) -> &ConditionKey {
        &self.keys[self.codes[cell] as usize]
    }

    /// The conditions, by code.
    pub fn keys(&self) -> &[ConditionKey] {
        &self.keys
    }
}
