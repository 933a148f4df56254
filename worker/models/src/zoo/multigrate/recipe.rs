//! How Multigrate is trained: half-minibatches of one group each where groups are integrated, and a rule that watches the
//! reconstruction.

use std::collections::BTreeMap;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::{config::Alignment, module::MultigrateModule};
use crate::{
    error::{Error, Result},
    nn::Mode,
    train::{Epoch, Hook, Order, Recipe, Run, Sampler},
};

/// The recipe of a run.
///
/// # Errors  a modality of which no cell has a value, groups that cannot be compared row by row
pub(super) fn of_run<'a>(module: &'a MultigrateModule, run: Run<'a, '_>) -> Result<Recipe<'a>> {
    if let Some(name) = module.empty_modality(run.dataset) {
        let found = "nothing but zeros".to_owned();
        let expected = "values of some cells; without any, train without this modality".to_owned();
        return Err(Error::Value { part: name.to_owned(), found, expected });
    }
    let config = module.config();
    let mut recipe = Recipe::default();
    let Some(key) = config.integrates_on() else { return Ok(recipe) };
    let groups = run.dataset.axes[key].clone();
    let balances = run.plan.sampling.balances.unwrap_or(true);
    if config.pulls_together() && config.modality_alignment == Some(Alignment::Jeffreys) && run.mode == Mode::Training {
        let presence = if config.alignment_type.marginal() { module.presence(run.dataset) } else { vec![] };
        check_presence(&groups, &presence)?;
        let n_halves = balances.then(|| (run.plan.minibatch / 2).max(1));
        recipe.hooks.push(Box::new(OfOneSize { groups: groups.clone(), half: n_halves }));
    }
    if balances {
        recipe.sampler = Box::new(Grouped(groups));
    }
    Ok(recipe)
}

/// Whether the cells of each group have the same modalities, so that as many of two groups have each.
fn check_presence(groups: &[i64], presence: &[Vec<bool>]) -> Result<()> {
    for has in presence {
        let mut of_group: BTreeMap<i64, bool> = BTreeMap::new();
        for (group, &has) in groups.iter().zip(has) {
            if *of_group.entry(*group).or_insert(has) != has {
                return Err(unequal("a group in which some cells lack a modality and others have it".to_owned()));
            }
        }
    }
    Ok(())
}

fn unequal(found: String) -> Error {
    let (part, expected) =
        ("groups that are integrated".to_owned(), format!("{SAME_SIZE}; MMD compares groups of any size"));
    Error::Value { part, found, expected }
}

const SAME_SIZE: &str = "as many cells of each group in a minibatch, for Jeffreys' divergence goes row by row";

/// Refuses a run whose minibatches would hold groups of several sizes, before its first step.
struct OfOneSize {
    groups: Vec<i64>,
    /// Cells of a group in a minibatch; any number without halves.
    half: Option<usize>,
}

impl Hook for OfOneSize {
    fn before_epoch(&mut self, epoch: Epoch<'_>) -> Result<()> {
        let mut sizes: BTreeMap<i64, usize> = BTreeMap::new();
        epoch.split.train.iter().for_each(|&cell| *sizes.entry(self.groups[cell]).or_default() += 1);
        let Some(half) = self.half else {
            return if sizes.len() < 2 { Ok(()) } else { Err(unequal("minibatches drawn from all cells".to_owned())) };
        };
        match sizes.values().min() {
            Some(&smallest) if sizes.len() > 1 && smallest < half => {
                Err(unequal(format!("a group of {smallest} training cells, fewer than half a minibatch ({half})")))
            }
            _ => Ok(()),
        }
    }
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
