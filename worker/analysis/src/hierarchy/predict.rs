//! Where a trained tree places cells.

use archipelago_hierarchy::{REJECTED_BY_DISTANCE, REJECTED_BY_ERROR, Rules};
use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::linear::LinearSvm;
use super::nearest::NearestNode;
use super::one_class::OneClassSvm;
use super::trained::{BinaryNode, Classifiers, Plan, TrainedTree};
use crate::{AnalysisError, Labels, Result};

/// What became of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It belongs to this node, by its place in preorder; 0 is the root, which says that no type was accepted.
    Node(u32),
    /// Components do not explain it.
    FarFromComponents,
    /// It is far from all training cells.
    FarFromCells,
}

/// Where cells belong.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// One per cell.
    pub placements: Vec<Placement>,
    /// Probability of the last decision accepted, 0 where none was; support vector machines know none.
    pub probabilities: Vec<f64>,
    names: Vec<String>,
}

impl Predictions {
    /// Label of a placement.
    pub fn label(&self, placement: Placement) -> &str {
        match placement {
            Placement::Node(number) => &self.names[number as usize],
            Placement::FarFromComponents => REJECTED_BY_ERROR,
            Placement::FarFromCells => REJECTED_BY_DISTANCE,
        }
    }

    /// One label per cell.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.placements.iter().map(|&placement| self.label(placement))
    }

    /// The same as a column of labels.
    pub fn labels(&self) -> Labels {
        Labels::from_names(&self.iter().collect::<Vec<_>>())
    }

    /// Cells that were given no type.
    pub fn n_rejected(&self) -> usize {
        let is_placed = |&&placement: &&Placement| matches!(placement, Placement::Node(number) if number > 0);
        self.placements.len() - self.placements.iter().filter(is_placed).count()
    }
}

impl TrainedTree {
    /// Places cells; a decision of nearest cells counts if its probability is above `threshold`.
    ///
    /// # Shapes   `x`: `[n_cells, n_dims]`
    /// # Errors   cells of another space, values that are not finite
    pub fn predict(&self, x: ArrayView2<'_, f32>, threshold: f64) -> Result<Predictions> {
        if x.ncols() != self.n_dims {
            let (found, expected) = (x.ncols(), self.n_dims);
            return Err(AnalysisError::Length { what: "a cell", found, expected });
        }
        let rejected = match &self.reconstruction {
            Some(reconstruction) => reconstruction.rejects(x)?,
            None => vec![false; x.nrows()],
        };
        let projected = match &self.reconstruction {
            Some(reconstruction) if self.options.dimred => Some(reconstruction.pca.project(x)?),
            _ => None,
        };
        let x = projected.as_ref().map_or(x, |x| x.view());
        let mut placements: Vec<Placement> =
            rejected.iter().map(|&is| if is { Placement::FarFromComponents } else { Placement::Node(0) }).collect();
        let mut probabilities = vec![0.0; x.nrows()];
        let open: Vec<usize> = (0..x.nrows()).filter(|&row| !rejected[row]).collect();
        match &self.classifiers {
            Classifiers::Nearest { .. } => self.walk(x, open, threshold, &mut placements, &mut probabilities)?,
            Classifiers::Linear(nodes) => {
                // By upstream's coding the largest decision that is still accepted is the least sure one.
                let sign = if self.rules == Rules::Upstream { 1.0 } else { -1.0 };
                let decide = |svm: &LinearSvm, cell: ArrayView1<'_, f32>| {
                    let decision = svm.decision(cell);
                    (decision <= 0.0).then_some(sign * decision)
                };
                self.descend(x, &open, nodes, decide, &mut placements);
            }
            Classifiers::OneClass(nodes) => {
                let decide = |svm: &OneClassSvm, cell: ArrayView1<'_, f32>| {
                    let decision = svm.decision(cell);
                    (decision > 0.0).then_some(decision)
                };
                self.descend(x, &open, nodes, decide, &mut placements);
            }
        }
        let names = self.tree.root().preorder().map(|node| node.name().to_owned()).collect();
        Ok(Predictions { placements, probabilities, names })
    }

    /// Cells that share a node are asked about together.
    fn walk(
        &self,
        x: ArrayView2<'_, f32>,
        rows: Vec<usize>,
        threshold: f64,
        placements: &mut [Placement],
        probabilities: &mut [f64],
    ) -> Result<()> {
        let Classifiers::Nearest { x: trained, nodes, max_distance } = &self.classifiers else { return Ok(()) };
        let mut open = vec![(0, rows)];
        while let Some((number, rows)) = open.pop() {
            let Some(node) = nodes[number].as_ref().filter(|_| !rows.is_empty()) else { continue };
            let answers = answers(node, trained.view(), x, &rows, self)?;
            let mut next: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
            for (&row, answer) in rows.iter().zip(answers) {
                if number == 0 && max_distance.is_some_and(|most| answer.mean_distance > most) {
                    placements[row] = Placement::FarFromCells;
                } else if answer.probability > threshold {
                    placements[row] = Placement::Node(answer.node);
                    probabilities[row] = answer.probability;
                    if answer.node as usize != number {
                        next[answer.node as usize].push(row);
                    }
                }
            }
            open.extend(next.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()));
        }
        Ok(())
    }

    /// Each cell goes down to the child that accepts it most.
    fn descend<S: Sync>(
        &self,
        x: ArrayView2<'_, f32>,
        rows: &[usize],
        nodes: &[Option<BinaryNode<S>>],
        decide: impl Fn(&S, ArrayView1<'_, f32>) -> Option<f64> + Sync,
        placements: &mut [Placement],
    ) {
        let plan = Plan::of(&self.tree);
        let accepted = |number: usize, cell: ArrayView1<'_, f32>| {
            let node = nodes[number].as_ref()?;
            match &node.components {
                None => decide(&node.svm, cell),
                Some(components) => {
                    let chosen: Vec<usize> = components.iter().map(|&at| at as usize).collect();
                    decide(&node.svm, cell.select(Axis(0), &chosen).view())
                }
            }
        };
        let last = |&row: &usize| {
            let (cell, mut at) = (x.row(row), 0);
            loop {
                let scores = plan.children[at].iter().filter_map(|&child| Some((child, accepted(child, cell)?)));
                let best = scores.reduce(|best, other| if other.1 > best.1 { other } else { best });
                match best {
                    Some((child, _)) => at = child,
                    None => return at as u32,
                }
            }
        };
        let found: Vec<u32> = rows.par_iter().map(last).collect();
        rows.iter().zip(found).for_each(|(&row, number)| placements[row] = Placement::Node(number));
    }
}

fn answers(
    node: &NearestNode,
    trained: ArrayView2<'_, f32>,
    x: ArrayView2<'_, f32>,
    rows: &[usize],
    tree: &TrainedTree,
) -> Result<Vec<super::nearest::Answer>> {
    match rows.len() == x.nrows() {
        true => node.answers(trained, x, tree.options.backend),
        false => node.answers(trained, x.select(Axis(0), rows).view(), tree.options.backend),
    }
}
