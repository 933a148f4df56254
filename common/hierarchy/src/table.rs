//! How many cells of each true label were predicted as which.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{HierarchyError, Result};

/// Counts of cells by true label (row) and predicted label (column), both sorted by code point. Labels without a cell
/// are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Matrix", into = "Matrix")]
pub struct CountTable {
    rows: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A table as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    rows: Vec<String>,
    columns: Vec<String>,
    counts: Vec<Vec<i64>>,
}

impl CountTable {
    /// From one pair of true and predicted label per cell.
    pub fn of_cells<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut table = Self::default();
        let mut seen = BTreeMap::<(&str, &str), u64>::new();
        cells.for_each(|pair| *seen.entry(pair).or_default() += 1);
        for ((row, column), count) in seen {
            table.put(row, column, count);
        }
        table
    }

    /// From numbers of cells by true and predicted label; those of one pair are added up.
    ///
    /// # Errors   more cells than can be counted
    pub fn of_counts<'a>(counts: impl Iterator<Item = (&'a str, &'a str, u64)>) -> Result<Self> {
        let mut table = Self::default();
        for (row, column, count) in counts {
            let mut one = Self::default();
            one.put(row, column, count);
            table.add(&one)?;
        }
        Ok(table)
    }

    /// From a matrix with names for its rows and columns.
    ///
    /// # Errors   another number of rows or columns than names, a name twice, a negative count
    pub fn from_matrix(rows: &[String], columns: &[String], counts: &[Vec<i64>]) -> Result<Self> {
        let shape = |what: String, found, expected| HierarchyError::TableShape { what, found, expected };
        if counts.len() != rows.len() {
            return Err(shape("rows of counts".into(), counts.len(), rows.len()));
        }
        for names in [rows, columns] {
            let mut seen = BTreeSet::new();
            if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
                return Err(HierarchyError::RepeatedLabel { name: name.clone() });
            }
        }
        let mut table = Self::default();
        for (row, values) in rows.iter().zip(counts) {
            if values.len() != columns.len() {
                return Err(shape(format!("counts in row `{row}`"), values.len(), columns.len()));
            }
            for (column, &count) in columns.iter().zip(values) {
                let count = u64::try_from(count).map_err(|_| not_a_count(row, column, count.to_string()))?;
                table.put(row, column, count);
            }
        }
        Ok(table)
    }

    /// Adds the cells of another table: how the counts of sites come together, in any order.
    ///
    /// # Errors   more cells than can be counted
    pub fn add(&mut self, other: &Self) -> Result<()> {
        for (row, columns) in &other.rows {
            for (column, &count) in columns {
                let sum = self.count(row, column).checked_add(count).filter(|&sum| i64::try_from(sum).is_ok());
                let sum = sum.ok_or_else(|| not_a_count(row, column, "more than can be counted".into()))?;
                self.rows.entry(row.clone()).or_default().insert(column.clone(), sum);
            }
        }
        Ok(())
    }

    /// Cells of one true and one predicted label.
    pub fn count(&self, row: &str, column: &str) -> u64 {
        self.rows.get(row).and_then(|columns| columns.get(column)).copied().unwrap_or(0)
    }

    /// Cells in all.
    pub fn n_cells(&self) -> u64 {
        self.rows.values().flat_map(BTreeMap::values).sum()
    }

    /// True labels.
    pub fn rows(&self) -> Vec<&str> {
        self.rows.keys().map(String::as_str).collect()
    }

    /// Predicted labels.
    pub fn columns(&self) -> Vec<&str> {
        let columns: BTreeSet<&str> = self.rows.values().flat_map(BTreeMap::keys).map(String::as_str).collect();
        columns.into_iter().collect()
    }

    /// Shares of each row, a row per true label.
    pub fn shares(&self) -> Vec<Vec<f64>> {
        let columns = self.columns();
        let of_row = |counts: &BTreeMap<String, u64>| {
            let total: u64 = counts.values().sum();
            columns.iter().map(|&column| *counts.get(column).unwrap_or(&0) as f64 / total as f64).collect()
        };
        self.rows.values().map(of_row).collect()
    }

    /// The same cells with other names for rows and columns; those that get one name are added up.
    #[must_use]
    pub(crate) fn renamed<'a>(&'a self, row: impl Fn(&'a str) -> &'a str, column: impl Fn(&'a str) -> &'a str) -> Self {
        let mut renamed = Self::default();
        for (from, counts) in &self.rows {
            let of_row = renamed.rows.entry(row(from).to_owned()).or_default();
            counts.iter().for_each(|(to, count)| *of_row.entry(column(to).to_owned()).or_default() += count);
        }
        renamed
    }

    pub(crate) fn put(&mut self, row: &str, column: &str, count: u64) {
        if count > 0 {
            self.rows.entry(row.to_owned()).or_default().insert(column.to_owned(), count);
        }
    }
}

fn not_a_count(row: &str, column: &str, found: String) -> HierarchyError {
    HierarchyError::Count { row: row.to_owned(), column: column.to_owned(), found }
}

impl TryFrom<Matrix> for CountTable {
    type Error = HierarchyError;

    fn try_from(matrix: Matrix) -> Result<Self> {
        Self::from_matrix(&matrix.rows, &matrix.columns, &matrix.counts)
    }
}

impl From<CountTable> for Matrix {
    fn from(table: CountTable) -> Self {
        let columns: Vec<String> = table.columns().into_iter().map(str::to_owned).collect();
        let count = |counts: &BTreeMap<String, u64>, column: &String| {
            i64::try_from(counts.get(column).copied().unwrap_or(0)).unwrap_or(i64::MAX)
        };
        let counts = table.rows.values().map(|counts| columns.iter().map(|column| count(counts, column)).collect());
        Self { counts: counts.collect(), rows: table.rows.into_keys().collect(), columns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn tables_add_up_in_any_order() {
        let north = CountTable::of_cells([("B", "b"), ("B", "b"), ("T", "t")].into_iter());
        let south = CountTable::of_cells([("B", "root2"), ("T", "t")].into_iter());
        let (mut one, mut other) = (north.clone(), south.clone());
        one.add(&south).unwrap();
        other.add(&north).unwrap();
        assert_eq!(one, other);
        assert_eq!((one.count("B", "b"), one.count("T", "t"), one.n_cells()), (2, 2, 5));
        assert_eq!(one.columns(), ["b", "root2", "t"]);
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let table = CountTable::of_cells([("B", "b"), ("T", "t"), ("T", "b")].into_iter());
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(text, r#"{"rows":["B","T"],"columns":["b","t"],"counts":[[1,0],[1,1]]}"#);
        assert_eq!(serde_json::from_str::<CountTable>(&text).unwrap(), table);
    }

    #[test]
    fn negative_counts_and_other_shapes_are_refused_in_words() {
        let check = |counts: &[Vec<i64>], word: &str| {
            let error = CountTable::from_matrix(&names(&["B", "T"]), &names(&["b"]), counts).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        };
        check(&[vec![1]], "1 rows of counts but 2");
        check(&[vec![1], vec![1, 2]], "2 counts in row `T` but 1");
        check(&[vec![1], vec![-4]], "`T` predicted as `b` is -4");
        let twice = CountTable::from_matrix(&names(&["B", "B"]), &names(&["b"]), &[vec![1], vec![1]]);
        assert!(matches!(twice, Err(HierarchyError::RepeatedLabel { .. })));
    }
}
