//! Principal components: fitted on the reference, the query projected.
//!
//! Exact and deterministic: the eigenvectors of the smaller of the two Gram matrices. Each component is turned so that
//! its largest loading is positive, as scikit-learn does.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::distance::check_finite;
use crate::progress::{Progress, silent};
use crate::{AnalysisError, CsrView, Result};

/// A fitted projection.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// Mean of each gene, `[n_genes]`.
    pub mean: Vec<f64>,
    /// Unit loadings, strongest component first, `[n_components, n_genes]`.
    pub components: Array2<f64>,
    /// Variance along each component (divisor n - 1), `[n_components]`.
    pub explained_variance: Vec<f64>,
    /// The same as a share of the total variance, `[n_components]`.
    pub explained_variance_ratio: Vec<f64>,
}

impl Pca {
    /// Fits the first `n_components` of dense values.
    ///
    /// # Shapes   `x`: `[n_cells, n_genes]`
    /// # Errors   fewer than two cells, fewer cells or genes than components, values not finite, matrix too large
    /// # Source   `PCA` of scikit-learn, full solver
    pub fn fit(x: ArrayView2<'_, f32>, n_components: usize) -> Result<Self> {
        check_finite("the matrix", x)?;
        fit(Rows::Dense(x), n_components, &silent)
    }

    /// Fits the first `n_components` of sparse values, which are centred without being stored densely.
    ///
    /// # Errors   as [`Self::fit`]
    pub fn fit_csr(x: CsrView<'_>, n_components: usize) -> Result<Self> {
        Self::fit_csr_telling(x, n_components, &silent)
    }

    /// [`Self::fit_csr`] that tells how far it has come.
    ///
    /// # Errors   as [`Self::fit`]
    pub fn fit_csr_telling(x: CsrView<'_>, n_components: usize, progress: Progress<'_>) -> Result<Self> {
        check_finite_csr(x)?;
        fit(Rows::Sparse(x), n_components, progress)
    }

    /// Coordinates of cells on the components.
    ///
    /// # Shapes   `x`: `[n_cells, n_genes]`; returns `[n_cells, n_components]`
    /// # Errors   another number of genes than fitted, values not finite
    pub fn project(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        check_finite("the matrix", x)?;
        self.project_rows(Rows::Dense(x))
    }

    /// Coordinates of sparse cells on the components.
    ///
    /// # Errors   as [`Self::project`]
    pub fn project_csr(&self, x: CsrView<'_>) -> Result<Array2<f32>> {
        check_finite_csr(x)?;
        self.project_rows(Rows::Sparse(x))
    }

    /// The same projection with its first `n_components` only.
    #[must_use]
    pub fn leading(&self, n_components: usize) -> Self {
        let n = n_components.min(self.components.nrows());
        Self {
            mean: self.mean.clone(),
            components: self.components.slice(ndarray::s![..n, ..]).to_owned(),
            explained_variance: self.explained_variance[..n].to_vec(),
            explained_variance_ratio: self.explained_variance_ratio[..n].to_vec(),
        }
    }

    /// Euclidean distance of each cell from what its coordinates on the components tell of it.
    ///
    /// # Errors   another number of genes than fitted, values not finite
    pub fn reconstruction_errors(&self, x: ArrayView2<'_, f32>) -> Result<Vec<f64>> {
        check_finite("the matrix", x)?;
        let n_genes = self.mean.len();
        if x.ncols() != n_genes {
            return Err(AnalysisError::Length { what: "a cell", found: x.ncols(), expected: n_genes });
        }
        let error_of = |rest: &mut Vec<f64>, cell: usize| {
            Rows::Dense(x).centred_row(cell, &self.mean, rest);
            // Components are orthogonal: what one explains can be taken off before the next is looked at.
            for component in self.components.rows() {
                let coordinate: f64 = component.iter().zip(rest.iter()).map(|(loading, value)| loading * value).sum();
                rest.iter_mut().zip(component).for_each(|(value, loading)| *value -= coordinate * loading);
            }
            rest.iter().map(|value| value * value).sum::<f64>().sqrt()
        };
        Ok((0..x.nrows()).into_par_iter().map_init(|| vec![0.0; n_genes], error_of).collect())
    }

    fn project_rows(&self, x: Rows<'_>) -> Result<Array2<f32>> {
        let (n_components, n_genes) = self.components.dim();
        if x.n_genes() != n_genes {
            return Err(AnalysisError::Length { what: "a cell", found: x.n_genes(), expected: n_genes });
        }
        let mut projected = vec![0.0; x.n_cells() * n_components];
        projected.par_chunks_mut(n_components).enumerate().for_each_init(
            || vec![0.0; n_genes],
            |centred, (cell, coordinates)| {
                x.centred_row(cell, &self.mean, centred);
                for (coordinate, component) in coordinates.iter_mut().zip(self.components.rows()) {
                    let dot: f64 = component.iter().zip(centred.iter()).map(|(loading, value)| loading * value).sum();
                    *coordinate = dot as f32;
                }
            },
        );
        Ok(Array2::from_shape_vec((x.n_cells(), n_components), projected).expect("one coordinate per component"))
    }
}

/// Cells one after another, whatever holds them.
#[derive(Clone, Copy)]
enum Rows<'a> {
    Dense(ArrayView2<'a, f32>),
    Sparse(CsrView<'a>),
}

impl Rows<'_> {
    fn n_cells(&self) -> usize {
        match self {
            Self::Dense(x) => x.nrows(),
            Self::Sparse(x) => x.n_cells(),
        }
    }

    fn n_genes(&self) -> usize {
        match self {
            Self::Dense(x) => x.ncols(),
            Self::Sparse(x) => x.n_genes(),
        }
    }

    fn centred_row(&self, cell: usize, mean: &[f64], out: &mut [f64]) {
        for (out, mean) in out.iter_mut().zip(mean) {
            *out = -mean;
        }
        match self {
            Self::Dense(x) => out.iter_mut().zip(x.row(cell)).for_each(|(out, &value)| *out += f64::from(value)),
            Self::Sparse(x) => {
                let (genes, values) = x.row(cell);
                genes.iter().zip(values).for_each(|(&gene, &value)| out[gene as usize] += f64::from(value));
            }
        }
    }

    fn mean(&self) -> Vec<f64> {
        let zero = vec![0.0; self.n_genes()];
        let (mut row, mut sum) = (zero.clone(), zero.clone());
        for cell in 0..self.n_cells() {
            self.centred_row(cell, &zero, &mut row);
            sum.iter_mut().zip(&row).for_each(|(sum, value)| *sum += value);
        }
        sum.iter_mut().for_each(|sum| *sum /= self.n_cells() as f64);
        sum
    }

    /// Centred cells of a range, row after row.
    fn centred(&self, cells: std::ops::Range<usize>, mean: &[f64]) -> Vec<f64> {
        let mut block = vec![0.0; cells.len() * mean.len()];
        for (cell, row) in cells.zip(block.chunks_exact_mut(mean.len())) {
            self.centred_row(cell, mean, row);
        }
        block
    }
}

fn fit(x: Rows<'_>, n_components: usize, progress: Progress<'_>) -> Result<Pca> {
    let (n_cells, n_genes) = (x.n_cells(), x.n_genes());
    if n_components == 0 {
        return Err(AnalysisError::Option { option: "n_components", expected: "at least 1", found: "0".into() });
    }
    for (unit, needed, found) in [("cells", n_components.max(2), n_cells), ("genes", n_components, n_genes)] {
        if found < needed {
            return Err(AnalysisError::TooFew { step: "the PCA", unit, needed, found });
        }
    }
    if n_cells.min(n_genes) > LARGEST_SIDE {
        return Err(AnalysisError::PcaTooLarge { n_cells, n_genes });
    }
    let mean = x.mean();
    let (eigenvalues, mut components) = match n_genes <= n_cells {
        true => by_gene_covariance(x, &mean, n_components, progress)?,
        false => by_cell_products(x, &mean, n_components)?,
    };
    for mut component in components.rows_mut() {
        let largest = component.iter().fold(0.0f64, |kept, &v| if v.abs() > kept.abs() { v } else { kept });
        if largest < 0.0 {
            component.mapv_inplace(|loading| -loading);
        }
    }
    progress(1.0);
    let divisor = (n_cells - 1) as f64;
    let total: f64 = eigenvalues.iter().sum();
    let kept = eigenvalues.iter().rev().take(n_components).map(|value| value.max(0.0));
    Ok(Pca {
        mean,
        components,
        explained_variance: kept.clone().map(|value| value / divisor).collect(),
        explained_variance_ratio: kept.map(|value| if total > 0.0 { value / total } else { 0.0 }).collect(),
    })
}

/// Eigenvalues (ascending) and the leading components from the product of genes with genes, summed over blocks of cells.
fn by_gene_covariance(
    x: Rows<'_>,
    mean: &[f64],
    n_components: usize,
    progress: Progress<'_>,
) -> Result<(Vec<f64>, Array2<f64>)> {
    let n_genes = mean.len();
    // The decomposition that follows takes about as long as the products of so many cells per gene.
    let whole = (x.n_cells() + DECOMPOSITION_CELLS * n_genes) as f64;
    let mut products = Mat::<f64>::zeros(n_genes, n_genes);
    for start in (0..x.n_cells()).step_by(BLOCK_CELLS) {
        let cells = start..(start + BLOCK_CELLS).min(x.n_cells());
        let n_cells = cells.len();
        let block = x.centred(cells, mean);
        let block = MatRef::from_row_major_slice(&block, n_cells, n_genes);
        matmul(products.as_mut(), Accum::Add, block.transpose(), block, 1.0, Par::Seq);
        progress((start + n_cells) as f64 / whole);
    }
    let eigen = products.self_adjoint_eigen(Side::Lower).map_err(|_| AnalysisError::Decomposition)?;
    let vectors = eigen.U();
    let components = Array2::from_shape_fn((n_components, n_genes), |(i, gene)| vectors[(gene, n_genes - 1 - i)]);
    Ok((eigen.S().column_vector().iter().copied().collect(), components))
}

/// The same from the product of cells with cells, the smaller one when there are more genes than cells.
fn by_cell_products(x: Rows<'_>, mean: &[f64], n_components: usize) -> Result<(Vec<f64>, Array2<f64>)> {
    let (n_cells, n_genes) = (x.n_cells(), mean.len());
    let centred = x.centred(0..n_cells, mean);
    let centred = MatRef::from_row_major_slice(&centred, n_cells, n_genes);
    let mut products = Mat::<f64>::zeros(n_cells, n_cells);
    matmul(products.as_mut(), Accum::Replace, centred, centred.transpose(), 1.0, Par::Seq);
    let eigen = products.self_adjoint_eigen(Side::Lower).map_err(|_| AnalysisError::Decomposition)?;
    let leading = eigen.U().subcols(n_cells - n_components, n_components);
    let mut unscaled = Mat::<f64>::zeros(n_genes, n_components);
    matmul(unscaled.as_mut(), Accum::Replace, centred.transpose(), leading, 1.0, Par::Seq);
    let mut components =
        Array2::from_shape_fn((n_components, n_genes), |(i, gene)| unscaled[(gene, n_components - 1 - i)]);
    for mut component in components.rows_mut() {
        let norm = component.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 0.0 {
            component /= norm;
        }
    }
    Ok((eigen.S().column_vector().iter().copied().collect(), components))
}

fn check_finite_csr(x: CsrView<'_>) -> Result<()> {
    for row in 0..x.n_cells() {
        let (genes, values) = x.row(row);
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(AnalysisError::NotFinite { what: "the matrix", row, column: genes[at] as usize });
        }
    }
    Ok(())
}

/// Above it the decomposition takes minutes and gigabytes.
const LARGEST_SIDE: usize = 8192;
const BLOCK_CELLS: usize = 1024;
const DECOMPOSITION_CELLS: usize = 10;

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn some_cells(n_cells: usize, n_genes: usize) -> Array2<f32> {
        Array2::from_shape_fn((n_cells, n_genes), |(i, j)| ((i * 37 + j * 101 + i * j * 13) % 29) as f32)
    }

    #[test]
    fn more_genes_than_cells_gives_the_same_as_padding_with_more_cells_would() {
        // Doubling every cell keeps mean and components; it moves the work to the other Gram matrix.
        let x = some_cells(12, 20);
        let twice = ndarray::concatenate![ndarray::Axis(0), x, x];
        let (few, many) = (Pca::fit(x.view(), 3).unwrap(), Pca::fit(twice.view(), 3).unwrap());
        assert!((&few.components - &many.components).iter().all(|d| d.abs() < 1e-9));
        assert!((few.explained_variance_ratio[0] - many.explained_variance_ratio[0]).abs() < 1e-12);
    }

    #[test]
    fn sparse_and_dense_agree() {
        let x = array![[0.0f32, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 4.0], [5.0, 0.0, 1.0]];
        let (indptr, indices, data) = ([0, 1, 2, 4, 6], [1, 0, 1, 2, 0, 2], [2.0, 1.0, 3.0, 4.0, 5.0, 1.0]);
        let sparse = CsrView::new(3, &indptr, &indices, &data).unwrap();
        let (a, b) = (Pca::fit(x.view(), 2).unwrap(), Pca::fit_csr(sparse, 2).unwrap());
        assert_eq!(a, b);
        assert_eq!(a.project(x.view()).unwrap(), b.project_csr(sparse).unwrap());
    }

    #[test]
    fn impossible_requests_are_refused() {
        let x = some_cells(4, 3);
        assert!(matches!(Pca::fit(x.view(), 4), Err(AnalysisError::TooFew { unit: "genes", .. })));
        assert!(matches!(Pca::fit(x.view(), 0), Err(AnalysisError::Option { .. })));
        let fitted = Pca::fit(x.view(), 2).unwrap();
        assert!(matches!(fitted.project(some_cells(2, 5).view()), Err(AnalysisError::Length { .. })));
    }
}
