//! Likelihoods of counts by the kernels, in the middle of a network that goes through autograd.
//!
//! For a module whose network is more than the one autoencoder that the kernels know: what is between logits and loss costs it most, and
//! is the same. The kernels give the value and its gradient at once; autograd is told of a sum whose gradient is that one.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::block::ROWS;
use crate::kernels::{
    Buffer, Level,
    likelihood::{self, Counts, Dispersion, Row, Scratch, set_dispersion},
    memory::{numbers, numbers_mut},
    padded,
};

/// Cells of a minibatch, and what a decoder says of their counts.
#[derive(Clone, Copy)]
pub(crate) struct CountsWithin<'a> {
    /// Logits of the genes' shares, `[n, n_genes]`.
    pub(crate) logits: &'a Tensor,
    /// Logits of further zeros, `[n, n_genes]`, where the likelihood has them.
    pub(crate) dropout: Option<&'a Tensor>,
    /// Logarithms of the inverse dispersion, `[n_groups, n_genes]`.
    pub(crate) log_r: &'a Tensor,
    /// The group of each cell, `[n]`.
    pub(crate) groups: &'a Tensor,
    /// Counts, `[n, n_genes]`.
    pub(crate) x: &'a Tensor,
    /// What the rates of each cell add up to, `[n, 1]`.
    pub(crate) totals: &'a Tensor,
    /// What each cell's loss is multiplied by, `[n]`; nothing is computed of a cell that counts 0.
    pub(crate) weights: &'a Tensor,
}

/// The same as memory.
struct Given<'a> {
    level: Level,
    n_genes: usize,
    logits: &'a [f32],
    dropout: Option<&'a [f32]>,
    dispersions: Vec<Dispersion>,
    /// Whether the dispersions have a gradient.
    trains: bool,
    groups: Vec<i64>,
    x: &'a [f32],
    totals: &'a [f32],
    weights: &'a [f32],
}

/// Values, `[n]`, and gradients by the logits, those of further zeros and the dispersions.
struct Computed {
    values: Vec<f32>,
    by_logits: Tensor,
    by_dropout: Option<Tensor>,
    by_log_r: Option<Tensor>,
}

impl CountsWithin<'_> {
    /// Negative log-likelihood of each cell, weighted, `[n]`. What follows has to treat all cells alike, for the gradient of dispersions is
    /// that of all of them together.
    ///
    /// Nothing where the tensors' memory is not what kernels take: in double precision, or on a device.
    pub(crate) fn loss(self) -> Option<Tensor> {
        let computed = tch::no_grad(|| self.computed())?;
        let value = Tensor::from_slice(&computed.values);
        if !(self.logits.requires_grad() || self.log_r.requires_grad()) {
            return Some(value);
        }
        let by_cell = |tensor: &Tensor, gradient: &Tensor| {
            (tensor * gradient).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)
        };
        let mut sum = by_cell(self.logits, &computed.by_logits);
        if let Some((dropout, gradient)) = self.dropout.zip(computed.by_dropout.as_ref()) {
            sum += by_cell(dropout, gradient);
        }
        if let Some(gradient) = computed.by_log_r {
            sum += (self.log_r * gradient).sum(Kind::Float) / computed.values.len() as f64;
        }
        // Of the sum nothing but its gradient is left.
        Some(&sum - sum.detach() + value)
    }

    fn computed(&self) -> Option<Computed> {
        let [logits, log_r, x] = [self.logits, self.log_r, self.x].map(Tensor::contiguous);
        let [totals, weights] = [self.totals, self.weights].map(Tensor::contiguous);
        let dropout = self.dropout.map(Tensor::contiguous);
        let n_genes = x.size()[1] as usize;
        let level = Level::best();
        let given = Given {
            level,
            n_genes,
            logits: numbers(&logits)?,
            dropout: dropout.as_ref().map_or(Some(None), |dropout| numbers(dropout).map(Some))?,
            dispersions: numbers(&log_r)?.chunks_exact(n_genes).map(|row| dispersion(level, row)).collect(),
            trains: self.log_r.requires_grad(),
            groups: Vec::try_from(self.groups).ok()?,
            x: numbers(&x)?,
            totals: numbers(&totals)?,
            weights: numbers(&weights)?,
        };
        let (mut values, mut by_logits) = (vec![0.0_f32; given.weights.len()], logits.zeros_like());
        let mut by_dropout = dropout.as_ref().map(Tensor::zeros_like);
        let rows = ROWS * n_genes;
        let mut of_dropout: Vec<&mut [f32]> = match &mut by_dropout {
            Some(tensor) => numbers_mut(tensor)?.chunks_mut(rows).collect(),
            None => (0..values.len().div_ceil(ROWS)).map(|_| Default::default()).collect(),
        };
        let blocks = values.par_chunks_mut(ROWS).zip(numbers_mut(&mut by_logits)?.par_chunks_mut(rows));
        let by_log_r: Vec<Buffer> = (blocks.zip(of_dropout.par_iter_mut()).enumerate())
            .map(|(block, ((values, by_logits), by_dropout))| given.block(block * ROWS, values, by_logits, by_dropout))
            .collect();
        let by_log_r = given.trains.then(|| {
            let mut sum = vec![0.0_f32; log_r.numel()];
            for of_block in &by_log_r {
                for (sum, row) in sum.chunks_exact_mut(n_genes).zip(of_block.chunks_exact(padded(n_genes))) {
                    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            }
            Tensor::from_slice(&sum).view_as(&log_r)
        });
        Some(Computed { values, by_logits, by_dropout, by_log_r })
    }
}

impl Given<'_> {
    /// Values and gradients of some cells from `first` on; gives the gradient of the dispersions.
    fn block(&self, first: usize, values: &mut [f32], by_logits: &mut [f32], by_dropout: &mut [f32]) -> Buffer {
        let (n_genes, width) = (self.n_genes, padded(self.n_genes));
        let mut scratch = Scratch::new(n_genes);
        let (mut logits, mut dropout) = (Buffer::zeros(width), Buffer::zeros(width));
        let mut by_log_r = Buffer::zeros(if self.trains { self.dispersions.len() * width } else { 0 });
        let (mut genes, mut counts) = (Vec::with_capacity(n_genes), Vec::with_capacity(n_genes));
        for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| self.weights[first + i] != 0.0) {
            let (cell, group) = (first + i, self.groups[first + i] as usize);
            let (row, own) = (cell * n_genes..(cell + 1) * n_genes, i * n_genes..(i + 1) * n_genes);
            logits[..n_genes].copy_from_slice(&self.logits[row.clone()]);
            if let Some(all) = self.dropout {
                dropout[..n_genes].copy_from_slice(&all[row.clone()]);
            }
            genes.clear();
            counts.clear();
            for (gene, &count) in (0..).zip(&self.x[row]).filter(|(_, count)| **count > 0.0) {
                genes.push(gene);
                counts.push(count);
            }
            let (dispersion, scale) = (&self.dispersions[group], -self.weights[cell]);
            let mut by_group = self.trains.then(|| &mut by_log_r[group * width..][..width]);
            let given = Row {
                logits: &mut logits,
                dropout: if self.dropout.is_some() { &mut dropout } else { &mut [] },
                n_genes,
                genes: &genes,
                counts: &counts,
                total: self.totals[cell],
                dispersion,
                scale,
                of_log_r: by_group.as_deref_mut(),
            };
            let kind = if self.dropout.is_some() { Counts::ZeroInflated } else { Counts::NegativeBinomial };
            let of_row = likelihood::row(self.level, kind, given, &mut scratch);
            let rest = likelihood::finish(self.level, dispersion, scale, by_group, &mut scratch);
            // With a gradient of the dispersions, what is theirs alone is in the value already.
            let constants = likelihood::constants(self.level, &genes, &counts, (!self.trains).then_some(dispersion));
            *value = scale * (f64::from(of_row + rest) + constants) as f32;
            by_logits[own.clone()].copy_from_slice(&logits[..n_genes]);
            if self.dropout.is_some() {
                by_dropout[own].copy_from_slice(&dropout[..n_genes]);
            }
        }
        by_log_r
    }
}

/// What follows from a row of logarithms.
fn dispersion(level: Level, log_r: &[f32]) -> Dispersion {
    let mut row = Buffer::zeros(padded(log_r.len()));
    row[..log_r.len()].copy_from_slice(log_r);
    let mut dispersion = Dispersion::new(log_r.len());
    set_dispersion(level, &row, &mut dispersion);
    dispersion
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::{
        distributions::negative_binomial,
        nn::{Noise, SeededNoise},
    };

    const N: i64 = 70;
    const N_GENES: i64 = 45;

    /// Logits, logits of further zeros, what counts are made of, and log dispersions.
    fn drawn() -> [Tensor; 4] {
        let mut noise = SeededNoise::new([1; 32]);
        [N, N, N, 3].map(|n_rows| noise.normal("values", &[n_rows, N_GENES], Device::Cpu))
    }

    /// Loss and gradients of logits, logits of further zeros and log dispersions, by the kernels or in double precision by autograd.
    fn losses([logits, dropout, x, log_r]: &[Tensor; 4], is_inflated: bool, by_kernels: bool) -> Vec<Tensor> {
        let cpu = (Kind::Float, Device::Cpu);
        let (x, log_r) = ((x * 2.0).relu().floor(), log_r - 0.5);
        let groups = Tensor::arange(N, (Kind::Int64, Device::Cpu)).remainder(3);
        let totals = x.sum_dim_intlist([1_i64].as_slice(), true, Kind::Float) * 1.5 + 1.0;
        let weights = Tensor::arange(N, cpu).remainder(4) * 0.5;
        let kind = if by_kernels { Kind::Float } else { Kind::Double };
        let of = |tensor: &Tensor| tensor.to_kind(kind).detach().set_requires_grad(true);
        let leaves = [of(logits), of(dropout), of(&log_r)];
        let [logits, dropout, log_r] = &leaves;
        let [x, totals, weights] = [x, totals, weights].map(|tensor| tensor.to_kind(kind));
        let loss = if by_kernels {
            let dropout = is_inflated.then_some(dropout);
            let within =
                CountsWithin { logits, dropout, log_r, groups: &groups, x: &x, totals: &totals, weights: &weights };
            within.loss().unwrap()
        } else {
            let (rate, theta) = (logits.softmax(1, kind) * totals, log_r.index_select(0, &groups).exp());
            let log_prob = match is_inflated {
                true => negative_binomial::zero_inflated_log_prob(&x, &rate, &theta, dropout),
                false => negative_binomial::log_prob(&x, &rate, &theta),
            };
            -log_prob.sum_dim_intlist([1_i64].as_slice(), false, kind) * weights
        };
        (loss.mean(kind) * 3.0).backward();
        let used = leaves.iter().map(Tensor::grad).filter(Tensor::defined);
        [loss.detach()].into_iter().chain(used).collect()
    }

    #[test]
    fn value_and_gradients_are_those_of_autograd() {
        for is_inflated in [false, true] {
            let drawn = drawn();
            let (ours, theirs) = (losses(&drawn, is_inflated, true), losses(&drawn, is_inflated, false));
            assert_eq!((ours.len(), theirs.len()), (if is_inflated { 4 } else { 3 }, ours.len()));
            for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                let off =
                    ((ours - theirs).abs() / (theirs.abs() + theirs.abs().mean(Kind::Double))).max().double_value(&[]);
                assert!(off < 2e-5, "{is_inflated} {at}: off by {off}");
            }
        }
    }

    #[test]
    fn what_is_not_in_single_precision_is_left_to_autograd() {
        let cells = Tensor::ones([2, 3], (Kind::Double, Device::Cpu));
        let (groups, one) =
            (Tensor::zeros([2], (Kind::Int64, Device::Cpu)), Tensor::ones([2, 1], (Kind::Double, Device::Cpu)));
        let log_r = Tensor::zeros([1, 3], (Kind::Double, Device::Cpu));
        let weights = one.squeeze_dim(1);
        let within = CountsWithin {
            logits: &cells,
            dropout: None,
            log_r: &log_r,
            groups: &groups,
            x: &cells,
            totals: &one,
            weights: &weights,
        };
        assert!(within.loss().is_none());
    }
}
