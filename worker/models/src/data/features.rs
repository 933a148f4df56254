//! Values of named features beside the genes.

use std::collections::BTreeSet;

use archipelago_anndata::{
    Csr,
    align::{Duplicates, align},
};
use ndarray::Array2;

use super::{Values, cells::check_length};
use crate::error::{Error, Result};

/// A matrix whose columns have names. Panels differ between experiments, so columns go by name.
#[derive(Clone, PartialEq, Debug)]
pub struct Features {
    names: Vec<String>,
    values: Csr,
}

/// How the features of a query meet those of a reference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PanelAlignment {
    /// Features of the reference that the query does not have; they count as missing.
    pub missing: Vec<String>,
    /// Features of the query that the reference does not know; they are left out.
    pub unknown: Vec<String>,
}

impl Features {
    /// Checks that there is a column per name, and no name twice.
    ///
    /// # Shapes   `values`: cells × features
    /// # Errors   [`Error::Shape`], [`Error::Value`]
    pub fn new(names: Vec<String>, values: Csr) -> Result<Self> {
        check_length("features", "columns", values.n_cols(), names.len())?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            let (found, expected) = (format!("`{twice}` twice"), "a name for each column".to_owned());
            return Err(Error::Value { part: "features".to_owned(), found, expected });
        }
        Ok(Self { names, values })
    }

    /// The same of a dense matrix, `[n_cells, n_features]`.
    ///
    /// # Errors  as [`Self::new`]
    pub fn dense(names: Vec<String>, values: &Array2<f32>) -> Result<Self> {
        let rows: Vec<f32> = values.iter().copied().collect();
        Self::new(names, Csr::from_dense(values.nrows(), values.ncols(), &rows)?)
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Values, cells × features.
    pub fn values(&self) -> &Csr {
        &self.values
    }

    /// The values in full, `[n_cells, n_features]`.
    pub fn to_dense(&self) -> Array2<f32> {
        let shape = (self.values.n_rows(), self.values.n_cols());
        Array2::from_shape_vec(shape, self.values.to_dense()).expect("a dense matrix has a value per row and column")
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.values.n_rows()
    }

    /// Some of the cells, in the order asked for. Panics for a cell that is not there.
    #[must_use]
    pub fn select_cells(&self, cells: &[usize]) -> Self {
        Self { values: self.values.select_rows(cells), names: self.names.clone() }
    }

    /// Checks that the values are what a model takes them for; `field` names it in the error.
    ///
    /// # Errors  [`Error::Value`] naming cell and feature
    pub fn check(&self, field: &str, values: Values) -> Result<()> {
        for cell in 0..self.n_cells() {
            let (columns, row) = self.values.row(cell);
            if let Some(at) = row.iter().position(|&value| !values.allow(value)) {
                let part = format!("`{}` of cell {cell} in {field}", self.names[columns[at] as usize]);
                return Err(Error::Value { part, found: row[at].to_string(), expected: values.expected().to_owned() });
            }
        }
        Ok(())
    }

    /// What the reference's panel has and these do not, and the other way round.
    pub fn alignment(&self, panel: &[String]) -> PanelAlignment {
        let lacking = |names: &[String], others: &[String]| {
            let others: BTreeSet<&String> = others.iter().collect();
            names.iter().filter(|name| !others.contains(name)).cloned().collect()
        };
        PanelAlignment { missing: lacking(panel, &self.names), unknown: lacking(&self.names, panel) }
    }

    /// Values in the order of a panel; a feature that is not there has zeros.
    ///
    /// # Errors  [`Error::NoCommonFeatures`]
    pub fn aligned(&self, field: &str, panel: &[String]) -> Result<Csr> {
        let known: BTreeSet<&String> = self.names.iter().collect();
        if !panel.iter().any(|name| known.contains(name)) {
            let first = |names: &[String]| names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
            let (field, found, expected) = (field.to_owned(), first(&self.names), first(panel));
            return Err(Error::NoCommonFeatures { field, found, expected });
        }
        Ok(align(&self.names, panel, Duplicates::Refuse)?.apply(&self.values)?)
    }
}

/// Names that an error shows.
const SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn check(values: Array2<f32>) -> Result<Features> {
        Features::dense(names(&["CD3", "CD19"]), &values)
    }

    #[test]
    fn columns_follow_the_panel_by_name_and_what_is_not_there_is_zero() {
        let proteins = check(array![[1.0, 2.0], [3.0, 4.0]]).unwrap();
        let panel = names(&["CD19", "CD8", "CD3"]);
        assert_eq!(proteins.aligned("proteins", &panel).unwrap().to_dense(), [2.0, 0.0, 1.0, 4.0, 0.0, 3.0]);
        let alignment = proteins.alignment(&names(&["CD19", "CD8"]));
        assert_eq!((alignment.missing, alignment.unknown), (names(&["CD8"]), names(&["CD3"])));
        let refused = proteins.aligned("proteins", &names(&["CD4"])).unwrap_err().to_string();
        assert!(refused.contains("CD3, CD19") && refused.contains("CD4"), "{refused}");
    }

    #[test]
    fn what_is_not_of_its_kind_is_named_by_cell_and_feature() {
        for bad in [-1.0, 0.5, f32::NAN, f32::INFINITY] {
            let features = check(array![[1.0, 2.0], [3.0, bad]]).unwrap();
            let refused = features.check("proteins", Values::Counts).unwrap_err().to_string();
            assert!(refused.contains("`CD19` of cell 1 in proteins"), "{refused}");
        }
        check(array![[1.0, 2.0], [3.0, 0.5]]).unwrap().check("atac", Values::LogNormalised).unwrap();
        assert!(matches!(check(array![[1.0]]), Err(Error::Shape { .. })));
        let twice = Features::dense(names(&["CD3", "CD3"]), &array![[1.0, 2.0]]).unwrap_err().to_string();
        assert!(twice.contains("`CD3` twice"), "{twice}");
    }
}
