//! Distances from one cell to many, in straight loops over tiles of nearby cells.

use ndarray::{ArrayView1, ArrayView2};

use crate::{AnalysisError, Result};

/// Some rows of an embedding that lie together, stored dimension by dimension in double precision.
pub(crate) struct Tile {
    /// Numbers of the rows, ascending.
    pub(crate) rows: Vec<u32>,
    by_dim: Vec<f64>,
    bounds: Vec<(f64, f64)>,
}

impl Tile {
    /// Divides all rows, at the median of the widest dimension until a tile holds at most [`TILE_ROWS`].
    pub(crate) fn divide(x: ArrayView2<'_, f32>) -> Vec<Self> {
        let mut open = vec![(0..x.nrows() as u32).collect::<Vec<u32>>()];
        let mut tiles = Vec::new();
        while let Some(mut rows) = open.pop() {
            let bounds = bounds(x, &rows);
            if rows.len() <= TILE_ROWS {
                rows.sort_unstable();
                tiles.push(Self::new(x, rows, bounds));
                continue;
            }
            let extents = bounds.iter().map(|(low, high)| high - low).enumerate();
            let widest = extents.fold((0, -1.0), |widest, other| if other.1 > widest.1 { other } else { widest }).0;
            let key = |row: u32| x[[row as usize, widest]];
            let half = rows.len() / 2;
            rows.select_nth_unstable_by(half, |&a, &b| key(a).total_cmp(&key(b)).then(a.cmp(&b)));
            let right = rows.split_off(half);
            open.extend([right, rows]);
        }
        tiles
    }

    fn new(x: ArrayView2<'_, f32>, rows: Vec<u32>, bounds: Vec<(f64, f64)>) -> Self {
        let mut by_dim = Vec::with_capacity(rows.len() * x.ncols());
        for column in x.columns() {
            by_dim.extend(rows.iter().map(|&row| f64::from(column[row as usize])));
        }
        Self { rows, by_dim, bounds }
    }

    /// Squared Euclidean distances from `cell` to the rows of the tile, into the first entries of `out`.
    pub(crate) fn squared_distances(&self, cell: ArrayView1<'_, f32>, out: &mut [f64]) {
        let out = &mut out[..self.rows.len()];
        out.fill(0.0);
        for (&value, column) in cell.iter().zip(self.by_dim.chunks_exact(self.rows.len())) {
            for (sum, other) in out.iter_mut().zip(column) {
                let difference = f64::from(value) - other;
                *sum += difference * difference;
            }
        }
    }

    /// A squared distance that no row of the tile falls below: that of `cell` to the box around the rows.
    pub(crate) fn squared_distance_to_box(&self, cell: ArrayView1<'_, f32>) -> f64 {
        let beyond = cell.iter().zip(&self.bounds).map(|(&value, &(low, high))| {
            let value = f64::from(value);
            if value < low {
                low - value
            } else if value > high {
                value - high
            } else {
                0.0
            }
        });
        beyond.map(|distance| distance * distance).sum()
    }

    /// The same for any cell of another tile.
    pub(crate) fn squared_distance_between_boxes(&self, other: &Self) -> f64 {
        let beyond = self.bounds.iter().zip(&other.bounds).map(|(a, b)| (a.0 - b.1).max(b.0 - a.1).max(0.0));
        beyond.map(|distance| distance * distance).sum()
    }
}

fn bounds(x: ArrayView2<'_, f32>, rows: &[u32]) -> Vec<(f64, f64)> {
    let mut bounds = vec![(f64::INFINITY, f64::NEG_INFINITY); x.ncols()];
    for &row in rows {
        for (bound, &value) in bounds.iter_mut().zip(x.row(row as usize)) {
            *bound = (bound.0.min(f64::from(value)), bound.1.max(f64::from(value)));
        }
    }
    bounds
}

/// Refuses an embedding with NaN or infinite values: no distance would mean anything.
pub(crate) fn check_finite(what: &'static str, x: ArrayView2<'_, f32>) -> Result<()> {
    match x.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((row, column), _)) => Err(AnalysisError::NotFinite { what, row, column }),
        None => Ok(()),
    }
}

/// Small enough that a tile of ten dimensions stays in the first-level cache and that far tiles are told apart; large
/// enough that the loops over a tile pay.
pub(crate) const TILE_ROWS: usize = 256;
