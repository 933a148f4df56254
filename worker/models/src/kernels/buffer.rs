//! Memory that starts at a cache line.

use std::ops::{Deref, DerefMut};

use super::lanes::LANES;

/// A fixed number of `f32`, a multiple of 16, aligned to 64 bytes: no load of 16 lanes crosses a cache line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffer(Vec<Line>);

#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Columns of a panel, see [`super::matrix`]; the rows of every matrix are padded to a multiple of it.
pub(crate) const PANEL: usize = 2 * LANES;

/// One panel of 32 rows, aligned like a buffer.
#[repr(align(64))]
pub(crate) struct Square(pub(crate) [f32; PANEL * PANEL]);

impl Default for Square {
    fn default() -> Self {
        Self([0.0; PANEL * PANEL])
    }
}

/// The next multiple of a panel's columns.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(PANEL)
}

impl Buffer {
    /// So many zeros, and more up to a multiple of 16.
    pub(crate) fn zeros(n: usize) -> Self {
        Self(vec![Line([0.0; LANES]); n.div_ceil(LANES)])
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a `Line` is 16 `f32` without padding (`repr(C)`, its size equals its alignment), so the lines of the vector
        // are that many initialised `f32` in a row, borrowed as long as `self`.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LANES) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * LANES) }
    }
}
