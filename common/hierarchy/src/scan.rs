//! Reads a table of marks and decides what becomes of each label.
//!
//! Sums of rows and columns are taken once before each of the two walks and stay as they were while marks are cleared:
//! the order of the walk, columns first, is part of the method.

use crate::actions::Change;
use crate::join::Rules;
use crate::marks::SumTable;
use crate::{JOINING_ROOT, ROOT};

/// Marks that are still to be dealt with: labels that join in rows, names of the tree in columns.
#[derive(Debug, Clone)]
pub(crate) struct Marks<'a> {
    rows: Vec<&'a str>,
    columns: Vec<&'a str>,
    set: Vec<Vec<bool>>,
}

impl<'a> Marks<'a> {
    /// Every mark there is.
    pub(crate) fn all(sums: &'a SumTable) -> Self {
        Self::above(sums, |_, _| 0)
    }

    /// Marks that both sides made; a root has no such, so all of its marks stay.
    pub(crate) fn strict(sums: &'a SumTable) -> Self {
        Self::above(sums, |row, column| u8::from(row != JOINING_ROOT && column != ROOT))
    }

    fn above(sums: &'a SumTable, least: impl Fn(&str, &str) -> u8) -> Self {
        let of_row = |(row, values): (&'a String, &Vec<Option<u8>>)| {
            let is_set = |(column, value): (&String, &Option<u8>)| value.is_some_and(|sum| sum > least(row, column));
            sums.columns.iter().zip(values).map(is_set).collect()
        };
        Self {
            rows: sums.rows.iter().map(String::as_str).collect(),
            columns: sums.columns.iter().map(String::as_str).collect(),
            set: sums.rows.iter().zip(&sums.sums).map(of_row).collect(),
        }
    }

    /// Clears what is not set in other marks of the same labels.
    pub(crate) fn keep(&mut self, other: &Self) {
        for (row, others) in self.set.iter_mut().zip(&other.set) {
            row.iter_mut().zip(others).for_each(|(mark, other)| *mark &= other);
        }
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_empty(&self) -> bool {
        !self.set.iter().flatten().any(|&mark| mark)
    }

    /// Deals with the marks, first those that are plain, then those that are not.
    pub(crate) fn scan(&mut self, change: &mut Change<'_>) {
        for deal in [plain, entangled] {
            let sums = Sums::of(self);
            for column in 0..self.columns.len() {
                for row in 0..self.rows.len() {
                    if self.set[row][column] {
                        deal(self, &sums, (row, column), change);
                    }
                }
            }
        }
    }

    fn rows_of(&self, column: usize) -> Vec<usize> {
        (0..self.rows.len()).filter(|&row| self.set[row][column]).collect()
    }

    fn columns_of(&self, row: usize) -> Vec<usize> {
        (0..self.columns.len()).filter(|&column| self.set[row][column]).collect()
    }

    fn clear_row(&mut self, row: usize) {
        self.set[row].fill(false);
    }

    fn clear_column(&mut self, column: usize) {
        self.set.iter_mut().for_each(|row| row[column] = false);
    }

    fn clear(&mut self, rows: &[usize], columns: &[usize]) {
        rows.iter().for_each(|&row| self.clear_row(row));
        columns.iter().for_each(|&column| self.clear_column(column));
    }
}

/// Marks per row and column when a walk began.
struct Sums {
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Sums {
    fn of(marks: &Marks<'_>) -> Self {
        Self {
            rows: (0..marks.rows.len()).map(|row| marks.columns_of(row).len()).collect(),
            columns: (0..marks.columns.len()).map(|column| marks.rows_of(column).len()).collect(),
        }
    }
}

/// A label with one mark: a new population, a match, or one of several that split a node.
fn plain(marks: &mut Marks<'_>, sums: &Sums, (row, column): (usize, usize), change: &mut Change<'_>) {
    let (label, known) = (marks.rows[row], marks.columns[column]);
    if sums.rows[row] != 1 {
        return;
    }
    if sums.columns[column] == 1 {
        match (label, known) {
            (_, ROOT) => change.add_population(label),
            // A type of the tree that the joining cells lack.
            (JOINING_ROOT, _) => {}
            _ => change.match_label(label, known),
        }
        marks.set[row][column] = false;
        return;
    }
    let rows = marks.rows_of(column);
    if known == ROOT {
        for row in rows.into_iter().filter(|&row| sums.rows[row] == 1) {
            change.add_population(marks.rows[row]);
            marks.set[row][column] = false;
        }
        return;
    }
    if rows.iter().any(|&row| sums.rows[row] > 1 && marks.rows[row] != JOINING_ROOT) {
        return;
    }
    let labels: Vec<&str> = rows.iter().map(|&row| marks.rows[row]).filter(|&label| label != JOINING_ROOT).collect();
    change.split(known, &labels);
    marks.clear_column(column);
}

/// A label with several marks: a merge, or several labels with several names.
fn entangled(marks: &mut Marks<'_>, sums: &Sums, (row, column): (usize, usize), change: &mut Change<'_>) {
    let (label, known) = (marks.rows[row], marks.columns[column]);
    if sums.rows[row] <= 1 || label == JOINING_ROOT {
        return;
    }
    if sums.columns[column] == 1 {
        let columns = marks.columns_of(row);
        let names: Vec<&str> = columns.iter().map(|&column| marks.columns[column]).collect();
        let is_entangled = |&column: &usize| sums.columns[column] > 1 && marks.columns[column] != ROOT;
        if !columns.iter().any(is_entangled) && change.merge(&names, label) {
            change.has_joined(label);
            marks.clear_row(row);
        }
    } else if sums.columns[column] > 1 && known != ROOT {
        Knot::around(marks, (row, column), change.rules).untie(marks, sums, (row, column), change);
    }
}

/// Several labels and several names that a mark holds together, roots left out.
struct Knot {
    rows: Vec<usize>,
    columns: Vec<usize>,
    /// Where the sums of these rows and columns are looked up.
    sums_of: (Vec<usize>, Vec<usize>),
    /// The row and the column that do not count in these sums.
    beside: (Option<usize>, Option<usize>),
}

impl Knot {
    fn around(marks: &Marks<'_>, (row, column): (usize, usize), rules: Rules) -> Self {
        let (all_rows, all_columns) = (marks.rows_of(column), marks.columns_of(row));
        let without = |all: &[usize], names: &[&str], root: &str| -> Vec<usize> {
            all.iter().copied().filter(|&at| names[at] != root).collect()
        };
        let rows = without(&all_rows, &marks.rows, JOINING_ROOT);
        let columns = without(&all_columns, &marks.columns, ROOT);
        match rules {
            Rules::Corrected => Self {
                sums_of: (rows.clone(), columns.clone()),
                beside: (
                    marks.rows.iter().position(|&label| label == JOINING_ROOT),
                    marks.columns.iter().position(|&known| known == ROOT),
                ),
                rows,
                columns,
            },
            // Upstream pairs what is left with the first places, and takes the last row and column for the roots: right
            // only where the roots sort last.
            Rules::Upstream => Self {
                sums_of: (all_rows[..rows.len()].to_vec(), all_columns[..columns.len()].to_vec()),
                beside: (marks.rows.len().checked_sub(1), marks.columns.len().checked_sub(1)),
                rows,
                columns,
            },
        }
    }

    fn untie(&self, marks: &mut Marks<'_>, sums: &Sums, (row, column): (usize, usize), change: &mut Change<'_>) {
        let labels: Vec<&str> = self.rows.iter().map(|&row| marks.rows[row]).collect();
        let names: Vec<&str> = self.columns.iter().map(|&column| marks.columns[column]).collect();
        match (&labels[..], &names[..]) {
            ([label], [known]) => {
                change.match_label(label, known);
                marks.clear(&self.rows, &self.columns);
            }
            ([label], [_, ..]) => {
                if !self.has_entangled_name(marks, sums) && change.merge(&names, label) {
                    change.has_joined(label);
                    marks.clear(&self.rows, &self.columns);
                }
            }
            ([_, ..], [known]) => {
                if !self.has_entangled_label(marks, sums) {
                    change.split(known, &labels);
                    marks.clear(&self.rows, &self.columns);
                }
            }
            _ => self.split_and_merge(marks, sums, (row, column), change),
        }
    }

    /// Several with several: possible where the name is a node above all others, which is split, and its part merged.
    fn split_and_merge(&self, marks: &mut Marks<'_>, sums: &Sums, at: (usize, usize), change: &mut Change<'_>) {
        let (label, known) = (marks.rows[at.0], marks.columns[at.1]);
        let n_rows = self.sums_of.0.iter().filter(|&&row| sums.rows[row] > 1 && marks.rows[row] != JOINING_ROOT);
        let n_columns =
            self.sums_of.1.iter().filter(|&&column| sums.columns[column] > 1 && marks.columns[column] != ROOT);
        if n_rows.count() > 1 || n_columns.count() > 1 {
            return;
        }
        let names: Vec<&str> = self.columns.iter().map(|&column| marks.columns[column]).collect();
        let labels: Vec<&str> = self.rows.iter().map(|&row| marks.rows[row]).collect();
        let Some(node) = change.tree.root.preorder().find(|node| node.name() == known) else { return };
        let n_held = node.preorder().filter(|node| names.contains(&node.name())).count();
        if node.is_leaf() || n_held != names.len() {
            return;
        }
        change.split(known, &labels);
        let others: Vec<&str> = names.into_iter().filter(|&name| name != known).collect();
        if change.merge(&others, label) {
            marks.clear(&[at.0], &[at.1]);
        }
    }

    fn has_entangled_name(&self, marks: &Marks<'_>, sums: &Sums) -> bool {
        self.sums_of.1.iter().any(|&column| {
            let beside = self.beside.0.is_some_and(|row| marks.set[row][column]);
            sums.columns[column] - usize::from(beside) > 1 && marks.columns[column] != ROOT
        })
    }

    fn has_entangled_label(&self, marks: &Marks<'_>, sums: &Sums) -> bool {
        self.sums_of.0.iter().any(|&row| {
            let beside = self.beside.1.is_some_and(|column| marks.set[row][column]);
            sums.rows[row] - usize::from(beside) > 1 && marks.rows[row] != JOINING_ROOT
        })
    }
}
