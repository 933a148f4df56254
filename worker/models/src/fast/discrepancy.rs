//! The discrepancy between the conditions of a minibatch's latent states, and its gradient. Every cell meets every other one: its
//! latent state has to be drawn before.

use super::{
    block::{Block, Pass},
    network::Network,
    spec::DiscrepancySpec,
    terms::Terms,
};
use crate::{
    data::Dataset,
    kernels::{Buffer, gaussian, padded},
    losses::mmd::{Coefficients, WIDTHS},
};

/// Latent states of the cells of a step, and what each pair of them counts.
#[derive(Debug)]
pub(super) struct Discrepancy {
    spec: DiscrepancySpec,
    coefficients: Coefficients,
    /// Whether a pair of conditions is there.
    has_pairs: bool,
    /// A row per dimension and a column per cell.
    z: Buffer,
    /// A row per condition and a column per cell.
    rows: Buffer,
    /// Cells, with padding.
    width: usize,
    exponents: [f32; WIDTHS.len()],
}

impl Discrepancy {
    pub(super) fn new(spec: DiscrepancySpec) -> Self {
        Self {
            spec,
            coefficients: Coefficients::default(),
            has_pairs: false,
            z: Buffer::default(),
            rows: Buffer::default(),
            width: 0,
            exponents: WIDTHS.map(|width| (-0.5 / width) as f32),
        }
    }

    /// Takes the latent states of the blocks' cells.
    pub(super) fn gather(&mut self, network: &Network, dataset: &Dataset<'_>, blocks: &mut [Block]) {
        let cells = blocks.iter().flat_map(|block| &block.cells);
        self.has_pairs = self.coefficients.set(cells.map(|&cell| dataset.conditions[cell]), self.spec.boundary);
        self.width = padded(self.coefficients.codes().len());
        make_room(&mut self.z, network.n_latent * self.width);
        let mut first = 0;
        for block in blocks {
            block.first = first;
            make_room(&mut block.slopes, self.width);
            for (i, z) in block.z.chunks_exact(padded(network.n_latent)).take(block.n()).enumerate() {
                let of_cell = z[..network.n_latent].iter().enumerate();
                of_cell.for_each(|(dim, &z)| self.z[dim * self.width + first + i] = z);
            }
            first += block.n();
        }
        let n_codes = self.coefficients.n_codes();
        make_room(&mut self.rows, n_codes * self.width);
        for p in 0..n_codes {
            let row = &mut self.rows[p * self.width..][..self.width];
            let of_cells = self.coefficients.codes().iter().map(|&q| self.coefficients.of_codes(p, q));
            // Nothing counts beyond the last cell.
            row.iter_mut().zip(of_cells.chain(std::iter::repeat(0.0))).for_each(|(to, from)| *to = from);
        }
    }

    /// A block's share in the discrepancy, and its gradient by the block's latent states.
    pub(super) fn of_block(&self, pass: &Pass<'_>, block: &mut Block) {
        let (network, n) = (pass.network, block.n());
        block.sums.discrepancy = 0.0;
        block.further.by_z.fill(0.0);
        if !self.has_pairs {
            return;
        }
        let width = padded(network.n_latent);
        let rows = block.z.chunks_exact(width).zip(block.further.by_z.chunks_exact_mut(width));
        for (i, (own, gradient)) in rows.take(n).enumerate() {
            let code = self.coefficients.codes()[block.first + i];
            let pairs = gaussian::Pairs {
                all: &self.z[..network.n_latent * self.width],
                width: self.width,
                own: &own[..network.n_latent],
                coefficients: &self.rows[code * self.width..][..self.width],
                exponents: &self.exponents,
                scale: self.spec.weight as f32,
                gradient,
                slopes: &mut block.slopes,
            };
            block.sums.discrepancy += f64::from(gaussian::pairs(network.level, pairs));
        }
    }

    /// Adds the discrepancy of all blocks times its weight, once for each of so many cells.
    pub(super) fn add_to(&self, terms: &mut Terms, blocks: &[Block], n_cells: f64) {
        let sum = blocks.iter().map(|block| block.sums.discrepancy).sum::<f64>();
        let value = self.spec.weight * sum * n_cells;
        terms.loss += value;
        terms.further.add(self.spec.figure, value);
    }
}

fn make_room(buffer: &mut Buffer, n: usize) {
    if buffer.len() < n {
        *buffer = Buffer::zeros(n);
    }
}
