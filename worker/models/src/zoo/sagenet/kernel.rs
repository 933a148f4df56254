//! The usual network without autograd: one graph layer of the kind transformer-conv, and the last map behind it.
//!
//! A gene brings one number, so keys and queries meet in two: the score of a neighbour `j` of gene `i` is `t x_j`, where
//! `t = (a x_i + d) / sqrt(width)`, `a` the product of the weights of query and key and `d` that of the query's bias and the key's
//! weight. What else the product holds is the same for all neighbours, and the softmax takes it out. What arrives is the mean `m` of
//! the neighbours under these shares; its slope along `t` is their variance. So a gene costs a few operations for each neighbour,
//! whatever the width. The tests compare everything with autograd.

use tch::Tensor;

use super::{attribution::Quadrature, config::Classifier, network::Network};
use crate::{
    kernels::{
        Buffer, Level,
        label::exp_of,
        layer::{add_scaled, dot},
    },
    nn::{Noise as _, SeededNoise},
};

/// A network as plain numbers.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    level: Level,
    values: Values,
    velocity: Option<Values>,
    n_genes: usize,
    width: usize,
    n_classes: usize,
    dropout: f64,
    /// Where the neighbours of each gene begin in `neighbours`, and where the last ones end.
    starts: Vec<usize>,
    neighbours: Vec<u32>,
}

/// Weights and biases, or what else has their shapes.
#[derive(Debug, Clone)]
struct Values {
    /// Those of the graph layer, in the order of [`NAMES`], and the last map's biases.
    vectors: [Vec<f32>; 9],
    /// The last map: a row for each class, padded.
    last: Vec<Buffer>,
}

/// What a cell is on its way through the network.
#[derive(Debug)]
struct Cell {
    /// Expression of each neighbour of each gene, in their order, and its share.
    near: Vec<f32>,
    shares: Buffer,
    /// Score of a neighbour for each unit of its value, mean of the neighbours, their variance; for each gene.
    slope: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    /// What the graph layer gives, behind rectifier and dropout; padded.
    hidden: Buffer,
    /// The slope along it.
    of_hidden: Buffer,
    logits: Vec<f32>,
}

/// What some cells came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// Cross entropy, added up.
    pub(super) loss: f64,
    /// Cells whose class is the most probable one.
    pub(super) n_right: usize,
}

impl Kernel {
    /// The numbers of a network, if it is the usual one.
    pub(super) fn new(network: &Network) -> Option<Self> {
        let config = network.config();
        let is_usual = config.classifier == Classifier::TransformerConv
            && config.n_hidden_gnn.len() == 1
            && config.n_hidden_fc.is_empty();
        let is_single = || network.trained().values().all(|tensor| tensor.kind() == tch::Kind::Float);
        if !is_usual || !is_single() {
            return None;
        }
        let flat = |name: &str| -> Vec<f32> {
            Vec::try_from(network.trained()[name].detach().reshape(-1)).expect("weights are 32-bit floats")
        };
        let n_genes = network.graph().n_genes();
        let width = config.n_hidden_gnn[0];
        let row = |weights: &[f32]| {
            let mut row = Buffer::zeros(weights.len());
            row[..weights.len()].copy_from_slice(weights);
            row
        };
        let mut lists = vec![Vec::new(); n_genes];
        for &(a, b) in network.graph().pairs() {
            lists[a as usize].push(b);
            lists[b as usize].push(a);
        }
        let starts = std::iter::once(0).chain(lists.iter().scan(0, |end, list: &Vec<u32>| {
            *end += list.len();
            Some(*end)
        }));
        Some(Self {
            level: Level::best(),
            values: Values { vectors: NAMES.map(flat), last: flat(LAST).chunks(n_genes * width).map(row).collect() },
            velocity: None,
            n_genes,
            width,
            n_classes: network.n_classes(),
            dropout: config.dropout_gnn,
            starts: starts.collect(),
            neighbours: lists.concat(),
        })
    }

    /// Gives the network what was learnt.
    pub(super) fn store(&self, network: &Network) {
        let n = self.n_genes * self.width;
        let last: Vec<f32> = self.values.last.iter().flat_map(|row| &row[..n]).copied().collect();
        let vectors = NAMES.iter().copied().zip(&self.values.vectors);
        tch::no_grad(|| {
            for (name, values) in vectors.chain([(LAST, &last)]) {
                let tensor = &network.trained()[name];
                tensor.shallow_clone().copy_(&Tensor::from_slice(values).view_as(tensor));
            }
        });
    }

    /// One step on some cells, with the classes of all.
    pub(super) fn step<'a>(
        &mut self,
        cells: impl ExactSizeIterator<Item = (&'a [f32], u32)>,
        (rate, momentum): (f64, f64),
        noise: &mut SeededNoise,
    ) -> Sums {
        let n = cells.len();
        let mut gradient = self.zeros();
        let mut keep = vec![1.0; n * self.n_genes * self.width];
        if self.dropout > 0.0 {
            noise.fill_keep("layers_GNN.0", [n, self.n_genes * self.width], self.dropout, &mut keep);
            let scale = 1.0 / (1.0 - self.dropout) as f32;
            keep.iter_mut().for_each(|kept| *kept *= scale);
        }
        let (mut cell, mut sums) = (self.cell(), Sums::default());
        for ((x, class), keep) in cells.zip(keep.chunks(self.n_genes * self.width)) {
            self.convolve(x, &mut cell);
            cell.hidden.iter_mut().zip(keep).for_each(|(hidden, keep)| *hidden *= keep);
            self.classify(&mut cell);
            let mut of_logits = softmax(&cell.logits);
            sums.loss -= f64::from(of_logits[class as usize].max(f32::MIN_POSITIVE)).ln();
            sums.n_right += usize::from(most(&cell.logits) == class as usize);
            of_logits[class as usize] -= 1.0;
            of_logits.iter_mut().for_each(|value| *value /= n as f32);
            self.backward_last(&mut cell, &of_logits, &mut gradient);
            self.backward_graph(x, &cell, keep, &mut gradient);
        }
        self.descend(gradient, rate as f32, momentum as f32);
        sums
    }

    /// Logits of each cell.
    pub(super) fn logits<'a>(&self, cells: impl Iterator<Item = &'a [f32]>) -> Vec<Vec<f32>> {
        let mut cell = self.cell();
        let of_cell = |x: &[f32]| {
            self.convolve(x, &mut cell);
            self.classify(&mut cell);
            cell.logits.clone()
        };
        cells.map(of_cell).collect()
    }

    /// What each gene adds to the logit of a class, for each cell and its class.
    pub(super) fn attributions<'a>(
        &self,
        cells: impl Iterator<Item = (&'a [f32], u32)>,
        rule: &Quadrature,
    ) -> Vec<Vec<f64>> {
        let (mut cell, mut on_the_way, mut slope) = (self.cell(), vec![0.0; self.n_genes], vec![0.0; self.n_genes]);
        let of_cell = |(x, class): (&[f32], u32)| {
            let mut sum = vec![0.0; x.len()];
            for (&point, weight) in rule.points.iter().zip(&rule.weights) {
                on_the_way.iter_mut().zip(x).for_each(|(on, value)| *on = value * point as f32);
                self.convolve(&on_the_way, &mut cell);
                self.slope_of_input(&mut cell, &self.values.last[class as usize], &mut slope);
                sum.iter_mut().zip(&slope).for_each(|(sum, slope)| *sum += weight * f64::from(*slope));
            }
            sum.iter().zip(x).map(|(sum, value)| sum * f64::from(*value)).collect()
        };
        cells.map(of_cell).collect()
    }

    fn zeros(&self) -> Values {
        let Values { vectors, last } = &self.values;
        Values {
            vectors: std::array::from_fn(|at| vec![0.0; vectors[at].len()]),
            last: last.iter().map(|row| Buffer::zeros(row.len())).collect(),
        }
    }

    fn cell(&self) -> Cell {
        let (of_genes, n_hidden) = (|| vec![0.0; self.n_genes], self.n_genes * self.width);
        Cell {
            near: vec![0.0; self.neighbours.len()],
            shares: Buffer::zeros(self.neighbours.len()),
            slope: of_genes(),
            mean: of_genes(),
            variance: of_genes(),
            hidden: Buffer::zeros(n_hidden),
            of_hidden: Buffer::zeros(n_hidden),
            logits: vec![0.0; self.n_classes],
        }
    }

    /// What a score is made of: its slope along the product of both genes' values, and along the neighbour's alone.
    fn score(&self) -> (f32, f32) {
        let scale = 1.0 / (self.width as f32).sqrt();
        let [query, of_query, key, ..] = &self.values.vectors;
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        (product(query, key) * scale, product(of_query, key) * scale)
    }

    /// The neighbours of each gene, with their shares, and what the graph layer makes of them, behind its rectifier.
    fn convolve(&self, x: &[f32], cell: &mut Cell) {
        let (both, alone) = self.score();
        for (near, &neighbour) in cell.near.iter_mut().zip(&self.neighbours) {
            *near = x[neighbour as usize];
        }
        for (gene, (slope, value)) in cell.slope.iter_mut().zip(x).enumerate() {
            *slope = both * value + alone;
            let own = self.starts[gene]..self.starts[gene + 1];
            let (near, scores) = (&cell.near[own.clone()], &mut cell.shares[own]);
            let most = near.iter().map(|value| *slope * value).fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().zip(near).for_each(|(score, value)| *score = *slope * value - most);
        }
        cell.shares[self.neighbours.len()..].fill(0.0);
        exp_of(self.level, &mut cell.shares);
        let [_, _, _, _, value, of_value, skip, of_skip, _] = &self.values.vectors;
        for (gene, hidden) in cell.hidden.chunks_mut(self.width).take(self.n_genes).enumerate() {
            let own = self.starts[gene]..self.starts[gene + 1];
            let is_joined = if own.is_empty() { 0.0 } else { 1.0 };
            let (mean, variance) = moments(&cell.near[own.clone()], &mut cell.shares[own]);
            (cell.mean[gene], cell.variance[gene]) = (mean, variance);
            for (unit, hidden) in hidden.iter_mut().enumerate() {
                let sent = value[unit] * mean + of_value[unit] * is_joined;
                *hidden = (sent + skip[unit] * x[gene] + of_skip[unit]).max(0.0);
            }
        }
    }

    fn classify(&self, cell: &mut Cell) {
        let Cell { hidden, logits, .. } = cell;
        let biases = &self.values.vectors[OF_LAST];
        for ((logit, row), bias) in logits.iter_mut().zip(&self.values.last).zip(biases) {
            *logit = dot(self.level, row, hidden) + bias;
        }
    }

    /// The slope along what the graph layer gives, and along the last map's numbers.
    fn backward_last(&self, cell: &mut Cell, of_logits: &[f32], gradient: &mut Values) {
        cell.of_hidden.fill(0.0);
        for (class, &slope) in of_logits.iter().enumerate() {
            add_scaled(self.level, &mut cell.of_hidden, &self.values.last[class], slope);
            add_scaled(self.level, &mut gradient.last[class], &cell.hidden, slope);
            gradient.vectors[OF_LAST][class] += slope;
        }
    }

    fn backward_graph(&self, x: &[f32], cell: &Cell, keep: &[f32], gradient: &mut Values) {
        let (width, scale) = (self.width, 1.0 / (self.width as f32).sqrt());
        let [query, of_query, key, _, value, ..] = &self.values.vectors;
        let [to_query, to_of_query, to_key, _, to_value, to_of_value, to_skip, to_of_skip, _] = &mut gradient.vectors;
        let (mut of_both, mut of_alone) = (0.0, 0.0);
        let mut of_units = vec![0.0; width];
        for (gene, &x) in x.iter().enumerate().take(self.n_genes) {
            let own = gene * width..(gene + 1) * width;
            let (hidden, of_hidden, keep) = (&cell.hidden[own.clone()], &cell.of_hidden[own.clone()], &keep[own]);
            for (unit, slope) in of_units.iter_mut().enumerate() {
                *slope = if hidden[unit] > 0.0 { of_hidden[unit] * keep[unit] } else { 0.0 };
            }
            let (mean, is_joined) =
                (cell.mean[gene], if self.starts[gene + 1] > self.starts[gene] { 1.0 } else { 0.0 });
            for (unit, slope) in of_units.iter().enumerate() {
                to_value[unit] += slope * mean;
                to_of_value[unit] += slope * is_joined;
                to_skip[unit] += slope * x;
                to_of_skip[unit] += slope;
            }
            let of_mean: f32 = of_units.iter().zip(value).map(|(slope, value)| slope * value).sum();
            let of_slope = of_mean * cell.variance[gene] * scale;
            of_both += of_slope * x;
            of_alone += of_slope;
        }
        to_query.iter_mut().zip(key).for_each(|(to, key)| *to += of_both * key);
        to_of_query.iter_mut().zip(key).for_each(|(to, key)| *to += of_alone * key);
        for ((to, query), of_query) in to_key.iter_mut().zip(query).zip(of_query) {
            *to += of_both * query + of_alone * of_query;
        }
    }

    /// The slope along each gene's value, by the slopes along what the graph layer gives.
    fn slope_of_input(&self, cell: &mut Cell, of_hidden: &[f32], slopes: &mut [f32]) {
        let (both, _) = self.score();
        let [_, _, _, _, value, _, skip, ..] = &self.values.vectors;
        let of_genes = cell.hidden.chunks(self.width).zip(of_hidden.chunks(self.width)).take(self.n_genes);
        slopes.fill(0.0);
        for (gene, (hidden, of_hidden)) in of_genes.enumerate() {
            let (mut of_mean, mut of_skip) = (0.0, 0.0);
            for (((hidden, of_hidden), value), skip) in hidden.iter().zip(of_hidden).zip(value).zip(skip) {
                let slope = if *hidden > 0.0 { *of_hidden } else { 0.0 };
                of_mean += slope * value;
                of_skip += slope * skip;
            }
            slopes[gene] += of_skip + of_mean * cell.variance[gene] * both;
            let (mean, slope) = (cell.mean[gene], cell.slope[gene]);
            for at in self.starts[gene]..self.starts[gene + 1] {
                let from_mean = cell.near[at] - mean;
                slopes[self.neighbours[at] as usize] += of_mean * cell.shares[at] * (1.0 + slope * from_mean);
            }
        }
    }

    fn descend(&mut self, gradient: Values, rate: f32, momentum: f32) {
        let velocity = match self.velocity.take() {
            None => gradient,
            Some(mut velocity) => {
                for (velocity, gradient) in velocity.all().zip(gradient.rows()) {
                    velocity.iter_mut().zip(gradient).for_each(|(v, g)| *v = *v * momentum + g);
                }
                velocity
            }
        };
        for (values, velocity) in self.values.all().zip(velocity.rows()) {
            values.iter_mut().zip(velocity).for_each(|(value, velocity)| *value -= rate * velocity);
        }
        self.velocity = Some(velocity);
    }
}

impl Values {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.vectors.iter().map(Vec::as_slice).chain(self.last.iter().map(|row| &row[..]))
    }

    fn all(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.vectors.iter_mut().map(Vec::as_mut_slice).chain(self.last.iter_mut().map(|row| &mut row[..]))
    }
}

/// Powers to shares of their sum; mean and variance of values under these.
fn moments(values: &[f32], shares: &mut [f32]) -> (f32, f32) {
    let total: f32 = shares.iter().sum();
    if total > 0.0 {
        shares.iter_mut().for_each(|share| *share /= total);
    }
    let mean: f32 = shares.iter().zip(values).map(|(share, value)| share * value).sum();
    (mean, shares.iter().zip(values).map(|(share, value)| share * (value - mean).powi(2)).sum())
}

/// Probabilities of logits.
pub(super) fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let raised: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let total: f32 = raised.iter().sum();
    raised.iter().map(|value| value / total).collect()
}

/// The place of the largest value, the first of equal ones.
pub(super) fn most(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

const OF_LAST: usize = 8;
const NAMES: [&str; 9] = [
    "layers_GNN.0.lin_query.weight",
    "layers_GNN.0.lin_query.bias",
    "layers_GNN.0.lin_key.weight",
    "layers_GNN.0.lin_key.bias",
    "layers_GNN.0.lin_value.weight",
    "layers_GNN.0.lin_value.bias",
    "layers_GNN.0.lin_skip.weight",
    "layers_GNN.0.lin_skip.bias",
    "last_layer_FC.bias",
];
const LAST: &str = "last_layer_FC.weight";
