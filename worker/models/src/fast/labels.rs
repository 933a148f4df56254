//! What labels add to the loss: a classifier on the latent state, and for every label that a cell could have a second latent state that
//! says where the first one is. Label by label there is one pass forwards and one back; the gradients of the weights are summed up
//! within the block, since every label adds to them.

use super::{
    block::{Block, BlockSums, Further, Pass, ROWS},
    draws::Keeps,
    network::{LabelNetwork, Layer, Matrix, Network, PosteriorNetwork},
    part::Part,
    stack::{self, Activations, Codes, Rows},
};
use crate::kernels::{
    Buffer, Level,
    buffer::{PANEL, Square},
    label::{self, Normal},
    layer,
    matrix::{self, Left, Piece, Start},
    padded,
};

/// Memory for up to [`ROWS`] cells.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) classifier: Vec<Activations>,
    /// Numbers per label, then their probabilities, `[cells, labels]` as all that follow.
    probabilities: Buffer,
    /// Gradient by the probabilities, then by the numbers.
    of_probabilities: Buffer,
    /// `-log p(z1 | z2, y)`.
    negative_log: Buffer,
    /// `KL(q(z2 | z1, y) || N(0, 1))`.
    kl: Buffer,
    encoder: Half,
    decoder: Half,
    /// Standard-normal noise, label by label.
    pub(super) noise: Vec<Buffer>,
    /// What dropout keeps in each layer of the encoder.
    pub(super) keeps: Vec<Keeps>,
    z2: Buffer,
    /// Gradient by `z1`, through one network.
    by_z: Buffer,
    /// Of the tensors, summed over cells and labels, in order of their parts; empty where one does not train.
    gradients: Vec<Buffer>,
}

/// One of the two networks that labels enter.
#[derive(Debug)]
struct Half {
    layers: Vec<Activations>,
    mean: Buffer,
    /// Logarithm of the variance, then the variance.
    var: Buffer,
    of_mean: Buffer,
    of_var: Buffer,
}

impl Labels {
    pub(super) fn new(network: &Network, labels: &LabelNetwork, parts: &[Part]) -> Self {
        let rows = |n: usize| Buffer::zeros(ROWS * padded(n));
        let (n_labels, n_latent) = (labels.n_labels, network.n_latent);
        let half = |of: &PosteriorNetwork| Half {
            layers: Activations::of(&of.layers),
            mean: rows(n_latent),
            var: rows(n_latent),
            of_mean: rows(n_latent),
            of_var: rows(n_latent),
        };
        let gradient = |part: &Part| Buffer::zeros(if part.moments.is_some() { part.values.len() } else { 0 });
        Self {
            classifier: Activations::of(&labels.classifier),
            probabilities: rows(n_labels),
            of_probabilities: rows(n_labels),
            negative_log: rows(n_labels),
            kl: rows(n_labels),
            encoder: half(&labels.encoder),
            decoder: half(&labels.decoder),
            noise: (0..n_labels).map(|_| rows(n_latent)).collect(),
            keeps: labels.encoder.layers.iter().map(|_| Keeps::default()).collect(),
            z2: rows(n_latent),
            by_z: rows(n_latent),
            gradients: parts[labels.parts.clone()].iter().map(gradient).collect(),
        }
    }

    /// The gradient of one of the tensors, from its place among them.
    pub(super) fn gradient(&self, at: usize) -> &[f32] {
        &self.gradients[at]
    }

    /// Labels of `input`, `n` rows of latent states, as the head gives them.
    fn classify(&mut self, pass: &Pass<'_>, network: &LabelNetwork, input: &[f32], n: usize, columns: &mut [f32]) {
        let rows = Rows { n, codes: Codes::One(0), drops: pass.drops };
        stack::forward(pass, &network.classifier, &mut self.classifier, Some(input), rows, columns, None);
        let hidden = self.classifier.last().map_or(input, |last| &*last.out);
        let level = pass.network.level;
        network.head.forward(level, pass.parts, (hidden, n), &mut self.probabilities, columns);
    }

    /// From the gradient by the numbers per label to that by `input`, which is left in `by_z`.
    fn classifier_gradient(
        &mut self,
        pass: &Pass<'_>,
        network: &LabelNetwork,
        input: &[f32],
        n: usize,
        columns: &mut [f32],
    ) {
        let level = pass.network.level;
        let rows = Rows { n, codes: Codes::One(0), drops: pass.drops };
        let head = [(&network.head, &*self.of_probabilities)];
        match self.classifier.last_mut() {
            None => stack::back(pass, head, n, columns, &mut self.by_z),
            Some(last) => {
                stack::back(pass, head, n, columns, &mut last.delta);
                let below = Some(&mut *self.by_z);
                stack::backward(pass, &network.classifier, &mut self.classifier, (rows, 0), below, columns, None);
            }
        }
        let sums = &mut Sums { level, first: network.parts.start, gradients: &mut self.gradients, n };
        let hidden = self.classifier.last().map_or(input, |last| &*last.out);
        sums.add(&network.head, hidden, &self.of_probabilities);
        sums.add_layers(&network.classifier, &self.classifier, input, 0);
    }
}

/// Where the gradients of weights are summed up.
struct Sums<'a> {
    level: Level,
    first: usize,
    gradients: &'a mut [Buffer],
    n: usize,
}

impl Sums<'_> {
    /// Adds those of a linear map, from what went in and the gradient by what came out.
    fn add(&mut self, map: &Matrix, input: &[f32], delta: &[f32]) {
        let mut packed = Square::default();
        for (p, part) in map.panels.clone().enumerate() {
            let gradient = &mut self.gradients[part - self.first];
            if !gradient.is_empty() {
                matrix::pack_panel(delta, map.width(), self.n, p, &mut packed.0);
                let left = Left::transposed(input, padded(map.n_in));
                let piece = Piece { left, panel: &packed.0, depth: self.n };
                matrix::multiply_panel(self.level, &[piece], Start::Result, gradient, PANEL, map.n_in);
            }
        }
        self.add_rows(map.bias, delta, map.width(), 0);
    }

    /// Adds the rows of `delta` to one row of a part.
    fn add_rows(&mut self, part: usize, delta: &[f32], width: usize, row: usize) {
        let gradient = &mut self.gradients[part - self.first];
        if !gradient.is_empty() {
            let gradient = &mut gradient[row * width..][..width];
            delta.chunks_exact(width).take(self.n).for_each(|delta| layer::add(self.level, gradient, delta));
        }
    }

    /// Adds those of a stack on `input`, whose rows all have one label.
    fn add_layers(&mut self, layers: &[Layer], activations: &[Activations], input: &[f32], label: usize) {
        let inputs = std::iter::once(input).chain(activations.iter().map(|activations| &*activations.out));
        for ((layer, activations), input) in layers.iter().zip(activations).zip(inputs) {
            self.add(&layer.matrix, input, &activations.delta);
            if let Some(columns) = layer.columns {
                self.add_rows(columns, &activations.delta, layer.matrix.width(), label);
            }
        }
    }
}

impl Half {
    fn forward(
        &mut self,
        pass: &Pass<'_>,
        network: &PosteriorNetwork,
        input: &[f32],
        rows: Rows<'_>,
        columns: &mut [f32],
    ) {
        stack::forward(pass, &network.layers, &mut self.layers, Some(input), rows, columns, None);
        let (level, hidden) = (pass.network.level, self.layers.last().map_or(input, |last| &*last.out));
        network.mean.forward(level, pass.parts, (hidden, rows.n), &mut self.mean, columns);
        network.var.forward(level, pass.parts, (hidden, rows.n), &mut self.var, columns);
    }

    /// From the gradients by mean and logarithm of the variance to that by `input`.
    fn backward(
        &mut self,
        pass: &Pass<'_>,
        network: &PosteriorNetwork,
        (input, of_input): (&[f32], &mut [f32]),
        (rows, label): (Rows<'_>, usize),
        sums: &mut Sums<'_>,
        columns: &mut [f32],
    ) {
        let heads = [(&network.mean, &*self.of_mean), (&network.var, &*self.of_var)];
        let last = self.layers.last_mut().map_or(&mut *of_input, |last| &mut *last.delta);
        stack::back(pass, heads, rows.n, columns, last);
        stack::backward(pass, &network.layers, &mut self.layers, (rows, 0), Some(of_input), columns, None);
        let hidden = self.layers.last().map_or(input, |last| &*last.out);
        sums.add(&network.mean, hidden, &self.of_mean);
        sums.add(&network.var, hidden, &self.of_var);
        sums.add_layers(&network.layers, &self.layers, input, label);
    }
}

impl Block {
    /// What labels add to the loss of encoded and decoded cells; with its gradients, if they are wanted.
    pub(super) fn label_terms(&mut self, pass: &Pass<'_>) {
        let (Some(network), Some(labels)) = (&pass.network.labels, &mut self.labels) else { return };
        let Self { cells, mean, var, z, further, columns, sums, .. } = self;
        let (level, n) = (pass.network.level, cells.len());
        labels.gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
        labels.classify(pass, network, z, n, columns);
        for numbers in labels.probabilities.chunks_exact_mut(padded(network.n_labels)).take(n) {
            label::softmax(level, numbers, &network.mask);
        }
        posterior_terms(pass, (mean, var, z), n, further, sums);
        for y in 0..network.n_labels {
            labels.of_label(pass, network, (y, n), z, columns);
            if pass.differentiates {
                labels.label_gradient(pass, network, (y, n), z, &mut further.by_z, columns);
            }
        }
        labels.expect(pass, network, n, sums);
        if pass.differentiates {
            labels.classifier_gradient(pass, network, z, n, columns);
            layer::add(level, &mut further.by_z[..n * padded(pass.network.n_latent)], &labels.by_z);
        }
    }

    /// The cross entropy of encoded cells, and its gradients.
    pub(super) fn label_loss(&mut self, pass: &Pass<'_>) {
        let (Some(network), Some(labels)) = (&pass.network.labels, &mut self.labels) else { return };
        let codes = pass.dataset.codes(network.slot);
        let (level, n) = (pass.network.level, self.cells.len());
        let per_label = padded(network.n_labels);
        labels.gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
        labels.classify(pass, network, &self.mean, n, &mut self.columns);
        self.sums.cross_entropy = 0.0;
        for (i, &cell) in self.cells.iter().enumerate() {
            let (row, code) = (i * per_label..(i + 1) * per_label, codes[cell] as usize);
            let numbers = &mut labels.probabilities[row.clone()];
            if !network.logits {
                label::softmax(level, numbers, &network.mask);
            }
            let of_numbers = &mut labels.of_probabilities[row];
            of_numbers.copy_from_slice(numbers);
            let log_sum = label::softmax(level, of_numbers, &network.mask);
            self.sums.cross_entropy += f64::from(log_sum - numbers[code]);
            of_numbers[code] -= 1.0;
            if network.logits {
                of_numbers.iter_mut().for_each(|of| *of *= pass.label_scale);
            } else {
                label::softmax_gradient(level, numbers, of_numbers, pass.label_scale);
            }
        }
        labels.classifier_gradient(pass, network, &self.mean, n, &mut self.columns);
        self.further.by_mean.copy_from_slice(&labels.by_z);
        self.further.by_var.fill(0.0);
        self.further.by_z.fill(0.0);
    }
}

impl Labels {
    /// What one label says about cells at `z`: its column of `negative_log` and `kl`.
    fn of_label(
        &mut self,
        pass: &Pass<'_>,
        network: &LabelNetwork,
        (y, n): (usize, usize),
        z: &[f32],
        columns: &mut [f32],
    ) {
        let (level, width) = (pass.network.level, padded(pass.network.n_latent));
        let (per_label, mask) = (padded(network.n_labels), &pass.network.latent_mask);
        let Self { encoder, decoder, z2, .. } = self;
        let rows = Rows { n, codes: Codes::One(y), drops: pass.drops };
        if pass.drops {
            let keeps = network.encoder.layers.iter().zip(&mut encoder.layers).zip(&mut self.keeps);
            keeps.for_each(|((layer, activations), keeps)| keeps.next_label(layer, n, activations));
        }
        encoder.forward(pass, &network.encoder, z, rows, columns);
        for i in 0..n {
            let row = i * width..(i + 1) * width;
            let (mean, var) = (&encoder.mean[row.clone()], &mut encoder.var[row.clone()]);
            let noise = &self.noise[y][row.clone()];
            let draw = layer::Draw { mean, var, noise, z: &mut z2[row], mask, floor: layer::VARIANCE_FLOOR };
            self.kl[i * per_label + y] = layer::draw(level, draw);
        }
        decoder.forward(pass, &network.decoder, z2, Rows { drops: false, ..rows }, columns);
        for i in 0..n {
            let row = i * width..(i + 1) * width;
            label::exp_of(level, &mut decoder.var[row.clone()]);
            let (mean, var) = (&decoder.mean[row.clone()], &decoder.var[row.clone()]);
            self.negative_log[i * per_label + y] = -label::log_normal(level, Normal { x: &z[row], mean, var, mask });
        }
    }

    /// Adds the means over the labels to the block's sums, and leaves the gradient by the numbers per label.
    fn expect(&mut self, pass: &Pass<'_>, network: &LabelNetwork, n: usize, sums: &mut BlockSums) {
        let (level, per_label) = (pass.network.level, padded(network.n_labels));
        for i in 0..n {
            let row = i * per_label..(i + 1) * per_label;
            let probabilities = &self.probabilities[row.clone()];
            let of_probabilities = &mut self.of_probabilities[row.clone()];
            let expected = label::Expected {
                probabilities,
                negative_log: &self.negative_log[row.clone()],
                kl: &self.kl[row],
                log_prior: &network.log_prior,
                kl_weight: pass.kl_weight,
                of_probabilities,
            };
            let (negative_log, kl) = label::expect(level, expected);
            sums.reconstruction += f64::from(negative_log);
            sums.kl += f64::from(kl);
            label::softmax_gradient(level, probabilities, of_probabilities, pass.scale);
        }
    }

    /// The gradients of what one label adds, by weights and by `z`.
    fn label_gradient(
        &mut self,
        pass: &Pass<'_>,
        network: &LabelNetwork,
        (y, n): (usize, usize),
        z: &[f32],
        by_z: &mut [f32],
        columns: &mut [f32],
    ) {
        let (level, width) = (pass.network.level, padded(pass.network.n_latent));
        let (per_label, mask) = (padded(network.n_labels), &pass.network.latent_mask);
        let Self { encoder, decoder, probabilities, gradients, .. } = self;
        let mut sums = Sums { level, first: network.parts.start, gradients, n };
        let weight = |i: usize| pass.scale * probabilities[i * per_label + y];
        for i in 0..n {
            let row = i * width..(i + 1) * width;
            let normal =
                Normal { x: &z[row.clone()], mean: &decoder.mean[row.clone()], var: &decoder.var[row.clone()], mask };
            let (of_mean, of_var) = (&mut decoder.of_mean[row.clone()], &mut decoder.of_var[row.clone()]);
            label::log_normal_gradient(level, normal, -weight(i), &mut by_z[row.clone()], of_mean, of_var);
            // By the logarithm of the variance.
            layer::scale(level, of_var, &decoder.var[row]);
        }
        let rows = Rows { n, codes: Codes::One(y), drops: false };
        // What the decoder's gradient by `z2` becomes is the encoder's by its mean.
        let through = (&*self.z2, &mut *encoder.of_mean);
        decoder.backward(pass, &network.decoder, through, (rows, y), &mut sums, columns);
        for i in 0..n {
            let row = i * width..(i + 1) * width;
            let draw = layer::DrawGradient {
                mean: &encoder.mean[row.clone()],
                var: &encoder.var[row.clone()],
                noise: &self.noise[y][row.clone()],
                of_mean: &mut encoder.of_mean[row.clone()],
                of_var: &mut encoder.of_var[row],
                mask,
                kl_weight: pass.kl_weight * weight(i),
                floor: layer::VARIANCE_FLOOR,
            };
            layer::draw_gradient(level, draw);
        }
        let rows = Rows { drops: pass.drops, ..rows };
        encoder.backward(pass, &network.encoder, (z, &mut self.by_z), (rows, y), &mut sums, columns);
        layer::add(level, &mut by_z[..n * width], &self.by_z);
    }
}

/// `log q(z1 | x)` of every cell, and the start of the gradients of what labels add. Replaces the divergence from the standard normal.
fn posterior_terms(
    pass: &Pass<'_>,
    (mean, var, z): (&[f32], &[f32], &[f32]),
    n: usize,
    further: &mut Further,
    sums: &mut BlockSums,
) {
    let (level, width, mask) = (pass.network.level, padded(pass.network.n_latent), &pass.network.latent_mask);
    sums.kl = 0.0;
    further.by_z.fill(0.0);
    for i in 0..n {
        let row = i * width..(i + 1) * width;
        let normal = Normal { x: &z[row.clone()], mean: &mean[row.clone()], var: &var[row.clone()], mask };
        sums.reconstruction += f64::from(label::log_normal(level, normal));
        let (by_z, by_mean) = (&mut further.by_z[row.clone()], &mut further.by_mean[row.clone()]);
        label::log_normal_gradient(level, normal, pass.scale, by_z, by_mean, &mut further.by_var[row]);
    }
}
