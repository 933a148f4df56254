//! Where the cells of a step are put, and the random numbers of a step, in the order in which the module draws them.

use super::{
    autoencoder::Autoencoder,
    block::{Block, ROWS},
    labels::Labels,
    network::Layer,
    stack::Activations,
};
use crate::{
    kernels::{Buffer, padded},
    nn::{Noise, SeededNoise},
};

impl Autoencoder<'_> {
    /// Puts cells that are encoded and decoded into the first blocks, with their noise and what dropout keeps.
    pub(super) fn place(&mut self, cells: &[usize], noise: &mut dyn Noise, drops: bool) {
        let n = cells.len();
        if let Some(embeddings) = &mut self.network.embeddings {
            let codes = cells.iter().map(|&cell| self.dataset.conditions[cell] as usize);
            embeddings.look_up(self.network.level, &mut self.parts, codes);
        }
        self.place_in_encoder(0, cells, noise, drops);
        let Self { network, blocks, draws, .. } = self;
        draws.resize(n * network.n_latent, 0.0);
        for m in (0..network.n_modalities()).take_while(|_| network.modalities.is_some()) {
            let other = network.of_modality(m);
            if m > 0 && drops {
                draw_keeps(noise, &other.encoder, n, blocks, |block| &mut block.of_modality_mut(m).encoder, draws);
                draws.resize(n * network.n_latent, 0.0);
            }
            // What the module draws from each encoder's posterior is compared with nothing here.
            noise.fill_normal("modality", [n, network.n_latent], draws);
        }
        noise.fill_normal("z", [n, network.n_latent], draws);
        spread(draws, network.n_latent, blocks.iter_mut().map(|block| &mut block.noise));
        blocks.iter_mut().for_each(|block| block.is_labelled = false);
        for m in (0..network.n_modalities()).take_while(|_| drops) {
            let decoder = &network.of_modality(m).decoder;
            draw_keeps(noise, decoder, n, blocks, |block| &mut block.of_modality_mut(m).decoder, draws);
        }
        self.draw_for_labels(n, noise, drops);
        self.draw_for_classifier(0, n, noise, drops);
    }

    /// Puts labelled cells into the blocks from `first` on.
    pub(super) fn place_labelled(&mut self, first: usize, cells: &[usize], noise: &mut dyn Noise, drops: bool) {
        self.place_in_encoder(first, cells, noise, drops);
        self.blocks[first..].iter_mut().for_each(|block| block.is_labelled = true);
        self.draw_for_classifier(first, cells.len(), noise, drops);
    }

    fn place_in_encoder(&mut self, first: usize, cells: &[usize], noise: &mut dyn Noise, drops: bool) {
        let blocks = &mut self.blocks[first..];
        for (block, cells) in blocks.iter_mut().zip(cells.chunks(ROWS)) {
            block.put(cells);
        }
        if drops {
            draw_keeps(noise, &self.network.encoder, cells.len(), blocks, |block| &mut block.encoder, &mut self.draws);
        }
    }

    /// What the networks between the two latent states want for the first `n` cells with every label.
    fn draw_for_labels(&mut self, n: usize, noise: &mut dyn Noise, drops: bool) {
        let Self { network, blocks, draws, .. } = self;
        let Some(labels) = &network.labels else { return };
        let (n_labels, n_latent) = (labels.n_labels, network.n_latent);
        let blocks = &mut blocks[..n.div_ceil(ROWS)];
        for (l, layer) in labels.encoder.layers.iter().enumerate().filter(|(_, layer)| drops && layer.dropout.1 > 0.0) {
            let n_out = layer.matrix.n_out;
            if let Some(mut taken) = noise.take_keep(&layer.dropout.0, n_labels * n * n_out) {
                for labels in of_labels(blocks) {
                    labels.keeps[l] = Keeps { later: Some((taken.clone(), n * n_out)), ..Keeps::default() };
                    taken.skip_keep(ROWS * n_out);
                }
                continue;
            }
            fill_keeps(noise, layer, n_labels * n, draws);
            for (b, labels) in of_labels(blocks).enumerate() {
                let own = |all: &[f32]| all.chunks(ROWS * n_out).nth(b).unwrap_or_default().to_vec();
                // Backwards: the next label is the last one.
                labels.keeps[l] = Keeps { given: draws.chunks(n * n_out).rev().map(own).collect(), later: None };
            }
        }
        draws.resize(n_labels * n * n_latent, 0.0);
        noise.fill_normal("z2", [n_labels * n, n_latent], draws);
        for (y, draws) in draws.chunks(n * n_latent).enumerate() {
            spread(draws, n_latent, of_labels(blocks).map(|labels| &mut labels.noise[y]));
        }
    }

    fn draw_for_classifier(&mut self, first: usize, n: usize, noise: &mut dyn Noise, drops: bool) {
        let Self { network, blocks, draws, .. } = self;
        if let Some(labels) = network.labels.as_ref().filter(|_| drops) {
            fn classifier(block: &mut Block) -> &mut [Activations] {
                block.labels.as_mut().map_or(&mut [], |labels| &mut labels.classifier)
            }
            draw_keeps(noise, &labels.classifier, n, &mut blocks[first..], classifier, draws);
        }
    }
}

/// What dropout keeps in a layer for one label after another.
#[derive(Default, Debug)]
pub(super) struct Keeps {
    /// What is still to be drawn, and how many numbers it is from one label to the next: those of other cells lie between.
    later: Option<(SeededNoise, usize)>,
    /// What was drawn, the last label first.
    given: Vec<Vec<f32>>,
}

impl Keeps {
    /// Hands what is kept of `n` rows with the next label to their activations.
    pub(super) fn next_label(&mut self, layer: &Layer, n: usize, activations: &mut Activations) {
        let n_out = layer.matrix.n_out;
        if let Some((noise, stride)) = &mut self.later {
            activations.keep_noise = Some(noise.clone());
            noise.skip_keep(*stride);
        }
        if let Some(given) = self.given.pop() {
            let rows = activations.keep.chunks_exact_mut(padded(n_out)).zip(given.chunks_exact(n_out));
            rows.take(n).for_each(|(to, from)| to[..n_out].copy_from_slice(from));
        }
    }
}

/// Draws what dropout keeps of `n` rows in some layers, whose activations are found in the blocks.
fn draw_keeps(
    noise: &mut dyn Noise,
    layers: &[Layer],
    n: usize,
    blocks: &mut [Block],
    activations: impl Fn(&mut Block) -> &mut [Activations],
    draws: &mut Vec<f32>,
) {
    let blocks = &mut blocks[..n.div_ceil(ROWS)];
    for (l, layer) in layers.iter().enumerate().filter(|(_, layer)| n > 0 && layer.dropout.1 > 0.0) {
        let n_out = layer.matrix.n_out;
        if let Some(mut taken) = noise.take_keep(&layer.dropout.0, n * n_out) {
            for block in blocks.iter_mut() {
                activations(block)[l].keep_noise = Some(taken.clone());
                taken.skip_keep(ROWS * n_out);
            }
            continue;
        }
        fill_keeps(noise, layer, n, draws);
        spread(draws, n_out, blocks.iter_mut().map(|block| &mut activations(block)[l].keep));
    }
}

/// Draws what dropout keeps of `n` rows in a layer, divided by its chance.
fn fill_keeps(noise: &mut dyn Noise, layer: &Layer, n: usize, draws: &mut Vec<f32>) {
    let (n_out, (name, rate)) = (layer.matrix.n_out, &layer.dropout);
    draws.resize(n * n_out, 0.0);
    if !noise.fill_keep(name, [n, n_out], *rate, draws) {
        draws.fill(1.0 - *rate as f32);
    }
    draws.iter_mut().for_each(|keep| *keep *= layer.by_chance());
}

/// Rows of `n` numbers, a block's worth to each block.
fn spread<'b>(values: &[f32], n: usize, blocks: impl Iterator<Item = &'b mut Buffer>) {
    for (block, values) in blocks.zip(values.chunks(ROWS * n)) {
        for (to, from) in block.chunks_exact_mut(padded(n)).zip(values.chunks_exact(n)) {
            to[..n].copy_from_slice(from);
        }
    }
}

fn of_labels(blocks: &mut [Block]) -> impl Iterator<Item = &mut Labels> {
    blocks.iter_mut().filter_map(|block| block.labels.as_mut())
}
