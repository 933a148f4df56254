//! What tells types apart, as it is trained at home and as it travels.

use std::collections::BTreeMap;

use archipelago_analysis::{
    AnalysisError, Labels,
    hierarchy::{
        BinaryNode, Classifier, Classifiers, LinearSvm, Reconstruction, Rules, TrainOptions, TrainedTree, Tree,
    },
    pca::Pca,
};
use archipelago_common::tree::{Classifier as Travelled, Components, Machines, Points};
use ndarray::{Array2, ArrayView2};

use super::N_FOLDS;
use crate::error::Result;

pub(super) fn machine_options() -> TrainOptions {
    TrainOptions { classifier: Classifier::Svm, ..TrainOptions::default() }
}

/// What of a trained flat tree travels.
pub(super) fn travelling(trained: &TrainedTree, place: u64) -> Machines {
    let mut types = BTreeMap::new();
    if let Classifiers::Linear(nodes) = &trained.classifiers {
        for (node, machine) in trained.tree.root().preorder().zip(nodes) {
            if let Some(BinaryNode { svm, .. }) = machine {
                let weights = svm.weights.iter().copied().chain([svm.intercept]).collect();
                types.insert(node.name().to_owned(), weights);
            }
        }
    }
    let components = trained.reconstruction.as_ref().and_then(|Reconstruction { pca, max_error }| {
        let components = pca.components.iter().copied().collect();
        Some(Components { mean: pca.mean.clone(), components, max_error: (*max_error)? })
    });
    Machines { place, types, components }
}

/// The flat tree of what travelled.
pub(super) fn trained(classifier: &Travelled) -> Result<TrainedTree> {
    match classifier {
        Travelled::Machines(machines) => of_machines(machines.clone()),
        Travelled::Points(points) => {
            let tree = Tree::flat(&points.types.keys().collect::<Vec<_>>()).map_err(AnalysisError::from)?;
            nearest(tree, points.n_dims, points.types.iter().map(|(label, cells)| (label.clone(), cells.as_slice())))
        }
    }
}

/// A tree whose nodes decide by the nearest of these cells of each type.
pub(super) fn nearest<'a>(
    tree: Tree,
    n_dims: usize,
    types: impl Iterator<Item = (String, &'a [f32])>,
) -> Result<TrainedTree> {
    let (mut labels, mut values, mut most) = (Vec::new(), Vec::new(), 0);
    for (label, cells) in types {
        let n_cells = cells.len() / n_dims;
        most = most.max(n_cells);
        labels.extend(std::iter::repeat_n(label, n_cells));
        values.extend_from_slice(cells);
    }
    let x = Array2::from_shape_vec((labels.len(), n_dims), values).expect("as many coordinates for each cell");
    let options = TrainOptions { classifier: Classifier::Knn, use_re: most >= N_FOLDS, ..TrainOptions::default() };
    Ok(TrainedTree::train(x.view(), &Labels::from_names(&labels), tree, &options, Rules::Corrected)?)
}

/// The cells of a data set, as they travel.
pub(super) fn points(x: ArrayView2<'_, f32>, labels: &[&str], place: u64) -> Points {
    let mut types: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (row, label) in x.rows().into_iter().zip(labels) {
        types.entry((*label).to_owned()).or_default().extend(row.iter());
    }
    Points { place, n_dims: x.ncols(), types }
}

fn of_machines(machines: Machines) -> Result<TrainedTree> {
    let n_dims = machines.n_dims();
    let labels: Vec<&String> = machines.types.keys().collect();
    let tree = Tree::flat(&labels).map_err(AnalysisError::from)?;
    let decide = |weights: &Vec<f64>| {
        let (intercept, weights) = weights.split_last()?;
        let svm = LinearSvm { weights: weights.to_vec(), intercept: *intercept };
        Some(BinaryNode { components: None, svm })
    };
    let classifiers = Classifiers::Linear([None].into_iter().chain(machines.types.values().map(decide)).collect());
    let reconstruction = machines.components.map(|Components { mean, components, max_error }| {
        let shape = (components.len() / n_dims.max(1), n_dims);
        let components = Array2::from_shape_vec(shape, components).expect("the shape was checked when it was read");
        // Variances play no part in a rejection.
        let pca = Pca { mean, components, explained_variance: Vec::new(), explained_variance_ratio: Vec::new() };
        Reconstruction { pca, max_error: Some(max_error) }
    });
    let options = TrainOptions { use_re: reconstruction.is_some(), ..machine_options() };
    Ok(TrainedTree { tree, n_dims, options, rules: Rules::Corrected, reconstruction, classifiers })
}
