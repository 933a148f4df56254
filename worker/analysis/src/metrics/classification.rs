//! Predicted labels against true ones.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{Labels, Result, reading_order};

use super::mean;

/// How often each true label was predicted as which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// All labels that are true or predicted somewhere, in [`reading_order`].
    pub labels: Vec<String>,
    /// Cells by true label (row) and predicted label (column).
    pub counts: Vec<Vec<u64>>,
}

/// Precision, recall and F1 of one label; 0 where a quotient is 0/0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// The label.
    pub label: String,
    /// Share of the cells predicted so that are so.
    pub precision: f64,
    /// Share of the cells that are so that were predicted so.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Cells with this true label.
    pub support: u64,
}

impl Confusion {
    /// Counts the pairs of true and predicted label, cell by cell.
    ///
    /// # Errors   another number of predictions than cells
    pub fn new(truth: &Labels, predicted: &Labels) -> Result<Self> {
        predicted.check_len("the list of predictions", truth.len())?;
        let union: BTreeSet<&str> = truth.iter().chain(predicted.iter()).collect();
        let mut labels: Vec<String> = union.into_iter().map(str::to_owned).collect();
        labels.sort_by(|a, b| reading_order(a, b));
        let rank = |of: &Labels| -> Vec<Option<usize>> {
            of.names().iter().map(|name| labels.binary_search_by(|label| reading_order(label, name)).ok()).collect()
        };
        let (row_of, column_of) = (rank(truth), rank(predicted));
        let mut counts = vec![vec![0; labels.len()]; labels.len()];
        for (&t, &p) in truth.codes().iter().zip(predicted.codes()) {
            if let (Some(row), Some(column)) = (row_of[t as usize], column_of[p as usize]) {
                counts[row][column] += 1;
            }
        }
        Ok(Self { labels, counts })
    }

    /// Share of cells predicted correctly; `None` without cells.
    pub fn accuracy(&self) -> Option<f64> {
        let total: u64 = self.counts.iter().flatten().sum();
        let correct: u64 = (0..self.labels.len()).map(|i| self.counts[i][i]).sum();
        (total > 0).then(|| correct as f64 / total as f64)
    }

    /// Precision, recall, F1 and support of each label.
    pub fn report(&self) -> Vec<ClassReport> {
        let quotient = |numerator: u64, denominator: u64| match denominator {
            0 => 0.0,
            _ => numerator as f64 / denominator as f64,
        };
        let classes = self.labels.iter().enumerate().map(|(i, label)| {
            let correct = self.counts[i][i];
            let support: u64 = self.counts[i].iter().sum();
            let predicted: u64 = self.counts.iter().map(|row| row[i]).sum();
            ClassReport {
                label: label.clone(),
                precision: quotient(correct, predicted),
                recall: quotient(correct, support),
                f1: quotient(2 * correct, support + predicted),
                support,
            }
        });
        classes.collect()
    }

    /// Mean F1 over all labels that are true or predicted somewhere, each counted once.
    pub fn macro_f1(&self) -> Option<f64> {
        mean(self.report().iter().map(|class| class.f1))
    }

    /// Mean F1 over the labels that are true somewhere: a label that is only predicted does not count.
    pub fn macro_f1_of_true_labels(&self) -> Option<f64> {
        mean(self.report().iter().filter(|class| class.support > 0).map(|class| class.f1))
    }

    /// Mean F1 weighted by the cells of each true label.
    pub fn weighted_f1(&self) -> Option<f64> {
        let report = self.report();
        let total: u64 = report.iter().map(|class| class.support).sum();
        let sum: f64 = report.iter().map(|class| class.f1 * class.support as f64).sum();
        (total > 0).then(|| sum / total as f64)
    }

    /// Mean recall over the labels that are true somewhere.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        mean(self.report().iter().filter(|class| class.support > 0).map(|class| class.recall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_only_predicted_counts_in_macro_f1_but_not_among_true_labels() {
        let truth = Labels::from_names(&["B", "B", "T", "T"]);
        let predicted = Labels::from_names(&["B", "NK", "T", "T"]);
        let confusion = Confusion::new(&truth, &predicted).unwrap();
        assert_eq!(confusion.labels, ["B", "NK", "T"]);
        assert_eq!(confusion.accuracy(), Some(0.75));
        let f1_b = 2.0 / 3.0;
        assert_eq!(confusion.macro_f1(), Some((f1_b + 0.0 + 1.0) / 3.0));
        assert_eq!(confusion.macro_f1_of_true_labels(), Some((f1_b + 1.0) / 2.0));
        assert_eq!(confusion.balanced_accuracy(), Some(0.75));
    }

    #[test]
    fn no_cells_have_no_accuracy() {
        let none = Labels::from_names::<&str>(&[]);
        assert_eq!(Confusion::new(&none, &none).unwrap().accuracy(), None);
    }
}
