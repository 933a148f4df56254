//! What a caller knows about cells, by name.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use ndarray::Array2;
use rayon::prelude::*;

use super::FieldValues;
use crate::error::{Error, Result};

/// Cells with everything a model may want to know about them, except their conditions.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    /// Expression of the genes, cells × genes, columns in panel order.
    pub counts: &'a Csr,
    /// Everything else by the names of fields; a model looks at those that it declares.
    fields: BTreeMap<String, FieldValues>,
    /// Where fields were found, in the words of whoever read them; a reference remembers it.
    sources: BTreeMap<String, String>,
    /// What is known instead of counts, which are all 0 then.
    pub minified: Option<Minified>,
    /// Positions of the genes that were measured, ascending; all of them where nothing is said.
    measured: Option<Vec<usize>>,
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
    /// Cells of which only the expression is known.
    pub fn new(counts: &'a Csr) -> Self {
        Self { counts, fields: BTreeMap::new(), sources: BTreeMap::new(), minified: None, measured: None }
    }

    /// The same cells, with a field.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, values: impl Into<FieldValues>) -> Self {
        self.fields.insert(field.into(), values.into());
        self
    }

    /// The same cells without a field.
    #[must_use]
    pub fn without(mut self, field: &str) -> Self {
        self.fields.remove(field);
        self
    }

    /// The same cells with what is known instead of counts, where something is.
    #[must_use]
    pub fn minified(self, minified: Option<Minified>) -> Self {
        Self { minified, ..self }
    }

    /// The same cells with the expression of these genes.
    pub fn with_counts<'b>(&self, counts: &'b Csr) -> Cells<'b> {
        let Self { fields, sources, minified, .. } = self.clone();
        Cells { counts, fields, sources, minified, measured: None }
    }

    /// The same cells, of which the genes at these positions were measured, ascending. The others have no counts.
    #[must_use]
    pub fn measuring(self, genes: &[usize]) -> Self {
        let is_all = genes.len() == self.counts.n_cols();
        Self { measured: (!is_all).then(|| genes.to_vec()), ..self }
    }

    /// Positions of the genes that were measured, where these are not all.
    pub fn measured(&self) -> Option<&[usize]> {
        self.measured.as_deref()
    }

    /// The same cells, with a word on where a field was found, such as `obs/cell_type`.
    #[must_use]
    pub fn found_at(mut self, field: impl Into<String>, source: impl Into<String>) -> Self {
        self.sources.insert(field.into(), source.into());
        self
    }

    /// The values of a field, where they are known.
    pub fn get(&self, field: &str) -> Option<&FieldValues> {
        self.fields.get(field)
    }

    /// Where a field was found, where that is known.
    pub fn source(&self, field: &str) -> Option<&str> {
        self.sources.get(field).map(String::as_str)
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
        check_values("counts", self.counts.data(), NOT_NEGATIVE, is_not_negative)?;
        self.fields.iter().try_for_each(|(name, values)| values.check_length(name, n_cells))?;
        self.minified.iter().try_for_each(|kept| kept.check(n_cells))
    }
}

impl Minified {
    fn check(&self, n_cells: usize) -> Result<()> {
        let Self { mean, var, library } = self;
        check_length("posterior mean", "cells", mean.nrows(), n_cells)?;
        check_length("posterior variance", "cells", var.nrows(), n_cells)?;
        check_length("library", "cells", library.len(), n_cells)?;
        check_length("posterior variance", "dimensions", var.ncols(), mean.ncols())?;
        for (name, values) in [("posterior mean", mean), ("posterior variance", var)] {
            check_values(name, values.as_slice().unwrap_or_default(), "finite numbers", f32::is_finite)?;
        }
        check_values("library", library, NOT_NEGATIVE, is_not_negative)
    }
}

fn is_not_negative(value: f32) -> bool {
    value.is_finite() && value >= 0.0
}

const NOT_NEGATIVE: &str = "finite numbers of at least 0";

pub(super) fn check_length(part: &str, axis: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Shape { part: part.to_owned(), axis, found, expected }) }
}

pub(super) fn check_values(
    part: &str,
    values: &[f32],
    expected: &str,
    is_valid: impl Fn(f32) -> bool + Sync,
) -> Result<()> {
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
