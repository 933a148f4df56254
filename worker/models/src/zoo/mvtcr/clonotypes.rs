//! Cells of one clone: those whose receptors have the same amino acids, in every chain that the model takes.

use std::collections::BTreeMap;

use ndarray::Array2;
use rand::{SeedableRng as _, distr::Distribution as _, distr::weighted::WeightedIndex, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    data::Split,
    train::{Order, Sampler, Shuffled},
};

/// The clonotype of each cell, numbered by first appearance.
pub fn of_receptors(codes: &Array2<i64>) -> Vec<i64> {
    let mut known = BTreeMap::new();
    codes
        .rows()
        .into_iter()
        .map(|row| {
            let next = known.len() as i64;
            *known.entry(row.to_vec()).or_insert(next)
        })
        .collect()
}

/// Draws as many cells as there are, with replacement, those of large clones less often.
#[derive(Clone, Debug)]
pub struct ByClonotype(pub Vec<i64>);

impl ByClonotype {
    /// The share of draws that each of these cells gets: `1 / ln(n / 10 + 1)` of its clone of `n` of these cells, over the sum.
    pub fn shares(&self, cells: &[usize]) -> Vec<f64> {
        let mut sizes: BTreeMap<i64, f64> = BTreeMap::new();
        cells.iter().for_each(|&cell| *sizes.entry(self.0[cell]).or_default() += 1.0);
        let weights: Vec<f64> = cells.iter().map(|&cell| 1.0 / (sizes[&self.0[cell]] / 10.0 + 1.0).ln()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }
}

impl Sampler for ByClonotype {
    fn training(&self, cells: &[usize], size: usize, rng: &mut ChaCha8Rng) -> Order {
        match WeightedIndex::new(self.shares(cells)) {
            Ok(index) => Order::in_runs((0..cells.len()).map(|_| cells[index.sample(rng)]).collect(), size),
            // Without any cell there is nothing to weigh.
            Err(_) => Shuffled.training(cells, size, rng),
        }
    }
}

/// Splits whole clones: of some random splits the first one whose share of validation cells is closest to the one asked for.
pub fn split(clonotypes: &[i64], validation: f64, seed: [u8; 32]) -> Split {
    let mut by_clone: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    clonotypes.iter().enumerate().for_each(|(cell, &clone)| by_clone.entry(clone).or_default().push(cell));
    let clones: Vec<Vec<usize>> = by_clone.into_values().collect();
    // One clone is trained on whole.
    let n_validation = ((validation * clones.len() as f64).ceil() as usize).min(clones.len().saturating_sub(1));
    let mut rng = ChaCha8Rng::from_seed(seed);
    let mut order: Vec<usize> = (0..clones.len()).collect();
    let mut best: Option<(f64, Split)> = None;
    for _ in 0..N_SPLITS {
        order.shuffle(&mut rng);
        let cells = |clonesof: &[usize]| {
            let mut cells: Vec<usize> = clonesof.iter().flat_map(|&clone| clones[clone].iter().copied()).collect();
            cells.sort_unstable();
            cells
        };
        let (held_out, trained) = order.split_at(n_validation);
        let split = Split { train: cells(trained), validation: cells(held_out), test: vec![] };
        let off = (split.validation.len() as f64 / clonotypes.len().max(1) as f64 - validation).abs();
        if best.as_ref().is_none_or(|(least, _)| off < *least) {
            best = Some((off, split));
        }
    }
    best.map(|(_, split)| split).unwrap_or(Split { train: vec![], validation: vec![], test: vec![] })
}

/// Random splits that are looked at.
const N_SPLITS: usize = 5;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ndarray::array;

    use super::*;

    #[test]
    fn a_clone_has_the_same_amino_acids_in_every_chain() {
        assert_eq!(of_receptors(&array![[1, 2], [1, 3], [1, 2], [2, 2]]), [0, 1, 0, 2]);
    }

    #[test]
    fn no_clone_is_on_both_sides_of_a_split() {
        let clonotypes: Vec<i64> = (0..200).map(|cell| if cell % 3 == 0 { 0 } else { cell / 4 }).collect();
        let found = split(&clonotypes, 0.2, [3; 32]);
        let of = |cells: &[usize]| cells.iter().map(|&cell| clonotypes[cell]).collect::<BTreeSet<_>>();
        assert!(of(&found.train).is_disjoint(&of(&found.validation)));
        assert_eq!(found.train.len() + found.validation.len(), 200);
        let share = found.validation.len() as f64 / 200.0;
        assert!((0.05..0.45).contains(&share), "{share}");
        assert_ne!(found, split(&clonotypes, 0.2, [4; 32]));
        let one = split(&[0; 5], 0.2, [3; 32]);
        assert_eq!((one.train.len(), one.validation.len()), (5, 0));
    }

    #[test]
    fn a_cell_of_a_large_clone_is_drawn_less_often() {
        let clonotypes: Vec<i64> = (0..100).map(|cell| if cell < 50 { 0 } else { cell }).collect();
        let cells: Vec<usize> = (0..100).collect();
        let sampler = ByClonotype(clonotypes);
        let share: f64 = sampler.shares(&cells)[..50].iter().sum();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let drawn: Vec<usize> = (0..40).flat_map(|_| sampler.training(&cells, 32, &mut rng).cells().to_vec()).collect();
        let found = drawn.iter().filter(|&&cell| cell < 50).count() as f64 / drawn.len() as f64;
        // 4,000 draws, within four standard deviations.
        assert!(
            share < 0.06 && (found - share).abs() < 4.0 * (share * (1.0 - share) / 4_000.0).sqrt(),
            "{found} {share}"
        );
    }
}
