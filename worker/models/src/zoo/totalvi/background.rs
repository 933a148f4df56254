//! What totalVI knows of protein background before it is trained: which proteins were measured, and where its prior starts.

use std::f64::consts::TAU;

use archipelago_anndata::Csr;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor, no_grad};

use super::module::TotalviModule;
use crate::{data::Dataset, distributions::gaussian_mixture};

/// Sets which proteins each condition was stained for and, where the prior is empirical, where it starts.
///
/// A protein without a single count among the cells of a condition is missing there. Conditions without cells keep what they
/// have.
pub(super) fn prepare(module: &TotalviModule, dataset: &Dataset<'_>) {
    let proteins = dataset.matrix(module.proteins);
    let n_proteins = proteins.n_cols();
    let is_empirical = module.config().has_empirical_prior(n_proteins);
    for (code, cells) in cells_by_condition(dataset).into_iter().filter(|(_, cells)| !cells.is_empty()) {
        let mut is_measured = vec![false; n_proteins];
        for &cell in &cells {
            let (columns, counts) = proteins.row(cell);
            columns.iter().zip(counts).for_each(|(&protein, &count)| is_measured[protein as usize] |= count > 0.0);
        }
        let measured: Vec<usize> = (0..n_proteins).filter(|&protein| is_measured[protein]).collect();
        let overridden = module.config().override_missing_proteins;
        let mut mask = vec![f32::from(u8::from(overridden)); n_proteins];
        measured.iter().for_each(|&protein| mask[protein] = 1.0);
        no_grad(|| module.measured.get(code).copy_(&Tensor::from_slice(&mask)));
        if is_empirical {
            let (mean, sd) = empirical_prior(proteins, &cells, &measured);
            no_grad(|| {
                let _ = module.background_mean.get(code).fill_(mean);
                let _ = module.background_log_sd.get(code).fill_(sd.ln());
            });
        }
    }
}

fn cells_by_condition(dataset: &Dataset<'_>) -> std::collections::BTreeMap<i64, Vec<usize>> {
    let mut cells = std::collections::BTreeMap::<i64, Vec<usize>>::new();
    for (cell, &code) in dataset.conditions.iter().enumerate() {
        cells.entry(code).or_default().push(cell);
    }
    cells
}

/// Mean and standard deviation of the log background in one condition: the mean over 100 drawn cells of the lower component of
/// a mixture of two normals fitted to each.
///
/// The draw depends on the cells alone, so that columns stay a function of them.
fn empirical_prior(proteins: &Csr, cells: &[usize], measured: &[usize]) -> (f64, f64) {
    if measured.len() < FEWEST_PROTEINS {
        return (0.0, UNFITTED_SD);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut mean, mut variance) = (0.0, 0.0);
    for _ in 0..N_DRAWN_CELLS {
        let cell = cells[rng.random_range(0..cells.len())];
        let log = |&protein: &usize| f64::from(proteins.value(cell, protein as u32)).ln_1p();
        let logs: Vec<f64> = measured.iter().map(log).collect();
        let (m, sd) = gaussian_mixture::lower_of_two(&logs).unwrap_or((0.0, UNFITTED_SD));
        mean += m;
        variance += sd * sd;
    }
    let n = N_DRAWN_CELLS as f64;
    (mean / n, variance.sqrt() / n)
}

/// `-log LogNormal(0, 1)` of the efficiencies, summed over proteins, in nats.
pub(super) fn efficiency_penalty(log_efficiency: &Tensor) -> Tensor {
    let terms: Tensor = log_efficiency + log_efficiency * log_efficiency * 0.5 + 0.5 * TAU.ln();
    terms.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
}

/// A small pull of counts towards the background, summed over proteins, in nats.
///
/// Upstream calls the term that of an expressed protein, but `mixing` is the logit of background.
pub(super) fn mixing_penalty(mixing: &Tensor) -> Tensor {
    mixing.log_sigmoid().sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float) * -MIXING_WEIGHT
}

/// Cells that the empirical prior is the mean over.
const N_DRAWN_CELLS: usize = 100;
/// Fewer measured proteins are not fitted.
const FEWEST_PROTEINS: usize = 5;
/// Standard deviation where nothing was fitted.
const UNFITTED_SD: f64 = 0.05;
/// Weight of the mixture's pull.
const MIXING_WEIGHT: f64 = 1e-3;
