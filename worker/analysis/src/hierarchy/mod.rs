//! Cell types of several labelled data sets in one latent space, matched in one tree (scHPL, as treeArches uses it).
//!
//! A classifier at the nodes of a tree is [trained](TrainedTree::train) on cells and [predicts](TrainedTree::predict) where
//! others belong, or that they belong nowhere. [`learn`] lets data sets join a tree in order: each side predicts the other,
//! and what the tree becomes follows from the two count tables alone. That rule is in `archipelago-hierarchy`, which the
//! coordinator can hold too; its values are found here again.
//!
//! # Source   Michielsen, Reinders & Mahfouz 2021; Michielsen, Lotfollahi et al. 2023; checked against scHPL 1.0.5

mod components;
mod folds;
mod learn;
mod linear;
mod nearest;
mod one_class;
mod options;
mod predict;
mod reconstruction;
mod trained;

pub use archipelago_hierarchy::*;
pub use components::welch_p;
pub use learn::{DataSet, LabelledCells, Learned, Step, learn, update};
pub use linear::LinearSvm;
pub use nearest::NearestNode;
pub use one_class::OneClassSvm;
pub use options::{Backend, Classifier, LearnOptions, TrainOptions};
pub use predict::{Placement, Predictions};
pub use reconstruction::Reconstruction;
pub use trained::{BinaryNode, Classifiers, TrainedTree};
