//! Data frames: `obs`, `var`, and frames inside `obsm` or `uns`.

use crate::{Column, Error, Result};

/// Named rows with ordered, named columns of equal length.
///
/// Row names are text; a numeric index (which only frames outside `obs` and `var` can have) is kept as text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DataFrame {
    index: Vec<String>,
    index_name: Option<String>,
    columns: Vec<(String, Column)>,
}

impl DataFrame {
    /// A frame of row names without columns.
    pub fn new<S: Into<String>>(index: impl IntoIterator<Item = S>) -> Self {
        Self { index: index.into_iter().map(Into::into).collect(), index_name: None, columns: Vec::new() }
    }

    /// The same frame with a name for its index.
    #[must_use]
    pub fn with_index_name(mut self, name: impl Into<String>) -> Self {
        self.index_name = Some(name.into());
        self
    }

    /// Adds a column at the end, or replaces the one of that name where it stands.
    ///
    /// # Errors
    /// When the column's length is not the number of rows.
    pub fn insert(&mut self, name: impl Into<String>, column: impl Into<Column>) -> Result<()> {
        let (name, column) = (name.into(), column.into());
        if column.len() != self.n_rows() {
            let (found, expected) = (column.len(), self.n_rows());
            return Err(Error::Shape {
                part: format!("column {name}"),
                axis: "rows",
                found,
                expected,
                against: "index",
            });
        }
        match self.columns.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = column,
            None => self.columns.push((name, column)),
        }
        Ok(())
    }

    /// Gives the rows other names, in the same order.
    ///
    /// # Errors
    /// When there is not one name per row.
    pub fn rename_rows(&mut self, names: Vec<String>) -> Result<()> {
        if names.len() != self.n_rows() {
            let (found, expected) = (names.len(), self.n_rows());
            return Err(Error::Shape { part: "row names".into(), axis: "rows", found, expected, against: "index" });
        }
        // A column of the index's name holds the old names, which have no other place then.
        if self.index_name.as_ref().is_some_and(|name| self.columns.iter().any(|(known, _)| known == name)) {
            self.index_name = None;
        }
        self.index = names;
        Ok(())
    }

    /// Takes a column out.
    pub fn remove(&mut self, name: &str) -> Option<Column> {
        let at = self.columns.iter().position(|(known, _)| known == name)?;
        Some(self.columns.remove(at).1)
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.index.len()
    }

    /// Row names (cell or gene names).
    pub fn index(&self) -> &[String] {
        &self.index
    }

    /// Name of the index, where it has one.
    pub fn index_name(&self) -> Option<&str> {
        self.index_name.as_deref()
    }

    /// Columns in their order.
    pub fn columns(&self) -> &[(String, Column)] {
        &self.columns
    }

    /// Names of the columns in their order.
    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The column of that name.
    ///
    /// # Errors
    /// [`Error::Missing`] with the names there are; [`Error::Kind`] for one that is kept and cannot be read.
    pub fn column(&self, name: &str) -> Result<&Column> {
        match self.columns.iter().find(|(known, _)| known == name) {
            Some((_, Column::Kept(_))) => {
                let found = "values of an uncommon type".to_owned();
                Err(Error::Kind { name: name.to_owned(), found, expected: "numbers, text or categories" })
            }
            Some((_, column)) => Ok(column),
            None => Err(Error::Missing { kind: "column", name: name.to_owned(), available: self.column_names() }),
        }
    }

    /// The rows at `rows`, in that order.
    ///
    /// # Panics
    /// If a row is out of range.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        Self {
            index: rows.iter().map(|&row| self.index[row].clone()).collect(),
            index_name: self.index_name.clone(),
            columns: self.columns.iter().map(|(name, column)| (name.clone(), column.select_rows(rows))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_column_lists_those_there_are() {
        let mut frame = DataFrame::new(["a", "b"]);
        frame.insert("batch", Column::categorical(&["x", "y"])).unwrap();
        let message = frame.column("donor").unwrap_err().to_string();
        assert_eq!(message, "no column `donor`; there are: `batch`");
    }

    #[test]
    fn columns_have_one_value_per_row() {
        assert!(DataFrame::new(["a"]).insert("n", vec![1_i64, 2]).is_err());
    }

    #[test]
    fn a_column_is_replaced_where_it_stands() {
        let mut frame = DataFrame::new(["a"]);
        frame.insert("n", vec![1_i64]).unwrap();
        frame.insert("m", vec![2_i64]).unwrap();
        frame.insert("n", vec![3_i64]).unwrap();
        assert_eq!(frame.column_names(), ["n", "m"]);
        assert_eq!(frame.column("n").unwrap(), &Column::from(vec![3_i64]));
    }
}
