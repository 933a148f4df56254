//! Statistics that are pooled for parts: cells, mean and scatter of each label, as a site hands them in for prototypes and trees.

use std::collections::BTreeMap;

use anyhow::Result;
use archipelago_models::zoo::scpoli::prototypes::{OfType, Statistics};
use archipelago_worker::egress::Latent;
use tch::{Kind, Tensor};

/// What left of labels with enough cells, ready to be asked of cells.
pub(crate) struct Pooled<'a>(BTreeMap<&'a str, Spread>);

/// Where the cells of a label lie.
struct Spread {
    n_cells: f64,
    /// `[n_latent, 1]`.
    mean: Tensor,
    /// Covariance, lower triangle of its Cholesky factor, `[n_latent, n_latent]`.
    factor: Tensor,
}

impl<'a> Pooled<'a> {
    /// Of the labels of which at least so many of these cells are.
    pub(crate) fn of(places: &Latent, labels: &'a [Option<String>], cells: &[usize], min_cells: u64) -> Result<Self> {
        let mut codes = BTreeMap::new();
        for label in cells.iter().filter_map(|&cell| labels[cell].as_deref()) {
            let next = codes.len();
            codes.entry(label).or_insert(next);
        }
        let mut statistics = Statistics::new(codes.len(), places.row(0).len());
        for &cell in cells {
            if let Some(label) = labels[cell].as_deref() {
                statistics.add(codes[label], places.row(cell).into());
            }
        }
        let left = codes.into_iter().map(|(label, code)| (label, &statistics.types()[code]));
        let left = left.filter(|(_, of_type)| of_type.n_cells >= min_cells.max(2));
        Ok(Self(left.map(|(label, of_type)| Ok((label, Spread::new(of_type)?))).collect::<Result<_>>()?))
    }

    /// How much a cell at this place would weigh among the cells of its label: near 0 in their middle. A cell that was among them
    /// weighs 1 at most, and one that was not may weigh anything; where there are no more cells than dimensions, it is far beyond.
    pub(crate) fn leverage(&self, label: &str, place: &[f32]) -> Option<f64> {
        let Spread { n_cells, mean, factor } = self.0.get(label)?;
        let from_mean = column(&Tensor::from_slice(place)) - mean;
        let scaled = factor.linalg_solve_triangular(&from_mean, false, true, false);
        Some(scaled.square().sum(Kind::Double).double_value(&[]) / (n_cells - 1.0) + 1.0 / n_cells)
    }
}

impl Spread {
    fn new(of_type: &OfType) -> Result<Self> {
        let cov = of_type.cov().to_kind(Kind::Double);
        let n_latent = cov.size()[0];
        let ridge = RIDGE * cov.trace().double_value(&[]).max(f64::MIN_POSITIVE) / n_latent as f64;
        let factor =
            (cov + Tensor::eye(n_latent, (Kind::Double, tch::Device::Cpu)) * ridge).f_linalg_cholesky(false)?;
        Ok(Self { n_cells: of_type.n_cells as f64, mean: column(&of_type.mean()), factor })
    }
}

fn column(values: &Tensor) -> Tensor {
    values.to_kind(Kind::Double).unsqueeze(1)
}

/// Of the mean variance: what single precision leaves of a direction in which no cell lies.
const RIDGE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_among_few_cells_is_told_by_them() {
        let numbers: Vec<f32> = (0..8 * 6).map(|i| ((i * i * 7 + i * 3) % 31) as f32 / 10.0).collect();
        let places = Latent { n_latent: 6, values: numbers };
        let labels: Vec<_> = (0..8).map(|_| Some("b".to_owned())).collect();
        let pooled = Pooled::of(&places, &labels, &[0, 1, 2, 3], 4).unwrap();
        for cell in 0..4 {
            assert!(pooled.leverage("b", places.row(cell)).unwrap() < 1.001);
        }
        for cell in 4..8 {
            assert!(pooled.leverage("b", places.row(cell)).unwrap() > 10.0);
        }
        assert!(Pooled::of(&places, &labels, &[0, 1, 2], 4).unwrap().leverage("b", places.row(0)).is_none());
    }
}
