//! mvTCR's criterion for perturbations: how well expression after one is predicted for a group of cells that was never seen with it.
//!
//! By a shift in the latent space: that of the group that looks most alike before is added to the cells' own states, and what these
//! are decoded to is compared with the group's cells after the perturbation.

use archipelago_anndata::Csr;
use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::error::{Error, Result};

/// What is compared: groups of cells before and after, and genes.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Modulation {
    groups: Vec<Group>,
    genes: Vec<usize>,
}

/// Cells of one label.
#[derive(Clone, PartialEq, Debug)]
struct Group {
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Modulation {
    /// The groups of enough cells before and after. Cells without a label or a state are in none.
    ///
    /// # Errors  fewer than two groups, of which one could not tell about the other
    pub(super) fn new(
        labels: &[Option<i64>],
        is_before: &[Option<bool>],
        expression: &Csr,
        n_genes: usize,
    ) -> Result<Self> {
        let mut of_label = std::collections::BTreeMap::<i64, Group>::new();
        for (cell, (label, is_before)) in labels.iter().zip(is_before).enumerate() {
            let Some((label, is_before)) = label.zip(*is_before) else { continue };
            let group = of_label.entry(label).or_insert(Group { before: vec![], after: vec![] });
            if is_before { &mut group.before } else { &mut group.after }.push(cell);
        }
        let is_large = |group: &Group| group.before.len().min(group.after.len()) > MORE_CELLS_THAN;
        let groups: Vec<Group> = of_label.into_values().filter(is_large).collect();
        if groups.len() < 2 {
            let (part, found) =
                ("labels".to_owned(), format!("{} with cells before and after the perturbation", groups.len()));
            let expected = format!("two or more, each with more than {MORE_CELLS_THAN} cells before and as many after");
            return Err(Error::Value { part, found, expected });
        }
        let genes = most_changed(expression, &groups, n_genes);
        Ok(Self { groups, genes })
    }

    /// The mean over groups of how much of the variance between genes is explained. `latent` has a row for each cell; `decoded` gives
    /// mean expression of cells whose latent states are these instead.
    pub(super) fn score(
        &self,
        latent: ArrayView2<'_, f32>,
        expression: &Csr,
        mut decoded: impl FnMut(&[usize], Array2<f32>) -> Array1<f64>,
    ) -> f64 {
        let centre = |cells: &[usize]| latent.select(Axis(0), cells).mean_axis(Axis(0)).expect("groups have cells");
        let centres: Vec<_> = self.groups.iter().map(|group| (centre(&group.before), centre(&group.after))).collect();
        let explained = self.groups.iter().enumerate().map(|(own, group)| {
            let distance = |(other, _): &(usize, &(Array1<f32>, Array1<f32>))| {
                let apart = &centres[*other].0 - &centres[own].0;
                apart.dot(&apart)
            };
            let others = centres.iter().enumerate().filter(|(other, _)| *other != own);
            let nearest = others.min_by(|one, other| distance(one).total_cmp(&distance(other)));
            let (_, (before, after)) = nearest.expect("there is another group");
            let shifted = latent.select(Axis(0), &group.before) + &(after - before);
            let (predicted, truth) = (decoded(&group.before, shifted), means(expression, &group.after));
            squared_correlation(&predicted, &truth, &self.genes)
        });
        explained.sum::<f64>() / self.groups.len() as f64
    }
}

/// The genes whose means differ most between cells before and after, by Welch's t, in order.
fn most_changed(expression: &Csr, groups: &[Group], n_genes: usize) -> Vec<usize> {
    let all =
        |of: fn(&Group) -> &Vec<usize>| groups.iter().flat_map(|group| of(group).iter().copied()).collect::<Vec<_>>();
    let (before, after) = (all(|group| &group.before), all(|group| &group.after));
    let moments = |cells: &[usize]| (means(expression, cells), means_of(expression, cells, |value| value * value));
    let ((mean_before, square_before), (mean_after, square_after)) = (moments(&before), moments(&after));
    let t = |gene: usize| {
        let error = |mean: f64, square: f64, n: usize| (square - mean * mean).max(0.0) / n as f64;
        let errors = error(mean_before[gene], square_before[gene], before.len())
            + error(mean_after[gene], square_after[gene], after.len());
        (mean_after[gene] - mean_before[gene]).abs() / errors.sqrt().max(f64::MIN_POSITIVE)
    };
    let mut genes: Vec<usize> = (0..expression.n_cols()).collect();
    genes.sort_by(|&one, &other| t(other).total_cmp(&t(one)).then(one.cmp(&other)));
    genes.truncate(n_genes.max(2));
    genes.sort_unstable();
    genes
}

fn means(expression: &Csr, cells: &[usize]) -> Array1<f64> {
    means_of(expression, cells, |value| value)
}

fn means_of(expression: &Csr, cells: &[usize], of: fn(f64) -> f64) -> Array1<f64> {
    let mut sums = Array1::zeros(expression.n_cols());
    for &cell in cells {
        let (genes, values) = expression.row(cell);
        genes.iter().zip(values).for_each(|(&gene, &value)| sums[gene as usize] += of(f64::from(value)));
    }
    sums / cells.len() as f64
}

/// Squared correlation of two profiles over some genes; 0 where one of them does not vary.
fn squared_correlation(one: &Array1<f64>, other: &Array1<f64>, genes: &[usize]) -> f64 {
    let centred = |of: &Array1<f64>| {
        let values = of.select(Axis(0), genes);
        let mean = values.mean().unwrap_or_default();
        values - mean
    };
    let (one, other) = (centred(one), centred(other));
    let norms = one.dot(&one) * other.dot(&other);
    if norms > 0.0 { one.dot(&other).powi(2) / norms } else { 0.0 }
}

/// A group counts with more cells than these before, and after; upstream's.
const MORE_CELLS_THAN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// Three groups of six cells before and after; latent states are expression, so that a group is predicted by another's change.
    fn cells(changes: [[f32; 3]; 3]) -> (Vec<Option<i64>>, Vec<Option<bool>>, Vec<f32>) {
        let (mut labels, mut before, mut values) = (vec![], vec![], vec![]);
        for cell in 0..36 {
            let (group, is_before) = (cell / 12, cell % 12 < 6);
            labels.push(Some(group as i64));
            before.push(Some(is_before));
            // The first two groups start close to each other.
            let start = [[1.0, 5.0, 3.0], [1.1, 5.2, 3.0], [9.0, 1.0, 1.0]][group];
            let change = if is_before { [0.0; 3] } else { changes[group] };
            values.extend((0..3).map(|gene| start[gene] + change[gene]));
        }
        (labels, before, values)
    }

    fn score(changes: [[f32; 3]; 3]) -> f64 {
        let (labels, before, values) = cells(changes);
        let expression = Csr::from_dense(36, 3, &values).unwrap();
        let latent = Array2::from_shape_vec((36, 3), values).unwrap();
        let modulation = Modulation::new(&labels, &before, &expression, 3).unwrap();
        let decoded = |_: &[usize], z: Array2<f32>| z.mean_axis(Axis(0)).unwrap().mapv(f64::from);
        modulation.score(latent.view(), &expression, decoded)
    }

    #[test]
    fn a_group_is_predicted_by_the_change_of_the_one_that_looks_most_alike_before() {
        let same = score([[2.0, -3.0, 0.0]; 3]);
        assert!((same - 1.0).abs() < 1e-6, "{same}");
        // What the third group does is asked of nobody: it looks like none of the others.
        let third = score([[2.0, -3.0, 0.0], [2.0, -3.0, 0.0], [-8.0, 9.0, 4.0]]);
        let by_second = {
            let (truth, predicted) = ([1.0, 10.0, 5.0], [11.0, -2.0, 1.0]);
            squared_correlation(&Array1::from(truth.to_vec()), &Array1::from(predicted.to_vec()), &[0, 1, 2])
        };
        assert!((third - (2.0 + by_second) / 3.0).abs() < 1e-6, "{third} {by_second}");
    }

    #[test]
    fn genes_that_change_most_are_compared() {
        let (labels, before, mut values) = cells([[2.0, 0.0, -4.0]; 3]);
        values.iter_mut().enumerate().for_each(|(at, value)| *value += (at % 7) as f32 * 0.1);
        let expression = Csr::from_dense(36, 3, &values).unwrap();
        assert_eq!(Modulation::new(&labels, &before, &expression, 2).unwrap().genes, [0, 2]);
    }

    #[test]
    fn a_single_group_cannot_be_predicted() {
        let (mut labels, mut before, values) = cells([[1.0; 3]; 3]);
        let expression = Csr::from_dense(36, 3, &values).unwrap();
        labels[24..].fill(None);
        before[12..19].fill(None);
        let refused = Modulation::new(&labels, &before, &expression, 3).unwrap_err().to_string();
        assert!(refused.contains("`labels` holds 1 with cells before and after"), "{refused}");
    }
}
