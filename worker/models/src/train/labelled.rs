//! The labelled cells that a classifier is trained on, apart from the minibatches of all cells.

use std::{collections::BTreeMap, ops::RangeInclusive};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::{
    data::{Dataset, Minibatches},
    model::LabelModel,
    nn::Pass,
};

/// Labelled training cells of one epoch, minibatch after minibatch: in new order whenever all were seen.
pub(super) struct LabelledCells<'a> {
    model: &'a dyn LabelModel,
    sizes: RangeInclusive<usize>,
    cells: Vec<usize>,
    n_seen: usize,
    rng: ChaCha8Rng,
}

impl<'a> LabelledCells<'a> {
    /// The labelled ones among the training cells, or as many of each label as the model takes in an epoch, in minibatches
    /// of these sizes. `None` if they do not make one.
    pub(super) fn new(
        model: &'a dyn LabelModel,
        dataset: &Dataset<'_>,
        train: &[usize],
        sizes: RangeInclusive<usize>,
        seed: [u8; 32],
    ) -> Option<Self> {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut cells: Vec<usize> = train.iter().copied().filter(|&cell| dataset.is_labelled(cell)).collect();
        if let Some(n) = model.n_samples_per_label() {
            cells = draw_per_label(&cells, dataset, n, &mut rng);
        }
        let n_seen = cells.len();
        (n_seen >= *sizes.start()).then_some(Self { model, sizes, cells, n_seen, rng })
    }

    /// The loss of the next minibatch, a scalar.
    pub(super) fn next_loss(&mut self, minibatches: &Minibatches<'_>, pass: &mut Pass<'_>) -> Tensor {
        let model = self.model;
        model.label_loss(&minibatches.of(self.next_cells()), pass)
    }

    /// The cells of the next minibatch.
    pub(super) fn next_cells(&mut self) -> &[usize] {
        if self.cells.len() - self.n_seen < *self.sizes.start() {
            self.cells.shuffle(&mut self.rng);
            self.n_seen = 0;
        }
        let start = self.n_seen;
        self.n_seen = self.cells.len().min(start + self.sizes.end());
        &self.cells[start..self.n_seen]
    }
}

/// At most `n` cells of each label, without replacement; labels in order of their codes.
fn draw_per_label(cells: &[usize], dataset: &Dataset<'_>, n: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let Some(labels) = &dataset.labels else { return vec![] };
    let mut by_label: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for &cell in cells {
        by_label.entry(labels[cell]).or_default().push(cell);
    }
    let mut drawn = Vec::new();
    for cells in by_label.values_mut() {
        let (chosen, _) = cells.partial_shuffle(rng, n);
        drawn.extend_from_slice(chosen);
    }
    drawn
}
