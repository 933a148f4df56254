//! Layers in a row, on up to [`ROWS`] rows, and the way back.

use super::{
    batch_norm::{BatchNorm, Standardised, Statistics},
    block::{Pass, ROWS},
    network::{Layer, Matrix},
};
use crate::{
    kernels::{Buffer, layer, matrix, padded},
    nn::SeededNoise,
};

/// The rows that go through a stack.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) n: usize,
    pub(super) codes: Codes<'a>,
    /// Whether dropout drops.
    pub(super) drops: bool,
}

/// Which of a layer's columns each row takes.
#[derive(Clone, Copy)]
pub(super) enum Codes<'a> {
    /// That of its cell's condition.
    Conditions { of_cells: &'a [i64], cells: &'a [usize] },
    /// All the same.
    One(usize),
}

impl Codes<'_> {
    pub(super) fn of(self, row: usize) -> usize {
        match self {
            Self::Conditions { of_cells, cells } => of_cells[cells[row]] as usize,
            Self::One(code) => code,
        }
    }
}

/// What a layer makes of a block.
#[derive(Debug)]
pub(super) struct Activations {
    /// After the norms.
    pub(super) normal: Buffer,
    /// One over the standard deviation of each cell, where there is layer norm.
    inverse: [f32; ROWS],
    /// What batch norm keeps and measures, where there is one.
    pub(super) standardised: Option<Standardised>,
    /// What dropout keeps, divided by its chance.
    pub(super) keep: Buffer,
    /// What `keep` is still to be drawn from.
    pub(super) keep_noise: Option<SeededNoise>,
    /// After ReLU and dropout.
    pub(super) out: Buffer,
    /// Gradient by `out`, then by what the linear map gives.
    pub(super) delta: Buffer,
}

impl Activations {
    pub(super) fn of(layers: &[Layer]) -> Vec<Self> {
        layers.iter().map(Self::new).collect()
    }

    fn new(layer: &Layer) -> Self {
        let width = layer.matrix.width();
        let rows = || Buffer::zeros(ROWS * width);
        Self {
            normal: rows(),
            inverse: [0.0; ROWS],
            standardised: layer.batch_norm.as_ref().map(|norm| Standardised::new(norm, ROWS, width)),
            keep: rows(),
            keep_noise: None,
            out: rows(),
            delta: rows(),
        }
    }

    /// Adds the columns to what the linear map gave.
    fn add_columns(&mut self, pass: &Pass<'_>, layer: &Layer, rows: Rows<'_>) {
        let (level, width) = (pass.network.level, layer.matrix.width());
        let Some(columns) = layer.columns.map(|part| &*pass.parts[part].values) else { return };
        for (i, normal) in self.normal.chunks_exact_mut(width).take(rows.n).enumerate() {
            layer::add(level, normal, &columns[rows.codes.of(i) * width..][..width]);
        }
    }

    /// From what the linear map and the columns gave, in `normal`, to `out`.
    fn activate(&mut self, pass: &Pass<'_>, layer: &Layer, rows: Rows<'_>) {
        let (level, width) = (pass.network.level, layer.matrix.width());
        let drops = layer.drops(rows);
        if drops {
            self.draw_keep(layer, rows.n);
        }
        let of_rows = self.normal.chunks_exact_mut(width).zip(self.out.chunks_exact_mut(width));
        for (i, (normal, out)) in of_rows.take(rows.n).enumerate() {
            if let Some(norm) = &layer.batch_norm {
                norm.normalise(pass, (i, rows.codes.of(i)), normal, self.standardised.as_mut());
            }
            if layer.layer_norm {
                self.inverse[i] = layer::layer_norm(level, normal, &layer.mask, layer.matrix.n_out);
            }
            let keep = drops.then(|| &self.keep[i * width..][..width]);
            if layer.slope == 0.0 {
                layer::relu(level, normal, keep, out);
            } else {
                layer::leaky_relu(level, normal, layer.slope, keep, out);
            }
        }
    }

    fn draw_keep(&mut self, layer: &Layer, n: usize) {
        let Some(mut noise) = self.keep_noise.take() else { return };
        let (n_out, rate) = (layer.matrix.n_out, layer.dropout.1);
        let by_chance = layer.by_chance();
        for keep in self.keep.chunks_exact_mut(padded(n_out)).take(n) {
            noise.draw_keep(rate, &mut keep[..n_out]);
            keep[..n_out].iter_mut().for_each(|keep| *keep *= by_chance);
        }
    }

    /// From the gradient of `out`, in `delta`, to that of what the linear map gave; with batch statistics, to that of what the norm gave.
    fn gradient(&mut self, pass: &Pass<'_>, layer: &Layer, rows: Rows<'_>) {
        let (level, width) = (pass.network.level, layer.matrix.width());
        let by_running = layer.batch_norm.as_ref().filter(|_| !layer.waits(pass));
        if let (Some(BatchNorm { offsets: Some(_), .. }), Some(own)) = (by_running, &mut self.standardised) {
            own.first.fill(0.0);
            own.second.fill(0.0);
        }
        let of_rows = self.delta.chunks_exact_mut(width).zip(self.normal.chunks_exact(width));
        for (i, (delta, normal)) in of_rows.take(rows.n).enumerate() {
            let keep = layer.drops(rows).then(|| &self.keep[i * width..][..width]);
            if layer.slope == 0.0 {
                layer::relu_gradient(level, delta, normal, keep);
            } else {
                layer::leaky_relu_gradient(level, delta, normal, layer.slope, keep);
            }
            if layer.layer_norm {
                let inverse = self.inverse[i];
                layer::layer_norm_gradient(level, delta, normal, &layer.mask, layer.matrix.n_out, inverse);
            }
            if let Some(norm) = by_running {
                norm.scale_gradient(level, (i, rows.codes.of(i)), delta, self.standardised.as_mut());
            }
        }
    }
}

impl Layer {
    /// Whether its norm wants to hear of all blocks.
    fn waits(&self, pass: &Pass<'_>) -> bool {
        self.batch_norm.is_some() && pass.statistics == Statistics::OfMinibatch
    }

    fn drops(&self, rows: Rows<'_>) -> bool {
        rows.drops && self.dropout.1 > 0.0
    }

    /// What a unit that dropout keeps is multiplied by.
    pub(super) fn by_chance(&self) -> f32 {
        1.0 / (1.0 - self.dropout.1 as f32)
    }
}

/// All layers, from `input`; without one the first layer's linear map has been applied. `columns` is room for what goes into a layer.
///
/// Gives the layer, if there is one, whose norm waits for other blocks; called again with `waited` it goes on from there.
pub(super) fn forward(
    pass: &Pass<'_>,
    layers: &[Layer],
    activations: &mut [Activations],
    input: Option<&[f32]>,
    rows: Rows<'_>,
    columns: &mut [f32],
    waited: Option<usize>,
) -> Option<usize> {
    let level = pass.network.level;
    for (l, layer) in layers.iter().enumerate().skip(waited.unwrap_or(0)) {
        let (before, own) = activations.split_at_mut(l);
        if waited != Some(l) {
            if let Some(input) = before.last().map(|before| &*before.out).or(input) {
                layer.matrix.forward(level, pass.parts, (input, rows.n), &mut own[0].normal, columns);
            }
            own[0].add_columns(pass, layer, rows);
            if layer.waits(pass)
                && let (Some(norm), Some(share)) = (&layer.batch_norm, &mut own[0].standardised)
            {
                norm.measure(level, rows.n, &own[0].normal, share);
                return Some(l);
            }
        }
        own[0].activate(pass, layer, rows);
    }
    None
}

/// From the gradient by what the last layer gives, in its `delta`, down to that of what the linear map of layer `lowest` gives, and of
/// what goes into the first layer, if wanted. Where norms wait it is as in [`forward`].
pub(super) fn backward(
    pass: &Pass<'_>,
    layers: &[Layer],
    activations: &mut [Activations],
    (rows, lowest): (Rows<'_>, usize),
    mut of_input: Option<&mut [f32]>,
    columns: &mut [f32],
    waited: Option<usize>,
) -> Option<usize> {
    let level = pass.network.level;
    let from = waited.map_or(layers.len(), |waited| waited + 1);
    for (l, layer) in layers.iter().enumerate().take(from).skip(lowest).rev() {
        let (before, own) = activations.split_at_mut(l);
        if waited != Some(l) {
            own[0].gradient(pass, layer, rows);
        }
        if layer.waits(pass)
            && let (Some(norm), Some(share)) = (&layer.batch_norm, &mut own[0].standardised)
        {
            if waited != Some(l) {
                norm.measure_gradient(level, rows.n, &own[0].delta, share);
                return Some(l);
            }
            norm.gradient(pass, rows, &mut own[0].delta, share);
        }
        let below = match before.last_mut() {
            Some(before) => (l > lowest).then_some(&mut *before.delta),
            None => of_input.take(),
        };
        if let Some(below) = below {
            back(pass, [(&layer.matrix, &own[0].delta)], rows.n, columns, below);
        }
    }
    None
}

/// The gradient by what goes into linear maps of one input, from those by what comes out. `columns` is room for its transpose.
pub(super) fn back<const N: usize>(
    pass: &Pass<'_>,
    maps: [(&Matrix, &[f32]); N],
    n: usize,
    columns: &mut [f32],
    result: &mut [f32],
) {
    let (level, n_in) = (pass.network.level, maps[0].0.n_in);
    let sum = &mut columns[..padded(n_in) * ROWS];
    sum.fill(0.0);
    for (matrix, gradient) in maps {
        let panels = pass.parts[matrix.panels.clone()].iter().map(|part| &*part.values);
        matrix::add_back(level, (gradient, matrix.width()), (n, matrix.n_out, n_in), panels, sum);
    }
    matrix::turn(level, sum, n, result, padded(n_in));
}
