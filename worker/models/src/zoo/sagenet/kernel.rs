//! The usual network without autograd: one graph layer of the kind transformer-conv, and the last map behind it.
//!
//! A gene brings one number, so keys and queries meet in two: the score of a neighbour `j` of gene `i` is `t x_j`, where
//! `t = (a x_i + d) / sqrt(width)`, `a` the product of the weights of query and key and `d` that of the query's bias and the key's
//! weight. What else the product holds is the same for all neighbours, and the softmax takes it out. What arrives is the mean `m` of
//! the neighbours under these shares; its slope along `t` is their variance. So a gene costs a few operations for each neighbour,
//! whatever the width. The tests compare everything with autograd.

use tch::Tensor;

use super::{attribution::Quadrature, config::Classifier, network::Network};
use crate::nn::{Noise as _, SeededNoise};

/// A network as plain numbers.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
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

/// Weights, biases and what else has their shapes, in the order of [`NAMES`].
type Values = [Vec<f32>; 10];

/// What a cell is on its way through the network.
#[derive(Debug)]
struct Cell {
    /// Score of a neighbour for each unit of its value, mean of the neighbours, their variance; for each gene.
    slope: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    /// Share of each neighbour, in their order.
    shares: Vec<f32>,
    /// What the graph layer gives, behind rectifier and dropout.
    hidden: Vec<f32>,
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
        let values = NAMES.map(|name| {
            let flat = network.trained()[name].detach().reshape(-1);
            Vec::try_from(flat).expect("weights are 32-bit floats")
        });
        let n_genes = network.graph().n_genes();
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
            values,
            velocity: None,
            n_genes,
            width: config.n_hidden_gnn[0],
            n_classes: network.n_classes(),
            dropout: config.dropout_gnn,
            starts: starts.collect(),
            neighbours: lists.concat(),
        })
    }

    /// Gives the network what was learnt.
    pub(super) fn store(&self, network: &Network) {
        tch::no_grad(|| {
            for (name, values) in NAMES.iter().zip(&self.values) {
                let tensor = &network.trained()[*name];
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
            self.forward(x, Some(keep), &mut cell);
            let mut of_logits = softmax(&cell.logits);
            sums.loss -= f64::from(of_logits[class as usize].max(f32::MIN_POSITIVE)).ln();
            sums.n_right += usize::from(most(&cell.logits) == class as usize);
            of_logits[class as usize] -= 1.0;
            of_logits.iter_mut().for_each(|value| *value /= n as f32);
            let of_hidden = self.backward_last(&cell, &of_logits, Some(&mut gradient));
            self.backward_graph(x, &cell, &of_hidden, Some(keep), &mut gradient);
        }
        self.descend(gradient, rate as f32, momentum as f32);
        sums
    }

    /// Logits of a cell.
    pub(super) fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut cell = self.cell();
        self.forward(x, None, &mut cell);
        cell.logits
    }

    /// What each gene adds to the logit of a class.
    pub(super) fn attribution(&self, x: &[f32], class: usize, rule: &Quadrature) -> Vec<f64> {
        let (mut cell, mut sum) = (self.cell(), vec![0.0; x.len()]);
        let mut of_logits = vec![0.0; self.n_classes];
        of_logits[class] = 1.0;
        for (point, weight) in rule.points.iter().zip(&rule.weights) {
            let on_the_way: Vec<f32> = x.iter().map(|value| value * *point as f32).collect();
            self.forward(&on_the_way, None, &mut cell);
            let of_hidden = self.backward_last(&cell, &of_logits, None);
            let slope = self.slope_of_input(&on_the_way, &cell, &of_hidden);
            sum.iter_mut().zip(slope).for_each(|(sum, slope)| *sum += weight * f64::from(slope));
        }
        sum.iter().zip(x).map(|(sum, value)| sum * f64::from(*value)).collect()
    }

    fn zeros(&self) -> Values {
        std::array::from_fn(|at| vec![0.0; self.values[at].len()])
    }

    fn cell(&self) -> Cell {
        let of_genes = || vec![0.0; self.n_genes];
        Cell {
            slope: of_genes(),
            mean: of_genes(),
            variance: of_genes(),
            shares: vec![0.0; self.neighbours.len()],
            hidden: vec![0.0; self.n_genes * self.width],
            logits: vec![0.0; self.n_classes],
        }
    }

    /// What a score is made of: its slope along the product of both genes' values, and along the neighbour's alone.
    fn score(&self) -> (f32, f32) {
        let scale = 1.0 / (self.width as f32).sqrt();
        let [query, of_query, key, ..] = &self.values;
        (dot(query, key) * scale, dot(of_query, key) * scale)
    }

    fn forward(&self, x: &[f32], keep: Option<&[f32]>, cell: &mut Cell) {
        let (both, alone) = self.score();
        let [_, _, _, _, value, of_value, skip, of_skip, last, of_last] = &self.values;
        for gene in 0..self.n_genes {
            let (start, end) = (self.starts[gene], self.starts[gene + 1]);
            let slope = both * x[gene] + alone;
            let (neighbours, shares) = (&self.neighbours[start..end], &mut cell.shares[start..end]);
            let (mean, variance) = choose(x, neighbours, slope, shares);
            (cell.slope[gene], cell.mean[gene], cell.variance[gene]) = (slope, mean, variance);
            let is_joined = if end > start { 1.0 } else { 0.0 };
            let hidden = &mut cell.hidden[gene * self.width..(gene + 1) * self.width];
            for (unit, hidden) in hidden.iter_mut().enumerate() {
                let sent = value[unit] * mean + of_value[unit] * is_joined;
                *hidden = (sent + skip[unit] * x[gene] + of_skip[unit]).max(0.0);
            }
        }
        if let Some(keep) = keep {
            cell.hidden.iter_mut().zip(keep).for_each(|(hidden, keep)| *hidden *= keep);
        }
        for (class, logit) in cell.logits.iter_mut().enumerate() {
            *logit = dot(&last[class * cell.hidden.len()..][..cell.hidden.len()], &cell.hidden) + of_last[class];
        }
    }

    /// The slope along what the graph layer gives, and along the last map's numbers where these are wanted.
    fn backward_last(&self, cell: &Cell, of_logits: &[f32], gradient: Option<&mut Values>) -> Vec<f32> {
        let n = cell.hidden.len();
        let mut of_hidden = vec![0.0; n];
        for (class, &slope) in of_logits.iter().enumerate() {
            add(&mut of_hidden, slope, &self.values[LAST][class * n..][..n]);
        }
        if let Some(gradient) = gradient {
            for (class, &slope) in of_logits.iter().enumerate() {
                add(&mut gradient[LAST][class * n..][..n], slope, &cell.hidden);
                gradient[LAST + 1][class] += slope;
            }
        }
        of_hidden
    }

    fn backward_graph(&self, x: &[f32], cell: &Cell, of_hidden: &[f32], keep: Option<&[f32]>, gradient: &mut Values) {
        let scale = 1.0 / (self.width as f32).sqrt();
        let (mut of_both, mut of_alone) = (0.0, 0.0);
        for (gene, &x) in x.iter().enumerate().take(self.n_genes) {
            let at = gene * self.width;
            let is_joined = if self.starts[gene + 1] > self.starts[gene] { 1.0 } else { 0.0 };
            let mut of_mean = 0.0;
            for unit in 0..self.width {
                if cell.hidden[at + unit] <= 0.0 {
                    continue;
                }
                let slope = of_hidden[at + unit] * keep.map_or(1.0, |keep| keep[at + unit]);
                gradient[VALUE][unit] += slope * cell.mean[gene];
                gradient[VALUE + 1][unit] += slope * is_joined;
                gradient[SKIP][unit] += slope * x;
                gradient[SKIP + 1][unit] += slope;
                of_mean += slope * self.values[VALUE][unit];
            }
            let of_slope = of_mean * cell.variance[gene] * scale;
            of_both += of_slope * x;
            of_alone += of_slope;
        }
        let [query, of_query, key, ..] = &self.values;
        for unit in 0..self.width {
            gradient[QUERY][unit] += of_both * key[unit];
            gradient[QUERY + 1][unit] += of_alone * key[unit];
            gradient[KEY][unit] += of_both * query[unit] + of_alone * of_query[unit];
        }
    }

    /// The slope along each gene's value.
    fn slope_of_input(&self, x: &[f32], cell: &Cell, of_hidden: &[f32]) -> Vec<f32> {
        let (both, _) = self.score();
        let mut slopes = vec![0.0; self.n_genes];
        for gene in 0..self.n_genes {
            let at = gene * self.width;
            let (mut of_mean, mut of_skip) = (0.0, 0.0);
            for unit in (0..self.width).filter(|unit| cell.hidden[at + unit] > 0.0) {
                of_mean += of_hidden[at + unit] * self.values[VALUE][unit];
                of_skip += of_hidden[at + unit] * self.values[SKIP][unit];
            }
            slopes[gene] += of_skip + of_mean * cell.variance[gene] * both;
            for at in self.starts[gene]..self.starts[gene + 1] {
                let neighbour = self.neighbours[at] as usize;
                let from_mean = x[neighbour] - cell.mean[gene];
                slopes[neighbour] += of_mean * cell.shares[at] * (1.0 + cell.slope[gene] * from_mean);
            }
        }
        slopes
    }

    fn descend(&mut self, gradient: Values, rate: f32, momentum: f32) {
        let velocity = match self.velocity.take() {
            None => gradient,
            Some(mut velocity) => {
                for (velocity, gradient) in velocity.iter_mut().zip(&gradient) {
                    velocity.iter_mut().zip(gradient).for_each(|(v, g)| *v = *v * momentum + g);
                }
                velocity
            }
        };
        for (values, velocity) in self.values.iter_mut().zip(&velocity) {
            add(values, -rate, velocity);
        }
        self.velocity = Some(velocity);
    }
}

/// Shares of neighbours by their values and a slope; mean and variance of the values under them.
fn choose(x: &[f32], neighbours: &[u32], slope: f32, shares: &mut [f32]) -> (f32, f32) {
    let value = |neighbour: &u32| x[*neighbour as usize];
    let most = neighbours.iter().map(|j| slope * value(j)).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for (share, neighbour) in shares.iter_mut().zip(neighbours) {
        *share = (slope * value(neighbour) - most).exp();
        total += *share;
    }
    if total > 0.0 {
        shares.iter_mut().for_each(|share| *share /= total);
    }
    let mean: f32 = shares.iter().zip(neighbours).map(|(share, j)| share * value(j)).sum();
    let variance = shares.iter().zip(neighbours).map(|(share, j)| share * (value(j) - mean).powi(2)).sum();
    (mean, variance)
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

/// The sum of products, in an order that keeps the lanes of a processor busy.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_whole, b_whole) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_whole.remainder().iter().zip(b_whole.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_whole.zip(b_whole) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + rest
}

fn add(to: &mut [f32], times: f32, what: &[f32]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += times * what);
}

const LANES: usize = 16;
const QUERY: usize = 0;
const KEY: usize = 2;
const VALUE: usize = 4;
const SKIP: usize = 6;
const LAST: usize = 8;
const NAMES: [&str; 10] = [
    "layers_GNN.0.lin_query.weight",
    "layers_GNN.0.lin_query.bias",
    "layers_GNN.0.lin_key.weight",
    "layers_GNN.0.lin_key.bias",
    "layers_GNN.0.lin_value.weight",
    "layers_GNN.0.lin_value.bias",
    "layers_GNN.0.lin_skip.weight",
    "layers_GNN.0.lin_skip.bias",
    "last_layer_FC.weight",
    "last_layer_FC.bias",
];
