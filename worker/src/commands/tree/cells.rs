//! Labelled cells of a file, as trees take them.

use std::{collections::BTreeMap, path::Path};

use archipelago_analysis::{Labels, hierarchy::DataSet};
use archipelago_anndata::AnnData;
use ndarray::Array2;

use crate::{
    cells::{column, embedding},
    commands::file::{read, within},
    error::{Error, Result},
    network::Network,
    output::Output,
    tree_dir::Source,
};

/// Positions, labels and data sets of a file.
pub(super) struct TreeCells {
    pub(super) x: Array2<f32>,
    pub(super) labels: Labels,
    pub(super) adata: AnnData,
    batches: Vec<String>,
    /// Rows that take part.
    kept: Vec<bool>,
}

impl TreeCells {
    /// Reads the cells of a tree's source.
    ///
    /// # Errors  [`Error::Cells`], [`Error::MissingValues`]
    pub(super) fn read(path: &Path, source: &Source, output: &Output) -> Result<Self> {
        let adata = read(path, output)?;
        Self::of(adata, source).map_err(|error| within(path, error))
    }

    pub(super) fn of(adata: AnnData, source: &Source) -> Result<Self> {
        let batches = column(&adata.obs, &source.batch_key)?;
        let mut labels = column(&adata.obs, &source.labels_key)?;
        if source.append_batch {
            labels.iter_mut().zip(&batches).for_each(|(label, batch)| *label = format!("{label}-{batch}"));
        }
        let x = embedding(&adata, &source.use_rep)?;
        let kept = vec![true; batches.len()];
        Ok(Self { x, labels: Labels::from_names(&labels), adata, batches, kept })
    }

    /// Leaves out labels with fewer cells, by data set; how many cells that were.
    pub(super) fn leave_out_rare(&mut self, min_cells: usize) -> usize {
        let mut counts = BTreeMap::<(&str, u32), usize>::new();
        for (batch, &label) in self.batches.iter().zip(self.labels.codes()) {
            *counts.entry((batch, label)).or_default() += 1;
        }
        for (cell, kept) in self.kept.iter_mut().enumerate() {
            *kept = counts[&(self.batches[cell].as_str(), self.labels.codes()[cell])] >= min_cells;
        }
        self.kept.iter().filter(|&&kept| !kept).count()
    }

    /// The data sets of these names.
    ///
    /// # Errors  [`Error::UnknownBatch`], [`Error::Setting`] for a name given twice
    pub(super) fn sets(&self, path: &Path, batch_key: &str, names: &[String]) -> Result<Vec<DataSet>> {
        let mut sets = Vec::<DataSet>::new();
        for name in names {
            let rows: Vec<usize> =
                (0..self.batches.len()).filter(|&cell| self.kept[cell] && self.batches[cell] == *name).collect();
            if rows.is_empty() {
                let (batch_key, found, available) = (batch_key.to_owned(), name.clone(), self.available());
                return Err(Error::UnknownBatch { path: path.into(), batch_key, found, available });
            }
            if sets.iter().any(|set| set.name == *name) {
                return Err(Error::Setting {
                    what: "--order",
                    found: format!("`{name}` twice"),
                    expected: "each data set once",
                });
            }
            sets.push(DataSet { name: name.clone(), rows });
        }
        Ok(sets)
    }

    /// Names of all data sets, in words.
    pub(super) fn available(&self) -> String {
        let names: std::collections::BTreeSet<&String> = self.batches.iter().collect();
        names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn network(&self) -> Option<Network> {
        Network::of(&self.adata)
    }
}
