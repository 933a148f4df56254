//! The first layer of the encoder, over the counts that are there.

use super::{block::Pass, spec::EncoderInput};
use crate::kernels::{buffer::PANEL, sparse};

/// What the encoder sees of some cells' counts, cell after cell, and where each cell's begin.
#[derive(Clone, Default, Debug)]
pub(super) struct Inputs {
    values: Vec<f32>,
    starts: Vec<usize>,
}

impl Inputs {
    /// Of one cell.
    pub(super) fn of(&self, i: usize) -> &[f32] {
        &self.values[self.starts[i]..self.starts[i + 1]]
    }

    /// Reads cells and puts the layer's product with each into a row of its own, the bias included and the conditions' columns not.
    pub(super) fn multiply(&mut self, pass: &Pass<'_>, cells: impl Iterator<Item = usize>, rows: &mut [f32]) {
        let network = pass.network;
        let (level, first) = (network.level, &network.encoder[0].matrix);
        let bias = &*pass.parts[first.bias].values;
        self.values.clear();
        self.starts.clear();
        self.starts.push(0);
        for (row, cell) in rows.chunks_exact_mut(first.width()).zip(cells) {
            let (genes, counts) = pass.dataset.counts.row(cell);
            let start = self.values.len();
            match network.input {
                EncoderInput::Count => self.values.extend_from_slice(counts),
                EncoderInput::Log1p => {
                    self.values.resize(start + counts.len(), 0.0);
                    sparse::ln_1p_of(level, counts, &mut self.values[start..]);
                }
            }
            self.starts.push(self.values.len());
            row.copy_from_slice(bias);
            add_row(pass, genes, &self.values[start..], row);
        }
    }
}

/// Adds the layer's product with one cell to `row`.
fn add_row(pass: &Pass<'_>, genes: &[u32], inputs: &[f32], row: &mut [f32]) {
    let first = &pass.network.encoder[0].matrix;
    let panels = &pass.parts[first.panels.clone()];
    let mut some: [&[f32]; 4] = [&[]; 4];
    for (panels, row) in panels.chunks(some.len()).zip(row.chunks_mut(some.len() * PANEL)) {
        some.iter_mut().zip(panels).for_each(|(slot, part)| *slot = &part.values);
        sparse::add_row(pass.network.level, genes, inputs, &some[..panels.len()], row);
    }
}
