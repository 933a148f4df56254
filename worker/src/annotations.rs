//! What a file says of each cell beside counts and batch: labels, covariates, size factors, proteins.

use std::{collections::BTreeMap, path::PathBuf};

use archipelago_anndata::{Csr, DataFrame};
use archipelago_models::{
    Categorical, Cells,
    data::{LabelUse, Proteins},
};

use crate::{
    data::DataSpec,
    error::{Error, Result},
};

/// One value per cell and kind, in the order of the cells used.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Annotations {
    /// Where the labels are from; empty without labels.
    labels_from: (PathBuf, String),
    labels: Option<Vec<Option<String>>>,
    donors: Option<Vec<Option<String>>>,
    categorical: BTreeMap<String, Vec<String>>,
    continuous: BTreeMap<String, Vec<f32>>,
    size_factor: Option<Vec<f32>>,
    proteins: Option<Proteins>,
}

impl Annotations {
    /// Reads the columns that the spec names, at these rows of the file.
    ///
    /// # Errors  [`Error::Cells`] for a missing column, [`Error::MissingValues`], [`Error::NotNumbers`]
    pub fn read(obs: &DataFrame, spec: &DataSpec, rows: &[usize]) -> Result<Self> {
        let cells = |source| Error::Cells { path: spec.path.clone(), source };
        let column = |name: &str| obs.column(name).map_err(cells);
        let texts = |name: &str| -> Result<Vec<Option<String>>> {
            let values = column(name)?.to_strings();
            Ok(rows.iter().map(|&row| values[row].clone()).collect())
        };
        let numbers = |name: &str| -> Result<Vec<f32>> {
            let refuse = || Error::NotNumbers { path: spec.path.clone(), column: name.to_owned() };
            let values = column(name)?.to_f64().ok_or_else(refuse)?;
            let values: Vec<f32> = rows.iter().map(|&row| values[row] as f32).collect();
            let n_missing = values.iter().filter(|value| value.is_nan()).count();
            complete(spec, name, n_missing, rows.len()).map(|()| values)
        };
        let labels_key = match (&spec.labels_key, &spec.usual_labels_key) {
            (Some(key), _) => Some(key),
            // A reference's own column is looked at where there is one: a query need not have labels.
            (None, usual) => usual.as_ref().filter(|key| obs.column(key).is_ok()),
        };
        let mut categorical = BTreeMap::new();
        for key in &spec.categorical_keys {
            let values = texts(key)?;
            let n_missing = values.iter().filter(|value| value.is_none()).count();
            complete(spec, key, n_missing, rows.len())?;
            categorical.insert(key.clone(), values.into_iter().flatten().collect());
        }
        let mut continuous = BTreeMap::new();
        for key in &spec.continuous_keys {
            continuous.insert(key.clone(), numbers(key)?);
        }
        Ok(Self {
            labels_from: (spec.path.clone(), labels_key.cloned().unwrap_or_default()),
            labels: labels_key.map(|key| texts(key)).transpose()?,
            donors: spec.donor_key.as_deref().map(texts).transpose()?,
            categorical,
            continuous,
            size_factor: spec.size_factor_key.as_deref().map(numbers).transpose()?,
            proteins: None,
        })
    }

    /// Label of each cell, where the file has labels.
    pub fn labels(&self) -> Option<&[Option<String>]> {
        self.labels.as_deref()
    }

    /// Donor of each cell, where the file names donors.
    pub fn donors(&self) -> Option<&[Option<String>]> {
        self.donors.as_deref()
    }

    /// The same with protein counts, where there are some.
    #[must_use]
    pub fn with_proteins(self, proteins: Option<Proteins>) -> Self {
        Self { proteins, ..self }
    }

    /// Protein counts, where the file has some that were asked for.
    pub fn proteins(&self) -> Option<&Proteins> {
        self.proteins.as_ref()
    }

    /// The same of some cells.
    #[must_use]
    pub fn select(&self, cells: &[usize]) -> Self {
        fn of<T: Clone>(values: &[T], cells: &[usize]) -> Vec<T> {
            cells.iter().map(|&cell| values[cell].clone()).collect()
        }
        Self {
            labels_from: self.labels_from.clone(),
            labels: self.labels.as_ref().map(|labels| of(labels, cells)),
            donors: self.donors.as_ref().map(|donors| of(donors, cells)),
            categorical: self.categorical.iter().map(|(key, values)| (key.clone(), of(values, cells))).collect(),
            continuous: self.continuous.iter().map(|(key, values)| (key.clone(), of(values, cells))).collect(),
            size_factor: self.size_factor.as_ref().map(|values| of(values, cells)),
            proteins: self.proteins.as_ref().map(|proteins| proteins.select_cells(cells)),
        }
    }

    /// The same without labels.
    #[must_use]
    pub fn without_labels(self) -> Self {
        Self { labels: None, ..self }
    }

    /// Cells with these counts as a model takes them that uses labels so.
    ///
    /// # Errors  [`Error::MissingValues`] if a cell lacks a label and the model has no place for such cells
    pub fn cells<'a>(&self, counts: &'a Csr, labels: &LabelUse) -> Result<Cells<'a>> {
        let categorical = |(key, values): (&String, &Vec<String>)| (key.clone(), Categorical::from_values(values));
        Ok(Cells {
            labels: self.encoded_labels(labels)?,
            categorical: self.categorical.iter().map(categorical).collect(),
            continuous: self.continuous.clone(),
            size_factor: self.size_factor.clone(),
            proteins: self.proteins.clone(),
            ..Cells::new(counts)
        })
    }

    fn encoded_labels(&self, labels: &LabelUse) -> Result<Option<Categorical>> {
        let Some(found) = &self.labels else { return Ok(None) };
        let named: Vec<&str> = match labels {
            LabelUse::Ignored => return Ok(None),
            LabelUse::Partial { unlabelled } => {
                found.iter().map(|label| label.as_deref().unwrap_or(unlabelled)).collect()
            }
            LabelUse::Encoded => found.iter().flatten().map(String::as_str).collect(),
        };
        let n_missing = found.len() - named.len();
        if n_missing > 0 {
            let ((path, column), n_cells) = (self.labels_from.clone(), found.len());
            return Err(Error::MissingValues { path, column, n_missing, n_cells });
        }
        Ok(Some(Categorical::from_values(&named)))
    }
}

fn complete(spec: &DataSpec, column: &str, n_missing: usize, n_cells: usize) -> Result<()> {
    if n_missing == 0 {
        return Ok(());
    }
    let (path, column) = (spec.path.clone(), column.to_owned());
    Err(Error::MissingValues { path, column, n_missing, n_cells })
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::{Column, Values};

    use super::*;

    fn spec() -> DataSpec {
        DataSpec { labels_key: Some("cell_type".to_owned()), ..DataSpec::new("cells.h5ad", "batch") }
    }

    /// Three cells: labels B, none, T; chemistry v2, v3, v3; age 1, 2, 3.
    fn obs() -> DataFrame {
        let mut obs = DataFrame::new(["c0", "c1", "c2"]);
        let labels = Column::Nullable {
            values: Values::Str(vec!["B".to_owned(), String::new(), "T".to_owned()]),
            missing: vec![false, true, false],
        };
        obs.insert("cell_type", labels).unwrap();
        obs.insert("chemistry", Column::categorical(&["v2", "v3", "v3"])).unwrap();
        obs.insert("age", Column::Plain(Values::F64(vec![1.0, 2.0, 3.0]))).unwrap();
        obs.insert("depth", Column::Plain(Values::F64(vec![1.0, f64::NAN, 3.0]))).unwrap();
        obs
    }

    fn cells_of(labels: &LabelUse, rows: &[usize]) -> Result<Option<Categorical>> {
        let counts = Csr::zeros(rows.len(), 1);
        Ok(Annotations::read(&obs(), &spec(), rows)?.cells(&counts, labels)?.labels)
    }

    #[test]
    fn a_cell_without_a_label_is_unlabelled_and_the_others_keep_theirs() {
        let partial = LabelUse::Partial { unlabelled: "?".to_owned() };
        assert_eq!(cells_of(&partial, &[0, 1, 2]).unwrap(), Some(Categorical::from_values(&["B", "?", "T"])));
        assert_eq!(cells_of(&LabelUse::Ignored, &[0, 1, 2]).unwrap(), None);
        assert_eq!(cells_of(&LabelUse::Encoded, &[0, 2]).unwrap(), Some(Categorical::from_values(&["B", "T"])));
        let error = cells_of(&LabelUse::Encoded, &[0, 1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "1 of 3 cells in `cells.h5ad` have no value in obs column `cell_type`");
    }

    #[test]
    fn covariates_are_read_under_their_names() {
        let spec = DataSpec {
            categorical_keys: vec!["chemistry".to_owned()],
            continuous_keys: vec!["age".to_owned()],
            size_factor_key: Some("age".to_owned()),
            ..spec()
        };
        let annotations = Annotations::read(&obs(), &spec, &[2, 0]).unwrap();
        let counts = Csr::zeros(2, 1);
        let cells = annotations.cells(&counts, &LabelUse::Ignored).unwrap();
        assert_eq!(cells.categorical["chemistry"], Categorical::from_values(&["v3", "v2"]));
        assert_eq!((&cells.continuous["age"], cells.size_factor), (&vec![3.0, 1.0], Some(vec![3.0, 1.0])));
    }

    #[test]
    fn a_covariate_that_is_incomplete_or_no_number_is_refused() {
        let continuous = |key: &str| DataSpec { continuous_keys: vec![key.to_owned()], ..spec() };
        let refused = |spec: &DataSpec| Annotations::read(&obs(), spec, &[0, 1, 2]).unwrap_err();
        assert!(matches!(refused(&continuous("depth")), Error::MissingValues { n_missing: 1, .. }));
        assert!(matches!(refused(&continuous("chemistry")), Error::NotNumbers { .. }));
        assert!(matches!(refused(&continuous("height")), Error::Cells { .. }));
        let categorical = DataSpec { categorical_keys: vec!["cell_type".to_owned()], ..spec() };
        assert!(matches!(refused(&categorical), Error::MissingValues { n_missing: 1, .. }));
    }

    #[test]
    fn a_references_labels_are_read_where_the_file_has_them() {
        let usual = |key: &str| DataSpec { labels_key: None, usual_labels_key: Some(key.to_owned()), ..spec() };
        assert!(Annotations::read(&obs(), &usual("cell_type"), &[0]).unwrap().labels().is_some());
        assert!(Annotations::read(&obs(), &usual("label"), &[0]).unwrap().labels().is_none());
    }
}
