//! Machines as they are trained at home and as they travel.

use std::collections::BTreeMap;

use archipelago_analysis::{
    AnalysisError,
    hierarchy::{
        BinaryNode, Classifier, Classifiers, LinearSvm, Reconstruction, Rules, TrainOptions, TrainedTree, Tree,
    },
    pca::Pca,
};
use archipelago_common::tree::{Components, Machines};
use ndarray::Array2;

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

/// The flat tree that travelled.
pub(super) fn trained(machines: Machines) -> Result<TrainedTree> {
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
