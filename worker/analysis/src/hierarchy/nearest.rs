//! A node that asks the nearest training cells.

use ndarray::{ArrayView2, Axis, CowArray, Ix2};

use super::options::Backend;
use crate::Result;
use crate::neighbours::nearest_into;

/// Training cells of one node above others.
#[derive(Debug, Clone, PartialEq)]
pub struct NearestNode {
    /// Rows of the training matrix, ascending.
    pub rows: Vec<u32>,
    /// Class of each row, an index into [`Self::candidates`].
    pub classes: Vec<u16>,
    /// Nodes that may be chosen, by their place in preorder, in order of their names: ties go to the first.
    pub candidates: Vec<u32>,
    /// Nearest cells that vote.
    pub k: usize,
}

/// What the nearest cells say of one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    /// Mean distance of those that voted, by the backend's measure.
    pub(super) mean_distance: f64,
    /// The node chosen.
    pub(super) node: u32,
    /// Its share of the votes.
    pub(super) probability: f64,
}

impl NearestNode {
    /// Asks for each row of `query`; `x` are the training cells of the tree.
    ///
    /// # Errors   cells of another space, values that are not finite, more neighbours than cells
    pub(super) fn answers(
        &self,
        x: ArrayView2<'_, f32>,
        query: ArrayView2<'_, f32>,
        backend: Backend,
    ) -> Result<Vec<Answer>> {
        let points = self.points(x);
        nearest_into(query, points.view(), self.k_of(backend), |nearest| self.answer(nearest, backend))
    }

    /// Mean distance of each training cell of the tree to its nearest here but the first, which is usually itself.
    ///
    /// # Errors   as [`Self::answers`]
    pub(super) fn mean_distances(&self, x: ArrayView2<'_, f32>, backend: Backend) -> Result<Vec<f64>> {
        let points = self.points(x);
        nearest_into(x, points.view(), self.k_of(backend), |nearest| mean_distance(&nearest[1..], backend))
    }

    fn points<'a>(&self, x: ArrayView2<'a, f32>) -> CowArray<'a, f32, Ix2> {
        if self.rows.len() == x.nrows() {
            return x.into();
        }
        let rows: Vec<usize> = self.rows.iter().map(|&row| row as usize).collect();
        x.select(Axis(0), &rows).into()
    }

    /// The index repeats its last label where there are too few cells; the number is capped instead.
    fn k_of(&self, backend: Backend) -> usize {
        match backend {
            Backend::Exact => self.k,
            Backend::Index => self.k.min(self.rows.len()),
        }
    }

    fn answer(&self, nearest: &[(f64, u32)], backend: Backend) -> Answer {
        let mut votes = vec![0.0; self.candidates.len()];
        let weight = |squared: f64| match backend {
            Backend::Exact => 1.0 / squared.sqrt(),
            Backend::Index => 1.0,
        };
        // Beside a cell of the very same place no other has a say.
        let is_met = nearest.iter().any(|&(squared, _)| weight(squared).is_infinite());
        let mut total = 0.0;
        for &(squared, row) in nearest {
            let weight = match weight(squared) {
                weight if is_met => f64::from(u8::from(weight.is_infinite())),
                weight => weight,
            };
            votes[self.classes[row as usize] as usize] += weight;
            total += weight;
        }
        let best = (0..votes.len()).fold(0, |best, class| if votes[class] > votes[best] { class } else { best });
        let mean_distance = mean_distance(nearest, backend);
        Answer { mean_distance, node: self.candidates[best], probability: votes[best] / total }
    }
}

/// NaN without neighbours.
fn mean_distance(nearest: &[(f64, u32)], backend: Backend) -> f64 {
    let distance = |&(squared, _): &(f64, u32)| match backend {
        Backend::Exact => squared.sqrt(),
        Backend::Index => squared,
    };
    nearest.iter().map(distance).sum::<f64>() / nearest.len() as f64
}
