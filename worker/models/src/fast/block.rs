//! A few cells on their way through the network and back. One thread works on a block; nothing in it depends on other blocks.

use super::{
    batch_norm::Statistics,
    discrepancy::Discrepancy,
    first_layer::Inputs,
    labels::Labels,
    network::{Head, Network},
    part::Part,
    spec::Reconstruction,
    stack::{self, Activations, Codes, Rows},
};
use crate::{
    data::Dataset,
    kernels::{
        Buffer,
        buffer::PANEL,
        layer,
        likelihood::{self, Counts, Row, Scratch},
        padded,
        values::{self, Link},
    },
};

/// Memory for up to [`ROWS`] cells.
#[derive(Debug)]
pub(super) struct Block {
    /// Positions of the cells in the data set.
    pub(super) cells: Vec<usize>,
    /// What the encoder sees of their counts.
    pub(super) inputs: Inputs,
    pub(super) encoder: Vec<Activations>,
    pub(super) decoder: Vec<Activations>,
    pub(super) mean: Buffer,
    /// Logarithm of the variance above its floor, then the variance.
    pub(super) var: Buffer,
    pub(super) noise: Buffer,
    pub(super) z: Buffer,
    /// Gradient by `z`, then by the mean.
    pub(super) of_mean: Buffer,
    pub(super) of_var: Buffer,
    /// Where it waits.
    pub(super) reached: Point,
    /// Whether its cells are here for the sake of their labels, and not decoded.
    pub(super) is_labelled: bool,
    /// What labels add, where the network has them.
    pub(super) labels: Option<Labels>,
    /// Gradients of what they, or a discrepancy, add.
    pub(super) further: Further,
    /// Place of the first cell among the step's.
    pub(super) first: usize,
    /// Room for a number per cell of a step, where cells meet.
    pub(super) slopes: Buffer,
    /// The latent states, a row per dimension and a column per cell, for a head that is held to sets.
    pub(super) turned: Buffer,
    /// Logits of the shares, or other outputs, then their gradient; empty where nothing is decoded.
    pub(super) logits: Buffer,
    /// The same for extra zeros.
    pub(super) dropout: Buffer,
    /// Gradient by the log dispersions, a row each.
    pub(super) of_log_r: Buffer,
    scratch: Scratch,
    /// What goes into a linear map, or the gradient by it: a row per unit and a column per cell.
    pub(super) columns: Buffer,
    /// Sums over the block's cells, in nats.
    pub(super) sums: BlockSums,
}

/// Gradients of what labels, or a discrepancy between conditions, add to the loss by the posterior and the draw; rows like the block's.
#[derive(Debug)]
pub(super) struct Further {
    pub(super) by_mean: Buffer,
    pub(super) by_var: Buffer,
    pub(super) by_z: Buffer,
}

/// Sums over cells, in nats.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct BlockSums {
    pub(super) reconstruction: f64,
    pub(super) kl: f64,
    /// Cross entropy of labelled cells.
    pub(super) cross_entropy: f64,
    /// Share in the discrepancy between conditions, without its weight.
    pub(super) discrepancy: f64,
}

/// Where blocks wait for each other, in the order in which they come there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Point {
    Begin,
    /// At the norm of a layer of the encoder.
    Encoder(usize),
    /// The same in the decoder.
    Decoder(usize),
    /// On the way back.
    DecoderGradient(usize),
    /// Latent states of all cells are there, and the encoder's gradient is not.
    Meeting,
    EncoderGradient(usize),
    End,
}

/// How far a block goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// To the posterior.
    Posterior,
    /// To the log-likelihood.
    Likelihood,
}

/// What all blocks of a pass share.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) network: &'a Network,
    pub(super) parts: &'a [Part],
    pub(super) dataset: &'a Dataset<'a>,
    /// What the first layer makes of each cell without its column, where that is constant.
    pub(super) first_layer: Option<&'a [f32]>,
    /// Total count of each cell.
    pub(super) totals: &'a [f32],
    /// Terms of each cell's log-likelihood that do not change.
    pub(super) constants: &'a [f32],
    /// Whether dropout drops.
    pub(super) drops: bool,
    /// What the dispersions do, see [`Dispersions`].
    pub(super) dispersions: Dispersions,
    /// The loss is a sum over cells times this.
    pub(super) scale: f32,
    /// Weight of the divergences.
    pub(super) kl_weight: f32,
    /// The loss of labelled cells is their summed cross entropy times this.
    pub(super) label_scale: f32,
    /// Whether gradients are wanted.
    pub(super) differentiates: bool,
    /// How batch norm is computed.
    pub(super) statistics: Statistics,
    /// The lowest layer of the encoder that trains.
    pub(super) lowest: Option<usize>,
    /// Whether something depends on the latent states of several cells together.
    pub(super) meets: bool,
    /// What pulls the latent states of conditions together.
    pub(super) discrepancy: Option<&'a Discrepancy>,
}

/// What the dispersions do in a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dispersions {
    /// They never move: the constants hold all that depends on them and the counts alone.
    Constant,
    /// They train: their gradient is wanted.
    Train,
    /// They train, but not in this pass.
    Rest,
}

impl Block {
    pub(super) fn new(network: &Network, parts: &[Part], reach: Reach) -> Self {
        let rows = |n: usize| Buffer::zeros(ROWS * padded(n));
        let n_latent = network.n_latent;
        let decodes = reach == Reach::Likelihood;
        let genes = |wanted: bool| rows(if wanted { network.n_genes } else { 0 });
        Self {
            cells: Vec::with_capacity(ROWS),
            inputs: Inputs::default(),
            encoder: Activations::of(&network.encoder),
            decoder: if decodes { Activations::of(&network.decoder) } else { Vec::new() },
            mean: rows(n_latent),
            var: rows(n_latent),
            noise: rows(n_latent),
            z: rows(n_latent),
            of_mean: rows(n_latent),
            of_var: rows(n_latent),
            reached: Point::Begin,
            is_labelled: false,
            labels: network.labels.as_ref().map(|labels| Labels::new(network, labels, parts)),
            first: 0,
            slopes: Buffer::default(),
            further: Further { by_mean: rows(n_latent), by_var: rows(n_latent), by_z: rows(n_latent) },
            turned: Buffer::zeros(match &network.head {
                Head::Masked(masked) if decodes => ROWS * padded(masked.n_in),
                Head::Full(_) | Head::Masked(_) => 0,
            }),
            logits: genes(decodes),
            dropout: genes(decodes && network.dropout.is_some()),
            of_log_r: Buffer::zeros(if decodes { network.dispersions.len() * padded(network.n_genes) } else { 0 }),
            scratch: Scratch::new(if decodes { network.n_genes } else { 0 }),
            columns: Buffer::zeros(ROWS * network.widest_below()),
            sums: BlockSums::default(),
        }
    }

    /// Number of cells.
    pub(super) fn n(&self) -> usize {
        self.cells.len()
    }

    /// Goes on from where all blocks have waited to where they wait next.
    pub(super) fn advance(&mut self, pass: &Pass<'_>, from: Point) {
        if from == Point::Begin || self.reached != Point::End {
            self.reached = self.next(pass, from);
        }
    }

    fn next(&mut self, pass: &Pass<'_>, from: Point) -> Point {
        if from <= Point::Encoder(usize::MAX) {
            if let Some(l) = self.encode(pass, from) {
                return Point::Encoder(l);
            }
            if self.is_labelled {
                self.label_loss(pass);
                self.posterior_gradient(pass);
                return Point::End;
            }
        }
        if from <= Point::Decoder(usize::MAX) {
            if let Some(l) = self.decode(pass, from) {
                return Point::Decoder(l);
            }
            self.label_terms(pass);
        }
        if pass.differentiates
            && from <= Point::DecoderGradient(usize::MAX)
            && let Some(l) = self.decoder_gradient(pass, from)
        {
            return Point::DecoderGradient(l);
        }
        if pass.meets && from < Point::Meeting {
            return Point::Meeting;
        }
        if let (Some(discrepancy), Point::Meeting) = (pass.discrepancy, from) {
            discrepancy.of_block(pass, self);
        }
        let lowest = pass.lowest.filter(|_| pass.differentiates);
        lowest.and_then(|lowest| self.encoder_gradient(pass, lowest, from)).map_or(Point::End, Point::EncoderGradient)
    }

    /// Encodes the cells and draws their latent states; gives the layer, if there is one, whose norm waits for other blocks.
    pub(super) fn encode(&mut self, pass: &Pass<'_>, from: Point) -> Option<usize> {
        let (network, parts, n) = (pass.network, pass.parts, self.n());
        let level = network.level;
        let waited = match from {
            Point::Encoder(l) => Some(l),
            _ => {
                self.first_layer(pass);
                None
            }
        };
        let rows = rows_of(&self.cells, pass);
        let waits = stack::forward(pass, &network.encoder, &mut self.encoder, None, rows, &mut self.columns, waited);
        if waits.is_some() {
            return waits;
        }
        let hidden = &self.encoder[network.encoder.len() - 1].out;
        network.mean.forward(level, parts, (hidden, n), &mut self.mean, &mut self.columns);
        network.var.forward(level, parts, (hidden, n), &mut self.var, &mut self.columns);
        let width = padded(network.n_latent);
        let rows = self.z.chunks_exact_mut(width).zip(self.var.chunks_exact_mut(width));
        let given = self.mean.chunks_exact(width).zip(self.noise.chunks_exact(width));
        self.sums.kl = 0.0;
        for ((z, var), (mean, noise)) in rows.zip(given).take(n) {
            let (mask, floor) = (&*network.latent_mask, network.variance_floor);
            let kl = layer::draw(level, layer::Draw { mean, var, noise, z, mask, floor });
            self.sums.kl += f64::from(kl);
        }
        None
    }

    fn first_layer(&mut self, pass: &Pass<'_>) {
        let rows = &mut self.encoder[0].normal;
        let Some(cache) = pass.first_layer else {
            return self.inputs.multiply(pass, self.cells.iter().copied(), rows);
        };
        let width = pass.network.encoder[0].matrix.width();
        let rows = rows.chunks_exact_mut(width).zip(&self.cells);
        rows.for_each(|(row, &cell)| row.copy_from_slice(&cache[cell * width..][..width]));
    }

    /// Decodes the latent states to the gradient of the logits; waits like [`Self::encode`].
    fn decode(&mut self, pass: &Pass<'_>, from: Point) -> Option<usize> {
        let (network, parts, n) = (pass.network, pass.parts, self.n());
        let level = network.level;
        let rows = rows_of(&self.cells, pass);
        let waited = if let Point::Decoder(l) = from { Some(l) } else { None };
        let input = Some(&*self.z);
        let waits = stack::forward(pass, &network.decoder, &mut self.decoder, input, rows, &mut self.columns, waited);
        if waits.is_some() {
            return waits;
        }
        let hidden = self.decoder.last().map_or(&self.z, |last| &last.out);
        match &network.head {
            Head::Full(head) => head.forward(level, parts, (hidden, n), &mut self.logits, &mut self.columns),
            Head::Masked(head) => head.forward(pass, (hidden, rows), &mut self.turned, &mut self.logits),
        }
        if let Some(dropout) = &network.dropout {
            dropout.forward(level, parts, (hidden, n), &mut self.dropout, &mut self.columns);
        }
        self.sums.reconstruction = 0.0;
        match network.reconstruction {
            Reconstruction::Counts(counts) => self.likelihoods(pass, counts),
            Reconstruction::Squared(link, factor) => self.squared_differences(pass, link, factor),
        }
        None
    }

    /// What goes into the head.
    pub(super) fn below_head(&self) -> &[f32] {
        self.decoder.last().map_or(&self.z, |last| &last.out)
    }

    fn squared_differences(&mut self, pass: &Pass<'_>, link: Link, factor: f32) {
        let (network, width) = (pass.network, padded(pass.network.n_genes));
        for (outputs, &cell) in self.logits.chunks_exact_mut(width).zip(&self.cells) {
            let (genes, values) = pass.dataset.counts.row(cell);
            let (n_genes, scale) = (network.n_genes, pass.scale * factor);
            let row = values::Row { outputs, n_genes, genes, values, link, scale };
            let sum = values::squared_differences(network.level, row, &mut self.scratch.dense);
            self.sums.reconstruction += f64::from(sum) * f64::from(factor);
        }
    }

    fn likelihoods(&mut self, pass: &Pass<'_>, counts: Counts) {
        let n = self.n();
        self.of_log_r.fill(0.0);
        // Cells that share their dispersions come one after the other: what is kept back of them is finished once.
        let mut order: [usize; ROWS] = std::array::from_fn(|i| i);
        let order = &mut order[..n];
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
        let value = likelihood::finish(network.level, dispersion, -pass.scale, of_log_r, &mut self.scratch);
        self.sums.reconstruction -= f64::from(value);
    }

    fn likelihood(&mut self, pass: &Pass<'_>, kind: Counts, i: usize) {
        let (network, cell) = (pass.network, self.cells[i]);
        let width = padded(network.n_genes);
        let (genes, counts) = pass.dataset.counts.row(cell);
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
            scale: -pass.scale,
            of_log_r: trains.then(|| &mut self.of_log_r[own * width..][..width]),
        };
        let value = likelihood::row(network.level, kind, row, &mut self.scratch);
        let constant = match pass.dispersions {
            Dispersions::Rest => likelihood::constants(network.level, genes, counts, Some(dispersion)),
            Dispersions::Constant | Dispersions::Train => f64::from(pass.constants[cell]),
        };
        self.sums.reconstruction -= f64::from(value) + constant;
    }

    /// From the gradient of the logits to that of the decoder's first linear map, and of the latent state; waits like [`Self::encode`].
    fn decoder_gradient(&mut self, pass: &Pass<'_>, from: Point) -> Option<usize> {
        let waited = if let Point::DecoderGradient(l) = from { Some(l) } else { None };
        if waited.is_none() {
            self.head_gradient(pass);
        }
        let (rows, below) = (rows_of(&self.cells, pass), Some(&mut *self.of_mean));
        let layers = &pass.network.decoder;
        stack::backward(pass, layers, &mut self.decoder, rows, 0, below, &mut self.columns, waited)
    }

    fn head_gradient(&mut self, pass: &Pass<'_>) {
        let (network, n) = (pass.network, self.n());
        let last = self.decoder.last_mut().map_or(&mut *self.of_mean, |last| &mut last.delta);
        match (&network.head, &network.dropout) {
            (Head::Masked(head), _) => head.back(pass, &self.logits, n, &mut self.columns, last),
            (Head::Full(head), None) => stack::back(pass, [(head, &*self.logits)], n, &mut self.columns, last),
            (Head::Full(head), Some(dropout)) => {
                let maps = [(head, &*self.logits), (dropout, &*self.dropout)];
                stack::back(pass, maps, n, &mut self.columns, last);
            }
        }
    }

    /// From the posterior of labelled cells, which were not decoded, down to the lowest layer of the encoder that trains.
    fn posterior_gradient(&mut self, pass: &Pass<'_>) {
        self.of_mean.fill(0.0);
        if let Some(lowest) = pass.lowest {
            self.encoder_gradient(pass, lowest, Point::Begin);
        }
    }

    /// From the gradient of the latent state down to layer `lowest` of the encoder; waits like [`Self::encode`].
    fn encoder_gradient(&mut self, pass: &Pass<'_>, lowest: usize, from: Point) -> Option<usize> {
        let network = pass.network;
        let waited = if let Point::EncoderGradient(l) = from { Some(l) } else { None };
        if waited.is_none() {
            self.latent_gradient(pass, lowest);
        }
        if lowest == network.encoder.len() {
            return None;
        }
        let rows = rows_of(&self.cells, pass);
        stack::backward(pass, &network.encoder, &mut self.encoder, rows, lowest, None, &mut self.columns, waited)
    }

    /// From the gradient of the latent state to that of what goes into the encoder's heads, if something below them trains.
    fn latent_gradient(&mut self, pass: &Pass<'_>, lowest: usize) {
        let (network, n) = (pass.network, self.n());
        let pulls = network.labels.is_some() || pass.meets;
        let (level, width) = (network.level, padded(network.n_latent));
        for i in 0..n {
            let row = i * width..(i + 1) * width;
            if pulls {
                layer::add(level, &mut self.of_mean[row.clone()], &self.further.by_z[row.clone()]);
            }
            layer::draw_gradient(
                level,
                layer::DrawGradient {
                    mean: &self.mean[row.clone()],
                    var: &self.var[row.clone()],
                    noise: &self.noise[row.clone()],
                    of_mean: &mut self.of_mean[row.clone()],
                    of_var: &mut self.of_var[row.clone()],
                    mask: &network.latent_mask,
                    // With labels another divergence takes its place.
                    kl_weight: if network.labels.is_some() { 0.0 } else { pass.kl_weight * pass.scale },
                    floor: network.variance_floor,
                },
            );
            if network.labels.is_some() {
                let (of_mean, of_var) = (&mut self.of_mean[row.clone()], &mut self.of_var[row.clone()]);
                let (by_mean, by_var) = (&self.further.by_mean[row.clone()], &self.further.by_var[row.clone()]);
                layer::add_posterior_gradient(level, of_mean, of_var, &self.var[row], by_mean, by_var);
            }
        }
        if lowest == network.encoder.len() {
            return;
        }
        let last = &mut self.encoder[network.encoder.len() - 1].delta;
        let heads = [(&network.mean, &*self.of_mean), (&network.var, &*self.of_var)];
        stack::back(pass, heads, n, &mut self.columns, last);
    }
}

/// The cells as rows of a stack.
fn rows_of<'a>(cells: &'a [usize], pass: &'a Pass<'_>) -> Rows<'a> {
    let codes = Codes::Conditions { of_cells: &pass.dataset.conditions, cells };
    Rows { n: cells.len(), codes, drops: pass.drops }
}

/// Cells of a block. Results do not depend on it but for the order of sums over blocks; it is never changed by the number of threads.
pub(super) const ROWS: usize = 32;

const _: () = assert!(ROWS <= PANEL, "a block's gradient is turned as one panel");
