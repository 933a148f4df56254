//! Mean and variance of each gene.

use crate::CsrView;

/// Per gene, over some cells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moments {
    pub(super) n_cells: usize,
    /// `[n_genes]`
    pub(super) mean: Vec<f64>,
    /// Divisor n - 1, `[n_genes]`
    pub(super) variance: Vec<f64>,
}

impl Moments {
    /// Of `value` applied to each stored value of the given cells; it must map zero to zero.
    ///
    /// Squares are rounded to single precision before they are summed, as scanpy does: dispersions that are equal but for
    /// rounding then fall on the same side of a cutoff as there.
    pub(super) fn of(x: CsrView<'_>, cells: &[usize], value: impl Fn(f32) -> f32) -> Self {
        let n_cells = cells.len() as f64;
        let mut mean = vec![0.0; x.n_genes()];
        let mut variance = vec![0.0; x.n_genes()];
        for (gene, stored) in entries(x, cells) {
            let value = value(stored);
            mean[gene] += f64::from(value);
            variance[gene] += f64::from(value * value);
        }
        for (mean, variance) in mean.iter_mut().zip(&mut variance) {
            *mean /= n_cells;
            *variance = (*variance / n_cells - *mean * *mean) * (n_cells / (n_cells - 1.0));
        }
        Self { n_cells: cells.len(), mean, variance }
    }
}

/// Gene and value of everything stored for the given cells.
pub(super) fn entries<'a>(x: CsrView<'a>, cells: &'a [usize]) -> impl Iterator<Item = (usize, f32)> + 'a {
    cells.iter().flat_map(move |&cell| {
        let (genes, values) = x.row(cell);
        genes.iter().zip(values).map(|(&gene, &value)| (gene as usize, value))
    })
}
