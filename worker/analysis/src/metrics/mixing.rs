//! Who a cell's neighbours are: of its own label, of other batches.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::neighbours::Neighbours;
use crate::{Labels, Result};

use super::mean;

/// Mean over cells of the share of neighbours with the cell's own label.
///
/// # Errors   labels of another number of cells than neighbours
pub fn knn_purity(neighbours: &Neighbours, labels: &Labels) -> Result<Option<f64>> {
    Ok(mean(own_label_shares(neighbours, labels)?))
}

/// [`knn_purity`] averaged within each label first, then over labels, so that rare ones count as much.
///
/// # Errors   labels of another number of cells than neighbours
/// # Source   `knn_purity` of scArches 0.6.1
pub fn knn_purity_by_label(neighbours: &Neighbours, labels: &Labels) -> Result<Option<f64>> {
    let shares = own_label_shares(neighbours, labels)?;
    let per_label = labels.members().into_iter().map(|members| mean(members.into_iter().map(|cell| shares[cell])));
    Ok(mean(per_label.flatten()))
}

/// Mean over cells of the share of neighbours from another batch, with no correction for batch sizes.
///
/// # Errors   batches of another number of cells than neighbours
pub fn other_batch_share(neighbours: &Neighbours, batches: &Labels) -> Result<Option<f64>> {
    Ok(mean(own_label_shares(neighbours, batches)?.into_iter().map(|own| 1.0 - own)))
}

/// Which cells [`entropy_batch_mixing`] averages over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pools {
    /// Every cell once: the stable value.
    AllCells,
    /// The mean over pools of cells drawn with replacement, as the field computes it.
    Drawn {
        /// Number of pools.
        n_pools: usize,
        /// Cells per pool.
        n_samples_per_pool: usize,
        /// Seed of the draws.
        seed: u64,
    },
}

/// Entropy of batch mixing: how evenly batches share a neighbourhood, 0 to 1.
///
/// # Errors   batches of another number of cells than neighbours
/// # Source   Haghverdi et al. 2018; `entropy_batch_mixing` of scArches 0.6.1
pub fn entropy_batch_mixing(neighbours: &Neighbours, batches: &Labels, pools: Pools) -> Result<Option<f64>> {
    let entropies = batch_entropies(neighbours, batches)?;
    if entropies.is_empty() {
        return Ok(None);
    }
    Ok(match pools {
        Pools::AllCells => mean(entropies),
        Pools::Drawn { n_pools, n_samples_per_pool, seed } => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let drawn = (0..n_pools * n_samples_per_pool).map(|_| entropies[rng.random_range(0..entropies.len())]);
            // Pools are of one size: the mean of their means is the mean of all draws.
            mean(drawn)
        }
    })
}

/// Entropy of the batches among each cell's neighbours, to the base of the number of batches in the data.
///
/// # Errors   batches of another number of cells than neighbours
pub fn batch_entropies(neighbours: &Neighbours, batches: &Labels) -> Result<Vec<f64>> {
    batches.check_len("the batch column", neighbours.n_cells())?;
    let n_batches = batches.counts().into_iter().filter(|&count| count > 0).count();
    if n_batches < 2 {
        return Ok(vec![0.0; batches.len()]);
    }
    let base = (n_batches as f64).ln();
    let cells = neighbours.iter().map(|(rows, _)| {
        let mut counts = BTreeMap::<u32, u32>::new();
        for &row in rows {
            *counts.entry(batches.codes()[row as usize]).or_default() += 1;
        }
        let shares = counts.values().map(|&count| f64::from(count) / rows.len() as f64);
        shares.map(|share| -share * share.ln() / base).sum()
    });
    Ok(cells.collect())
}

fn own_label_shares(neighbours: &Neighbours, labels: &Labels) -> Result<Vec<f64>> {
    labels.check_len("the label column", neighbours.n_cells())?;
    let codes = labels.codes();
    let cells = neighbours.iter().zip(codes).map(|((rows, _), own)| {
        let same = rows.iter().filter(|&&row| codes[row as usize] == *own).count();
        same as f64 / rows.len() as f64
    });
    Ok(cells.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> (Neighbours, Labels) {
        let neighbours = Neighbours::from_parts(2, vec![1, 2, 0, 2, 0, 1, 0, 1], vec![1.0; 8]).unwrap();
        (neighbours, Labels::from_names(&["a", "a", "b", "b"]))
    }

    #[test]
    fn purity_by_label_weighs_labels_alike() {
        let (neighbours, labels) = check();
        assert_eq!(knn_purity(&neighbours, &labels).unwrap(), Some(0.25));
        assert_eq!(other_batch_share(&neighbours, &labels).unwrap(), Some(0.75));
        let labels = Labels::from_names(&["a", "a", "a", "b"]);
        assert_eq!(knn_purity_by_label(&neighbours, &labels).unwrap(), Some(0.5));
    }

    #[test]
    fn an_even_neighbourhood_has_full_entropy_and_draws_follow_the_seed() {
        let (neighbours, batches) = check();
        assert_eq!(batch_entropies(&neighbours, &batches).unwrap(), [1.0, 1.0, 0.0, 0.0]);
        let drawn = |seed| {
            let pools = Pools::Drawn { n_pools: 5, n_samples_per_pool: 7, seed };
            entropy_batch_mixing(&neighbours, &batches, pools).unwrap()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_eq!(entropy_batch_mixing(&neighbours, &batches, Pools::AllCells).unwrap(), Some(0.5));
    }
}
