//! Protein counts of cells, by name.

use std::collections::BTreeSet;

use ndarray::{Array2, Axis};

use super::cells::check_length;
use crate::error::{Error, Result};

/// Raw counts of antibody-derived tags. Panels differ between experiments, so columns go by name.
#[derive(Clone, PartialEq, Debug)]
pub struct Proteins {
    key: Option<String>,
    names: Vec<String>,
    counts: Array2<f32>,
}

/// How the proteins of a query meet those of a reference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProteinAlignment {
    /// Proteins of the reference that the query was not stained for; they count as missing.
    pub missing: Vec<String>,
    /// Proteins of the query that the reference does not know; they are left out.
    pub unknown: Vec<String>,
}

impl Proteins {
    /// Checks that there is a column per name, and that values are counts.
    ///
    /// # Shapes   `counts`: `[n_cells, n_proteins]`
    /// # Errors   [`Error::Shape`], [`Error::Value`] naming cell and protein
    pub fn new(names: Vec<String>, counts: Array2<f32>) -> Result<Self> {
        check_length("protein counts", "proteins", counts.ncols(), names.len())?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            let (found, expected) = (format!("`{twice}` twice"), "a name for each protein".to_owned());
            return Err(Error::Value { part: "proteins".to_owned(), found, expected });
        }
        let is_count = |value: f32| value.is_finite() && value >= 0.0 && value.fract() == 0.0;
        if let Some(((cell, protein), value)) = counts.indexed_iter().find(|(_, value)| !is_count(**value)) {
            let part = format!("protein `{}` of cell {cell}", names[protein]);
            return Err(Error::Value { part, found: value.to_string(), expected: COUNTS.to_owned() });
        }
        Ok(Self { key: None, names, counts })
    }

    /// The same proteins, with the key under which they were found; a reference remembers it.
    #[must_use]
    pub fn found_under(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// The key under which they were found.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Counts, `[n_cells, n_proteins]`.
    pub fn counts(&self) -> &Array2<f32> {
        &self.counts
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.counts.nrows()
    }

    /// Some of the cells, in the order asked for. Panics for a cell that is not there.
    #[must_use]
    pub fn select_cells(&self, cells: &[usize]) -> Self {
        Self { counts: self.counts.select(Axis(0), cells), ..self.clone() }
    }

    /// What the reference's panel has and these do not, and the other way round.
    pub fn alignment(&self, panel: &[String]) -> ProteinAlignment {
        let lacking = |names: &[String], others: &[String]| {
            let others: BTreeSet<&String> = others.iter().collect();
            names.iter().filter(|name| !others.contains(name)).cloned().collect()
        };
        ProteinAlignment { missing: lacking(panel, &self.names), unknown: lacking(&self.names, panel) }
    }

    /// Counts in the order of a panel; a protein that is not there has zeros.
    ///
    /// # Errors  [`Error::NoCommonProteins`]
    pub fn aligned(&self, panel: &[String]) -> Result<Array2<f32>> {
        let mut aligned = Array2::zeros((self.n_cells(), panel.len()));
        let mut n_found = 0;
        for (name, mut column) in panel.iter().zip(aligned.columns_mut()) {
            if let Some(position) = self.names.iter().position(|known| known == name) {
                column.assign(&self.counts.column(position));
                n_found += 1;
            }
        }
        if n_found == 0 && !panel.is_empty() {
            let first = |names: &[String]| names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::NoCommonProteins { found: first(&self.names), expected: first(panel) });
        }
        Ok(aligned)
    }
}

/// What a protein's value must be.
const COUNTS: &str = "whole numbers of at least 0";
/// Names that an error shows.
const SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn check(counts: Array2<f32>) -> Result<Proteins> {
        Proteins::new(names(&["CD3", "CD19"]), counts)
    }

    #[test]
    fn columns_follow_the_panel_by_name_and_what_is_not_there_is_zero() {
        let proteins = check(array![[1.0, 2.0], [3.0, 4.0]]).unwrap();
        let panel = names(&["CD19", "CD8", "CD3"]);
        assert_eq!(proteins.aligned(&panel).unwrap(), array![[2.0, 0.0, 1.0], [4.0, 0.0, 3.0]]);
        let alignment = proteins.alignment(&names(&["CD19", "CD8"]));
        assert_eq!((alignment.missing, alignment.unknown), (names(&["CD8"]), names(&["CD3"])));
        let refused = proteins.aligned(&names(&["CD4"])).unwrap_err().to_string();
        assert!(refused.contains("CD3, CD19") && refused.contains("CD4"), "{refused}");
    }

    #[test]
    fn what_is_no_count_is_named_by_cell_and_protein() {
        for bad in [-1.0, 0.5, f32::NAN, f32::INFINITY] {
            let refused = check(array![[1.0, 2.0], [3.0, bad]]).unwrap_err().to_string();
            assert!(refused.contains("protein `CD19` of cell 1"), "{refused}");
        }
        assert!(matches!(check(array![[1.0]]), Err(Error::Shape { .. })));
        let twice = Proteins::new(names(&["CD3", "CD3"]), array![[1.0, 2.0]]).unwrap_err().to_string();
        assert!(twice.contains("`CD3` twice"), "{twice}");
    }
}
