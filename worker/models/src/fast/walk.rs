//! The way of a block's cells through the network and back, with the places where blocks wait for each other.

use super::{
    block::{Block, Pass, Reach},
    network::{Head, Network},
    pull::Gradients,
    spec::Reconstruction,
    stack::{self, Codes, Rows},
};
use crate::kernels::{layer, padded};

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

impl Block {
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
            self.decode_others(pass);
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
        if let (Some(modalities), true) = (&pass.network.modalities, pass.differentiates) {
            self.modalities_gradient(pass, modalities);
            return Point::End;
        }
        let lowest = pass.lowest.filter(|_| pass.differentiates);
        lowest.and_then(|lowest| self.encoder_gradient(pass, lowest, from)).map_or(Point::End, Point::EncoderGradient)
    }

    /// Encodes the cells and draws their latent states, where these are wanted; gives the layer, if there is one, whose norm waits for
    /// other blocks.
    pub(super) fn encode(&mut self, pass: &Pass<'_>, from: Point) -> Option<usize> {
        let network = pass.network;
        if let Some(waited) = self.posterior(pass, from) {
            return Some(waited);
        }
        if let Some(modalities) = &network.modalities {
            self.mix(pass, modalities);
        } else if network.reach != Reach::Mean {
            let n = self.n();
            self.sums.kl = draw(network, (&self.mean, &mut self.var), &self.noise, &mut self.z, n);
        }
        None
    }

    /// What the encoder says of the cells; waits like [`Self::encode`].
    pub(super) fn posterior(&mut self, pass: &Pass<'_>, from: Point) -> Option<usize> {
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
        if network.reach != Reach::Mean {
            network.var.forward(level, parts, (hidden, n), &mut self.var, &mut self.columns);
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
    pub(super) fn decode(&mut self, pass: &Pass<'_>, from: Point) -> Option<usize> {
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

    /// From the gradient of the logits to that of the decoder's first linear map, and of the latent state; waits like [`Self::encode`].
    pub(super) fn decoder_gradient(&mut self, pass: &Pass<'_>, from: Point) -> Option<usize> {
        let waited = if let Point::DecoderGradient(l) = from { Some(l) } else { None };
        if waited.is_none() {
            self.head_gradient(pass);
        }
        let (rows, below) = (rows_of(&self.cells, pass), Some(&mut *self.of_mean));
        let layers = &pass.network.decoder;
        stack::backward(pass, layers, &mut self.decoder, (rows, 0), below, &mut self.columns, waited)
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
        if !matches!(from, Point::EncoderGradient(_)) {
            self.latent_gradient(pass);
        }
        self.below_latent(pass, lowest, from)
    }

    /// From the gradients of mean and variance down to layer `lowest` of the encoder; waits like [`Self::encode`].
    pub(super) fn below_latent(&mut self, pass: &Pass<'_>, lowest: usize, from: Point) -> Option<usize> {
        let (network, n) = (pass.network, self.n());
        let waited = if let Point::EncoderGradient(l) = from { Some(l) } else { None };
        if lowest == network.encoder.len() {
            return None;
        }
        if waited.is_none() {
            let last = &mut self.encoder[network.encoder.len() - 1].delta;
            let heads = [(&network.mean, &*self.of_mean), (&network.var, &*self.of_var)];
            stack::back(pass, heads, n, &mut self.columns, last);
        }
        let rows = rows_of(&self.cells, pass);
        stack::backward(pass, &network.encoder, &mut self.encoder, (rows, lowest), None, &mut self.columns, waited)
    }

    /// From the gradient of the latent state to those of its mean and variance.
    fn latent_gradient(&mut self, pass: &Pass<'_>) {
        let (network, n) = (pass.network, self.n());
        let pulls = network.labels.is_some() || pass.meets;
        let (level, width, n_latent) = (network.level, padded(network.n_latent), network.n_latent);
        self.sums.pull = 0.0;
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
            if let Some(pull) = pass.pull {
                let posterior = (&self.mean[row.clone()][..n_latent], &self.var[row.clone()][..n_latent]);
                let (by_mean, by_var) = (&mut self.further.by_mean[row.clone()], &mut self.further.by_var[row.clone()]);
                let to = Gradients { by_mean, by_var, shares: &mut self.shares };
                self.sums.pull += pull.of_cell(level, posterior, pass.scale, to);
            }
            if network.labels.is_some() || pass.pull.is_some() {
                let (of_mean, of_var) = (&mut self.of_mean[row.clone()], &mut self.of_var[row.clone()]);
                let (by_mean, by_var) = (&self.further.by_mean[row.clone()], &self.further.by_var[row.clone()]);
                let floor = network.variance_floor;
                layer::add_posterior_gradient(level, of_mean, of_var, &self.var[row], by_mean, by_var, floor);
            }
        }
    }
}

/// Draws latent states of `n` cells; gives the sum of their divergences.
pub(super) fn draw(
    network: &Network,
    (means, vars): (&[f32], &mut [f32]),
    noises: &[f32],
    zs: &mut [f32],
    n: usize,
) -> f64 {
    let (width, mask, floor) = (padded(network.n_latent), &*network.latent_mask, network.variance_floor);
    let rows = zs.chunks_exact_mut(width).zip(vars.chunks_exact_mut(width));
    let given = means.chunks_exact(width).zip(noises.chunks_exact(width));
    let each = rows.zip(given).take(n).map(|((z, var), (mean, noise))| {
        f64::from(layer::draw(network.level, layer::Draw { mean, var, noise, z, mask, floor }))
    });
    each.sum()
}

/// The cells as rows of a stack.
fn rows_of<'a>(cells: &'a [usize], pass: &'a Pass<'_>) -> Rows<'a> {
    let codes = Codes::Conditions { of_cells: &pass.dataset.conditions, cells };
    Rows { n: cells.len(), codes, drops: pass.drops }
}
