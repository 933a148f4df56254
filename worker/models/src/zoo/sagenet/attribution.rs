//! How much each gene says of where its cell lies.
//!
//! Gradients of the logit of a cell's own part, integrated on the way from no expression to the cell's. What a gene says in a part is
//! the mean over its cells, each cell's genes weighed so that their squares add up to one; a gene's rank is its best one over parts
//! and partitions.
//!
//! # Source   Sundararajan, Taly & Yan 2017, by the Gauss-Legendre rule, as captum does it
use ndarray::{Array2, ArrayView2, Axis};
use tch::{Kind, Tensor};

use super::{graph::GeneGraph, kernel::Kernel, network::Network};
use crate::{
    error::Result,
    nn::{Mode, Pass, SeededNoise},
};

/// Points in (0, 1) and their weights, by which integrals are taken.
#[derive(Debug, Clone)]
pub struct Quadrature {
    /// The points, ascending.
    pub points: Vec<f64>,
    /// What each weighs; together 1.
    pub weights: Vec<f64>,
}

impl Quadrature {
    /// The Gauss-Legendre rule of so many points.
    pub fn gauss_legendre(n: usize) -> Self {
        let (mut points, mut weights) = (vec![0.0; n], vec![0.0; n]);
        for at in 0..n {
            let mut x = -(std::f64::consts::PI * (at as f64 + 0.75) / (n as f64 + 0.5)).cos();
            let mut slope = 0.0;
            for _ in 0..NEWTON_STEPS {
                let value;
                (value, slope) = legendre(n, x);
                x -= value / slope;
            }
            points[at] = 0.5 * (x + 1.0);
            weights[at] = 1.0 / ((1.0 - x * x) * slope * slope);
        }
        Self { points, weights }
    }

    /// Upstream's: fifty points.
    pub fn usual() -> Self {
        Self::gauss_legendre(N_POINTS)
    }
}

/// The Legendre polynomial of this degree, and its slope.
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=degree {
        let k = k as f64;
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, degree as f64 * (x * value - before) / (x * x - 1.0))
}

/// What each gene of each cell adds to the logit of the cell's class: `[n, n_genes]`, for expression `[n, n_genes]` and classes `[n]`.
pub fn attributions(network: &Network, x: &Tensor, classes: &[i64]) -> Tensor {
    let rule = Quadrature::usual();
    let of_cell = |(cell, &class): (usize, &i64)| {
        let class = Tensor::from_slice(&vec![class; rule.points.len()]);
        along(network, &x.get(cell as i64).unsqueeze(0), &class, &rule, |x, pass| network.logits(x, pass))
    };
    Tensor::cat(&classes.iter().enumerate().map(of_cell).collect::<Vec<_>>(), 0)
}

/// The same with upstream's faults: the copies of a batch's cells on the way are stacked as further cells, and only the first
/// `n_with_edges` of them have edges.
pub fn upstream_attributions(network: &Network, x: &Tensor, classes: &[i64], n_with_edges: usize) -> Result<Tensor> {
    let rule = Quadrature::usual();
    let bare = GeneGraph::new(network.graph().n_genes(), &[])?;
    let classes = classes.repeat(rule.points.len());
    let logits = |x: &Tensor, pass: &mut Pass<'_>| {
        let (n, n_with_edges) = (x.size()[0], (n_with_edges as i64).min(x.size()[0]));
        let with = network.logits(&x.narrow(0, 0, n_with_edges), pass);
        let without = network.logits_on(&bare, &x.narrow(0, n_with_edges, n - n_with_edges), pass);
        Tensor::cat(&[with, without], 0)
    };
    Ok(along(network, x, &Tensor::from_slice(&classes), &rule, logits))
}

/// Gradients at all points of the rule for cells `[n, n_genes]`, one step for all cells after the other, and their weighted sum.
fn along(
    network: &Network,
    x: &Tensor,
    classes: &Tensor,
    rule: &Quadrature,
    logits: impl Fn(&Tensor, &mut Pass<'_>) -> Tensor,
) -> Tensor {
    let (n, n_steps) = (x.size()[0], rule.points.len() as i64);
    let of_steps = |values: &[f64]| Tensor::from_slice(values).to_kind(x.kind()).view([n_steps, 1, 1]);
    let path = (x.unsqueeze(0) * of_steps(&rule.points)).view([n_steps * n, -1]).set_requires_grad(true);
    let mut none = SeededNoise::new([0; 32]);
    let found = logits(&path, &mut Pass { mode: Mode::Evaluation, noise: &mut none });
    let own = found.gather(1, &classes.unsqueeze(1), false).sum(found.kind());
    let gradient = Tensor::run_backward(&[own], &[&path], false, false).remove(0);
    debug_assert_eq!(path.size()[1], network.graph().n_genes() as i64);
    (gradient.view([n_steps, n, -1]) * of_steps(&rule.weights)).sum_dim_intlist([0_i64].as_slice(), false, x.kind()) * x
}

/// The best rank of each gene over the classes of a network, from 0; none for a gene without a neighbour. Cells are those that
/// the network was trained on.
///
/// # Shapes   `x`: `[n_cells, n_genes]`; `classes`: one per cell
pub fn ranks(network: &Network, x: ArrayView2<'_, f32>, classes: &[u32]) -> Vec<Option<u32>> {
    let mut of_classes = Array2::<f64>::zeros((network.n_classes(), x.ncols()));
    let mut counts = vec![0_usize; network.n_classes()];
    let rows: Vec<Vec<f32>> = x.rows().into_iter().map(|row| row.to_vec()).collect();
    let cells = rows.iter().map(Vec::as_slice).zip(classes.iter().copied());
    let of_cells = match Kernel::new(network) {
        Some(kernel) => kernel.attributions(cells, &Quadrature::usual()),
        None => cells.map(|(row, class)| by_autograd(network, row, class)).collect(),
    };
    for (said, &class) in of_cells.iter().zip(classes) {
        let length = said.iter().map(|value| value * value).sum::<f64>().sqrt();
        if length > 0.0 {
            let mut of_class = of_classes.row_mut(class as usize);
            of_class.iter_mut().zip(said).for_each(|(sum, value)| *sum += value.abs() / length);
        }
        counts[class as usize] += 1;
    }
    best_ranks(&of_classes, &counts, &network.graph().has_neighbours())
}

fn by_autograd(network: &Network, x: &[f32], class: u32) -> Vec<f64> {
    let found = attributions(network, &Tensor::from_slice(x).unsqueeze(0), &[i64::from(class)]);
    Vec::try_from(found.to_kind(Kind::Double).reshape(-1)).expect("a row of numbers")
}

/// Where each gene stands in the class in which it stands best.
fn best_ranks(of_classes: &Array2<f64>, counts: &[usize], has_neighbours: &[bool]) -> Vec<Option<u32>> {
    let mut best = vec![None; has_neighbours.len()];
    for (class, _) in of_classes.axis_iter(Axis(0)).zip(counts).filter(|(_, n)| **n > 0) {
        let mut order: Vec<usize> = (0..best.len()).filter(|&gene| has_neighbours[gene]).collect();
        order.sort_by(|&a, &b| class[b].total_cmp(&class[a]).then(a.cmp(&b)));
        for (rank, gene) in (0_u32..).zip(order) {
            best[gene] = Some(best[gene].map_or(rank, |before: u32| before.min(rank)));
        }
    }
    best
}

/// What upstream stores for each gene, and what it adds up on the way, `[n_genes, n_classes]`, with all its faults: genes and cells
/// change places, of several cells of one class in a batch the last counts, and what is taken for ranks by gene are genes by rank.
///
/// # Errors  none with a graph of the network's genes
pub fn upstream_importance(
    network: &Network,
    x: &Tensor,
    classes: &[i64],
    minibatch: usize,
) -> Result<(Array2<f64>, Vec<u32>)> {
    let n_genes = network.graph().n_genes();
    let mut sums = Array2::<f64>::zeros((n_genes, network.n_classes()));
    let first = classes.len().min(minibatch);
    for (at, classes) in classes.chunks(minibatch).enumerate() {
        let x = x.narrow(0, (at * minibatch) as i64, classes.len() as i64);
        let found = upstream_attributions(network, &x, classes, first)?.to_kind(Kind::Double).reshape(-1);
        let values = Vec::<f64>::try_from(found).expect("a row of numbers");
        let scrambled = Array2::from_shape_vec((n_genes, classes.len()), values).expect("as many values");
        let before = sums.clone();
        for (column, &class) in scrambled.axis_iter(Axis(1)).zip(classes) {
            let length = column.iter().map(|value| value * value).sum::<f64>().sqrt();
            let length = if length > 0.0 { length } else { 1.0 };
            let class = class as usize;
            sums.column_mut(class).assign(&(&before.column(class) + &(&column / length)));
        }
    }
    let mut column = vec![u32::MAX; n_genes];
    for class in sums.axis_iter(Axis(1)) {
        let mut order: Vec<usize> = (0..n_genes).collect();
        order.sort_by(|&a, &b| class[b].abs().total_cmp(&class[a].abs()));
        column.iter_mut().zip(order).for_each(|(least, gene)| *least = (*least).min(gene as u32));
    }
    let has = network.graph().has_neighbours();
    column.iter_mut().zip(has).filter(|(_, has)| !has).for_each(|(value, _)| *value = UPSTREAM_NONE);
    Ok((sums, column))
}

const N_POINTS: usize = 50;
const NEWTON_STEPS: usize = 20;
/// What upstream stores of a gene without neighbours.
const UPSTREAM_NONE: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_rule_integrates_polynomials() {
        let rule = Quadrature::gauss_legendre(5);
        let integral = |power: i32| rule.points.iter().zip(&rule.weights).map(|(x, w)| w * x.powi(power)).sum::<f64>();
        assert!((0..10).all(|power| (integral(power) - 1.0 / f64::from(power + 1)).abs() < 1e-14));
    }

    #[test]
    fn a_gene_counts_where_it_stands_best_and_one_without_neighbours_nowhere() {
        let said = array![[3.0, 2.0, 9.0, 1.0], [1.0, 5.0, 9.0, 4.0], [9.0, 0.0, 0.0, 9.0]];
        let found = best_ranks(&said, &[4, 1, 0], &[true, true, false, true]);
        assert_eq!(found, [Some(0), Some(0), None, Some(1)]);
    }
}
