//! Conditions that vectors stand for: a layer's columns are what a linear map makes of them, and gradients of columns go to the map and to
//! the vectors. A vector that cells of a step have is first shortened where it stands, outside the gradient.

use super::part::Part;
use crate::kernels::{Buffer, Level, layer, padded};

/// The vectors, and the maps that make columns of them.
#[derive(Debug)]
pub(super) struct Embeddings {
    /// Part of the vectors, a row per condition.
    pub(super) rows: usize,
    pub(super) maps: Vec<Map>,
    max_norm: f32,
    /// Numbers of a vector, with padding.
    width: usize,
    /// Conditions of the cells at hand, each once.
    present: Vec<usize>,
    is_present: Vec<bool>,
    /// Room for a vector.
    vector: Buffer,
}

/// A linear map of vectors to a layer's columns.
#[derive(Debug)]
pub(super) struct Map {
    /// Its part, a row per unit.
    pub(super) weight: usize,
    /// Part of the columns.
    pub(super) columns: usize,
    pub(super) n_out: usize,
}

/// What becomes of a vector that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shortened {
    /// It stays, and its column is that of a shorter one.
    OnTheWay,
    WhereItStands,
}

impl Embeddings {
    /// Vectors of `n_numbers` in a part, which no map takes yet.
    pub(super) fn new(rows: usize, n_conditions: usize, n_numbers: usize, max_norm: f64) -> Self {
        Self {
            rows,
            maps: Vec::new(),
            max_norm: max_norm as f32,
            width: padded(n_numbers),
            present: Vec::with_capacity(n_conditions),
            is_present: vec![false; n_conditions],
            vector: Buffer::zeros(padded(n_numbers)),
        }
    }

    /// Brings all columns up to date. No vector changes.
    pub(super) fn refresh(&mut self, level: Level, parts: &mut [Part]) {
        (0..self.is_present.len()).for_each(|code| self.set_columns(level, parts, code, Shortened::OnTheWay));
    }

    /// Brings the columns of these conditions up to date.
    pub(super) fn look_up(&mut self, level: Level, parts: &mut [Part], codes: impl Iterator<Item = usize>) {
        if self.maps.iter().all(|map| parts[map.columns].moments.is_none()) {
            return;
        }
        self.present.drain(..).for_each(|code| self.is_present[code] = false);
        for code in codes {
            if !std::mem::replace(&mut self.is_present[code], true) {
                self.present.push(code);
            }
        }
        let present = std::mem::take(&mut self.present);
        present.iter().for_each(|&code| self.set_columns(level, parts, code, Shortened::WhereItStands));
        self.present = present;
    }

    fn set_columns(&mut self, level: Level, parts: &mut [Part], code: usize, shortened: Shortened) {
        let vector = &mut parts[self.rows].values[code * self.width..][..self.width];
        let length = layer::dot(level, vector, vector).sqrt();
        self.vector.copy_from_slice(vector);
        if length > self.max_norm {
            let factor = self.max_norm / (length + LENGTH_FLOOR);
            self.vector.iter_mut().for_each(|number| *number *= factor);
            if shortened == Shortened::WhereItStands {
                vector.copy_from_slice(&self.vector);
            }
        }
        for map in &self.maps {
            let [weight, columns] = parts.get_disjoint_mut([map.weight, map.columns]).expect(APART);
            let column = &mut columns.values[code * padded(map.n_out)..][..map.n_out];
            for (unit, weights) in column.iter_mut().zip(weight.values.chunks_exact(self.width)) {
                *unit = layer::dot(level, weights, &self.vector);
            }
        }
    }

    /// From the gradients of columns to those of maps and vectors. Only what was looked up has one.
    pub(super) fn collect(&self, level: Level, parts: &mut [Part]) {
        if let Some(of_rows) = &mut parts[self.rows].moments {
            of_rows.gradient.fill(0.0);
        }
        for map in &self.maps {
            let all = [self.rows, map.weight, map.columns];
            let [rows, weight, columns] = parts.get_disjoint_mut(all).expect(APART);
            let Some(of_columns) = &columns.moments else { continue };
            if let Some(of_weight) = &mut weight.moments {
                of_weight.gradient.fill(0.0);
            }
            for &code in &self.present {
                let own = code * self.width..(code + 1) * self.width;
                let of_column = &of_columns.gradient[code * padded(map.n_out)..][..map.n_out];
                for (o, &of_unit) in of_column.iter().enumerate() {
                    let weights = o * self.width..(o + 1) * self.width;
                    if let Some(of_weight) = &mut weight.moments {
                        let vector = &rows.values[own.clone()];
                        layer::add_scaled(level, &mut of_weight.gradient[weights.clone()], vector, of_unit);
                    }
                    if let Some(of_rows) = &mut rows.moments {
                        layer::add_scaled(level, &mut of_rows.gradient[own.clone()], &weight.values[weights], of_unit);
                    }
                }
            }
        }
    }
}

/// Added to a length before it divides, as PyTorch does where it shortens rows of an embedding.
const LENGTH_FLOOR: f32 = 1e-7;
/// What makes several parts borrowed at once possible.
const APART: &str = "vectors, maps and columns are parts of their own";
