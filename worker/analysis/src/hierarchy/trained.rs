//! A tree with a classifier at its nodes.

use std::collections::BTreeMap;

use archipelago_hierarchy::{Node, Rules, Tree};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::components::explaining;
use super::linear::LinearSvm;
use super::nearest::NearestNode;
use super::one_class::OneClassSvm;
use super::options::{Classifier, TrainOptions};
use super::reconstruction::Reconstruction;
use crate::distance::check_finite;
use crate::quantile::quantile;
use crate::{AnalysisError, Labels, Result};

/// A tree that can say where a cell belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedTree {
    /// The tree.
    pub tree: Tree,
    /// Dimensions of the cells that it was trained on.
    pub n_dims: usize,
    /// How it was trained.
    pub options: TrainOptions,
    /// Whose rules it predicts by where upstream has a fault.
    pub rules: Rules,
    /// Components that reject, or on which everything happens.
    pub reconstruction: Option<Reconstruction>,
    /// What decides.
    pub classifiers: Classifiers,
}

/// What decides at the nodes, which are numbered in preorder.
#[derive(Debug, Clone, PartialEq)]
pub enum Classifiers {
    /// A node above others asks the nearest of its training cells.
    Nearest {
        /// All training cells, projected where the tree projects.
        x: Array2<f32>,
        /// One per node; none for a leaf, and for a node without training cells.
        nodes: Vec<Option<NearestNode>>,
        /// A cell whose mean distance at the root is larger is rejected; none with one neighbour.
        max_distance: Option<f64>,
    },
    /// A node tells its own cells from those of its sisters.
    Linear(Vec<Option<BinaryNode<LinearSvm>>>),
    /// A node tells its own cells from all others.
    OneClass(Vec<Option<BinaryNode<OneClassSvm>>>),
}

/// A node that says yes or no.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryNode<S> {
    /// Components that it looks at; all, where there is none.
    pub components: Option<Vec<u32>>,
    /// What it decides with.
    pub svm: S,
}

impl TrainedTree {
    /// Trains the nodes of a tree. Cells whose label is not in the tree take part in the reconstruction only.
    ///
    /// # Shapes   `x`: `[n_cells, n_dims]`
    /// # Errors   labels of another number of cells, values not finite, no cell of any type of the tree, options that make no
    /// sense, too few cells for components
    pub fn train(
        x: ArrayView2<'_, f32>,
        labels: &Labels,
        tree: Tree,
        options: &TrainOptions,
        rules: Rules,
    ) -> Result<Self> {
        options.check()?;
        labels.check_len("the list of labels", x.nrows())?;
        check_finite("the embedding", x)?;
        let reconstruction = match (options.use_re, options.dimred) {
            (true, _) => Some(Reconstruction::fit(x, labels, options.fn_percent)?),
            (false, true) => Some(Reconstruction::without_threshold(x)?),
            (false, false) => None,
        };
        let projected = reconstruction.as_ref().filter(|_| options.dimred).map(|fit| fit.pca.project(x)).transpose()?;
        let cells = Cells {
            x: projected.as_ref().map_or(x, |x| x.view()),
            n_dims: x.ncols(),
            node_of: nodes_of(labels, &tree),
        };
        let plan = Plan::of(&tree);
        let classifiers = match options.classifier {
            Classifier::Knn => cells.nearest(&plan, options)?,
            Classifier::Svm => Classifiers::Linear(cells.binary(&plan, options, LinearSvm::fit)?),
            Classifier::SvmOcc => {
                Classifiers::OneClass(cells.binary(&plan, options, |x, rows, _| Ok(OneClassSvm::fit(x, rows)))?)
            }
        };
        Ok(Self { tree, n_dims: x.ncols(), options: *options, rules, reconstruction, classifiers })
    }
}

/// The nodes of a tree by their place in preorder.
pub(super) struct Plan<'a> {
    pub(super) names: Vec<&'a str>,
    pub(super) parents: Vec<Option<usize>>,
    pub(super) children: Vec<Vec<usize>>,
}

impl<'a> Plan<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        let mut plan = Self { names: Vec::new(), parents: Vec::new(), children: Vec::new() };
        plan.add(tree.root(), None);
        plan
    }

    fn add(&mut self, node: &'a Node, parent: Option<usize>) {
        let number = self.names.len();
        self.names.push(node.name());
        self.parents.push(parent);
        self.children.push(Vec::new());
        if let Some(parent) = parent {
            self.children[parent].push(number);
        }
        node.children().iter().for_each(|child| self.add(child, Some(number)));
    }

    /// Whether `node` is `above` or lies below it. In preorder a subtree is a run of numbers.
    fn is_within(&self, mut node: usize, above: usize) -> bool {
        while node > above {
            let Some(parent) = self.parents[node] else { return false };
            node = parent;
        }
        node == above
    }
}

/// The node of each cell, if its label is in the tree.
fn nodes_of(labels: &Labels, tree: &Tree) -> Vec<Option<usize>> {
    let mut number_of = BTreeMap::new();
    for (number, node) in tree.root().preorder().enumerate() {
        for name in node.names() {
            number_of.entry(name.as_str()).or_insert(number);
        }
    }
    let of_code: Vec<Option<usize>> = labels.names().iter().map(|name| number_of.get(name.as_str()).copied()).collect();
    labels.codes().iter().map(|&code| of_code[code as usize]).collect()
}

struct Cells<'a> {
    x: ArrayView2<'a, f32>,
    /// Dimensions before the projection.
    n_dims: usize,
    node_of: Vec<Option<usize>>,
}

impl Cells<'_> {
    fn nearest(&self, plan: &Plan<'_>, options: &TrainOptions) -> Result<Classifiers> {
        let n_nodes = plan.names.len();
        // Rows of each node with the child (or for a single child, the node itself) that they belong to.
        let mut members: Vec<Vec<(u32, usize)>> = vec![Vec::new(); n_nodes];
        for (row, node) in (0u32..).zip(&self.node_of) {
            let Some(mut node) = *node else { continue };
            if plan.children[node].len() == 1 {
                members[node].push((row, node));
            }
            while let Some(parent) = plan.parents[node] {
                members[parent].push((row, node));
                node = parent;
            }
        }
        if members[0].is_empty() {
            return Err(AnalysisError::TooFew { step: "a tree", unit: "cells of its types", needed: 1, found: 0 });
        }
        let nodes: Vec<Option<NearestNode>> = members.iter().map(|members| node(members, plan, options)).collect();
        let max_distance = match &nodes[0] {
            Some(root) if root.k > 1 => {
                let mut distances = root.mean_distances(self.x, options.backend)?;
                distances.sort_unstable_by(f64::total_cmp);
                Some(quantile(&distances, options.dist_knn / 100.0))
            }
            _ => None,
        };
        Ok(Classifiers::Nearest { x: self.x.to_owned(), nodes, max_distance })
    }

    /// One decision per node below the root, each found apart from the others.
    fn binary<S: Send>(
        &self,
        plan: &Plan<'_>,
        options: &TrainOptions,
        fit: impl Fn(ArrayView2<'_, f32>, &[u32], &[u32]) -> Result<S> + Sync,
    ) -> Result<Vec<Option<BinaryNode<S>>>> {
        let numbers: Vec<usize> = (0..plan.names.len()).collect();
        let of_node = |&number: &usize| {
            let Some(parent) = plan.parents[number] else { return Ok(None) };
            let positives = self.rows(|node| plan.is_within(node, number));
            if positives.is_empty() {
                return Ok(None);
            }
            let mut negatives =
                self.rows(|node| node > parent && plan.is_within(node, parent) && !plan.is_within(node, number));
            if negatives.is_empty() {
                negatives = self.rows(|node| node == parent);
            }
            if !options.dimred {
                return Ok(Some(BinaryNode { components: None, svm: fit(self.x, &positives, &negatives)? }));
            }
            let components = explaining(self.x, &positives, &negatives, self.n_dims);
            let chosen: Vec<usize> = components.iter().map(|&at| at as usize).collect();
            let x = self.x.select(ndarray::Axis(1), &chosen);
            Ok(Some(BinaryNode { components: Some(components), svm: fit(x.view(), &positives, &negatives)? }))
        };
        numbers.par_iter().map(of_node).collect()
    }

    fn rows(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<u32> {
        let wanted = (0u32..).zip(&self.node_of).filter(|(_, node)| node.is_some_and(&is_wanted));
        wanted.map(|(row, _)| row).collect()
    }
}

fn node(members: &[(u32, usize)], plan: &Plan<'_>, options: &TrainOptions) -> Option<NearestNode> {
    let mut sizes = BTreeMap::<(&str, usize), usize>::new();
    members.iter().for_each(|&(_, class)| *sizes.entry((plan.names[class], class)).or_default() += 1);
    let smallest = *sizes.values().min()?;
    let k = if options.dynamic_neighbors { options.n_neighbors.min(smallest) } else { options.n_neighbors };
    let candidates: Vec<usize> = sizes.into_keys().map(|(_, class)| class).collect();
    let class_of = |class: usize| candidates.iter().position(|&known| known == class).unwrap_or(0) as u16;
    Some(NearestNode {
        rows: members.iter().map(|&(row, _)| row).collect(),
        classes: members.iter().map(|&(_, class)| class_of(class)).collect(),
        candidates: candidates.into_iter().map(|class| class as u32).collect(),
        k,
    })
}
