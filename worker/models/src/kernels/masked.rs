//! Products with a matrix of which only some elements are there: listed output by output, so that a product costs what is there.
//!
//! A block's rows are turned: each input is a row of 32 cells, and an element adds its multiple of that to the row of its output.
//! Turned back, outputs are rows of genes again. Sums have one order, that of the list.

use super::{
    buffer::{PANEL, Square},
    lanes::{LANES, Level, kernel},
    matrix::{AT_ONCE, transpose},
};

/// Outputs of a matrix, 32 at a time, and which of their elements are there.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Where the elements of each output start among all, and where the last one's end.
    pub(crate) starts: Vec<u32>,
    /// The input of each element.
    pub(crate) inputs: Vec<u32>,
}

impl Listed {
    /// Number of outputs.
    pub(crate) fn n_outputs(&self) -> usize {
        self.starts.len() - 1
    }

    /// The elements of 32 outputs: where each of these starts, and the last one's end.
    fn panel(&self, p: usize) -> &[u32] {
        &self.starts[p * PANEL..self.starts.len().min((p + 1) * PANEL + 1)]
    }
}

/// Adds the product of `turned`, `[inputs, 32]`, to `n_rows` rows of `width` numbers, from `first` on.
pub(crate) fn add_product(
    level: Level,
    listed: &Listed,
    values: &[f32],
    turned: &[f32],
    (rows, width, first): (&mut [f32], usize, usize),
    n_rows: usize,
) {
    let (mut sums, mut square) = (Square::default(), Square::default());
    for p in 0..listed.n_outputs().div_ceil(PANEL) {
        sums.0.fill(0.0);
        product(level, listed.panel(p), &listed.inputs, values, turned, &mut sums.0);
        transpose(level, &sums.0, PANEL, PANEL, &mut square.0);
        let at = first + p * PANEL;
        for (row, from) in rows.chunks_exact_mut(width).zip(square.0.as_chunks::<PANEL>().0).take(n_rows) {
            super::layer::add(level, &mut row[at..at + PANEL], from);
        }
    }
}

/// Adds the gradient by the inputs, `[inputs, 32]`, of outputs whose gradient is in `n_rows` rows of `width` numbers, from `first` on.
pub(crate) fn add_back(
    level: Level,
    listed: &Listed,
    values: &[f32],
    (rows, width, first): (&[f32], usize, usize),
    n_rows: usize,
    of_turned: &mut [f32],
) {
    let mut square = Square::default();
    for p in 0..listed.n_outputs().div_ceil(PANEL) {
        transpose(level, &rows[first + p * PANEL..], width, n_rows, &mut square.0);
        back(level, listed.panel(p), &listed.inputs, values, &square.0, of_turned);
    }
}

/// A block's share in the gradient of the elements.
#[derive(Clone, Copy)]
pub(crate) struct Share<'a> {
    /// The inputs, `[inputs, 32]`, 0 where there is no cell.
    pub(crate) turned: &'a [f32],
    /// The gradient by the outputs.
    pub(crate) rows: &'a [f32],
    pub(crate) n_rows: usize,
}

/// Adds the gradient of the elements over some blocks, at most [`AT_ONCE`].
pub(crate) fn add_gradient(
    level: Level,
    listed: &Listed,
    shares: &[Share<'_>],
    (width, first): (usize, usize),
    gradient: &mut [f32],
) {
    let mut squares: [Square; AT_ONCE] = Default::default();
    let mut turned: [&[f32]; AT_ONCE] = [&[]; AT_ONCE];
    turned.iter_mut().zip(shares).for_each(|(turned, share)| *turned = share.turned);
    for p in 0..listed.n_outputs().div_ceil(PANEL) {
        for (square, share) in squares.iter_mut().zip(shares) {
            transpose(level, &share.rows[first + p * PANEL..], width, share.n_rows, &mut square.0);
        }
        products(level, listed.panel(p), &listed.inputs, &turned[..shares.len()], &squares, gradient);
    }
}

kernel! {
    /// One row of 32 cells for each output.
    fn product<V>(starts: &[u32], inputs: &[u32], values: &[f32], turned: &[f32], sums: &mut [f32]) {
        let turned = turned.as_chunks::<LANES>().0;
        for (ends, sums) in starts.windows(2).zip(sums.as_chunks_mut::<LANES>().0.chunks_exact_mut(2)) {
            let (mut low, mut high) = (V::splat(0.0), V::splat(0.0));
            let own = ends[0] as usize..ends[1] as usize;
            for (&input, &value) in inputs[own.clone()].iter().zip(&values[own]) {
                let (row, value) = (&turned[2 * input as usize..][..2], V::splat(value));
                low = value.mul_add(V::load(&row[0]), low);
                high = value.mul_add(V::load(&row[1]), high);
            }
            low.store(&mut sums[0]);
            high.store(&mut sums[1]);
        }
    }
}

kernel! {
    fn back<V>(starts: &[u32], inputs: &[u32], values: &[f32], of_outputs: &[f32], of_turned: &mut [f32]) {
        let of_turned = of_turned.as_chunks_mut::<LANES>().0;
        for (ends, of_output) in starts.windows(2).zip(of_outputs.as_chunks::<LANES>().0.chunks_exact(2)) {
            let (low, high) = (V::load(&of_output[0]), V::load(&of_output[1]));
            let own = ends[0] as usize..ends[1] as usize;
            for (&input, &value) in inputs[own.clone()].iter().zip(&values[own]) {
                let (sums, value) = (&mut of_turned[2 * input as usize..][..2], V::splat(value));
                value.mul_add(low, V::load(&sums[0])).store(&mut sums[0]);
                value.mul_add(high, V::load(&sums[1])).store(&mut sums[1]);
            }
        }
    }
}

kernel! {
    /// For each element the sum over all blocks' cells.
    fn products<V>(
        starts: &[u32],
        inputs: &[u32],
        turned: &[&[f32]],
        squares: &[Square; AT_ONCE],
        gradient: &mut [f32],
    ) {
        for (output, ends) in starts.windows(2).enumerate() {
            let own = ends[0] as usize..ends[1] as usize;
            for (&input, gradient) in inputs[own.clone()].iter().zip(&mut gradient[own]) {
                let mut sum = V::splat(0.0);
                for (turned, square) in turned.iter().zip(squares) {
                    let cells = turned[PANEL * input as usize..][..PANEL].as_chunks::<LANES>().0;
                    let of_output = square.0[PANEL * output..][..PANEL].as_chunks::<LANES>().0;
                    sum = V::load(&cells[0]).mul_add(V::load(&of_output[0]), sum);
                    sum = V::load(&cells[1]).mul_add(V::load(&of_output[1]), sum);
                }
                *gradient += sum.sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::{Buffer, padded};

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 + 1.0) * 0.37 + seed as f32 * 0.11).sin()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn products_are_those_of_the_whole_matrix_on_every_level(
            (n_in, present) in (1_usize..40).prop_flat_map(|n_in| {
                (Just(n_in), proptest::collection::vec(proptest::collection::vec(any::<bool>(), n_in), 1..70))
            }),
            n_rows in 1_usize..33,
            seed in 0_u32..1000,
        ) {
            let (n_out, width) = (present.len(), padded(present.len()));
            let mut listed = Listed { starts: vec![0], inputs: vec![] };
            for row in &present {
                listed.inputs.extend((0..n_in as u32).filter(|&input| row[input as usize]));
                listed.starts.push(listed.inputs.len() as u32);
            }
            let (values, z, of) =
                (numbers(listed.inputs.len(), seed), numbers(n_in * n_rows, seed + 1), numbers(n_out * n_rows, seed + 2));
            let mut turned = Buffer::zeros(padded(n_in) * PANEL);
            let mut rows = Buffer::zeros(n_rows * width);
            for cell in 0..n_rows {
                (0..n_in).for_each(|input| turned[input * PANEL + cell] = z[cell * n_in + input]);
                (0..n_out).for_each(|output| rows[cell * width + output] = of[cell * n_out + output]);
            }
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut product = Buffer::zeros(n_rows * width);
                add_product(level, &listed, &values, &turned, (&mut product, width, 0), n_rows);
                let mut back = Buffer::zeros(padded(n_in) * PANEL);
                add_back(level, &listed, &values, (&rows, width, 0), n_rows, &mut back);
                let mut gradient = vec![0.0; values.len()];
                let share = Share { turned: &turned, rows: &rows, n_rows };
                add_gradient(level, &listed, &[share, share], (width, 0), &mut gradient);
                let is_close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-4;
                for cell in 0..n_rows {
                    for output in 0..n_out {
                        let own = listed.starts[output] as usize..listed.starts[output + 1] as usize;
                        let exact = own.map(|at| {
                            f64::from(values[at]) * f64::from(z[cell * n_in + listed.inputs[at] as usize])
                        });
                        prop_assert!(is_close(product[cell * width + output], exact.sum()));
                    }
                    for input in 0..n_in {
                        let mut exact = 0.0;
                        for output in 0..n_out {
                            let own = listed.starts[output] as usize..listed.starts[output + 1] as usize;
                            for at in own.filter(|&at| listed.inputs[at] as usize == input) {
                                exact += f64::from(values[at]) * f64::from(of[cell * n_out + output]);
                            }
                        }
                        prop_assert!(is_close(back[input * PANEL + cell], exact));
                    }
                }
                for output in 0..n_out {
                    for at in listed.starts[output] as usize..listed.starts[output + 1] as usize {
                        let of_cell = |cell: usize| {
                            let z = f64::from(z[cell * n_in + listed.inputs[at] as usize]);
                            2.0 * z * f64::from(of[cell * n_out + output])
                        };
                        prop_assert!(is_close(gradient[at], (0..n_rows).map(of_cell).sum()));
                    }
                }
                let all = product.iter().chain(&back[..]).chain(&gradient);
                let bits: Vec<u32> = all.map(|value| value.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert(bits.clone()), &bits);
            }
        }
    }
}
