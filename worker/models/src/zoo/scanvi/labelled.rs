//! The labelled cells that scANVI's classifier is trained on, apart from the minibatches of all cells.

use std::{collections::BTreeMap, ops::RangeInclusive};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::ScanviModule;
use crate::{
    data::Dataset,
    error::Result,
    losses::LossTerms,
    nn::Pass,
    train::{Epoch, Hook, Run, Step},
};

/// Gives every step labelled cells of its own.
pub(super) struct Labelled<'a> {
    module: &'a ScanviModule,
    dataset: &'a Dataset<'a>,
    sizes: RangeInclusive<usize>,
    epoch: Option<Drawn>,
}

impl<'a> Labelled<'a> {
    pub(super) fn new(module: &'a ScanviModule, run: Run<'a, '_>) -> Self {
        let sizes = run.smallest_minibatch()..=run.plan.minibatch;
        Self { module, dataset: run.dataset, sizes, epoch: None }
    }
}

impl Hook for Labelled<'_> {
    fn is_in_kernels(&self) -> bool {
        true
    }

    fn before_epoch(&mut self, epoch: Epoch<'_>) -> Result<()> {
        let seed = epoch.seeds.of("labelled", u64::from(epoch.number));
        let (n_per_label, labels) = (self.module.n_samples_per_label(), self.module.labels());
        let is_labelled = |cell: &usize| self.dataset.is_labelled(labels, *cell);
        let cells = epoch.split.train.iter().copied().filter(is_labelled).collect();
        self.epoch = Drawn::new(n_per_label, self.dataset.codes(labels), cells, self.sizes.clone(), seed);
        Ok(())
    }

    fn before_step(&mut self, _: &[usize]) -> &[usize] {
        self.epoch.as_mut().map(Drawn::next_minibatch).unwrap_or_default()
    }

    fn add_to_loss(&mut self, step: Step<'_>, terms: &mut LossTerms, pass: &mut Pass<'_>) {
        if let Some(drawn) = &self.epoch {
            terms.loss += self.module.label_loss(&step.minibatches.of(drawn.minibatch()), pass);
        }
    }
}

/// Labelled training cells of one epoch, minibatch after minibatch: in new order whenever all were seen.
struct Drawn {
    sizes: RangeInclusive<usize>,
    cells: Vec<usize>,
    /// Where the minibatch of this step is.
    step: std::ops::Range<usize>,
    rng: ChaCha8Rng,
}

impl Drawn {
    /// Labelled training cells, or so many of each label, in minibatches of these sizes. `None` if they do not make one. `codes`
    /// holds the label of every cell.
    fn new(
        n_per_label: Option<usize>,
        codes: &[i64],
        mut cells: Vec<usize>,
        sizes: RangeInclusive<usize>,
        seed: [u8; 32],
    ) -> Option<Self> {
        let mut rng = ChaCha8Rng::from_seed(seed);
        if let Some(n) = n_per_label {
            cells = draw_per_label(&cells, codes, n, &mut rng);
        }
        let n = cells.len();
        (n >= *sizes.start()).then_some(Self { sizes, cells, step: n..n, rng })
    }

    /// The cells of the next step.
    fn next_minibatch(&mut self) -> &[usize] {
        let mut start = self.step.end;
        if self.cells.len() - start < *self.sizes.start() {
            self.cells.shuffle(&mut self.rng);
            start = 0;
        }
        self.step = start..self.cells.len().min(start + self.sizes.end());
        self.minibatch()
    }

    /// The cells of this step.
    fn minibatch(&self) -> &[usize] {
        &self.cells[self.step.clone()]
    }
}

/// At most `n` cells of each label, without replacement; labels in order of their codes.
fn draw_per_label(cells: &[usize], labels: &[i64], n: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
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
