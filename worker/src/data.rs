//! The cells of one h5ad file as training and surgery need them: counts by batch, and what is known of each cell.
//!
//! Counts are read in pieces of rows, checked to be counts, brought into the order of a gene panel and kept sparse; cells of
//! batches that were not asked for never enter memory, and what does not fit into it goes to a scratch file ([`Handling`]).

use std::{collections::BTreeSet, path::Path};

use archipelago_anndata::{AnnData, Compression, DataFrame, H5adFile};
use archipelago_models::{
    Categorical,
    data::{CellNames, Field, FieldValues, Minified},
};
use ndarray::{Array2, Axis};

use crate::{
    annotations::Annotations,
    error::{Error, Result},
    fields::Reading,
    lists,
    memory::Handling,
    recipe::{Preparation, Stored},
};

pub use counts::AlignedCounts;
pub use spec::{Consent, DataSpec};

mod counts;
mod joint;
mod spec;

/// An open file and which of its cells are used.
pub struct SiteData {
    spec: DataSpec,
    file: H5adFile,
    /// How the file was prepared, and what is left to do.
    preparation: Preparation,
    /// Rows of the file that are used, ascending.
    rows: Vec<usize>,
    /// Batch of each row used.
    batches: Vec<String>,
    /// What else is known of each row used.
    annotations: Annotations,
    /// Where its counts are kept, and who hears of reading and writing.
    handling: Handling,
}

impl SiteData {
    /// Opens the file and reads its annotations.
    ///
    /// # Errors  [`Error::Cells`] where the file cannot be used, [`Error::UnknownBatch`], [`Error::MissingValues`]
    pub fn open(spec: DataSpec) -> Result<Self> {
        let path = spec.path.clone();
        let cells = |source| Error::Cells { path: path.clone(), source };
        let file = open(&spec).map_err(cells)?;
        let batch_of = joint::batches(&file, &spec)?;
        let preparation = Preparation::of(&file, &spec)?;
        let spec = DataSpec { batches: named_batches(&spec, &batch_of)?, ..spec };
        let mut rows = chosen_rows(&spec, &batch_of)?;
        if preparation.filters_cells() {
            rows = preparation.good_rows(&file, &rows, CHUNK_ROWS)?;
        }
        if rows.is_empty() {
            return Err(cells(archipelago_anndata::Error::NoCells));
        }
        let is_minified = is_minified(&file).map_err(cells)?;
        let reading =
            Reading { path: &spec.path, file: &file, rows: &rows, genes: preparation.genes(), sets: spec.sets };
        let annotations = Annotations::read(reading, &spec, is_minified)?;
        let batches = rows.iter().filter_map(|&row| batch_of[row].clone()).collect();
        Ok(Self { spec, file, preparation, rows, batches, annotations, handling: Handling::default() })
    }

    /// The same cells, with large data handled like this.
    #[must_use]
    pub fn handled(self, handling: Handling) -> Self {
        Self { handling, ..self }
    }

    /// The same cells, with gene sets of a panel.
    #[must_use]
    pub fn on_panel(mut self, panel: &[String]) -> Self {
        self.annotations = self.annotations.on_panel(self.preparation.genes(), panel);
        self
    }

    /// What was asked for.
    pub fn spec(&self) -> &DataSpec {
        &self.spec
    }

    /// Number of cells used.
    pub fn n_cells(&self) -> usize {
        self.rows.len()
    }

    /// The names of the genes, in the order of the file, as the recipe calls them where one is followed.
    pub fn genes(&self) -> &[String] {
        self.preparation.genes()
    }

    /// The recipe that the file says it was prepared by.
    pub fn recipe(&self) -> Option<&Stored> {
        self.preparation.prepared_by()
    }

    /// Batch of each cell.
    pub fn batches(&self) -> &[String] {
        &self.batches
    }

    /// What each cell is called: its batch, and its name on each condition key where there are several.
    pub fn cell_names_on_axes(&self) -> CellNames {
        let axis = |field: &Field| match self.annotations.field(&field.name) {
            Some(FieldValues::Category(names)) => {
                Some((field.name.parse().expect("an axis is made of a name"), names.clone()))
            }
            _ => None,
        };
        let batch = Categorical::from_values(&self.batches);
        CellNames { batch, axes: self.spec.axes().filter_map(axis).collect() }
    }

    /// The same cells, with labels only where they are among these.
    #[must_use]
    pub fn with_labels_among(mut self, known: &[String]) -> Self {
        let n_unknown = self.annotations.leave_labels_among(known);
        if n_unknown > 0 {
            tracing::warn!(
                n_unknown,
                "cells whose labels the reference does not have count as cells without one (`new_labels`)"
            );
        }
        self
    }

    /// Some of the cells used, by their positions, ascending.
    #[must_use]
    pub fn keeping(mut self, cells: &[usize]) -> Self {
        self.rows = cells.iter().map(|&cell| self.rows[cell]).collect();
        self.batches = cells.iter().map(|&cell| self.batches[cell].clone()).collect();
        self.annotations = self.annotations.select(cells);
        self
    }

    /// What else is known of each cell: labels, covariates, donors.
    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// The text of an obs column for each cell, `None` where it is missing.
    ///
    /// # Errors  [`Error::Cells`] if the file has no such column
    pub fn column(&self, name: &str) -> Result<Vec<Option<String>>> {
        let cells = |source| Error::Cells { path: self.spec.path.clone(), source };
        let values = self.file.obs().column(name).map_err(cells)?.to_strings();
        Ok(self.rows.iter().map(|&row| values[row].clone()).collect())
    }

    /// Names of the cells.
    pub fn cell_names(&self) -> impl ExactSizeIterator<Item = &str> {
        let names = self.file.obs().index();
        self.rows.iter().map(move |&row| names[row].as_str())
    }

    /// Names of some of the cells, by their positions among those used.
    pub fn names_of(&self, cells: impl Iterator<Item = usize>) -> impl Iterator<Item = &str> {
        let names = self.file.obs().index();
        cells.map(move |cell| names[self.rows[cell]].as_str())
    }

    /// Whether the cells used can be written with everything that is known of them: asked before they are trained on.
    ///
    /// # Errors  [`Error::Cells`] saying what cannot be written
    pub fn check_writable(&self) -> Result<()> {
        self.file.check_writable(&self.rows).map_err(|source| Error::Cells { path: self.spec.path.clone(), source })
    }

    /// Writes these cells (positions among those used, ascending) to an h5ad file with everything that is known about them,
    /// matrices a piece at a time. `change` adds to the rest what is to be added.
    ///
    /// # Errors  [`Error::Cells`]
    pub fn write_cells(
        &self,
        cells: impl IntoIterator<Item = usize>,
        path: &Path,
        change: impl FnOnce(&mut AnnData) -> archipelago_anndata::Result<()>,
    ) -> Result<()> {
        let rows: Vec<usize> = cells.into_iter().map(|cell| self.rows[cell]).collect();
        let display = self.handling.output.work("writing cells");
        let written = self.file.write_cells(&rows, path, COMPRESSION, change, &mut |share| display.share(share));
        written.map_err(|source| Error::Cells { path: path.into(), source })
    }

    /// The same for all cells used.
    ///
    /// # Errors  [`Error::Cells`]
    pub fn write_all(
        &self,
        path: &Path,
        change: impl FnOnce(&mut AnnData) -> archipelago_anndata::Result<()>,
    ) -> Result<()> {
        self.write_cells(0..self.n_cells(), path, change)
    }

    /// What the file keeps of the cells used instead of counts, if it is minified, as `results minified` and scvi-tools
    /// write it.
    ///
    /// # Errors  [`Error::Cells`] where it says so and something is missing
    pub fn minified(&self) -> Result<Option<Minified>> {
        let cells = |source| Error::Cells { path: self.spec.path.clone(), source };
        if !is_minified(&self.file).map_err(cells)? {
            return Ok(None);
        }
        let matrix = |name: &str| -> Result<Array2<f32>> {
            let table = self.file.obsm(name).map_err(cells)?.to_table(name).map_err(cells)?;
            let all = Array2::from_shape_vec((table.n_rows, table.n_cols), table.values);
            Ok(all.expect("a table has a value per row and column").select(Axis(0), &self.rows))
        };
        let library = self.file.obs().column(MINIFIED_LIBRARY).map_err(cells)?;
        let not_numbers = || Error::NotNumbers { path: self.spec.path.clone(), column: MINIFIED_LIBRARY.to_owned() };
        let library = library.to_f64().ok_or_else(not_numbers)?;
        Ok(Some(Minified {
            mean: matrix(MINIFIED_MEAN)?,
            var: matrix(MINIFIED_VAR)?,
            library: self.rows.iter().map(|&row| library[row] as f32).collect(),
        }))
    }

    /// What the file's `obs` says of the cells used.
    pub fn obs(&self) -> DataFrame {
        self.file.obs().select_rows(&self.rows)
    }

    /// Size of the file.
    ///
    /// # Errors  [`Error::File`]
    pub fn file_bytes(&self) -> Result<u64> {
        let read = |source| Error::File { action: "read", path: self.spec.path.clone(), source };
        Ok(std::fs::metadata(&self.spec.path).map_err(read)?.len())
    }
}

/// Whether a file keeps what an encoder said of its cells, and nothing of their counts.
fn is_minified(file: &H5adFile) -> archipelago_anndata::Result<bool> {
    Ok(file.names("uns")?.iter().any(|name| name == MINIFIED_UNS))
}

/// The entry of `uns` by which scvi-tools knows minified data.
pub const MINIFIED_UNS: &str = "_scvi_adata_minify_type";
/// What that entry says of data without counts.
pub const MINIFIED_TYPE: &str = "latent_posterior_parameters";
/// Posterior means of minified data, in `obsm`.
pub const MINIFIED_MEAN: &str = "scvi_latent_qzm";
/// Posterior variances of minified data, in `obsm`.
pub const MINIFIED_VAR: &str = "scvi_latent_qzv";
/// Total counts of minified data, in `obs`.
pub const MINIFIED_LIBRARY: &str = "observed_lib_size";
/// How cells are written: smaller than with level 1, and several times faster than with 9.
pub const COMPRESSION: Compression = Compression::Gzip(4);
/// Rows looked at a time where only figures of them are wanted: some tens of megabytes of counts.
const CHUNK_ROWS: usize = 8192;

/// The file, or the modality of it that holds RNA.
fn open(spec: &DataSpec) -> archipelago_anndata::Result<H5adFile> {
    let file = H5adFile::open(&spec.path)?;
    match spec.fields.rna_modality() {
        Some(modality) => H5adFile::open_modality(&spec.path, modality),
        None if file.modalities().is_empty() => Ok(file),
        None => H5adFile::open_modality(&spec.path, RNA_MODALITY),
    }
}

/// The usual name of the modality of gene expression.
pub(crate) const RNA_MODALITY: &str = "rna";

/// The batches that were asked for, as the file names them.
fn named_batches(spec: &DataSpec, batch_of: &[Option<String>]) -> Result<Vec<String>> {
    let present: BTreeSet<&str> = batch_of.iter().flatten().map(String::as_str).collect();
    let batches = lists::among(&spec.batches, lists::name_in(present.iter().copied()));
    match batches.iter().find(|batch| !present.contains(batch.as_str())) {
        None => Ok(batches),
        Some(found) => Err(Error::UnknownBatch {
            path: spec.path.clone(),
            batch_key: spec.batch_key.clone(),
            found: found.clone(),
            available: present.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn chosen_rows(spec: &DataSpec, batch_of: &[Option<String>]) -> Result<Vec<usize>> {
    if spec.batches.is_empty() {
        let n_missing = batch_of.iter().filter(|batch| batch.is_none()).count();
        if n_missing > 0 {
            let (path, column, n_cells) = (spec.path.clone(), spec.batch_key.clone(), batch_of.len());
            return Err(Error::MissingValues { path, column, n_missing, n_cells });
        }
        return Ok((0..batch_of.len()).collect());
    }
    let is_chosen = |batch: &Option<String>| batch.as_ref().is_some_and(|batch| spec.batches.contains(batch));
    Ok((0..batch_of.len()).filter(|&row| is_chosen(&batch_of[row])).collect())
}

/// The check counts rows within what it was handed; a person looks for them in the file.
pub(crate) fn at_row_of_file(error: archipelago_anndata::Error, rows: &[usize]) -> archipelago_anndata::Error {
    match error {
        archipelago_anndata::Error::NotCounts { cell_row, gene, value, counted } => {
            archipelago_anndata::Error::NotCounts { cell_row: rows[cell_row], gene, value, counted }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::{Column, Compression, Csr, DataFrame};

    use super::*;

    // Cells c0…c3 in batches a, b, a, b; genes g0…g2; counts 1…12.
    fn file_with(values: &[f32], batches: &[&str]) -> (tempfile::TempDir, DataSpec) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.h5ad");
        let mut obs = DataFrame::new((0..batches.len()).map(|i| format!("c{i}")));
        obs.insert("batch", Column::categorical(batches)).unwrap();
        let var = DataFrame::new(["g0", "g1", "g2"]);
        let x = Csr::from_dense(batches.len(), 3, values).unwrap();
        AnnData::new(x, obs, var).unwrap().write(&path, Compression::None).unwrap();
        (dir, DataSpec::new(path, "batch"))
    }

    fn numbers() -> Vec<f32> {
        (1..=12).map(|n| n as f32).collect()
    }

    fn genes(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_the_batches_asked_for_are_read_in_panel_order() {
        let (_dir, spec) = file_with(&numbers(), &["a", "b", "a", "b"]);
        let data = SiteData::open(DataSpec { batches: vec!["b".to_owned()], ..spec }).unwrap();
        let aligned = data.counts(&genes(&["g2", "other", "g0"])).unwrap();
        assert_eq!(aligned.counts.to_dense(), [6.0, 0.0, 4.0, 12.0, 0.0, 10.0]);
        assert_eq!(data.cell_names().collect::<Vec<_>>(), ["c1", "c3"]);
        assert!((aligned.alignment.coverage() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_value_that_is_no_count_is_named_by_its_row_in_the_file() {
        for bad in [-1.0, 0.5, f32::NAN, f32::INFINITY] {
            let mut values = numbers();
            values[10] = bad;
            let (_dir, spec) = file_with(&values, &["a", "b", "a", "b"]);
            let data = SiteData::open(DataSpec { batches: vec!["b".to_owned()], ..spec }).unwrap();
            match data.counts(&genes(&["g0"])) {
                Err(Error::WrongValues { found, .. }) => {
                    assert!(found.ends_with(" for `g1` in row 3"), "{found}");
                }
                other => panic!("expected a refusal of {bad}, got {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_batch_lists_those_there_are() {
        let (_dir, spec) = file_with(&numbers(), &["a", "b", "a", "b"]);
        let error = SiteData::open(DataSpec { batches: vec!["z".to_owned()], ..spec }).err().unwrap();
        assert!(error.to_string().ends_with("has no batch `z`; there are: `a`, `b`"), "{error}");
    }

    #[test]
    fn a_file_without_cells_is_refused() {
        let (_dir, spec) = file_with(&[], &[]);
        let error = SiteData::open(spec).err().unwrap();
        assert!(matches!(error, Error::Cells { source: archipelago_anndata::Error::NoCells, .. }), "{error:?}");
    }
}
