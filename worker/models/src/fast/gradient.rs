//! Gradients of the tensors, piece by piece, from what the blocks hold. Sums go over cells in order.

use super::{
    batch_norm::BatchNorm,
    block::{Block, ROWS},
    network::{Head, Layer, Matrix, Network},
    part::{Layout, Part},
    stack::Activations,
};
use crate::{
    data::Dataset,
    kernels::{
        Level,
        buffer::{PANEL, Square},
        layer,
        matrix::{self, AT_ONCE, Left, Piece, Start},
        padded, sparse,
    },
};

/// Where a part's gradient comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// What goes into a linear map, times what comes back.
    Panel(MatrixId),
    /// What comes back to a linear map.
    Bias(MatrixId),
    /// What comes back to a linear map, apart for each condition.
    Columns(MatrixId),
    /// The latent state times what comes back to a map that is held to sets, in this piece of it.
    Masked(usize),
    /// What comes back to a batch norm, times what it standardised.
    NormWeight(MatrixId),
    /// What comes back to a batch norm.
    NormBias(MatrixId),
    /// The same two, apart for each condition.
    OffsetWeight(MatrixId),
    OffsetBias(MatrixId),
    /// The likelihood.
    LogDispersion,
    /// Columns of conditions that vectors stand for: see [`super::embedding`].
    Embedding,
    /// The networks of labels, at this place among their parts; blocks sum it up.
    Labels(usize),
}

/// One of the network's linear maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MatrixId {
    Encoder(usize),
    Mean,
    Var,
    Decoder(usize),
    Head,
    Dropout,
}

/// The blocks that hold a step's gradients.
#[derive(Clone, Copy)]
pub(super) struct Differentiated<'a> {
    /// All of them; the last may hold labelled cells, which were encoded only.
    encoded: &'a [Block],
    /// Those whose cells were decoded.
    decoded: &'a [Block],
    /// Whose gradients are looked at.
    modality: usize,
}

impl<'a> Differentiated<'a> {
    /// The blocks of so many cells, and of labelled cells behind.
    pub(super) fn new(blocks: &'a [Block], n_cells: usize, n_labelled: usize) -> Self {
        let (decoded, labelled) = (n_cells.div_ceil(ROWS), n_labelled.div_ceil(ROWS));
        Self { encoded: &blocks[..decoded + labelled], decoded: &blocks[..decoded], modality: 0 }
    }

    /// Those that a linear map has a gradient in, each as its modality has it.
    fn of(self, id: MatrixId) -> impl ExactSizeIterator<Item = &'a Block> {
        let blocks = match id {
            MatrixId::Encoder(_) | MatrixId::Mean | MatrixId::Var => self.encoded,
            MatrixId::Decoder(_) | MatrixId::Head | MatrixId::Dropout => self.decoded,
        };
        blocks.iter().map(move |block| block.of_modality(self.modality))
    }
}

/// The source of each part.
pub(super) fn sources(network: &Network, n_parts: usize) -> Vec<Source> {
    let mut sources = vec![Source::LogDispersion; n_parts];
    (0..network.n_modalities()).for_each(|m| set_sources(network.of_modality(m), &mut sources));
    sources
}

fn set_sources(network: &Network, sources: &mut [Source]) {
    let mut of_matrix = |matrix: &Matrix, id| {
        sources[matrix.panels.clone()].fill(Source::Panel(id));
        sources[matrix.bias] = Source::Bias(id);
    };
    for (l, layer) in network.encoder.iter().enumerate() {
        of_matrix(&layer.matrix, MatrixId::Encoder(l));
    }
    for (l, layer) in network.decoder.iter().enumerate() {
        of_matrix(&layer.matrix, MatrixId::Decoder(l));
    }
    of_matrix(&network.mean, MatrixId::Mean);
    of_matrix(&network.var, MatrixId::Var);
    if let Head::Full(head) = &network.head {
        of_matrix(head, MatrixId::Head);
    }
    if let Some(dropout) = &network.dropout {
        of_matrix(dropout, MatrixId::Dropout);
    }
    for (at, part) in network.labels.iter().flat_map(|labels| labels.parts.clone()).enumerate() {
        sources[part] = Source::Labels(at);
    }
    if let Head::Masked(masked) = &network.head {
        masked.pieces.iter().enumerate().for_each(|(at, piece)| sources[piece.part] = Source::Masked(at));
        masked.columns.into_iter().for_each(|part| sources[part] = Source::Columns(MatrixId::Head));
    }
    if let Some(embeddings) = &network.embeddings {
        let maps = embeddings.maps.iter().map(|map| map.weight);
        maps.chain([embeddings.rows]).for_each(|part| sources[part] = Source::Embedding);
    }
    let of_encoder = network.encoder.iter().enumerate().map(|(l, layer)| (layer, MatrixId::Encoder(l)));
    let of_decoder = network.decoder.iter().enumerate().map(|(l, layer)| (layer, MatrixId::Decoder(l)));
    for (norm, id) in of_encoder.chain(of_decoder).filter_map(|(layer, id)| Some((layer.batch_norm.as_ref()?, id))) {
        sources[norm.parts.weight] = Source::NormWeight(id);
        sources[norm.parts.bias] = Source::NormBias(id);
        if let Some(offsets) = &norm.offsets {
            sources[offsets.weight] = Source::OffsetWeight(id);
            sources[offsets.bias] = Source::OffsetBias(id);
        }
    }
    let columns = |layer: &Layer| layer.columns;
    for (l, part) in network.encoder.iter().map(columns).enumerate().filter_map(|(l, part)| Some((l, part?))) {
        sources[part] = Source::Columns(MatrixId::Encoder(l));
    }
    for (l, part) in network.decoder.iter().map(columns).enumerate().filter_map(|(l, part)| Some((l, part?))) {
        sources[part] = Source::Columns(MatrixId::Decoder(l));
    }
}

/// Computes the gradient of a part that trains, unless it comes from those of other parts.
pub(super) fn collect(network: &Network, dataset: &Dataset<'_>, blocks: Differentiated<'_>, part: &mut Part) {
    let Part { layout, modality, source, moments, .. } = part;
    let (network, blocks) = (network.of_modality(*modality), Differentiated { modality: *modality, ..blocks });
    let (level, source) = (network.level, *source);
    let Some(moments) = moments else { return };
    let gradient = &mut *moments.gradient;
    match (source, &*layout) {
        (Source::Panel(MatrixId::Encoder(0)), Layout::Panel { p, .. }) => {
            gradient.fill(0.0);
            let (width, values) = (network.encoder[0].matrix.width(), dataset.values_of(network.slot));
            for block in blocks.of(MatrixId::Encoder(0)) {
                let deltas = block.encoder[0].delta.chunks_exact(width);
                for (i, (&cell, delta)) in block.cells.iter().zip(deltas).enumerate() {
                    let (genes, _) = values.row(cell);
                    sparse::add_outer(level, genes, block.inputs.of(i), &delta[p * PANEL..], gradient);
                }
            }
        }
        (Source::Panel(id), Layout::Panel { p, n_in, n_out, .. }) => {
            panel(level, blocks, id, (*p, *n_in, *n_out), gradient);
        }
        (Source::Bias(id) | Source::Columns(id), Layout::Rows { n_rows, n }) => {
            gradient.fill(0.0);
            let (n_rows, width) = (*n_rows, padded(*n));
            for block in blocks.of(id) {
                for (&cell, delta) in block.cells.iter().zip(delta(block, id).chunks_exact(width)) {
                    let by_condition = matches!(source, Source::Columns(_)) && n_rows > 1;
                    let row = if by_condition { dataset.conditions[cell] as usize } else { 0 };
                    layer::add(level, &mut gradient[row * width..][..width], delta);
                }
            }
        }
        (Source::LogDispersion, _) => {
            gradient.fill(0.0);
            blocks.of(MatrixId::Head).for_each(|block| layer::add(level, gradient, &block.of_log_r));
        }
        (Source::Labels(at), _) => {
            gradient.fill(0.0);
            let labels = blocks.encoded.iter().filter_map(|block| block.labels.as_ref());
            labels.for_each(|labels| layer::add(level, gradient, labels.gradient(at)));
        }
        (Source::Masked(piece), _) => {
            if let Head::Masked(masked) = &network.head {
                masked.collect(level, piece, blocks.decoded, gradient);
            }
        }
        (Source::NormWeight(id), _) => gradient.copy_from_slice(&norm_of(network, id).by_weight),
        (Source::NormBias(id), _) => gradient.copy_from_slice(&norm_of(network, id).by_bias),
        (Source::OffsetWeight(id) | Source::OffsetBias(id), _) => {
            gradient.fill(0.0);
            for own in blocks.of(id).filter_map(|block| activations(block, id).standardised.as_ref()) {
                let sums = if matches!(source, Source::OffsetWeight(_)) { &own.second } else { &own.first };
                layer::add(level, gradient, sums);
            }
        }
        (Source::Embedding, _) => {}
        (Source::Panel(_) | Source::Bias(_) | Source::Columns(_), _) => {
            unreachable!("matrices are panels, and only they are")
        }
    }
}

/// What the layer of a linear map makes of a block.
fn activations(block: &Block, id: MatrixId) -> &Activations {
    match id {
        MatrixId::Encoder(l) => &block.encoder[l],
        MatrixId::Decoder(l) => &block.decoder[l],
        MatrixId::Mean | MatrixId::Var | MatrixId::Head | MatrixId::Dropout => unreachable!("heads have no norms"),
    }
}

/// The batch norm behind a linear map.
fn norm_of(network: &Network, id: MatrixId) -> &BatchNorm {
    let layer = match id {
        MatrixId::Encoder(l) => &network.encoder[l],
        MatrixId::Decoder(l) => &network.decoder[l],
        MatrixId::Mean | MatrixId::Var | MatrixId::Head | MatrixId::Dropout => unreachable!("heads have no norms"),
    };
    layer.batch_norm.as_ref().expect("it is the source of a norm's part")
}

/// 32 columns of the gradient of a matrix.
fn panel(
    level: Level,
    blocks: Differentiated<'_>,
    id: MatrixId,
    (p, n_in, n_out): (usize, usize, usize),
    gradient: &mut [f32],
) {
    let mut packed: [Square; AT_ONCE] = Default::default();
    let mut blocks = blocks.of(id);
    for at in 0..blocks.len().div_ceil(AT_ONCE) {
        let mut pieces = [Piece::default(); AT_ONCE];
        for ((block, packed), piece) in blocks.by_ref().take(AT_ONCE).zip(&mut packed).zip(&mut pieces) {
            matrix::pack_panel(delta(block, id), padded(n_out), block.n(), p, &mut packed.0);
            let left = Left::transposed(input(block, id), padded(n_in));
            *piece = Piece { left, panel: &packed.0, depth: block.n() };
        }
        let start = if at == 0 { Start::Zero } else { Start::Result };
        matrix::multiply_panel(level, &pieces, start, gradient, PANEL, n_in);
    }
}

/// What went into a linear map, a row per cell.
fn input(block: &Block, id: MatrixId) -> &[f32] {
    match id {
        MatrixId::Encoder(l) => &block.encoder[l - 1].out,
        MatrixId::Mean | MatrixId::Var => &block.encoder[block.encoder.len() - 1].out,
        MatrixId::Decoder(0) => &block.z,
        MatrixId::Decoder(l) => &block.decoder[l - 1].out,
        MatrixId::Head | MatrixId::Dropout => block.below_head(),
    }
}

/// The gradient by what a linear map gave, a row per cell.
fn delta(block: &Block, id: MatrixId) -> &[f32] {
    match id {
        MatrixId::Encoder(l) => &block.encoder[l].delta,
        MatrixId::Mean => &block.of_mean,
        MatrixId::Var => &block.of_var,
        MatrixId::Decoder(l) => &block.decoder[l].delta,
        MatrixId::Head => &block.logits,
        MatrixId::Dropout => &block.dropout,
    }
}
