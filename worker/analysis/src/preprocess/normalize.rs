//! Library size and logarithm. Both act on the stored values of a sparse matrix and keep its structure: a zero count stays
//! a zero.

use super::quality::cell_totals;
use crate::CsrView;

/// The usual total that counts are scaled to.
pub const CP10K: f64 = 1e4;

/// Stored values scaled so that each cell sums to `target_sum`; a cell without counts stays as it is.
///
/// # Shapes   returns one value per stored entry of `counts`, in its order
/// # Source   `normalize_total` of scanpy
pub fn normalize_total(counts: CsrView<'_>, target_sum: f64) -> Vec<f32> {
    let cells = (0..counts.n_cells()).flat_map(|cell| {
        let (_, values) = counts.row(cell);
        let total: f64 = values.iter().map(|&value| f64::from(value)).sum();
        let scale = if total > 0.0 { target_sum / total } else { 1.0 };
        values.iter().map(move |&value| (f64::from(value) * scale) as f32)
    });
    cells.collect()
}

/// Median of the cells' totals, cells without counts left out: the target that changes the counts least. 0 when no cell has
/// counts.
///
/// # Source   `normalize_total` of scanpy without a target
pub fn median_total(counts: CsrView<'_>) -> f64 {
    let mut totals = cell_totals(counts).0;
    totals.retain(|&total| total > 0.0);
    totals.sort_by(f64::total_cmp);
    match totals.len() {
        0 => 0.0,
        n => (totals[(n - 1) / 2] + totals[n / 2]) / 2.0,
    }
}

/// ln(1 + value) of each value, in place.
pub fn log1p(values: &mut [f32]) {
    for value in values {
        *value = value.ln_1p();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_sums_to_the_target_and_an_empty_cell_stays_empty() {
        let counts = CsrView::new(3, &[0, 2, 2, 4], &[0, 2, 1, 2], &[1.0, 3.0, 0.0, 0.0]).unwrap();
        assert_eq!(normalize_total(counts, 8.0), [2.0, 6.0, 0.0, 0.0]);
    }
}
