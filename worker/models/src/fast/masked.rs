//! A decoder of one linear map whose elements are held to sets, and what shrinks them after a step.

use std::ops::Range;

use super::{
    block::{Block, Pass},
    part::Part,
    spec::Shrinks,
    stack::Rows,
};
use crate::kernels::{
    Level,
    buffer::PANEL,
    masked::{self, Listed, Share},
    matrix::{self, AT_ONCE, transpose},
    padded,
};

/// The map from latent numbers to genes.
#[derive(Debug)]
pub(super) struct Masked {
    /// Its tensor.
    pub(super) name: String,
    pub(super) n_in: usize,
    pub(super) n_out: usize,
    /// Some genes each: one thread trains a piece.
    pub(super) pieces: Vec<Piece>,
    /// Part of the columns of conditions.
    pub(super) columns: Option<usize>,
}

/// The elements of some genes.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) part: usize,
    pub(super) genes: Range<usize>,
    pub(super) listed: Listed,
    /// Whether each element is in a set.
    pub(super) is_member: Vec<bool>,
}

impl Masked {
    /// What the rows of `z` say of the genes; `turned` is left with their transpose, for [`Self::collect`].
    pub(super) fn forward(
        &self,
        pass: &Pass<'_>,
        (z, rows): (&[f32], Rows<'_>),
        turned: &mut [f32],
        outputs: &mut [f32],
    ) {
        let (level, width) = (pass.network.level, padded(self.n_out));
        for (q, turned) in turned.chunks_exact_mut(PANEL * PANEL).enumerate() {
            transpose(level, &z[q * PANEL..], padded(self.n_in), rows.n, turned);
        }
        for (i, row) in outputs.chunks_exact_mut(width).take(rows.n).enumerate() {
            match self.columns {
                Some(part) => row.copy_from_slice(&pass.parts[part].values[rows.codes.of(i) * width..][..width]),
                None => row.fill(0.0),
            }
        }
        for piece in &self.pieces {
            let (values, first) = (&pass.parts[piece.part].values, piece.genes.start);
            masked::add_product(level, &piece.listed, values, turned, (outputs, width, first), rows.n);
        }
    }

    /// From the gradient by the outputs to that by `n` rows of `z`; `columns` is room for its transpose.
    pub(super) fn back(&self, pass: &Pass<'_>, of: &[f32], n: usize, columns: &mut [f32], of_z: &mut [f32]) {
        let (level, width) = (pass.network.level, padded(self.n_out));
        let sum = &mut columns[..padded(self.n_in) * PANEL];
        sum.fill(0.0);
        for piece in &self.pieces {
            let (values, first) = (&pass.parts[piece.part].values, piece.genes.start);
            masked::add_back(level, &piece.listed, values, (of, width, first), n, sum);
        }
        matrix::turn(level, sum, n, of_z, padded(self.n_in));
    }

    /// Computes the gradient of a piece.
    pub(super) fn collect(&self, level: Level, piece: usize, blocks: &[Block], gradient: &mut [f32]) {
        let (piece, width) = (&self.pieces[piece], padded(self.n_out));
        gradient.fill(0.0);
        for blocks in blocks.chunks(AT_ONCE) {
            let share = |at: usize| {
                let block = &blocks[at.min(blocks.len() - 1)];
                Share { turned: &block.turned, rows: &block.logits, n_rows: block.n() }
            };
            let shares: [Share<'_>; AT_ONCE] = std::array::from_fn(share);
            masked::add_gradient(level, &piece.listed, &shares[..blocks.len()], (width, piece.genes.start), gradient);
        }
    }

    /// Shrinks the elements: whole columns of a latent number, or elements outside the sets.
    pub(super) fn shrink(&self, parts: &mut [Part], threshold: f64, what: Shrinks<'_>) {
        if threshold <= 0.0 {
            return;
        }
        match what {
            Shrinks::Columns(factors) => {
                let kept = self.kept_shares(parts, threshold, factors);
                for piece in &self.pieces {
                    let values = parts[piece.part].values.iter_mut().zip(&piece.listed.inputs);
                    values.for_each(|(value, &input)| *value *= kept[input as usize]);
                }
            }
            Shrinks::Outside => {
                for piece in &self.pieces {
                    let values = parts[piece.part].values.iter_mut().zip(&piece.is_member);
                    let outside = values.filter(|(_, is_member)| !**is_member);
                    outside.for_each(|(value, _)| *value = soft(*value, threshold as f32));
                }
            }
        }
    }

    /// What is kept of each column that is shortened by the threshold, times its factor where there are factors.
    fn kept_shares(&self, parts: &[Part], threshold: f64, factors: Option<&[f32]>) -> Vec<f32> {
        let mut squares = vec![0.0_f64; self.n_in];
        for piece in &self.pieces {
            for (&value, &input) in parts[piece.part].values.iter().zip(&piece.listed.inputs) {
                squares[input as usize] += f64::from(value) * f64::from(value);
            }
        }
        let share = |(input, square): (usize, f64)| {
            let threshold = threshold * factors.map_or(1.0, |factors| f64::from(factors[input]));
            let length = square.sqrt();
            match (threshold > 0.0, length > threshold) {
                (false, _) => 1.0,
                (true, true) => (1.0 - threshold / length) as f32,
                (true, false) => 0.0,
            }
        };
        squares.into_iter().enumerate().map(share).collect()
    }
}

/// A number moved to 0 by a threshold.
fn soft(value: f32, threshold: f32) -> f32 {
    if value >= threshold {
        value - threshold
    } else if value <= -threshold {
        value + threshold
    } else {
        0.0
    }
}

/// Genes of a piece: whole panels, and enough of them that a thread is worth its while.
pub(super) const GENES_OF_PIECE: usize = 8 * PANEL;
