//! Term frequency and inverse document frequency: what peaks of open chromatin are weighed by.

use crate::CsrView;

/// `ln(1 + n / s)` of each peak, with `n` cells and `s` the sum of the peak's counts; 0 of a peak that no cell has.
///
/// # Shapes   returns one number per column of `counts`
pub fn inverse_frequencies(counts: CsrView<'_>) -> Vec<f64> {
    let mut sums = vec![0.0_f64; counts.n_genes()];
    for cell in 0..counts.n_cells() {
        let (peaks, values) = counts.row(cell);
        peaks.iter().zip(values).for_each(|(&peak, &value)| sums[peak as usize] += f64::from(value));
    }
    let n_cells = counts.n_cells() as f64;
    sums.into_iter().map(|sum| if sum > 0.0 { (n_cells / sum).ln_1p() } else { 0.0 }).collect()
}

/// `ln(1 + scale · x / t) · idf` of each stored count, with `t` the cell's total; a zero count stays a zero.
///
/// # Shapes   `inverse_frequencies`: one per column; returns one value per stored entry of `counts`, in its order
/// # Source   Cusanovich et al. 2018; `tfidf` of muon with its defaults
pub fn tf_idf(counts: CsrView<'_>, inverse_frequencies: &[f64], scale: f64) -> Vec<f32> {
    let cells = (0..counts.n_cells()).flat_map(|cell| {
        let (peaks, values) = counts.row(cell);
        let total: f64 = values.iter().map(|&value| f64::from(value)).sum();
        let scale = if total > 0.0 { scale / total } else { 0.0 };
        let weighed = move |(&peak, &value): (&u32, &f32)| {
            ((f64::from(value) * scale).ln_1p() * inverse_frequencies[peak as usize]) as f32
        };
        peaks.iter().zip(values).map(weighed)
    });
    cells.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rare_peak_counts_for_more_than_a_common_one() {
        // Two cells: peaks 0 and 1 in the first, 0 in the second; nobody has peak 2.
        let counts = CsrView::new(3, &[0, 2, 3], &[0, 1, 0], &[1.0, 1.0, 2.0]).unwrap();
        let idf = inverse_frequencies(counts);
        assert_eq!(idf, [(2.0_f64 / 3.0).ln_1p(), 2.0_f64.ln_1p(), 0.0]);
        let found = tf_idf(counts, &idf, 10.0);
        let expected = [5.0_f64.ln_1p() * idf[0], 5.0_f64.ln_1p() * idf[1], 10.0_f64.ln_1p() * idf[0]];
        assert_eq!(found, expected.map(|value| value as f32));
        assert!(found[1] > found[0]);
    }
}
