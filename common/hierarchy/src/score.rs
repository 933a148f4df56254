//! How right predictions in a tree are, when a parent is better than a stranger.

use std::collections::BTreeSet;

use crate::tree::Tree;

/// The hierarchical F1 of pairs of true and predicted label: shared steps of the paths from the root.
///
/// A prediction below the true node counts as right. A label outside the tree shares nothing with any other; the rejected
/// should be called by the root's name before. `None` where nothing is shared.
///
/// # Source   Kiritchenko et al. 2005; `hierarchical_F1` of scHPL 1.0.5
pub fn hierarchical_f1<'a>(tree: &Tree, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<f64> {
    let (mut n_predicted, mut n_true, mut n_shared) = (0i64, 0i64, 0i64);
    for (truth, predicted) in pairs {
        let of_truth = names_above(tree, truth);
        let mut of_prediction = names_above(tree, predicted);
        // What lies below the true node is left out.
        if let Some(at) = of_prediction.iter().position(|name| of_truth.first() == Some(name)) {
            of_prediction.drain(..at);
        }
        let (a, b): (BTreeSet<_>, BTreeSet<_>) = (of_truth.iter().collect(), of_prediction.iter().collect());
        n_shared += a.intersection(&b).count() as i64 - 1;
        n_predicted += of_prediction.len() as i64 - 1;
        n_true += of_truth.len() as i64 - 1;
    }
    let (precision, recall) = (n_shared as f64 / n_predicted as f64, n_shared as f64 / n_true as f64);
    let f1 = 2.0 * precision * recall / (precision + recall);
    f1.is_finite().then_some(f1)
}

/// Names from the node that carries a label up to the root.
fn names_above<'a>(tree: &'a Tree, label: &str) -> Vec<&'a str> {
    let Some(path) = tree.root.find(|node| node.carries(label)) else { return Vec::new() };
    (0..=path.len()).rev().map(|depth| tree.root.at(&path[..depth]).name()).collect()
}
