//! Dense products, from panels.
//!
//! A matrix of `k` rows is kept as panels of 32 columns, each `[k, 32]` without gaps: what a product reads of it lies in a row, and
//! nothing is packed when it does not change. Every element of a product is one chain of fused multiply-adds in order of `k`,
//! however the work is cut, so tiles, threads and instruction sets cannot change a bit. libtorch's product (MKL) depends on all three,
//! and packs a frozen matrix again in every step.

use super::{
    buffer::{PANEL, Square, padded},
    lanes::{LANES, Lanes, Level, Tile, kernel},
};

/// The left factor. Rows lie at distances known to the compiler, so that no address is computed for them in the innermost loop.
#[derive(Clone, Copy, Default)]
pub(crate) struct Left<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Left<'a> {
    /// Rows of a panel: element `(i, k)` is `panel[32 i + k]`.
    pub(crate) fn panel(panel: &'a [f32]) -> Self {
        Self { values: panel, row_stride: PANEL, column_stride: 1 }
    }

    /// The transpose of a row-major matrix: element `(i, k)` is `values[i + width k]`.
    pub(crate) fn transposed(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: 1, column_stride: width }
    }
}

/// A stretch of a product's depth: columns of `left` that meet the rows of `panel`, `[depth, 32]`; nothing by default.
#[derive(Clone, Copy, Default)]
pub(crate) struct Piece<'a> {
    pub(crate) left: Left<'a>,
    pub(crate) panel: &'a [f32],
    pub(crate) depth: usize,
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

/// The rows `result[i * width..][..n] = input · right + bias`: `input` is up to 32 rows of `k` numbers and padding, `right` panels of
/// `k` rows, `bias` padded. `columns` is room for the transpose of `input`, `[padded k, 32]`.
pub(crate) fn multiply<'b>(
    level: Level,
    input: &[f32],
    (n_rows, k): (usize, usize),
    right: impl Iterator<Item = &'b [f32]> + Clone,
    bias: &[f32],
    (result, width): (&mut [f32], usize),
    columns: &mut [f32],
) {
    for (q, columns) in columns[..padded(k) * PANEL].chunks_exact_mut(PANEL * PANEL).enumerate() {
        transpose(level, &input[q * PANEL..], padded(k), n_rows, columns);
    }
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        let left = Left::transposed(&columns[start * PANEL..], PANEL);
        for (p, panel) in right.clone().enumerate() {
            let begin = if start == 0 { Start::Row(&bias[p * PANEL..]) } else { Start::Result };
            let piece = Piece { left, panel: &panel[start * PANEL..], depth };
            multiply_panel(level, &[piece], begin, &mut result[p * PANEL..], width, n_rows);
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
    let mut columns: [Square; AT_ONCE] = Default::default();
    let mut panels = panels.enumerate().peekable();
    while panels.peek().is_some() {
        let mut pieces = [Piece::default(); AT_ONCE];
        for ((columns, piece), (p, panel)) in columns.iter_mut().zip(&mut pieces).zip(panels.by_ref()) {
            transpose(level, &left.0[p * PANEL..], left.1, n_rows, &mut columns.0);
            let depth = PANEL.min(n - p * PANEL);
            *piece = Piece { left: Left::panel(panel), panel: &columns.0, depth };
        }
        multiply_panel(level, &pieces, Start::Result, sum, PANEL, k);
    }
}

/// From what [`add_back`] sums up, `[k, 32]`, to rows of `width` numbers.
pub(crate) fn turn(level: Level, sum: &[f32], n_rows: usize, result: &mut [f32], width: usize) {
    let mut rows = Square::default();
    for (q, sum) in sum.chunks_exact(PANEL * PANEL).enumerate() {
        transpose(level, sum, PANEL, PANEL, &mut rows.0);
        for (from, to) in rows.0.as_chunks::<PANEL>().0.iter().zip(result.chunks_exact_mut(width)).take(n_rows) {
            to[q * PANEL..][..PANEL].copy_from_slice(from);
        }
    }
}

kernel! {
    /// 32 columns of up to `n_rows` (at most 32) rows of `width` numbers become 32 rows of 32; what is beyond is 0.
    pub(crate) fn transpose<V>(from: &[f32], width: usize, n_rows: usize, to: &mut [f32]) {
        let mut rows = [&[0.0; PANEL]; PANEL];
        for (row, from) in rows.iter_mut().zip(from.chunks(width)).take(n_rows) {
            *row = from.first_chunk().expect("a row is as wide as all panels");
        }
        let (to, _) = to.as_chunks_mut::<PANEL>();
        for (row, rows) in rows.as_chunks::<LANES>().0.iter().enumerate() {
            for (column, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut square = [V::splat(0.0); LANES];
                for (lanes, from) in square.iter_mut().zip(rows) {
                    *lanes = V::load(&from.as_chunks().0[column]);
                }
                // Four perfect shuffles of the rows are a transpose.
                let square = shuffle(shuffle(shuffle(shuffle(square))));
                for (lanes, to) in square.into_iter().zip(to) {
                    lanes.store(&mut to.as_chunks_mut().0[row]);
                }
            }
        }
    }
}

/// The first half of the rows and the second in turn, lane by lane. Written out, it stays in registers.
#[inline(always)]
fn shuffle<V: Lanes>(rows: [V; LANES]) -> [V; LANES] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = rows;
    let ((a, i), (b, j), (c, k), (d, l)) = (a.interleave(i), b.interleave(j), c.interleave(k), d.interleave(l));
    let ((e, m), (f, n), (g, o), (h, p)) = (e.interleave(m), f.interleave(n), g.interleave(o), h.interleave(p));
    [a, i, b, j, c, k, d, l, e, m, f, n, g, o, h, p]
}

/// Rows of a panel that are multiplied before the next panel: they stay in the first cache while all rows go by.
const DEPTH: usize = 256;
/// Pieces of 32 rows each that a product takes before its sums leave the registers.
pub(crate) const AT_ONCE: usize = 4;

kernel! {
    /// 32 columns of a product: `result[i * width..][..32] = start + Σ left · panel` over the pieces, in `n_rows` rows. The left factors
    /// are all of one kind.
    pub(crate) fn multiply_panel<V>(
        pieces: &[Piece<'_>],
        start: Start<'_>,
        result: &mut [f32],
        width: usize,
        n_rows: usize,
    ) {
        if n_rows == 0 {
            return;
        }
        let row_stride = pieces.first().map_or(1, |piece| piece.left.row_stride);
        for Piece { left, panel, depth } in pieces.iter().filter(|piece| piece.depth > 0) {
            let last = (n_rows - 1) * row_stride + (depth - 1) * left.column_stride;
            assert!(left.row_stride == row_stride && last < left.values.len() && depth * PANEL <= panel.len());
        }
        assert!((n_rows - 1) * width + PANEL <= result.len());
        if let Start::Row(row) = start {
            assert!(row.len() >= PANEL);
        }
        let place = Place { result: result.as_mut_ptr(), width, row: 0 };
        // SAFETY: the assertions above cover the last element of the last row of all matrices.
        unsafe {
            match row_stride {
                1 => strips::<V, 1>(pieces, start, place, n_rows),
                PANEL => strips::<V, PANEL>(pieces, start, place, n_rows),
                _ => unreachable!("a left factor is a panel or a transpose"),
            }
        }
    }
}

/// Where a tile begins.
#[derive(Clone, Copy)]
struct Place {
    result: *mut f32,
    width: usize,
    row: usize,
}

/// All rows, in strips that fit the registers.
#[inline(always)]
unsafe fn strips<V: Lanes, const ROW_STRIDE: usize>(
    pieces: &[Piece<'_>],
    start: Start<'_>,
    mut place: Place,
    n_rows: usize,
) {
    while place.row < n_rows {
        let n_left = n_rows - place.row;
        // SAFETY: all rows that a tile touches are below `n_rows`, for which the caller vouches.
        place.row += unsafe {
            match (V::TILE, n_left) {
                (Tile::Wide, 8..) => tile::<V, 8, 2, ROW_STRIDE>(pieces, start, place, 0),
                (Tile::Wide, 4..) => tile::<V, 4, 2, ROW_STRIDE>(pieces, start, place, 0),
                (Tile::Wide, _) => tile::<V, 1, 2, ROW_STRIDE>(pieces, start, place, 0),
                (Tile::Narrow, 4..) => {
                    tile::<V, 4, 1, ROW_STRIDE>(pieces, start, place, 0);
                    tile::<V, 4, 1, ROW_STRIDE>(pieces, start, place, LANES)
                }
                (Tile::Narrow, _) => {
                    tile::<V, 1, 1, ROW_STRIDE>(pieces, start, place, 0);
                    tile::<V, 1, 1, ROW_STRIDE>(pieces, start, place, LANES)
                }
            }
        };
    }
}

/// `ROWS` rows and `VECTORS` times 16 columns, in registers; gives the number of rows.
///
/// Places are reckoned with wrapping arithmetic, which never wraps: checked arithmetic would put its checks into the innermost loop.
#[inline(always)]
unsafe fn tile<V: Lanes, const ROWS: usize, const VECTORS: usize, const ROW_STRIDE: usize>(
    pieces: &[Piece<'_>],
    start: Start<'_>,
    place: Place,
    column: usize,
) -> usize {
    let Place { result, width, row } = place;
    let at = |i: usize, v: usize| {
        result.wrapping_add((row.wrapping_add(i)).wrapping_mul(width).wrapping_add(column + v * LANES))
    };
    // SAFETY: the caller vouches for rows `row..row + ROWS` of every `left` and of the result, and for `depth` rows of every panel.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                match start {
                    Start::Zero => {}
                    Start::Row(values) => *sum = V::load(&*values.as_ptr().wrapping_add(column + v * LANES).cast()),
                    Start::Result => *sum = V::load(&*at(i, v).cast()),
                }
            }
        }
        for Piece { left, panel, depth } in pieces {
            let mut a = left.values.as_ptr().wrapping_add(row.wrapping_mul(ROW_STRIDE));
            let mut b = panel.as_ptr().wrapping_add(column);
            for _ in 0..*depth {
                let mut right = [V::splat(0.0); VECTORS];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = V::load(&*b.wrapping_add(v * LANES).cast());
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*a.wrapping_add(i * ROW_STRIDE));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = factor.mul_add(right, *sum);
                    }
                }
                a = a.wrapping_add(left.column_stride);
                b = b.wrapping_add(PANEL);
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(&mut *at(i, v).cast());
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
    use crate::kernels::Buffer;

    fn rows(values: &[f32], n_rows: usize, n: usize) -> Vec<f32> {
        let width = padded(n);
        let mut wide = vec![0.0; n_rows * width];
        for (to, from) in wide.chunks_exact_mut(width).zip(values.chunks_exact(n)) {
            to[..n].copy_from_slice(from);
        }
        wide
    }

    fn panels(values: &[f32], k: usize, n: usize) -> Vec<Buffer> {
        let (wide, width) = (rows(values, k, n), padded(n));
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
            n_rows in 1_usize..33, k in 1_usize..600, n in 1_usize..70, seed: u32,
        ) {
            let (a, b, bias) = (numbers(n_rows * k, seed), numbers(k * n, seed ^ 1), numbers(padded(n), seed ^ 2));
            let (panels, input) = (panels(&b, k, n), rows(&a, n_rows, k));
            let width = padded(n);
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let (mut result, mut columns) = (vec![f32::NAN; n_rows * width], vec![f32::NAN; padded(k) * PANEL]);
                let right = panels.iter().map(|p| &**p);
                multiply(level, &input, (n_rows, k), right, &bias, (&mut result, width), &mut columns);
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
