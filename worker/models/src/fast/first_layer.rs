//! The first layer of the encoder, over the counts that are there.

use super::{block::Pass, spec::EncoderInput};
use crate::kernels::{buffer::PANEL, sparse};

/// What the encoder sees of some cells' counts, cell after cell, and where each cell's begin.
#[derive(Clone, Default, Debug)]
pub(super) struct Inputs {
    values: Vec<f32>,
    starts: Vec<usize>,
    /// Positions of the cells in the data set.
    cells: Vec<usize>,
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
        let (width, bias) = (first.width(), &*pass.parts[first.bias].values);
        self.values.clear();
        self.starts.clear();
        self.starts.push(0);
        self.cells.clear();
        for (row, cell) in rows.chunks_exact_mut(width).zip(cells) {
            let (_, counts) = pass.values.row(cell);
            let start = self.values.len();
            match network.input {
                EncoderInput::Count => self.values.extend_from_slice(counts),
                EncoderInput::Log1p => {
                    self.values.resize(start + counts.len(), 0.0);
                    sparse::ln_1p_of(level, counts, &mut self.values[start..]);
                }
            }
            self.starts.push(self.values.len());
            self.cells.push(cell);
            row.copy_from_slice(bias);
        }
        // A few panels for all cells, then the next ones: what cells share of the weights of a wide layer stays in the second cache.
        let mut some: [&[f32]; AT_ONCE] = [&[]; AT_ONCE];
        for (at, panels) in pass.parts[first.panels.clone()].chunks(AT_ONCE).enumerate() {
            some.iter_mut().zip(panels).for_each(|(slot, part)| *slot = &part.values);
            let columns = at * AT_ONCE * PANEL..(at * AT_ONCE + panels.len()) * PANEL;
            for (i, (row, &cell)) in rows.chunks_exact_mut(width).zip(&self.cells).enumerate() {
                let (genes, _) = pass.values.row(cell);
                sparse::add_row(level, genes, self.of(i), &some[..panels.len()], &mut row[columns.clone()]);
            }
        }
    }
}

/// Panels that are read together.
const AT_ONCE: usize = 4;
