//! What a file says of each cell beside expression and batch: the fields that a model takes, labels and donors.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use archipelago_anndata::Csr;
use archipelago_models::{
    Categorical, Cells,
    data::{Field, FieldKind, FieldValues, GeneSets, LABELS, Need},
};

use crate::{
    data::DataSpec,
    error::{Error, Result},
    fields::{Reading, Source, joined},
};

/// The values of fields, in the order of the cells used.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Annotations {
    /// The file, for errors.
    path: PathBuf,
    fields: BTreeMap<String, Annotated>,
    donors: Option<Vec<Option<String>>>,
}

/// The values of one field.
#[derive(Clone, PartialEq, Debug)]
struct Annotated {
    /// Where they were found.
    places: Vec<Source>,
    found: Found,
    /// As what a model takes them; labels that none takes are for the site's own use.
    field: Option<Field>,
}

#[derive(Clone, PartialEq, Debug)]
enum Found {
    /// Labels; some cells may have none.
    Labels(Vec<Option<String>>),
    Values(FieldValues),
}

impl Annotations {
    /// Reads the fields that the spec places. `is_minified` leaves matrices out: nothing is known of them then.
    ///
    /// # Errors  [`Error::Cells`] for what is not there, and those of [`Reading::field`]
    pub(crate) fn read(reading: Reading<'_>, spec: &DataSpec, is_minified: bool) -> Result<Self> {
        let mut fields = BTreeMap::new();
        for (name, places, is_usual) in spec.placed() {
            let field = spec.takes.iter().find(|field| field.name == name).cloned();
            let is_matrix = field.as_ref().is_some_and(|field| matches!(field.kind, FieldKind::Matrix(_)));
            let is_of_use = field.is_some() || name == LABELS;
            if !is_of_use || places.contains(&Source::Nowhere) || (is_minified && is_matrix) {
                continue;
            }
            let found = match &field {
                Some(field) if !matches!(field.kind, FieldKind::Labels { .. }) => {
                    Found::Values(reading.field(field, places)?)
                }
                _ => match places {
                    // A reference's own column is looked at where there is one: a query need not have labels.
                    [Source::Obs(column)] if is_usual && reading.file.obs().column(column).is_err() => continue,
                    [Source::Obs(column)] => {
                        let none = field.as_ref().map_or(&[][..], |field| &field.none);
                        let texts = reading.texts(column)?.into_iter();
                        Found::Labels(texts.map(|label| label.filter(|label| !none.contains(label))).collect())
                    }
                    _ => {
                        let (field, place) = (name.to_owned(), places[0].to_string());
                        return Err(Error::WrongPlace { field, place, expected: "a column of obs, `obs/COLUMN`" });
                    }
                },
            };
            fields.insert(name.to_owned(), Annotated { places: places.to_vec(), found, field });
        }
        let donors = spec.donor_key.as_deref().map(|key| reading.texts(key)).transpose()?;
        Ok(Self { path: spec.path.clone(), fields, donors })
    }

    /// Label of each cell, where the file has labels.
    pub fn labels(&self) -> Option<&[Option<String>]> {
        match &self.fields.get(LABELS)?.found {
            Found::Labels(labels) => Some(labels),
            Found::Values(_) => None,
        }
    }

    /// Takes away every label that is not among these; says of how many cells. A model that can do without labels, and has no place for
    /// single cells without one, goes without.
    pub fn leave_labels_among(&mut self, known: &[String]) -> usize {
        let mut n_taken = 0;
        for annotated in self.fields.values_mut() {
            let Found::Labels(labels) = &mut annotated.found else { continue };
            let before = n_taken;
            for label in labels.iter_mut().filter(|label| label.as_ref().is_some_and(|name| !known.contains(name))) {
                (*label, n_taken) = (None, n_taken + 1);
            }
            let needs_all = FieldKind::Labels { unlabelled: None };
            let is_free = |field: &mut Field| field.need == Need::Free && field.kind == needs_all;
            if n_taken > before && annotated.field.as_mut().is_some_and(is_free) {
                annotated.field = None;
            }
        }
        n_taken
    }

    /// Donor of each cell, where the file names donors.
    pub fn donors(&self) -> Option<&[Option<String>]> {
        self.donors.as_deref()
    }

    /// Number of donors of some cells, where the file names donors.
    pub fn n_donors(&self, cells: &[usize]) -> Option<u64> {
        let donors = self.donors.as_ref()?;
        let named: BTreeSet<&str> = cells.iter().filter_map(|&cell| donors[cell].as_deref()).collect();
        Some(named.len() as u64)
    }

    /// Whether a model takes something of these cells that tells people apart as a name does.
    pub fn identify_people(&self) -> bool {
        let taken = self.fields.values().filter_map(|annotated| annotated.field.as_ref());
        taken.into_iter().any(|field| field.kind.identifies_people())
    }

    /// The values of a field, where the file has some that were asked for.
    pub fn field(&self, name: &str) -> Option<&FieldValues> {
        match &self.fields.get(name)?.found {
            Found::Values(values) => Some(values),
            Found::Labels(_) => None,
        }
    }

    /// The same of some cells.
    #[must_use]
    pub fn select(&self, cells: &[usize]) -> Self {
        let texts = |texts: &Vec<Option<String>>| cells.iter().map(|&cell| texts[cell].clone()).collect();
        let of_field = |(name, field): (&String, &Annotated)| {
            let found = match &field.found {
                Found::Labels(labels) => Found::Labels(texts(labels)),
                Found::Values(values) => Found::Values(values.select_cells(cells)),
            };
            (name.clone(), Annotated { found, ..field.clone() })
        };
        let fields = self.fields.iter().map(of_field).collect();
        Self { path: self.path.clone(), fields, donors: self.donors.as_ref().map(texts) }
    }

    /// The gene sets that a model cannot do without, where there are some.
    pub fn needed_gene_sets(&self) -> Option<&GeneSets> {
        let is_needed = |annotated: &&Annotated| annotated.field.as_ref().is_some_and(|field| field.need.is_to_train());
        self.fields.values().filter(is_needed).find_map(|annotated| match &annotated.found {
            Found::Values(FieldValues::GeneSets(sets)) => Some(sets),
            _ => None,
        })
    }

    /// The same with gene sets of a panel, where the file has the genes `own`.
    #[must_use]
    pub fn on_panel(mut self, own: &[String], panel: &[String]) -> Self {
        for annotated in self.fields.values_mut() {
            if let Found::Values(FieldValues::GeneSets(sets)) = &mut annotated.found {
                *sets = sets.on_panel(own, panel);
            }
        }
        self
    }

    /// Cells with this expression as the model takes them.
    ///
    /// # Errors  [`Error::MissingValues`] if a cell lacks a label and the model has no place for such cells
    pub fn cells<'a>(&self, counts: &'a Csr) -> Result<Cells<'a>> {
        let mut cells = Cells::new(counts);
        for (name, Annotated { places, found, field }) in &self.fields {
            let Some(field) = field else { continue };
            let values = match found {
                Found::Values(values) => values.clone(),
                Found::Labels(labels) => named(&self.path, places, labels, &field.kind)?.into(),
            };
            cells = cells.with(name.clone(), values);
            match (places.as_slice(), &field.kind) {
                ([place], _) => cells = cells.found_at(name.clone(), place.to_string()),
                // A column for each chain.
                (places, FieldKind::Receptor { .. }) => cells = cells.found_at(name.clone(), joined(places)),
                _ => {}
            }
        }
        Ok(cells)
    }
}

/// Labels as a model takes them.
fn named(path: &Path, places: &[Source], labels: &[Option<String>], kind: &FieldKind) -> Result<Categorical> {
    let names: Vec<&str> = match kind {
        FieldKind::Labels { unlabelled: Some(unlabelled) } => {
            labels.iter().map(|label| label.as_deref().unwrap_or(unlabelled)).collect()
        }
        _ => labels.iter().flatten().map(String::as_str).collect(),
    };
    let (n_missing, n_cells) = (labels.len() - names.len(), labels.len());
    match (n_missing, places) {
        (0, _) => Ok(Categorical::from_values(&names)),
        (_, [Source::Obs(column), ..]) => {
            let (path, column) = (path.into(), column.clone());
            Err(Error::MissingValues { path, column, n_missing, n_cells })
        }
        _ => unreachable!("labels are read from columns of obs"),
    }
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::{AnnData, Column, Compression, DataFrame, H5adFile, Values as Stored};
    use archipelago_models::data::{CATEGORICAL, CONTINUOUS, SIZE_FACTOR, Values};

    use super::*;

    /// A model that takes everything, and `labels` as given.
    fn spec(labels: Option<Field>) -> DataSpec {
        let mut spec = DataSpec::new("cells.h5ad", "batch");
        spec.fields.set(LABELS, Source::obs("cell_type"));
        let covariates = [Field::categorical(), Field::continuous(), Field::size_factor()];
        spec.takes = [Field::rna(Values::Counts)].into_iter().chain(covariates).chain(labels).collect();
        spec
    }

    /// Three cells: labels B, none, T; chemistry v2, v3, v3; age 1, 2, 3.
    fn obs() -> DataFrame {
        let mut obs = DataFrame::new(["c0", "c1", "c2"]);
        let labels = Column::Nullable {
            values: Stored::Str(vec!["B".to_owned(), String::new(), "T".to_owned()]),
            missing: vec![false, true, false],
        };
        obs.insert("cell_type", labels).unwrap();
        obs.insert("chemistry", Column::categorical(&["v2", "v3", "v3"])).unwrap();
        obs.insert("age", Column::Plain(Stored::F64(vec![1.0, 2.0, 3.0]))).unwrap();
        obs.insert("depth", Column::Plain(Stored::F64(vec![1.0, f64::NAN, 3.0]))).unwrap();
        obs
    }

    fn read(spec: &DataSpec, rows: &[usize]) -> Result<Annotations> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.h5ad");
        let adata = AnnData::new(Csr::zeros(3, 1), obs(), DataFrame::new(["g"])).unwrap();
        adata.write(&path, Compression::None).unwrap();
        let file = H5adFile::open(&path).unwrap();
        let genes = ["g".to_owned()];
        Annotations::read(Reading { path: &spec.path, file: &file, rows, genes: &genes, sets: spec.sets }, spec, false)
    }

    fn labels_of(labels: Option<Field>, rows: &[usize]) -> Result<Option<FieldValues>> {
        let counts = Csr::zeros(rows.len(), 1);
        Ok(read(&spec(labels), rows)?.cells(&counts)?.get(LABELS).cloned())
    }

    #[test]
    fn a_cell_without_a_label_is_unlabelled_and_the_others_keep_theirs() {
        let labelled = |names: &[&str]| Some(Categorical::from_values(names).into());
        let partial = || Some(Field::some_labels("?".to_owned()));
        assert_eq!(labels_of(partial(), &[0, 1, 2]).unwrap(), labelled(&["B", "?", "T"]));
        let further = partial().map(|field| field.without(&["T".to_owned()]));
        assert_eq!(labels_of(further, &[0, 1, 2]).unwrap(), labelled(&["B", "?", "?"]));
        assert_eq!(labels_of(None, &[0, 1, 2]).unwrap(), None);
        assert!(read(&spec(None), &[0]).unwrap().labels().is_some(), "labels that no model takes are the site's");
        assert_eq!(labels_of(Some(Field::labels()), &[0, 2]).unwrap(), labelled(&["B", "T"]));
        let error = labels_of(Some(Field::labels()), &[0, 1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "1 of 3 cells in `cells.h5ad` have no value in obs column `cell_type`");
    }

    #[test]
    fn labels_that_are_taken_away_are_missed_by_models_that_need_them_alone() {
        let known = ["T".to_owned()];
        let left = |labels: Field| {
            let mut annotations = read(&spec(Some(labels)), &[0, 2]).unwrap();
            assert_eq!(annotations.leave_labels_among(&known), 1);
            assert_eq!(annotations.labels().unwrap(), [None, Some("T".to_owned())]);
            annotations.cells(&Csr::zeros(2, 1)).map(|cells| cells.get(LABELS).cloned())
        };
        let some = Categorical::from_values(&["?", "T"]);
        assert_eq!(left(Field::some_labels("?".to_owned())).unwrap(), Some(some.into()));
        assert!(matches!(left(Field::labels()), Err(Error::MissingValues { n_missing: 1, n_cells: 2, .. })));
        let free = Field::new(LABELS, FieldKind::Labels { unlabelled: None }, Need::Free, "names");
        assert_eq!(left(free).unwrap(), None);
    }

    #[test]
    fn covariates_are_read_under_their_names() {
        let mut spec = spec(None);
        spec.fields.set(CATEGORICAL, Source::obs("chemistry"));
        spec.fields.set_all(CONTINUOUS, vec![Source::obs("age")]);
        spec.fields.set(SIZE_FACTOR, Source::obs("age"));
        let annotations = read(&spec, &[2, 0]).unwrap();
        let counts = Csr::zeros(2, 1);
        let cells = annotations.cells(&counts).unwrap();
        let chemistry = BTreeMap::from([("chemistry".to_owned(), Categorical::from_values(&["v3", "v2"]))]);
        assert_eq!(cells.get(CATEGORICAL), Some(&chemistry.into()));
        let ages = BTreeMap::from([("age".to_owned(), vec![3.0, 1.0])]);
        assert_eq!(cells.get(CONTINUOUS), Some(&ages.into()));
        assert_eq!(
            (cells.get(SIZE_FACTOR), cells.source(SIZE_FACTOR)),
            (Some(&vec![3.0, 1.0].into()), Some("obs/age"))
        );
        assert_eq!(
            annotations.select(&[1]).cells(&Csr::zeros(1, 1)).unwrap().get(SIZE_FACTOR),
            Some(&vec![1.0].into())
        );
    }

    #[test]
    fn a_covariate_that_is_incomplete_or_no_number_is_refused() {
        let refused = |field: &str, column: &str| {
            let mut spec = spec(None);
            spec.fields.set(field, Source::obs(column));
            read(&spec, &[0, 1, 2]).unwrap_err()
        };
        assert!(matches!(refused(CONTINUOUS, "depth"), Error::MissingValues { n_missing: 1, .. }));
        assert!(matches!(refused(CONTINUOUS, "chemistry"), Error::NotNumbers { .. }));
        assert!(matches!(refused(CONTINUOUS, "height"), Error::Cells { .. }));
        assert!(matches!(refused(CATEGORICAL, "cell_type"), Error::MissingValues { n_missing: 1, .. }));
    }

    #[test]
    fn a_references_labels_are_read_where_the_file_has_them() {
        let usual = |key: &str| {
            let mut spec = DataSpec::new("cells.h5ad", "batch");
            spec.usual.set(LABELS, Source::obs(key));
            spec
        };
        assert!(read(&usual("cell_type"), &[0]).unwrap().labels().is_some());
        assert!(read(&usual("label"), &[0]).unwrap().labels().is_none());
    }
}
