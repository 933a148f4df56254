//! How far what is decoded is from the cells, and the gradient of that.

use super::block::{Block, Dispersions, Pass, ROWS};
use crate::kernels::{
    likelihood::{self, Counts, Row},
    padded,
    values::{self, Link},
};

impl Block {
    /// Squared differences to values.
    pub(super) fn squared_differences(&mut self, pass: &Pass<'_>, link: Link, factor: f32) {
        let (network, width) = (pass.network, padded(pass.network.n_genes));
        for (outputs, &cell) in self.logits.chunks_exact_mut(width).zip(&self.cells) {
            if !pass.is_measured(cell) {
                outputs.fill(0.0);
                continue;
            }
            let (genes, values) = pass.values.row(cell);
            let (n_genes, scale) = (network.n_genes, pass.reconstruction_scale() * factor);
            let row = values::Row { outputs, n_genes, genes, values, link, scale };
            let sum = values::squared_differences(network.level, row, &mut self.scratch.dense);
            self.sums.reconstruction += f64::from(sum) * f64::from(factor);
        }
    }

    /// Likelihoods of counts.
    pub(super) fn likelihoods(&mut self, pass: &Pass<'_>, counts: Counts) {
        let (n, width) = (self.n(), padded(pass.network.n_genes));
        self.of_log_r.fill(0.0);
        // Cells that share their dispersions come one after the other: what is kept back of them is finished once.
        let (mut order, mut n_measured) = ([0_usize; ROWS], 0);
        for (i, &cell) in self.cells.iter().enumerate() {
            if pass.is_measured(cell) {
                order[n_measured] = i;
                n_measured += 1;
            }
        }
        if n_measured < n {
            for (i, _) in self.cells.iter().enumerate().filter(|(_, cell)| !pass.is_measured(**cell)) {
                for logits in [&mut self.logits, &mut self.dropout].into_iter().filter(|logits| !logits.is_empty()) {
                    logits[i * width..][..width].fill(0.0);
                }
            }
        }
        let order = &mut order[..n_measured];
        order.sort_unstable_by_key(|&i| (self.dispersion_row(pass, i), i));
        for (at, &i) in order.iter().enumerate() {
            self.likelihood(pass, counts, i);
            let next = order.get(at + 1).map(|&next| self.dispersion_row(pass, next));
            if next != Some(self.dispersion_row(pass, i)) {
                self.finish_likelihood(pass, i);
            }
        }
    }

    /// Which row of the log dispersions is that of a cell of the block.
    fn dispersion_row(&self, pass: &Pass<'_>, i: usize) -> usize {
        if pass.network.dispersions.len() > 1 { pass.dataset.conditions[self.cells[i]] as usize } else { 0 }
    }

    /// Adds what the likelihood keeps back of the last cells, up to `i`, which share their dispersions.
    fn finish_likelihood(&mut self, pass: &Pass<'_>, i: usize) {
        let (network, own) = (pass.network, self.dispersion_row(pass, i));
        let (dispersion, width) = (&network.dispersions[own], padded(network.n_genes));
        let trains = pass.dispersions == Dispersions::Train;
        let of_log_r = trains.then(|| &mut self.of_log_r[own * width..][..width]);
        let value =
            likelihood::finish(network.level, dispersion, -pass.reconstruction_scale(), of_log_r, &mut self.scratch);
        self.sums.reconstruction -= f64::from(value);
    }

    fn likelihood(&mut self, pass: &Pass<'_>, kind: Counts, i: usize) {
        let (network, cell) = (pass.network, self.cells[i]);
        let width = padded(network.n_genes);
        let (genes, counts) = pass.values.row(cell);
        let own = self.dispersion_row(pass, i);
        let dispersion = &network.dispersions[own];
        let trains = pass.dispersions == Dispersions::Train;
        let row = Row {
            logits: &mut self.logits[i * width..][..width],
            dropout: if network.dropout.is_some() { &mut self.dropout[i * width..][..width] } else { &mut [] },
            n_genes: network.n_genes,
            genes,
            counts,
            total: pass.totals[cell],
            dispersion,
            scale: -pass.reconstruction_scale(),
            of_log_r: trains.then(|| &mut self.of_log_r[own * width..][..width]),
        };
        let value = likelihood::row(network.level, kind, row, &mut self.scratch);
        let constant = match pass.dispersions {
            Dispersions::Rest => likelihood::constants(network.level, genes, counts, Some(dispersion)),
            Dispersions::Constant | Dispersions::Train => f64::from(pass.constants[cell]),
        };
        self.sums.reconstruction -= f64::from(value) + constant;
    }
}
