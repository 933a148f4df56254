//! A few cells on their way through the network and back. One thread works on a block; nothing in it depends on other blocks.

use super::{
    first_layer::Inputs,
    network::{Layer, Matrix, Network},
    part::Part,
};
use crate::{
    data::Dataset,
    kernels::{
        Buffer,
        buffer::PANEL,
        layer,
        likelihood::{self, Row, Scratch},
        matrix, padded,
    },
    nn::SeededNoise,
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
    /// Gradients of what autograd adds to the loss.
    pub(super) further: Further,
    /// Logits of the shares, then their gradient; empty where nothing is decoded.
    pub(super) logits: Buffer,
    /// The same for extra zeros.
    pub(super) dropout: Buffer,
    /// Gradient by the log dispersions, a row each.
    pub(super) of_log_r: Buffer,
    scratch: Scratch,
    /// What goes into a linear map, or the gradient by it: a row per unit and a column per cell.
    columns: Buffer,
    /// Sums over the block's cells, in nats.
    pub(super) sums: BlockSums,
}

/// Gradients of further terms of the loss by the posterior and the draw, rows like the block's.
#[derive(Debug)]
pub(super) struct Further {
    pub(super) by_mean: Buffer,
    pub(super) by_var: Buffer,
    pub(super) by_z: Buffer,
}

/// What a layer makes of a block.
#[derive(Debug)]
pub(super) struct Activations {
    /// After the norms.
    normal: Buffer,
    /// One over the standard deviation of each cell, where there is layer norm.
    inverse: [f32; ROWS],
    /// What dropout keeps, divided by its chance.
    pub(super) keep: Buffer,
    /// What `keep` is still to be drawn from.
    pub(super) keep_noise: Option<SeededNoise>,
    /// After ReLU and dropout.
    pub(super) out: Buffer,
    /// Gradient by `out`, then by what the linear map gives.
    pub(super) delta: Buffer,
}

/// Sums over cells, in nats.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct BlockSums {
    pub(super) reconstruction: f64,
    pub(super) kl: f64,
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
    /// Weight of the divergence from the standard normal; 0 where further terms take its place.
    pub(super) kl_weight: f32,
    /// Whether autograd adds terms to the loss.
    pub(super) has_further: bool,
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
    pub(super) fn new(network: &Network, reach: Reach) -> Self {
        let rows = |n: usize| Buffer::zeros(ROWS * padded(n));
        let stack = |layers: &[Layer]| layers.iter().map(|layer| Activations::new(layer.matrix.n_out)).collect();
        let n_latent = network.n_latent;
        let decodes = reach == Reach::Likelihood;
        let genes = |wanted: bool| rows(if wanted { network.n_genes } else { 0 });
        Self {
            cells: Vec::with_capacity(ROWS),
            inputs: Inputs::default(),
            encoder: stack(&network.encoder),
            decoder: if decodes { stack(&network.decoder) } else { Vec::new() },
            mean: rows(n_latent),
            var: rows(n_latent),
            noise: rows(n_latent),
            z: rows(n_latent),
            of_mean: rows(n_latent),
            of_var: rows(n_latent),
            further: Further { by_mean: rows(n_latent), by_var: rows(n_latent), by_z: rows(n_latent) },
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

    /// Encodes the cells and draws their latent states.
    pub(super) fn encode(&mut self, pass: &Pass<'_>) {
        let (network, parts, n) = (pass.network, pass.parts, self.n());
        let level = network.level;
        self.first_layer(pass);
        for (l, layer) in network.encoder.iter().enumerate() {
            let (before, activations) = self.encoder.split_at_mut(l);
            if let Some(before) = before.last() {
                layer.matrix.forward(level, parts, (&before.out, n), &mut activations[0].normal, &mut self.columns);
            }
            activations[0].activate(pass, layer, &self.cells, if pass.drops { layer.dropout.1 } else { 0.0 });
        }
        let hidden = &self.encoder[network.encoder.len() - 1].out;
        network.mean.forward(level, parts, (hidden, n), &mut self.mean, &mut self.columns);
        network.var.forward(level, parts, (hidden, n), &mut self.var, &mut self.columns);
        let width = padded(network.n_latent);
        let rows = self.z.chunks_exact_mut(width).zip(self.var.chunks_exact_mut(width));
        let given = self.mean.chunks_exact(width).zip(self.noise.chunks_exact(width));
        self.sums.kl = 0.0;
        for ((z, var), (mean, noise)) in rows.zip(given).take(n) {
            let kl = layer::draw(level, layer::Draw { mean, var, noise, z, mask: &network.latent_mask });
            self.sums.kl += f64::from(kl);
        }
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

    /// Decodes the latent states to the gradient of the logits.
    pub(super) fn decode(&mut self, pass: &Pass<'_>) {
        let (network, parts, n) = (pass.network, pass.parts, self.n());
        let level = network.level;
        for (l, layer) in network.decoder.iter().enumerate() {
            let (before, activations) = self.decoder.split_at_mut(l);
            let input = before.last().map_or(&self.z, |before| &before.out);
            layer.matrix.forward(level, parts, (input, n), &mut activations[0].normal, &mut self.columns);
            activations[0].activate(pass, layer, &self.cells, 0.0);
        }
        let hidden = &self.decoder[network.decoder.len() - 1].out;
        network.scale.forward(level, parts, (hidden, n), &mut self.logits, &mut self.columns);
        if let Some(dropout) = &network.dropout {
            dropout.forward(level, parts, (hidden, n), &mut self.dropout, &mut self.columns);
        }
        self.of_log_r.fill(0.0);
        self.sums.reconstruction = 0.0;
        for i in 0..n {
            self.likelihood(pass, i);
            if i + 1 == n || self.dispersion_row(pass, i + 1) != self.dispersion_row(pass, i) {
                self.finish_likelihood(pass, i);
            }
        }
    }

    /// Which row of the log dispersions is that of a cell of the block.
    fn dispersion_row(&self, pass: &Pass<'_>, i: usize) -> usize {
        if pass.network.dispersions.len() > 1 { pass.dataset.conditions[self.cells[i]] as usize } else { 0 }
    }

    /// Adds what the likelihood keeps back of the cells up to `i`, which share their dispersions.
    fn finish_likelihood(&mut self, pass: &Pass<'_>, i: usize) {
        let (network, own) = (pass.network, self.dispersion_row(pass, i));
        let (dispersion, width) = (&network.dispersions[own], padded(network.n_genes));
        let trains = pass.dispersions == Dispersions::Train;
        let of_log_r = trains.then(|| &mut self.of_log_r[own * width..][..width]);
        let value = likelihood::finish(network.level, dispersion, -pass.scale, of_log_r, &mut self.scratch);
        self.sums.reconstruction -= f64::from(value);
    }

    fn likelihood(&mut self, pass: &Pass<'_>, i: usize) {
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
        let value = likelihood::row(network.level, network.counts, row, &mut self.scratch);
        let constant = match pass.dispersions {
            Dispersions::Rest => likelihood::constants(network.level, genes, counts, Some(dispersion)),
            Dispersions::Constant | Dispersions::Train => f64::from(pass.constants[cell]),
        };
        self.sums.reconstruction -= f64::from(value) + constant;
    }

    /// From the gradient of the logits to that of the decoder's first linear map, and of the latent state.
    fn decoder_gradient(&mut self, pass: &Pass<'_>) {
        let (network, n) = (pass.network, self.n());
        let genes = padded(network.n_genes);
        let last = &mut self.decoder[network.decoder.len() - 1].delta;
        let scale = (&network.scale, &*self.logits, genes);
        match &network.dropout {
            None => backward(pass, [scale], n, &mut self.columns, last),
            Some(dropout) => backward(pass, [scale, (dropout, &self.dropout, genes)], n, &mut self.columns, last),
        }
        for (l, layer) in network.decoder.iter().enumerate().rev() {
            let (before, activations) = self.decoder.split_at_mut(l);
            activations[0].gradient(pass, layer, n, 0.0);
            let below = before.last_mut().map_or(&mut self.of_mean, |before| &mut before.delta);
            let delta = (&layer.matrix, &*activations[0].delta, layer.matrix.width());
            backward(pass, [delta], n, &mut self.columns, below);
        }
    }

    /// From the gradient of the logits down to layer `lowest` of the encoder, if something trains there.
    pub(super) fn gradient(&mut self, pass: &Pass<'_>, lowest: Option<usize>) {
        self.decoder_gradient(pass);
        if let Some(lowest) = lowest {
            self.encoder_gradient(pass, lowest);
        }
    }

    /// The same of cells that were encoded only, for the sake of further terms.
    pub(super) fn posterior_gradient(&mut self, pass: &Pass<'_>, lowest: Option<usize>) {
        self.of_mean.fill(0.0);
        if let Some(lowest) = lowest {
            self.encoder_gradient(pass, lowest);
        }
    }

    /// From the gradient of the latent state down to layer `lowest` of the encoder.
    fn encoder_gradient(&mut self, pass: &Pass<'_>, lowest: usize) {
        let (network, n) = (pass.network, self.n());
        let (level, width) = (network.level, padded(network.n_latent));
        for i in 0..n {
            let row = i * width..(i + 1) * width;
            if pass.has_further {
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
                    kl_weight: pass.kl_weight * pass.scale,
                },
            );
            if pass.has_further {
                let (of_mean, of_var) = (&mut self.of_mean[row.clone()], &mut self.of_var[row.clone()]);
                let (by_mean, by_var) = (&self.further.by_mean[row.clone()], &self.further.by_var[row.clone()]);
                layer::add_posterior_gradient(level, of_mean, of_var, &self.var[row], by_mean, by_var);
            }
        }
        if lowest == network.encoder.len() {
            return;
        }
        let last = &mut self.encoder[network.encoder.len() - 1].delta;
        let heads = [(&network.mean, &*self.of_mean, width), (&network.var, &*self.of_var, width)];
        backward(pass, heads, n, &mut self.columns, last);
        for (l, layer) in network.encoder.iter().enumerate().skip(lowest).rev() {
            let (before, activations) = self.encoder.split_at_mut(l);
            activations[0].gradient(pass, layer, n, if pass.drops { layer.dropout.1 } else { 0.0 });
            if let Some(before) = before.last_mut().filter(|_| l > lowest) {
                let delta = (&layer.matrix, &*activations[0].delta, layer.matrix.width());
                backward(pass, [delta], n, &mut self.columns, &mut before.delta);
            }
        }
    }
}

impl Activations {
    fn new(n_out: usize) -> Self {
        let rows = || Buffer::zeros(ROWS * padded(n_out));
        Self { normal: rows(), inverse: [0.0; ROWS], keep: rows(), keep_noise: None, out: rows(), delta: rows() }
    }

    /// From what the linear map gave, in `normal`, to `out`.
    fn activate(&mut self, pass: &Pass<'_>, layer: &Layer, cells: &[usize], rate: f64) {
        let (level, width) = (pass.network.level, layer.matrix.width());
        let columns = layer.columns.map(|part| &*pass.parts[part].values);
        if rate > 0.0 {
            self.draw_keep(layer, cells.len());
        }
        let rows = self.normal.chunks_exact_mut(width).zip(self.out.chunks_exact_mut(width));
        for (i, ((normal, out), &cell)) in rows.zip(cells).enumerate() {
            if let Some(columns) = columns {
                let code = pass.dataset.conditions[cell] as usize;
                layer::add(level, normal, &columns[code * width..][..width]);
            }
            if let Some((scale, shift)) = &layer.affine {
                layer::scale_shift(level, normal, scale, shift);
            }
            if layer.layer_norm {
                self.inverse[i] = layer::layer_norm(level, normal, &layer.mask, layer.matrix.n_out);
            }
            let keep = (rate > 0.0).then(|| &self.keep[i * width..][..width]);
            layer::relu(level, normal, keep, out);
        }
    }

    fn draw_keep(&mut self, layer: &Layer, n: usize) {
        let Some(mut noise) = self.keep_noise.take() else { return };
        let (n_out, rate) = (layer.matrix.n_out, layer.dropout.1);
        let by_chance = 1.0 / (1.0 - rate as f32);
        for keep in self.keep.chunks_exact_mut(padded(n_out)).take(n) {
            noise.draw_keep(rate, &mut keep[..n_out]);
            keep[..n_out].iter_mut().for_each(|keep| *keep *= by_chance);
        }
    }

    /// From the gradient of `out`, in `delta`, to that of what the linear map gave.
    fn gradient(&mut self, pass: &Pass<'_>, layer: &Layer, n: usize, rate: f64) {
        let (level, width) = (pass.network.level, layer.matrix.width());
        let rows = self.delta.chunks_exact_mut(width).zip(self.normal.chunks_exact(width));
        for (i, (delta, normal)) in rows.take(n).enumerate() {
            let keep = (rate > 0.0).then(|| &self.keep[i * width..][..width]);
            layer::relu_gradient(level, delta, normal, keep);
            if layer.layer_norm {
                let inverse = self.inverse[i];
                layer::layer_norm_gradient(level, delta, normal, &layer.mask, layer.matrix.n_out, inverse);
            }
            if let Some((scale, _)) = &layer.affine {
                layer::scale(level, delta, scale);
            }
        }
    }
}

/// The gradient by what goes into linear maps of one input, from those by what comes out: map, gradient, width of its rows. `sum` is
/// room for its transpose.
fn backward<const N: usize>(
    pass: &Pass<'_>,
    maps: [(&Matrix, &[f32], usize); N],
    n: usize,
    sum: &mut [f32],
    result: &mut [f32],
) {
    let (level, n_in) = (pass.network.level, maps[0].0.n_in);
    let sum = &mut sum[..padded(n_in) * ROWS];
    sum.fill(0.0);
    for (matrix, gradient, width) in maps {
        let panels = pass.parts[matrix.panels.clone()].iter().map(|part| &*part.values);
        matrix::add_back(level, (gradient, width), (n, matrix.n_out, n_in), panels, sum);
    }
    matrix::turn(level, sum, n, result, padded(n_in));
}

/// Cells of a block. Results do not depend on it but for the order of sums over blocks; it is never changed by the number of threads.
pub(super) const ROWS: usize = 32;

const _: () = assert!(ROWS <= PANEL, "a block's gradient is turned as one panel");
