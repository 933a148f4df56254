//! Rejection of cells that principal components of the training cells do not explain.

use ndarray::{ArrayView2, Axis};

use super::folds::stratified;
use crate::pca::Pca;
use crate::quantile::quantile;
use crate::{Labels, Result};

/// Components of the training cells, and what they may leave unexplained.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstruction {
    /// The components.
    pub pca: Pca,
    /// A cell with a larger error is rejected; none where the components only project.
    pub max_error: Option<f64>,
}

impl Reconstruction {
    /// Components alone.
    ///
    /// # Errors   as [`Pca::fit`]
    pub(super) fn without_threshold(x: ArrayView2<'_, f32>) -> Result<Self> {
        Ok(Self { pca: fit(x)?, max_error: None })
    }

    /// Components, and the error that `fn_percent` of cells exceed when components are fitted without them: the median over
    /// five folds.
    ///
    /// # Errors   as [`Pca::fit`], and no label with five cells
    pub(super) fn fit(x: ArrayView2<'_, f32>, labels: &Labels, fn_percent: f64) -> Result<Self> {
        let folds = stratified(labels, N_FOLDS)?;
        let mut thresholds = Vec::with_capacity(N_FOLDS);
        for fold in 0..N_FOLDS {
            let (test, train): (Vec<usize>, Vec<usize>) = (0..x.nrows()).partition(|&row| folds[row] == fold);
            let pca = fit(x.select(Axis(0), &train).view())?;
            let mut errors = pca.reconstruction_errors(x.select(Axis(0), &test).view())?;
            errors.sort_unstable_by(f64::total_cmp);
            thresholds.push(quantile(&errors, 1.0 - fn_percent / 100.0));
        }
        thresholds.sort_unstable_by(f64::total_cmp);
        let pca = fit(x)?;
        // What all components together leave unexplained is rounding.
        let is_partial = pca.components.nrows() < x.ncols();
        Ok(Self { pca, max_error: is_partial.then_some(thresholds[N_FOLDS / 2]) })
    }

    /// Which cells have too large an error.
    ///
    /// # Errors   cells of another space
    pub(super) fn rejects(&self, x: ArrayView2<'_, f32>) -> Result<Vec<bool>> {
        match self.max_error.filter(|&most| most > 0.0) {
            None => Ok(vec![false; x.nrows()]),
            Some(most) => Ok(self.pca.reconstruction_errors(x)?.into_iter().map(|error| error > most).collect()),
        }
    }
}

/// A hundred components of many dimensions; of few, as many as it takes to explain more than 90 % of the variance.
fn fit(x: ArrayView2<'_, f32>) -> Result<Pca> {
    if x.ncols() > MANY_DIMS {
        return Pca::fit(x, MANY_DIMS);
    }
    let all = Pca::fit(x, x.ncols().min(x.nrows()))?;
    let mut explained = 0.0;
    let enough = all.explained_variance_ratio.iter().position(|share| {
        explained += share;
        explained > ENOUGH_EXPLAINED
    });
    Ok(all.leading(enough.map_or(usize::MAX, |last| last + 1)))
}

const N_FOLDS: usize = 5;
const MANY_DIMS: usize = 100;
const ENOUGH_EXPLAINED: f64 = 0.9;
