//! Quantiles of numbers in order.

/// Quantile of ascending values, between neighbours in proportion; `share` from 0 to 1.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let at = share * (values.len() - 1) as f64;
    let (below, rest) = (at as usize, at.fract());
    let above = (below + 1).min(values.len() - 1);
    values[below] + (values[above] - values[below]) * rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), 3.0);
        assert_eq!(quantile(&[7.0], 0.25), 7.0);
    }
}
