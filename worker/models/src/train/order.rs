//! In which order an epoch takes cells, and how many at a time.

use rand::{Rng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::EVALUATION_MINIBATCH;

/// The minibatches of an epoch, one behind the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Order {
    cells: Vec<usize>,
    /// Where each minibatch ends.
    ends: Vec<usize>,
}

impl Order {
    /// Cells in this order, so many at a time; the last minibatch may be smaller.
    pub fn in_runs(cells: Vec<usize>, size: usize) -> Self {
        let n = cells.len();
        let ends = (1..=n.div_ceil(size.max(1))).map(|run| (run * size.max(1)).min(n)).collect();
        Self { cells, ends }
    }

    /// Minibatches of any size.
    pub fn of_minibatches(minibatches: impl IntoIterator<Item = Vec<usize>>) -> Self {
        let mut order = Self::default();
        for cells in minibatches {
            order.cells.extend(cells);
            order.ends.push(order.cells.len());
        }
        order
    }

    /// All cells, in order.
    pub fn cells(&self) -> &[usize] {
        &self.cells
    }

    /// The minibatches.
    pub fn minibatches(&self) -> impl Iterator<Item = &[usize]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.cells[start..end])
    }
}

/// Draws the minibatches of an epoch. It keeps nothing from one epoch to the next, so that a run can be taken up anywhere.
pub trait Sampler {
    /// The training minibatches of an epoch.
    fn training(&self, cells: &[usize], size: usize, rng: &mut ChaCha8Rng) -> Order;

    /// The validation minibatches after an epoch. What is reported as a mean over cells does not depend on them.
    fn validation(&self, cells: &[usize], _size: usize, _rng: &mut ChaCha8Rng) -> Order {
        Order::in_runs(cells.to_vec(), EVALUATION_MINIBATCH)
    }
}

/// Every cell once, in new order in each epoch.
#[derive(Clone, Copy, Debug)]
pub struct Shuffled;

impl Sampler for Shuffled {
    fn training(&self, cells: &[usize], size: usize, rng: &mut ChaCha8Rng) -> Order {
        let mut order = cells.to_vec();
        order.shuffle(rng);
        Order::in_runs(order, size)
    }
}

/// Every cell once, in the order of the split.
#[derive(Clone, Copy, Debug)]
pub struct InOrder;

impl Sampler for InOrder {
    fn training(&self, cells: &[usize], size: usize, _: &mut ChaCha8Rng) -> Order {
        Order::in_runs(cells.to_vec(), size)
    }
}

/// As many draws as there are cells, with replacement: groups of cells are equally likely, whatever their sizes. Validation
/// takes every cell once, in new order, in minibatches of the same size.
#[derive(Clone, Debug)]
pub struct Balanced {
    /// The group of each cell of the data set.
    pub groups: Vec<i64>,
    /// Draws of an epoch, if not as many as cells.
    pub n_draws: Option<usize>,
}

impl Sampler for Balanced {
    fn training(&self, cells: &[usize], size: usize, rng: &mut ChaCha8Rng) -> Order {
        let mut by_group: std::collections::BTreeMap<i64, Vec<usize>> = std::collections::BTreeMap::new();
        for &cell in cells {
            by_group.entry(self.groups[cell]).or_default().push(cell);
        }
        let groups: Vec<Vec<usize>> = by_group.into_values().collect();
        let draw = |_| {
            let group = &groups[rng.random_range(0..groups.len())];
            group[rng.random_range(0..group.len())]
        };
        Order::in_runs((0..self.n_draws.unwrap_or(cells.len())).map(draw).collect(), size)
    }

    fn validation(&self, cells: &[usize], size: usize, rng: &mut ChaCha8Rng) -> Order {
        Shuffled.training(cells, size, rng)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn sorted(order: &Order) -> Vec<usize> {
        let mut cells = order.cells().to_vec();
        cells.sort_unstable();
        cells
    }

    #[test]
    fn minibatches_are_runs_of_the_order_and_the_last_may_be_smaller() {
        let order = Order::in_runs((0..7).collect(), 3);
        assert_eq!(order.minibatches().collect::<Vec<_>>(), [&[0, 1, 2][..], &[3, 4, 5], &[6]]);
        assert_eq!(Order::in_runs(vec![], 3).minibatches().count(), 0);
        let uneven = Order::of_minibatches([vec![4], vec![], vec![1, 2]]);
        assert_eq!(uneven.minibatches().collect::<Vec<_>>(), [&[4][..], &[], &[1, 2]]);
    }

    #[test]
    fn an_order_is_new_for_another_seed_and_the_same_for_the_same() {
        let cells: Vec<usize> = (10..40).collect();
        let order = |seed| Shuffled.training(&cells, 8, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!((order(1), sorted(&order(2))), (order(1), cells.clone()));
        assert_ne!(order(1), order(2));
        assert_eq!(InOrder.training(&cells, 8, &mut ChaCha8Rng::seed_from_u64(0)).cells(), cells);
    }

    #[test]
    fn a_small_group_is_drawn_as_often_as_a_large_one() {
        let n = 4_000;
        let groups: Vec<i64> = (0..n).map(|cell| i64::from(cell % 100 == 0)).collect();
        let sampler = Balanced { groups, n_draws: None };
        let cells: Vec<usize> = (0..n).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let order = sampler.training(&cells, 128, &mut rng);
        let n_small = order.cells().iter().filter(|&&cell| cell % 100 == 0).count();
        // Half of 4,000 draws, within four standard deviations.
        assert!(n_small.abs_diff(n / 2) < 130, "{n_small}");
        assert_eq!((order.cells().len(), sorted(&sampler.validation(&cells, 128, &mut rng))), (n, cells));
    }
}
