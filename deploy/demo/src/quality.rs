//! How well the query found its place, for three latent spaces of the same cells.

use std::path::Path;

use anyhow::{Context as _, Result};
use archipelago_analysis::{
    CsrView,
    metrics::{Embedded, MappingQuality, mapping_quality},
    pca::Pca,
    preprocess,
};
use archipelago_anndata::{AnnData, Csr};
use serde::Serialize;

use crate::cells::{Cells, Embedding, column};

/// The figures of all three spaces; definitions are in the page that the demonstration writes.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// The latent space after surgery.
    pub surgery: Surgery,
    /// The same model with the query's columns as they start, before training.
    pub untrained: MappingQuality,
    /// Plain PCA of normalised counts, fitted on the reference.
    pub pca: MappingQuality,
}

/// Figures after surgery, with what the model itself says of its fit.
#[derive(Clone, Debug, Serialize)]
pub struct Surgery {
    /// Figures of the latent space.
    #[serde(flatten)]
    pub mapping: MappingQuality,
    /// Evidence lower bound per reference cell, nats; higher is better.
    pub elbo_reference: f64,
    /// Evidence lower bound per query cell, nats; higher is better.
    pub elbo_query: f64,
    /// Negative log-likelihood per query cell, nats; lower is better.
    pub reconstruction_query: f64,
}

/// Judges one latent space.
pub fn judge(reference: &Embedding, query: &Embedding, seed: u64) -> Result<MappingQuality> {
    let (reference_labels, reference_batches) = (reference.label_codes(), reference.batch_codes());
    let (query_labels, query_batches) = (query.label_codes(), query.batch_codes());
    Ok(mapping_quality(
        Embedded { latent: reference.latent.view(), labels: &reference_labels, batches: &reference_batches },
        Embedded { latent: query.latent.view(), labels: &query_labels, batches: &query_batches },
        seed,
    )?)
}

/// Reference and query in the space of a PCA: counts scaled to 10,000 per cell, log1p, fitted on the reference, query
/// projected, no batch correction.
pub fn pca(cells: &Cells, n_components: usize) -> Result<(Embedding, Embedding)> {
    let reference = Normalised::load(&cells.reference, cells)?;
    let pca = Pca::fit_csr(reference.view()?, n_components)?;
    let mut query = Vec::new();
    for site in &cells.sites {
        query.push(Normalised::load(&site.file, cells)?.project(&pca)?);
    }
    let query = query.into_iter().map(Ok).reduce(|all, next| all?.followed_by(next?));
    Ok((reference.project(&pca)?, query.context("there is no site")??))
}

/// Counts of a file scaled to 10,000 per cell and log1p, with what is known about the cells.
struct Normalised {
    counts: Csr,
    values: Vec<f32>,
    labels: Vec<String>,
    batches: Vec<String>,
}

impl Normalised {
    const TARGET_SUM: f64 = 1e4;

    fn load(file: &Path, cells: &Cells) -> Result<Self> {
        let adata = AnnData::read(file)?;
        let counts = adata.matrix(cells.layer.as_deref())?.to_csr()?;
        let mut values = preprocess::normalize_total(view(&counts, counts.data())?, Self::TARGET_SUM);
        preprocess::log1p(&mut values);
        let (labels, batches) = (column(&adata, &cells.labels_key)?, column(&adata, &cells.batch_key)?);
        Ok(Self { counts, values, labels, batches })
    }

    fn view(&self) -> Result<CsrView<'_>> {
        view(&self.counts, &self.values)
    }

    fn project(self, pca: &Pca) -> Result<Embedding> {
        Ok(Embedding { latent: pca.project_csr(self.view()?)?, labels: self.labels, batches: self.batches })
    }
}

fn view<'a>(counts: &'a Csr, data: &'a [f32]) -> Result<CsrView<'a>> {
    Ok(CsrView::new(counts.n_cols(), counts.indptr(), counts.indices(), data)?)
}

/// The share of pairs, one of a cell that is such a one and one of another, in which the former has the larger value; of equals half. `None`
/// where all are alike.
pub(crate) fn area_under_curve(values: &[f64], is_one: &[bool]) -> Option<f64> {
    let of = |one: bool| values.iter().zip(is_one).filter(move |(_, is)| **is == one).map(|(value, _)| *value);
    let pairs = of(true).flat_map(|one| of(false).map(move |other| (one, other)));
    let (mut sum, mut n) = (0.0, 0.0);
    for (one, other) in pairs {
        sum += if one > other {
            1.0
        } else if one == other {
            0.5
        } else {
            0.0
        };
        n += 1.0;
    }
    (n > 0.0).then(|| sum / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_tell_ones_from_others_have_an_area_of_one() {
        let is_one = [true, false, true, false];
        assert_eq!(area_under_curve(&[3.0, 1.0, 4.0, 2.0], &is_one), Some(1.0));
        assert_eq!(area_under_curve(&[1.0, 2.0, 1.0, 1.0], &is_one), Some(0.25));
        assert_eq!(area_under_curve(&[1.0], &[false]), None);
    }
}
