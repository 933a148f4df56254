//! By what mvTCR's authors choose a state, or options: whether cells that lie next to each other belong together.

use archipelago_analysis::{
    Labels,
    metrics::Confusion,
    neighbours::{knn, self_knn},
};
use archipelago_anndata::Csr;
use archipelago_common::StateDict;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use tch::{Kind, Tensor};

use super::{config::Criterion, modulation::Modulation, module::MvtcrModule};
use crate::{
    data::Minibatches,
    error::Result,
    model::Embedder as _,
    nn::{Mode, Pass, SeededNoise},
    reference::to_array,
    train::{EVALUATION_MINIBATCH, Epoch, Hook, Monitor, Seen},
};

/// Cells that are joined with each cell once each is joined with its nearest other one, in order.
pub fn joined(latent: ArrayView2<'_, f32>) -> Result<Vec<Vec<usize>>> {
    let mut joined = vec![Vec::new(); latent.nrows()];
    if latent.nrows() < 2 {
        return Ok(joined);
    }
    let nearest = self_knn(latent, 1)?;
    for (cell, (others, _)) in nearest.iter().enumerate() {
        for &other in others {
            joined[cell].push(other as usize);
            joined[other as usize].push(cell);
        }
    }
    for others in &mut joined {
        others.sort_unstable();
        others.dedup();
    }
    Ok(joined)
}

/// Weighted F1 of predicting each cell's label by that of the first cell that it is joined with: not always its nearest one, as
/// upstream. Cells without a label count on neither side.
pub fn f1_within(latent: ArrayView2<'_, f32>, labels: &[Option<i64>]) -> Result<f64> {
    let pairs = joined(latent)?.into_iter().enumerate().filter_map(|(cell, others)| {
        let first = others.into_iter().find_map(|other| labels[other]);
        labels[cell].zip(first)
    });
    weighted_f1(pairs)
}

/// Weighted F1 of predicting cells' labels by those of the nearest reference cells, each weighted by the inverse of its distance.
pub fn f1_across(
    (reference, known): (ArrayView2<'_, f32>, &[Option<i64>]),
    (query, truth): (ArrayView2<'_, f32>, &[Option<i64>]),
) -> Result<f64> {
    let labelled: Vec<usize> = (0..known.len()).filter(|&cell| known[cell].is_some()).collect();
    if labelled.is_empty() || query.nrows() == 0 {
        return Ok(0.0);
    }
    let reference = reference.select(Axis(0), &labelled);
    let nearest = knn(query, reference.view(), N_NEIGHBOURS.min(labelled.len()))?;
    let predicted = nearest.iter().map(|(cells, distances)| {
        let votes = cells.iter().zip(distances).map(|(&cell, &distance)| {
            let label = known[labelled[cell as usize]].unwrap_or_default();
            (label, distance)
        });
        vote(votes)
    });
    weighted_f1(truth.iter().copied().zip(predicted).filter_map(|(truth, predicted)| truth.zip(predicted)))
}

/// The label with the largest sum of inverse distances, the first of several; where distances are 0, only these count.
fn vote(votes: impl Iterator<Item = (i64, f64)>) -> Option<i64> {
    let votes: Vec<(i64, f64)> = votes.collect();
    let on_it = votes.iter().any(|(_, distance)| *distance == 0.0);
    let mut sums = std::collections::BTreeMap::new();
    for (label, distance) in votes.into_iter().filter(|(_, distance)| !on_it || *distance == 0.0) {
        *sums.entry(label).or_insert(0.0) += if on_it { 1.0 } else { 1.0 / distance };
    }
    let largest = sums.into_iter().reduce(|best, one| if one.1 > best.1 { one } else { best });
    largest.map(|(label, _)| label)
}

fn weighted_f1(pairs: impl Iterator<Item = (i64, i64)>) -> Result<f64> {
    let (truth, predicted): (Vec<String>, Vec<String>) =
        pairs.map(|(truth, predicted)| (truth.to_string(), predicted.to_string())).unzip();
    let confusion = Confusion::new(&Labels::from_names(&truth), &Labels::from_names(&predicted))?;
    Ok(confusion.weighted_f1().unwrap_or(0.0))
}

/// Adds the criterion to what an epoch has brought for the validation cells.
pub(super) struct Watch<'a> {
    pub(super) module: &'a MvtcrModule,
    pub(super) clonotypes: Option<Vec<i64>>,
    pub(super) labels: Option<Vec<Option<i64>>>,
    pub(super) modulation: Option<(Modulation, &'a Csr)>,
}

impl Watch<'_> {
    fn figure(&self, minibatches: &Minibatches<'_>, train: &[usize], validation: &[usize]) -> Result<f64> {
        let latent = |cells: &[usize]| self.latent(minibatches, cells);
        let of = |labels: &[Option<i64>], cells: &[usize]| cells.iter().map(|&cell| labels[cell]).collect::<Vec<_>>();
        let config = self.module.config();
        // The prediction of a perturbation is for all cells, as upstream: those of one group are few.
        if let Some((modulation, expression)) = &self.modulation {
            let all: Vec<usize> = (0..expression.n_rows()).collect();
            let decoded = |cells: &[usize], z: Array2<f32>| self.mean_expression(minibatches, cells, &z);
            return Ok(modulation.score(latent(&all).view(), expression, decoded));
        }
        let placed = latent(validation);
        match config.selected_by {
            Criterion::KnnPrediction => {
                let labels = self.labels.as_deref().unwrap_or_default();
                f1_across((latent(train).view(), &of(labels, train)), (placed.view(), &of(labels, validation)))
            }
            Criterion::Reconstruction | Criterion::PseudoMetric | Criterion::ModulationPrediction => {
                let mut sum = 0.0;
                if let Some(clonotypes) = &self.clonotypes {
                    let clonotypes: Vec<Option<i64>> = validation.iter().map(|&cell| Some(clonotypes[cell])).collect();
                    sum += config.pseudo_metric_weights[0] * f1_within(placed.view(), &clonotypes)?;
                }
                if let Some(labels) = &self.labels {
                    sum += config.pseudo_metric_weights[1] * f1_within(placed.view(), &of(labels, validation))?;
                }
                Ok(sum)
            }
        }
    }

    fn latent(&self, minibatches: &Minibatches<'_>, cells: &[usize]) -> Array2<f32> {
        let mut rows = Array2::zeros((0, self.module.config().zdim));
        for cells in cells.chunks(EVALUATION_MINIBATCH) {
            let mean = at_rest(|pass| self.module.posterior(&minibatches.of(cells), pass).mean);
            rows.append(Axis(0), to_array(&mean).view()).expect("all have the latent space's width");
        }
        rows
    }

    /// Mean expression of cells if their latent states were these, `[n, zdim]`.
    fn mean_expression(&self, minibatches: &Minibatches<'_>, cells: &[usize], z: &Array2<f32>) -> Array1<f64> {
        let minibatch = minibatches.of(cells);
        let z = Tensor::from_slice(&z.iter().copied().collect::<Vec<_>>()).view([cells.len() as i64, -1]);
        let decoded =
            at_rest(|pass| self.module.expression(&z.to_device(minibatch.x.device()), &minibatch.covariates, pass));
        let decoded = decoded.expect("the options ask for a variant with expression");
        let means = decoded.mean_dim([0_i64].as_slice(), false, Kind::Double);
        Array1::from(Vec::try_from(means).expect("they are numbers"))
    }
}

impl Hook for Watch<'_> {
    fn looks_at_tensors(&self) -> bool {
        true
    }

    fn after_epoch(&mut self, epoch: Epoch<'_>, seen: &mut Seen) -> Result<()> {
        let (train, validation) = (&epoch.split.train, &epoch.split.validation);
        if let Some(evaluation) = &mut seen.validation {
            let value = self.figure(epoch.minibatches, train, validation)?;
            evaluation.figures.insert(FIGURE.to_owned(), value);
        }
        Ok(())
    }

    fn state(&self) -> StateDict {
        StateDict::new()
    }
}

/// What the network says in evaluation, without gradients.
fn at_rest<T>(say: impl FnOnce(&mut Pass<'_>) -> T) -> T {
    let _guard = tch::no_grad_guard();
    let mut noise = SeededNoise::new([0; 32]);
    say(&mut Pass { mode: Mode::Evaluation, noise: &mut noise })
}

/// The criterion of the validation cells, less of which is better.
pub(super) fn watched(seen: &Seen) -> Option<f64> {
    seen.figure(Monitor::Validation, FIGURE).map(|value| -value)
}

/// The criterion's name among figures.
pub(super) const FIGURE: &str = "selection";
/// Reference cells that vote.
const N_NEIGHBOURS: usize = 5;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_first_joined_cell_counts_and_not_the_nearest() {
        let latent = array![[0.0_f32], [10.0], [10.5], [9.0]];
        // 0 and 3 are joined, for 3 is what 0 has nearest; 1 and 2; 3 and 1.
        assert_eq!(joined(latent.view()).unwrap(), [vec![3], vec![2, 3], vec![1], vec![0, 1]]);
        let labels = [Some(1), Some(0), Some(0), Some(0)];
        // 0 is taken for 0, and 3, whose nearest cell is 1, for 1.
        let found = f1_within(latent.view(), &labels).unwrap();
        assert!((found - 0.75 * (2.0 / 3.0)).abs() < 1e-12, "{found}");
    }

    #[test]
    fn near_cells_have_more_to_say() {
        let reference = array![[0.0_f32], [0.1], [5.0], [5.1], [5.2]];
        let known = [Some(1), Some(1), Some(2), Some(2), Some(2)];
        let query = array![[0.2_f32], [5.0]];
        let of = |truth: [Option<i64>; 2]| f1_across((reference.view(), &known), (query.view(), &truth)).unwrap();
        assert_eq!(of([Some(1), Some(2)]), 1.0);
        assert_eq!(of([None, Some(1)]), 0.0, "a cell without a label does not count");
    }
}
