//! Dense products, from panels.
//!
//! A matrix of `k` rows is kept as panels of 32 columns, each `[k, 32]` without gaps: what a product reads of it lies in a row, and
//! nothing is packed when it does not change. Every element of a product is one chain of fused multiply-adds in order of `k`,
//! however the work is cut, so tiles, threads and instruction sets cannot change a bit. libtorch's product (MKL) depends on all three,
//! and packs a frozen matrix again in every step.

use super::{
    buffer::{PANEL, Square},
    lanes::{LANES, Lanes, Level, Tile, kernel},
};

/// The left factor: element `(i, k)` is `values[i * row_stride + k * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Left<'a> {
    /// A row-major matrix.
    pub(crate) fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: width, column_stride: 1 }
    }

    /// The transpose of a row-major matrix.
    pub(crate) fn transposed(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: 1, column_stride: width }
    }

    fn skip_columns(self, k: usize) -> Self {
        Self { values: &self.values[k * self.column_stride..], ..self }
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing.
    Zero,
    /// The same 32 numbers in every row.
    Row(&'a [f32]),
    /// What the result already holds.
    Result,
}

/// The rows `result[i * width..][..n] = left · right + bias`; `right` is panels of `k` rows, `bias` (or zeros) padded.
pub(crate) fn multiply<'b>(
    level: Level,
    left: Left<'_>,
    size: (usize, usize),
    right: impl Iterator<Item = &'b [f32]> + Clone,
    bias: Option<&[f32]>,
    result: &mut [f32],
    width: usize,
) {
    let ((n_rows, k), begin) =
        (size, |p: usize| bias.map_or(Start::Zero, |bias| Start::Row(&bias[p * PANEL..][..PANEL])));
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        for (p, panel) in right.clone().enumerate() {
            let begin = if start == 0 { begin(p) } else { Start::Result };
            let (left, panel) = (left.skip_columns(start), &panel[start * PANEL..]);
            multiply_panel(level, left, panel, begin, &mut result[p * PANEL..], width, (n_rows, depth));
        }
    }
}

/// Adds the transpose of `left · matrixᵀ` to `sum`, `[k, 32]`: `left` is up to 32 rows of `n` numbers, the matrix panels of `k` rows.
/// It is read as it is for [`multiply`], so one copy of it in the second cache serves both directions.
pub(crate) fn add_back<'b>(
    level: Level,
    left: (&[f32], usize),
    (n_rows, n, k): (usize, usize, usize),
    panels: impl Iterator<Item = &'b [f32]>,
    sum: &mut [f32],
) {
    let mut columns = Square::default();
    for (p, panel) in panels.enumerate() {
        let depth = PANEL.min(n - p * PANEL);
        transpose(level, &left.0[p * PANEL..], (left.1, n_rows), &mut columns.0, PANEL);
        let panel = Left::rows(panel, PANEL);
        multiply_panel(level, panel, &columns.0, Start::Result, sum, PANEL, (k, depth));
    }
}

/// From what [`add_back`] sums up, `[k, 32]`, to rows of `width` numbers.
pub(crate) fn turn(level: Level, sum: &[f32], n_rows: usize, result: &mut [f32], width: usize) {
    let mut rows = Square::default();
    for (q, sum) in sum.chunks_exact(PANEL * PANEL).enumerate() {
        transpose(level, sum, (PANEL, PANEL), &mut rows.0, PANEL);
        for (from, to) in rows.0.as_chunks::<PANEL>().0.iter().zip(result.chunks_exact_mut(width)).take(n_rows) {
            to[q * PANEL..][..PANEL].copy_from_slice(from);
        }
    }
}

kernel! {
    /// 32 columns of up to 32 rows become 32 rows of 32; those beyond are 0. `shape` is the width of a row and the number of rows.
    pub(crate) fn transpose<V>(from: &[f32], shape: (usize, usize), to: &mut [f32], width: usize) {
        let (from_width, n_rows) = shape;
        for row in (0..PANEL).step_by(LANES) {
            for column in (0..PANEL).step_by(LANES) {
                let mut rows = [V::splat(0.0); LANES];
                for (i, lanes) in rows.iter_mut().enumerate().take(n_rows.saturating_sub(row)) {
                    let at = (row + i) * from_width + column;
                    *lanes = load(&from[at..at + LANES]);
                }
                // Four perfect shuffles of the rows are a transpose.
                for _ in 0..4 {
                    let mut next = rows;
                    for i in 0..LANES / 2 {
                        (next[2 * i], next[2 * i + 1]) = rows[i].interleave(rows[i + LANES / 2]);
                    }
                    rows = next;
                }
                for (i, lanes) in rows.into_iter().enumerate() {
                    let at = (column + i) * width + row;
                    lanes.store((&mut to[at..at + LANES]).try_into().expect("a chunk of as many numbers as lanes"));
                }
            }
        }
    }
}

#[inline(always)]
fn load<V: Lanes>(from: &[f32]) -> V {
    V::load(from.try_into().expect("a chunk of as many numbers as lanes"))
}

/// Rows of a panel that are multiplied before the next panel: they stay in the first cache while all rows go by.
const DEPTH: usize = 256;

kernel! {
    /// 32 columns of a product: `result[i * width..][..32] = start + left · panel` for `size.0` rows and depth `size.1`.
    pub(crate) fn multiply_panel<V>(
        left: Left<'_>,
        panel: &[f32],
        start: Start<'_>,
        result: &mut [f32],
        width: usize,
        size: (usize, usize),
    ) {
        let (n_rows, k) = size;
        if n_rows == 0 || k == 0 {
            return;
        }
        let last = (n_rows - 1) * left.row_stride + (k - 1) * left.column_stride;
        assert!(last < left.values.len() && k * PANEL <= panel.len());
        assert!((n_rows - 1) * width + PANEL <= result.len());
        if let Start::Row(row) = start {
            assert!(row.len() >= PANEL);
        }
        let mut row = 0;
        while row < n_rows {
            // SAFETY: all rows that a tile touches are below `n_rows`, and the assertions above cover the last element of the
            // last row of all three matrices.
            row += unsafe { tiles::<V>(left, panel, start, result, width, row, n_rows - row, k) };
        }
    }
}

/// One strip of rows, 32 columns wide; gives the number of rows.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the inside of a loop, taken out to be read")]
unsafe fn tiles<V: Lanes>(
    left: Left<'_>,
    panel: &[f32],
    start: Start<'_>,
    result: &mut [f32],
    width: usize,
    row: usize,
    n_left: usize,
    k: usize,
) -> usize {
    // SAFETY: the caller's, for `row` and the rows below `row + n_left`.
    unsafe {
        match (V::TILE, n_left) {
            (Tile::Wide, 8..) => tile::<V, 8, 2>(left, panel, start, result, width, row, 0, k),
            (Tile::Wide, 4..) => tile::<V, 4, 2>(left, panel, start, result, width, row, 0, k),
            (Tile::Wide, _) => tile::<V, 1, 2>(left, panel, start, result, width, row, 0, k),
            (Tile::Narrow, 4..) => {
                tile::<V, 4, 1>(left, panel, start, result, width, row, 0, k);
                tile::<V, 4, 1>(left, panel, start, result, width, row, LANES, k)
            }
            (Tile::Narrow, _) => {
                tile::<V, 1, 1>(left, panel, start, result, width, row, 0, k);
                tile::<V, 1, 1>(left, panel, start, result, width, row, LANES, k)
            }
        }
    }
}

/// `ROWS` rows and `VECTORS` times 16 columns, in registers; gives the number of rows.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the inside of a loop, taken out to be read")]
unsafe fn tile<V: Lanes, const ROWS: usize, const VECTORS: usize>(
    left: Left<'_>,
    panel: &[f32],
    start: Start<'_>,
    result: &mut [f32],
    width: usize,
    row: usize,
    column: usize,
    k: usize,
) -> usize {
    // SAFETY: the caller vouches for rows `row..row + ROWS` of `left` and `result` and for `k` rows of the panel.
    unsafe {
        let result = result.as_mut_ptr().add(row * width + column);
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                match start {
                    Start::Zero => {}
                    Start::Row(values) => *sum = V::load(&*values.as_ptr().add(column + v * LANES).cast()),
                    Start::Result => *sum = V::load(&*result.add(i * width + v * LANES).cast()),
                }
            }
        }
        let mut a = left.values.as_ptr().add(row * left.row_stride);
        let mut b = panel.as_ptr().add(column);
        for _ in 0..k {
            let mut right = [V::splat(0.0); VECTORS];
            for (v, right) in right.iter_mut().enumerate() {
                *right = V::load(&*b.add(v * LANES).cast());
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let factor = V::splat(*a.add(i * left.row_stride));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = factor.mul_add(right, *sum);
                }
            }
            a = a.wrapping_add(left.column_stride);
            b = b.add(PANEL);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(&mut *result.add(i * width + v * LANES).cast());
            }
        }
    }
    ROWS
}

/// Copies columns `p * 32..` of some rows to a panel of their own.
pub(crate) fn pack_panel(rows: &[f32], width: usize, n_rows: usize, p: usize, panel: &mut [f32]) {
    let panel = panel.as_chunks_mut::<PANEL>().0;
    for (from, to) in rows.chunks_exact(width).zip(panel).take(n_rows) {
        // An array, not a slice: a copy of this length needs no call.
        *to = *from[p * PANEL..].first_chunk().expect("a row is as wide as all panels");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::{Buffer, padded};

    fn panels(rows: &[f32], k: usize, n: usize) -> Vec<Buffer> {
        let width = padded(n);
        let mut wide = vec![0.0; k * width];
        for (to, from) in wide.chunks_exact_mut(width).zip(rows.chunks_exact(n)) {
            to[..n].copy_from_slice(from);
        }
        let panel = |p| {
            let mut panel = Buffer::zeros(k * PANEL);
            pack_panel(&wide, width, k, p, &mut panel);
            panel
        };
        (0..width / PANEL).map(panel).collect()
    }

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn products_are_right_and_the_same_on_every_level(
            n_rows in 1_usize..40, k in 1_usize..600, n in 1_usize..70, seed: u32,
        ) {
            let (a, b, bias) = (numbers(n_rows * k, seed), numbers(k * n, seed ^ 1), numbers(padded(n), seed ^ 2));
            let panels = panels(&b, k, n);
            let width = padded(n);
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut result = vec![f32::NAN; n_rows * width];
                let right = panels.iter().map(|p| &**p);
                multiply(level, Left::rows(&a, k), (n_rows, k), right, Some(&bias), &mut result, width);
                for i in 0..n_rows {
                    for j in 0..n {
                        let exact: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
                        let error = f64::from(result[i * width + j]) - exact - f64::from(bias[j]);
                        prop_assert!(error.abs() < 1e-5 * k as f64, "{i}, {j}: off by {error}");
                    }
                }
                let bits: Vec<u32> = result.iter().map(|v| v.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert(bits.clone()), &bits);
            }
        }

        #[test]
        fn a_product_goes_back_through_the_same_panels(n_rows in 1_usize..33, k in 1_usize..70, n in 1_usize..70, seed: u32) {
            let (a, b) = (numbers(n_rows * padded(n), seed), numbers(k * n, seed ^ 1));
            let panels = panels(&b, k, n);
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let (mut sum, mut result) = (vec![0.0; padded(k) * PANEL], vec![f32::NAN; n_rows * padded(k)]);
                add_back(level, (&a, padded(n)), (n_rows, n, k), panels.iter().map(|p| &**p), &mut sum);
                turn(level, &sum, n_rows, &mut result, padded(k));
                for i in 0..n_rows {
                    for l in 0..k {
                        let exact: f64 =
                            (0..n).map(|j| f64::from(a[i * padded(n) + j]) * f64::from(b[l * n + j])).sum();
                        let error = f64::from(result[i * padded(k) + l]) - exact;
                        prop_assert!(error.abs() < 1e-5 * n as f64, "{i}, {l}: off by {error}");
                    }
                }
                let bits: Vec<u32> = result.iter().map(|v| v.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert(bits.clone()), &bits);
            }
        }
    }
}
