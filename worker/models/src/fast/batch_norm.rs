//! Batch norm: with running statistics a factor and a term of each unit, and over the cells of a minibatch a place where blocks wait for each
//! other, on the way forwards and on the way back.

use super::{
    block::Pass,
    part::Part,
    stack::{Activations, Rows},
};
use crate::kernels::{
    Buffer, Level,
    batch_norm::{self, Moments, Norm, Running, Sums},
    layer,
};

/// The norm of a layer.
#[derive(Debug)]
pub(super) struct BatchNorm {
    pub(super) parts: NormParts,
    pub(super) eps: f32,
    /// Share of a minibatch in the running statistics; none where they stay as they are.
    pub(super) momentum: Option<f32>,
    /// Minibatches that the running statistics have seen, and the tensor that counts them.
    pub(super) counted: (String, i64),
    /// By running statistics.
    scale: Buffer,
    shift: Buffer,
    /// Of the minibatch.
    n: f32,
    mean: Buffer,
    inverse: Buffer,
    squares: Buffer,
    /// Gradients by bias and weight.
    pub(super) by_bias: Buffer,
    pub(super) by_weight: Buffer,
    /// What conditions add, by running statistics.
    pub(super) offsets: Option<Offsets>,
}

/// What conditions add to scale and shift.
#[derive(Debug)]
pub(super) struct Offsets {
    /// Parts of what is added to the scale, and to the shift.
    pub(super) weight: usize,
    pub(super) bias: usize,
    /// Scale and shift of each condition.
    scales: Buffer,
    shifts: Buffer,
}

impl Offsets {
    pub(super) fn new(weight: usize, bias: usize, (n_rows, width): (usize, usize)) -> Self {
        let zeros = || Buffer::zeros(n_rows * width);
        Self { weight, bias, scales: zeros(), shifts: zeros() }
    }

    /// Numbers of all conditions.
    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }
}

/// Its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormParts {
    pub(super) weight: usize,
    pub(super) bias: usize,
    pub(super) mean: usize,
    pub(super) var: usize,
}

/// How batch norm is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Statistics {
    /// With running statistics, which do not move.
    Running,
    /// With those of the minibatch, which the running ones follow.
    OfMinibatch,
}

/// A block's share in what is computed over a minibatch, and what goes back.
#[derive(Debug)]
pub(super) struct Standardised {
    /// Rows without scale and shift.
    rows: Buffer,
    /// Mean and sum of squared distances, then sums of gradients by bias and by weight; apart for each condition where these add to them.
    pub(super) first: Buffer,
    pub(super) second: Buffer,
}

impl Standardised {
    pub(super) fn new(norm: &BatchNorm, n: usize, width: usize) -> Self {
        let sums = || Buffer::zeros(norm.offsets.as_ref().map_or(width, Offsets::len));
        Self { rows: Buffer::zeros(n * width), first: sums(), second: sums() }
    }
}

impl BatchNorm {
    pub(super) fn new(
        parts: NormParts,
        width: usize,
        (eps, momentum): (f64, Option<f64>),
        counted: (String, i64),
        offsets: Option<Offsets>,
    ) -> Self {
        let zeros = || Buffer::zeros(width);
        let (eps, momentum) = (eps as f32, momentum.map(|momentum| momentum as f32));
        let (scale, shift, mean, inverse, squares) = (zeros(), zeros(), zeros(), zeros(), zeros());
        let (by_bias, by_weight) = (zeros(), zeros());
        Self {
            parts,
            eps,
            momentum,
            counted,
            scale,
            shift,
            n: 0.0,
            mean,
            inverse,
            squares,
            by_bias,
            by_weight,
            offsets,
        }
    }

    /// Brings what follows from running statistics up to date.
    pub(super) fn refresh(&mut self, level: Level, parts: &[Part]) {
        let of = |part: usize| &*parts[part].values;
        let NormParts { weight, bias, mean, var } = self.parts;
        let running = Running { mean: of(mean), var: of(var), eps: self.eps };
        let Some(offsets) = &mut self.offsets else {
            return batch_norm::affine(level, of(weight), of(bias), running, &mut self.scale, &mut self.shift);
        };
        self.mean.copy_from_slice(running.mean);
        batch_norm::invert(level, running.var, 1.0, self.eps, &mut self.inverse);
        for (of_all, added, sums) in
            [(of(weight), of(offsets.weight), &mut offsets.scales), (of(bias), of(offsets.bias), &mut offsets.shifts)]
        {
            sums.copy_from_slice(added);
            sums.chunks_exact_mut(of_all.len()).for_each(|sum| layer::add(level, sum, of_all));
        }
    }

    /// Whether what conditions add moves.
    pub(super) fn offsets_move(&self, parts: &[Part]) -> bool {
        let moves = |part: usize| parts[part].moments.is_some();
        self.offsets.as_ref().is_some_and(|offsets| moves(offsets.weight) || moves(offsets.bias))
    }

    /// Takes the statistics of a minibatch from the shares of its blocks, each with its number of cells.
    pub(super) fn take_statistics<'b>(
        &mut self,
        level: Level,
        parts: &mut [Part],
        shares: impl Iterator<Item = (&'b Activations, usize)>,
    ) {
        self.n = 0.0;
        for (share, n) in shares.filter_map(|(activations, n)| Some((activations.standardised.as_ref()?, n))) {
            let more = Moments { n: n as f32, mean: &share.first, squares: &share.second };
            if self.n == 0.0 {
                self.mean.copy_from_slice(more.mean);
                self.squares.copy_from_slice(more.squares);
            } else {
                batch_norm::merge(level, self.n, &mut self.mean, &mut self.squares, more);
            }
            self.n += n as f32;
        }
        batch_norm::invert(level, &self.squares, self.n, self.eps, &mut self.inverse);
        if let Some(share) = self.momentum {
            // The running variance is unbiased.
            let factor = 1.0 / (self.n - 1.0).max(1.0);
            batch_norm::follow(level, &mut parts[self.parts.mean].values, &self.mean, 1.0, share);
            batch_norm::follow(level, &mut parts[self.parts.var].values, &self.squares, factor, share);
            self.counted.1 += 1;
        }
    }

    /// Takes the sums of gradients from the shares of blocks.
    pub(super) fn take_gradients<'b>(&mut self, level: Level, shares: impl Iterator<Item = &'b Activations>) {
        self.by_bias.fill(0.0);
        self.by_weight.fill(0.0);
        for share in shares.filter_map(|activations| activations.standardised.as_ref()) {
            layer::add(level, &mut self.by_bias, &share.first);
            layer::add(level, &mut self.by_weight, &share.second);
        }
    }

    fn norm<'p>(&'p self, parts: &'p [Part]) -> Norm<'p> {
        let (weight, bias) = (&*parts[self.parts.weight].values, &*parts[self.parts.bias].values);
        Norm { mean: &self.mean, inverse: &self.inverse, weight, bias }
    }

    /// A block's share in the statistics of what the linear map gave.
    pub(super) fn measure(&self, level: Level, n: usize, normal: &[f32], own: &mut Standardised) {
        batch_norm::moments(level, normal, self.mean.len(), n, &mut own.first, &mut own.second);
    }

    /// Normalises a row, the `i`-th of its block, of a cell with this code.
    pub(super) fn normalise(
        &self,
        pass: &Pass<'_>,
        (i, code): (usize, usize),
        row: &mut [f32],
        own: Option<&mut Standardised>,
    ) {
        let (level, width) = (pass.network.level, self.mean.len());
        let norm = match (pass.statistics, &self.offsets) {
            (Statistics::OfMinibatch, _) => self.norm(pass.parts),
            (Statistics::Running, None) => return layer::scale_shift(level, row, &self.scale, &self.shift),
            (Statistics::Running, Some(offsets)) => {
                let (weight, bias) =
                    (&offsets.scales[code * width..][..width], &offsets.shifts[code * width..][..width]);
                Norm { mean: &self.mean, inverse: &self.inverse, weight, bias }
            }
        };
        if let Some(own) = own {
            batch_norm::standardise(level, row, norm, &mut own.rows[i * width..][..width]);
        }
    }

    /// By running statistics, from the gradient of a row that came out to that of what went in, with its share in the sums of gradients.
    pub(super) fn scale_gradient(
        &self,
        level: Level,
        (i, code): (usize, usize),
        gradient: &mut [f32],
        own: Option<&mut Standardised>,
    ) {
        let (Some(offsets), Some(own)) = (&self.offsets, own) else {
            return layer::scale(level, gradient, &self.scale);
        };
        let width = self.mean.len();
        layer::add(level, &mut own.first[code * width..][..width], gradient);
        layer::add_product(level, &mut own.second[code * width..][..width], gradient, &own.rows[i * width..][..width]);
        layer::scale(level, gradient, &offsets.scales[code * width..][..width]);
        layer::scale(level, gradient, &self.inverse);
    }

    /// A block's share in the sums of gradients.
    pub(super) fn measure_gradient(&self, level: Level, n: usize, delta: &[f32], own: &mut Standardised) {
        let shape = (self.mean.len(), n);
        batch_norm::gradient_sums(level, delta, &own.rows, shape, &mut own.first, &mut own.second);
    }

    /// From the gradient of rows that came out to that of what went in.
    pub(super) fn gradient(&self, pass: &Pass<'_>, rows: Rows<'_>, delta: &mut [f32], own: &Standardised) {
        let sums = Sums { share: 1.0 / self.n, by_bias: &self.by_bias, by_weight: &self.by_weight };
        let (width, norm) = (self.mean.len(), self.norm(pass.parts));
        for (delta, standard) in delta.chunks_exact_mut(width).zip(own.rows.chunks_exact(width)).take(rows.n) {
            batch_norm::gradient(pass.network.level, delta, standard, norm, sums);
        }
    }
}
