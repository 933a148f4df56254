//! Centred log-ratio of protein counts.

use ndarray::{Array2, ArrayView2, Axis};

/// Along which direction counts are centred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Centre {
    /// Each protein over the cells, which evens out antibodies: the usual choice.
    EachProtein,
    /// Each cell over its proteins, which evens out cells.
    EachCell,
}

/// `ln(1 + x / g)` with `g` the exponential of the mean of `ln(1 + x)` along the chosen direction.
///
/// # Shapes   `proteins`, returns: `[n_cells, n_proteins]`
/// # Units    raw counts, zero or more
/// # Source   Stoeckius et al. 2017; `NormalizeData(method = "CLR")` of Seurat
pub fn clr(proteins: ArrayView2<'_, f32>, centre: Centre) -> Array2<f32> {
    let mut ratios = proteins.mapv(f64::from);
    let lanes = match centre {
        Centre::EachProtein => Axis(1),
        Centre::EachCell => Axis(0),
    };
    for mut lane in ratios.axis_iter_mut(lanes) {
        let geometric = (lane.iter().map(|value| value.ln_1p()).sum::<f64>() / lane.len() as f64).exp();
        lane.mapv_inplace(|value| (value / geometric).ln_1p());
    }
    ratios.mapv(|value| value as f32)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn zeros_stay_zero_and_scale_cancels_where_counts_are_large() {
        let proteins = array![[0.0f32, 3000.0], [1000.0, 9000.0]];
        let found = clr(proteins.view(), Centre::EachCell);
        assert_eq!(found[[0, 0]], 0.0);
        // sqrt(1001 * 9001) - the geometric mean of 1 + x - over the second cell.
        let geometric = (1001.0f64 * 9001.0).sqrt();
        assert!((f64::from(found[[1, 0]]) - (1000.0 / geometric).ln_1p()).abs() < 1e-6);
        assert_ne!(found, clr(proteins.view(), Centre::EachProtein));
    }
}
