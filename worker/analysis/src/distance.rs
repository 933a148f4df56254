//! Distances from one cell to many, in straight loops over tiles of cells.

use ndarray::{ArrayView1, ArrayView2};

use crate::{AnalysisError, Result};

/// Some consecutive rows of an embedding, stored dimension by dimension in double precision.
pub(crate) struct Tile {
    pub(crate) first_row: usize,
    pub(crate) n_rows: usize,
    by_dim: Vec<f64>,
}

impl Tile {
    /// Tiles over all rows, in order.
    pub(crate) fn cover(x: ArrayView2<'_, f32>) -> Vec<Self> {
        let first_rows = (0..x.nrows()).step_by(TILE_ROWS);
        first_rows
            .map(|first_row| {
                let n_rows = TILE_ROWS.min(x.nrows() - first_row);
                let mut by_dim = Vec::with_capacity(n_rows * x.ncols());
                for column in x.columns() {
                    by_dim.extend(column.iter().skip(first_row).take(n_rows).map(|&value| f64::from(value)));
                }
                Self { first_row, n_rows, by_dim }
            })
            .collect()
    }

    /// Squared Euclidean distances from `cell` to the rows of the tile, into the first `n_rows` of `out`.
    pub(crate) fn squared_distances(&self, cell: ArrayView1<'_, f32>, out: &mut [f64]) {
        let out = &mut out[..self.n_rows];
        out.fill(0.0);
        for (&value, column) in cell.iter().zip(self.by_dim.chunks_exact(self.n_rows)) {
            for (sum, other) in out.iter_mut().zip(column) {
                let difference = f64::from(value) - other;
                *sum += difference * difference;
            }
        }
    }
}

/// Refuses an embedding with NaN or infinite values: no distance would mean anything.
pub(crate) fn check_finite(what: &'static str, x: ArrayView2<'_, f32>) -> Result<()> {
    match x.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((row, column), _)) => Err(AnalysisError::NotFinite { what, row, column }),
        None => Ok(()),
    }
}

/// A tile of ten dimensions is 80 KiB: it stays in the second-level cache while a block of cells passes over it.
pub(crate) const TILE_ROWS: usize = 1024;
