//! Which labels of two sides belong together: marks made from shares of cells.

use std::collections::BTreeSet;

use crate::table::CountTable;

/// Marks of one table: 0 none, 1 one of several, 2 the only one of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryTable {
    /// True labels.
    pub rows: Vec<String>,
    /// Predicted labels.
    pub columns: Vec<String>,
    /// A row of marks per true label.
    pub marks: Vec<Vec<u8>>,
}

impl BinaryTable {
    /// Marks the largest share of each row, and those that follow it within `margin` of each other.
    ///
    /// The walk down the shares ends before the last column: with two columns only the largest share is ever looked at.
    pub fn new(table: &CountTable, margin: f64) -> Self {
        let shares = table.shares();
        let n_columns = table.columns().len();
        let mut marks = vec![vec![0u8; n_columns]; shares.len()];
        for (row, marks) in shares.iter().zip(&mut marks) {
            let largest =
                row.iter().enumerate().fold(0, |best, (at, share)| if *share > row[best] { at } else { best });
            if row[largest] > LEAST_SHARE {
                marks[largest] = 1;
            }
            let mut sorted = row.clone();
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            for pair in sorted.windows(2).take(n_columns.saturating_sub(2)) {
                if pair[0] - pair[1] >= margin || pair[1] <= LEAST_SHARE {
                    break;
                }
                marks.iter_mut().zip(row).filter(|(_, share)| **share == pair[1]).for_each(|(mark, _)| *mark = 1);
            }
            if marks.iter().sum::<u8>() == 1 {
                marks.iter_mut().for_each(|mark| *mark *= 2);
            }
        }
        Self { rows: owned(table.rows()), columns: owned(table.columns()), marks }
    }

    fn mark(&self, row: &str, column: &str) -> Option<u8> {
        let at = |names: &[String], name: &str| names.binary_search_by(|known| known.as_str().cmp(name)).ok();
        Some(self.marks[at(&self.rows, row)?][at(&self.columns, column)?])
    }
}

/// Marks of both directions added up: labels that join in rows, labels of the tree in columns; `None` where neither
/// side says anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumTable {
    /// Labels that join.
    pub rows: Vec<String>,
    /// Labels of the tree.
    pub columns: Vec<String>,
    /// A row of sums per label that joins.
    pub sums: Vec<Vec<Option<u8>>>,
}

impl SumTable {
    /// Adds the marks of the joining cells to those of the tree's cells, of which only leaves count.
    ///
    /// `as_upstream` repeats what adding two pandas tables does to columns of truth values: where both sides list the same
    /// labels and no mark of the tree's cells is a 2, one and one are one.
    pub fn new(of_tree: &BinaryTable, of_joining: &BinaryTable, leaves: &[&str], as_upstream: bool) -> Self {
        let rows = union(&of_joining.rows, &of_tree.columns);
        let leaf_names: Vec<String> = leaves.iter().map(|&leaf| leaf.to_owned()).collect();
        let columns = union(&of_joining.columns, &leaf_names);
        let is_or =
            as_upstream && of_joining.rows == of_tree.columns && of_tree.marks.iter().flatten().all(|&mark| mark < 2);
        let of_leaf = |leaf: &str, label: &str| {
            let is_known = leaves.contains(&leaf) && of_tree.columns.iter().any(|known| known == label);
            is_known.then(|| of_tree.mark(leaf, label).unwrap_or(0))
        };
        let column_is_or = |column: &str| {
            let at = of_joining.columns.iter().position(|known| known == column);
            let at = at.filter(|_| is_or && leaves.contains(&column));
            at.is_some_and(|at| of_joining.marks.iter().all(|row| row[at] < 2))
        };
        let sum = |row: &str, column: &str| match (of_joining.mark(row, column), of_leaf(column, row)) {
            (None, None) => None,
            (Some(1), Some(1)) if column_is_or(column) => Some(1),
            (there, back) => Some(there.unwrap_or(0) + back.unwrap_or(0)),
        };
        let sums = rows.iter().map(|row| columns.iter().map(|column| sum(row, column)).collect()).collect();
        Self { rows, columns, sums }
    }
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn union(some: &[String], others: &[String]) -> Vec<String> {
    some.iter().chain(others).collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

/// A share up to this is no match.
const LEAST_SHARE: f64 = 0.1;
