//! The figures a mapping is judged by, computed the same way for every latent space.

use ndarray::{ArrayView2, Axis, concatenate};
use serde::Serialize;

use crate::graph::connectivities;
use crate::kmeans::{KMeans, kmeans};
use crate::neighbours::{knn, self_knn};
use crate::{AnalysisError, Labels, Result, transfer};

use super::{
    Confusion, NmiAverage, ari, asw_batch, asw_label, best_resolution, graph_connectivity, knn_purity, nmi,
    other_batch_share,
};

/// Cells placed in a latent space, with what is known about them.
#[derive(Debug, Clone, Copy)]
pub struct Embedded<'a> {
    /// Latent means, `[n_cells, n_latent]`.
    pub latent: ArrayView2<'a, f32>,
    /// Cell type of each cell.
    pub labels: &'a Labels,
    /// Technical batch of each cell.
    pub batches: &'a Labels,
}

/// How well query cells found their place among reference cells. Transfer is judged on the query, integration on
/// reference and query together. A figure that is undefined for these cells is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MappingQuality {
    /// Share of query cells whose majority label among the nearest reference cells is right.
    pub knn_accuracy: Option<f64>,
    /// The same over query cells of types that the reference has.
    pub knn_accuracy_seen_types: Option<f64>,
    /// Mean F1 over the query types that the reference has.
    pub macro_f1: Option<f64>,
    /// Mean recall over the query types that the reference has.
    pub balanced_accuracy: Option<f64>,
    /// Mean share of a cell's neighbours with its label.
    pub knn_purity: Option<f64>,
    /// Mean share of a cell's neighbours from another batch.
    pub other_batch_share: Option<f64>,
    /// Mean over labels of the largest connected part of the label's neighbour graph.
    pub graph_connectivity: Option<f64>,
    /// Mean silhouette by label, scaled to 0..1.
    pub asw_label: Option<f64>,
    /// Mean over labels of 1 - |silhouette by batch|.
    pub asw_batch: Option<f64>,
    /// Normalised mutual information of labels and k-means clusters, as many as there are labels.
    pub nmi_kmeans: f64,
    /// Adjusted Rand index of the same.
    pub ari_kmeans: f64,
    /// Normalised mutual information of labels and Leiden clusters at the best of eight resolutions.
    pub nmi_leiden: f64,
    /// Adjusted Rand index of the same.
    pub ari_leiden: f64,
}

/// Judges a mapping with 15 Euclidean neighbours and ten k-means starts.
///
/// # Errors   fewer than 16 cells or 15 reference cells, columns of another length than the latent, values not finite
pub fn mapping_quality(reference: Embedded<'_>, query: Embedded<'_>, seed: u64) -> Result<MappingQuality> {
    let transfer = transfer_quality(reference, query)?;
    let widths = (query.latent.ncols(), reference.latent.ncols());
    let latent = concatenate(Axis(0), &[reference.latent, query.latent]).map_err(|_| AnalysisError::Length {
        what: "a row of the query latent",
        found: widths.0,
        expected: widths.1,
    })?;
    let latent = latent.view();
    let labels = reference.labels.followed_by(query.labels);
    let batches = reference.batches.followed_by(query.batches);
    let neighbours = self_knn(latent, INTEGRATION_NEIGHBOURS)?;
    let clusters = kmeans(latent, KMeans::new(labels.names().len(), seed))?.assignment;
    // Scanpy's 15 neighbours count the cell itself.
    let graph = connectivities(&neighbours.nearest(INTEGRATION_NEIGHBOURS - 1));
    let leiden = best_resolution(&graph, &labels, &RESOLUTIONS, seed)?;
    Ok(MappingQuality {
        knn_accuracy: transfer.all.accuracy(),
        knn_accuracy_seen_types: transfer.seen_types.accuracy(),
        macro_f1: transfer.seen_types.macro_f1_of_true_labels(),
        balanced_accuracy: transfer.seen_types.balanced_accuracy(),
        knn_purity: knn_purity(&neighbours, &labels)?,
        other_batch_share: other_batch_share(&neighbours, &batches)?,
        graph_connectivity: graph_connectivity(&neighbours, &labels)?,
        asw_label: asw_label(latent, &labels)?,
        asw_batch: asw_batch(latent, &labels, &batches)?,
        nmi_kmeans: nmi(labels.codes(), &clusters, NmiAverage::Arithmetic)?,
        ari_kmeans: ari(labels.codes(), &clusters)?,
        nmi_leiden: leiden.nmi,
        ari_leiden: leiden.ari,
    })
}

struct TransferQuality {
    all: Confusion,
    seen_types: Confusion,
}

fn transfer_quality(reference: Embedded<'_>, query: Embedded<'_>) -> Result<TransferQuality> {
    reference.labels.check_len("the reference's label column", reference.latent.nrows())?;
    query.labels.check_len("the query's label column", query.latent.nrows())?;
    let neighbours = knn(query.latent, reference.latent, INTEGRATION_NEIGHBOURS)?;
    let predicted = transfer::vote(&neighbours, reference.labels)?;
    let reference_counts = reference.labels.counts();
    let is_seen = |name: &str| reference.labels.code(name).is_some_and(|code| reference_counts[code as usize] > 0);
    let of_seen_type: Vec<usize> = (0..query.labels.len()).filter(|&cell| is_seen(query.labels.name(cell))).collect();
    Ok(TransferQuality {
        all: Confusion::new(query.labels, &predicted)?,
        seen_types: Confusion::new(&query.labels.select(&of_seen_type), &predicted.select(&of_seen_type))?,
    })
}

/// Neighbours per cell in transfer and integration figures.
pub const INTEGRATION_NEIGHBOURS: usize = 15;
const RESOLUTIONS: [f64; 8] = [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0];
