//! kBET: in how many neighbourhoods batches are as frequent as in the whole.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use crate::neighbours::{Neighbours, self_knn};
use crate::{Labels, Result};

use super::mean;

/// Share of cells whose neighbourhood, the cell itself included, does not differ from the batches of all cells by a
/// chi-squared test at level `alpha`; `None` with fewer than two batches.
///
/// # Errors   batches of another number of cells than neighbours
/// # Source   Büttner et al. 2019; `kbet` of scib-metrics, whose neighbours of a cell begin with itself
pub fn kbet(neighbours: &Neighbours, batches: &Labels, alpha: f64) -> Result<Option<f64>> {
    batches.check_len("the batch column", neighbours.n_cells())?;
    let counts = batches.counts();
    let n_batches = counts.iter().filter(|&&count| count > 0).count();
    if n_batches < 2 {
        return Ok(None);
    }
    let size = (neighbours.k() + 1) as f64;
    let expected: Vec<f64> = counts.iter().map(|&count| size * count as f64 / batches.len() as f64).collect();
    let codes = batches.codes();
    let mut found = vec![0.0; counts.len()];
    let accepted = neighbours.iter().zip(codes).map(|((rows, _), &own)| {
        found.fill(0.0);
        found[own as usize] = 1.0;
        rows.iter().for_each(|&row| found[codes[row as usize] as usize] += 1.0);
        let present = found.iter().zip(&expected).filter(|&(_, &expected)| expected > 0.0);
        let statistic = present.map(|(found, expected)| (found - expected).powi(2) / expected).sum();
        f64::from(u8::from(chi_squared_survival(statistic, n_batches - 1) >= alpha))
    });
    Ok(mean(accepted))
}

/// [`kbet`] at level 0.05 within each label, among the label's own cells: whether batches mix is asked where they share a
/// cell type. A neighbourhood is a quarter of the label's mean batch, at least 10 and at most 70 other cells. Labels of
/// fewer than ten cells or of one batch are left out.
///
/// # Shapes   `x`: `[n_cells, n_dims]`
/// # Errors   columns of another number of cells, values that are not finite
/// # Source   Luecken et al. 2022. scib takes a label's neighbours from a diffusion along the graph, for outputs that are
/// graphs; an embedding gives them directly, as in kBET's own package
pub fn kbet_by_label(x: ArrayView2<'_, f32>, labels: &Labels, batches: &Labels) -> Result<Vec<(String, f64)>> {
    labels.check_len("the label column", x.nrows())?;
    batches.check_len("the batch column", x.nrows())?;
    let members: Vec<(&String, Vec<usize>)> = labels.names().iter().zip(labels.members()).collect();
    let judged = members.into_par_iter().map(|(name, members)| {
        let own = batches.select(&members);
        let n_batches = own.counts().into_iter().filter(|&count| count > 0).count();
        if members.len() < FEWEST_CELLS || n_batches < 2 {
            return Ok(None);
        }
        let k = (members.len() / n_batches / 4).clamp(10, 70).min(members.len() - 1);
        let neighbours = self_knn(x.select(Axis(0), &members).view(), k)?;
        Ok(kbet(&neighbours, &own, LEVEL)?.map(|accepted| (name.clone(), accepted)))
    });
    let judged: Vec<Option<(String, f64)>> = judged.collect::<Result<_>>()?;
    Ok(judged.into_iter().flatten().collect())
}

/// Probability that a chi-squared variable of `n_degrees` degrees of freedom exceeds `statistic`.
///
/// Every second degree adds one term to that of one or two degrees (Abramowitz & Stegun 26.4.4 and 26.4.5), summed in
/// logarithms, as the first terms underflow where many degrees make the sum large.
fn chi_squared_survival(statistic: f64, n_degrees: usize) -> f64 {
    let half = statistic / 2.0;
    if half <= 0.0 {
        return 1.0;
    }
    let (mut shape, mut ln_gamma, mut probability) = match n_degrees % 2 {
        0 => (1.0, 0.0, (-half).exp()),
        _ => (0.5, std::f64::consts::PI.sqrt().ln(), libm::erfc(half.sqrt())),
    };
    while 2.0 * shape < n_degrees as f64 {
        // ln of gamma(shape + 1).
        ln_gamma += f64::ln(shape);
        probability += (shape * half.ln() - half - ln_gamma).exp();
        shape += 1.0;
    }
    probability.min(1.0)
}

const FEWEST_CELLS: usize = 10;
const LEVEL: f64 = 0.05;

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Expected: `scipy.stats.chi2.sf`.
    #[test]
    fn the_survival_function_equals_scipy_s() {
        let cases = [
            (3.841_458_820_694_124, 1, 0.05),
            (0.5, 1, 0.479_500_122_186_953_4),
            (9.487_729_036_781_154, 4, 0.05),
            (2.0, 3, 0.572_406_704_470_879_8),
            (40.0, 7, 1.258_790_387_371_308e-6),
            (2100.0, 2000, 0.058_671_111_377_318_06),
        ];
        for (statistic, n_degrees, expected) in cases {
            let found = chi_squared_survival(statistic, n_degrees);
            assert!((found / expected - 1.0).abs() < 1e-6, "{statistic}, {n_degrees}: {found}, not {expected}");
        }
        assert_eq!(chi_squared_survival(0.0, 3), 1.0);
    }

    #[test]
    fn mixed_batches_are_accepted_and_parted_ones_refused() {
        let check = |effect: f32| {
            let x = Array2::from_shape_fn((160, 2), |(i, j)| {
                ((i * 7919 + j * 104_729) % 997) as f32 / 997.0 + effect * (i % 2) as f32 + 50.0 * (i / 80) as f32
            });
            let labels = Labels::from_names(&(0..160).map(|i| ["B", "T"][i / 80]).collect::<Vec<_>>());
            let batches = Labels::from_names(&(0..160).map(|i| ["1", "2"][i % 2]).collect::<Vec<_>>());
            kbet_by_label(x.view(), &labels, &batches).unwrap()
        };
        assert!(check(0.0).iter().all(|(_, accepted)| *accepted > 0.8), "{:?}", check(0.0));
        assert_eq!(check(20.0), [("B".to_owned(), 0.0), ("T".to_owned(), 0.0)]);
    }

    #[test]
    fn one_batch_and_few_cells_are_left_out() {
        let x = Array2::from_shape_fn((12, 1), |(i, _)| i as f32);
        let labels = Labels::from_names(&["a"; 12]);
        assert_eq!(kbet_by_label(x.view(), &labels, &labels).unwrap(), []);
        let neighbours = self_knn(x.view(), 3).unwrap();
        assert_eq!(kbet(&neighbours, &labels, 0.05).unwrap(), None);
        let few = Labels::from_names(&["a", "a", "a", "b", "b", "b", "c", "c", "c", "d", "d", "d"]);
        let batches = Labels::from_names(&["1", "2", "1", "2", "1", "2", "1", "2", "1", "2", "1", "2"]);
        assert_eq!(kbet_by_label(x.view(), &few, &batches).unwrap(), []);
    }
}
