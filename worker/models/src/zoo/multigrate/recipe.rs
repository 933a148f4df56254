//! How Multigrate is trained: half-minibatches of one group each where groups are integrated, and a rule that watches the
//! reconstruction.

use std::collections::BTreeMap;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::module::MultigrateModule;
use crate::{
    error::Result,
    train::{Order, Recipe, Run, Sampler},
};

/// The recipe of a run.
pub(super) fn of_run<'a>(module: &'a MultigrateModule, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    Ok(match module.config().integrates_on() {
        None => Recipe::default(),
        Some(key) => Recipe { sampler: Box::new(Grouped(run.dataset.axes[key].clone())), ..Recipe::default() },
    })
}

/// Minibatches of two halves, each of cells of one group of the data set's cells.
#[derive(Clone, Debug)]
pub struct Grouped(pub Vec<i64>);

impl Sampler for Grouped {
    fn training(&self, cells: &[usize], size: usize, rng: &mut ChaCha8Rng) -> Order {
        let mut groups = self.in_order(cells);
        groups.iter_mut().for_each(|cells| cells.shuffle(rng));
        let mut halves = halves(groups, size, true);
        halves.shuffle(rng);
        joined(&halves)
    }

    fn validation(&self, cells: &[usize], size: usize, rng: &mut ChaCha8Rng) -> Order {
        let mut halves = halves(self.in_order(cells), size, true);
        halves.shuffle(rng);
        joined(&halves)
    }
}

impl Grouped {
    /// What upstream's sampler gives without any shuffling.
    pub fn unshuffled(&self, cells: &[usize], size: usize, drops_rest: bool) -> Order {
        joined(&halves(self.in_order(cells), size, drops_rest))
    }

    /// The cells of each group, groups in order of first appearance.
    fn in_order(&self, cells: &[usize]) -> Vec<Vec<usize>> {
        let mut place = BTreeMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for &cell in cells {
            let at = *place.entry(self.0[cell]).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Vec::new());
            }
            groups[at].push(cell);
        }
        groups
    }
}

/// Groups cut into halves of minibatches. An incomplete last half is left out, unless it is all that a group has.
fn halves(groups: Vec<Vec<usize>>, size: usize, drops_rest: bool) -> Vec<Vec<usize>> {
    let half = (size / 2).max(1);
    let of_group = |cells: Vec<usize>| {
        let mut halves: Vec<Vec<usize>> = cells.chunks(half).map(<[usize]>::to_vec).collect();
        if drops_rest && halves.len() > 1 && halves.last().is_some_and(|last| last.len() < half) {
            halves.pop();
        }
        halves
    };
    groups.into_iter().flat_map(of_group).collect()
}

/// Every two halves as one minibatch; a last one that is left over is one by itself.
fn joined(halves: &[Vec<usize>]) -> Order {
    Order::of_minibatches(halves.chunks(2).map(<[Vec<usize>]>::concat))
}
