//! Clusters of cells without a type, whose means are prototypes.

use archipelago_analysis::{
    AnalysisError,
    graph::connectivities,
    kmeans::{KMeans, kmeans},
    leiden::leiden,
    neighbours::{Method, nearest_others},
    progress::silent,
};
use ndarray::{Array2, ArrayView2};

use crate::{
    error::{Error, Result},
    zoo::scpoli::config::{Clustering, ScpoliConfig},
};

/// Clusters of cells.
#[derive(Clone, PartialEq, Debug)]
pub struct Clusters {
    /// The cluster of each cell.
    pub of_cell: Vec<u32>,
    /// Mean of each, `[n_clusters, n_latent]`.
    pub means: Array2<f32>,
}

/// Clusters of cells by their latent states, `[n_cells, n_latent]`.
///
/// Leiden: the graph of 15 neighbours (a cell is one of its own) with UMAP's weights, as scanpy. The more cells are of a cluster, the lower its
/// number.
///
/// # Errors  [`Error::Clusters`] for fewer cells than clusters, latent states that are not finite
pub fn cluster(latent: ArrayView2<'_, f32>, config: &ScpoliConfig, seed: u64) -> Result<Clusters> {
    let refuse = |e: AnalysisError| Error::Clusters { detail: e.to_string() };
    let of_cell = match (config.clustering, config.n_clusters) {
        (Clustering::Kmeans, Some(n_clusters)) => {
            let found = kmeans(latent, KMeans::new(n_clusters, seed)).map_err(refuse)?;
            let means = found.centres.mapv(|value| value as f32);
            return Ok(Clusters { of_cell: found.assignment, means });
        }
        _ if latent.nrows() < 3 => vec![0; latent.nrows()],
        _ => {
            let k = N_NEIGHBOURS.min(latent.nrows() - 1);
            let method = Method::for_size(latent.nrows(), latent.ncols(), seed);
            let neighbours = nearest_others(latent, k, method, &silent).map_err(refuse)?;
            leiden(&connectivities(&neighbours), latent.nrows(), config.clustering_res, seed).map_err(refuse)?
        }
    };
    Ok(Clusters { means: means(latent, &of_cell), of_cell })
}

fn means(latent: ArrayView2<'_, f32>, of_cell: &[u32]) -> Array2<f32> {
    let n_clusters = of_cell.iter().max().map_or(0, |&last| last as usize + 1);
    let mut sums = Array2::<f64>::zeros((n_clusters, latent.ncols()));
    let mut n_cells = vec![0_usize; n_clusters];
    for (row, &cluster) in latent.rows().into_iter().zip(of_cell) {
        n_cells[cluster as usize] += 1;
        sums.row_mut(cluster as usize).zip_mut_with(&row, |sum, &value| *sum += f64::from(value));
    }
    for (mut sum, n) in sums.rows_mut().into_iter().zip(n_cells) {
        sum /= n.max(1) as f64;
    }
    sums.mapv(|sum| sum as f32)
}

/// Other cells that a cell is joined to: scanpy's 15 count the cell itself.
const N_NEIGHBOURS: usize = 14;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Two groups far from each other.
    fn latent(n: usize) -> Array2<f32> {
        Array2::from_shape_fn((n, 2), |(i, j)| (i % 2 * 50) as f32 + ((i * 7919 + j * 104_729) % 97) as f32 / 97.0)
    }

    #[test]
    fn groups_that_are_apart_share_no_cluster_and_prototypes_are_means() {
        for config in [
            ScpoliConfig { clustering_res: 0.1, ..ScpoliConfig::default() },
            ScpoliConfig { clustering: Clustering::Kmeans, n_clusters: Some(2), ..ScpoliConfig::default() },
        ] {
            let latent = latent(60);
            let found = cluster(latent.view(), &config, 0).unwrap();
            let of_group = |group: usize| -> BTreeSet<u32> {
                (0..60).filter(|cell| cell % 2 == group).map(|cell| found.of_cell[cell]).collect()
            };
            assert!(of_group(0).is_disjoint(&of_group(1)), "{:?}", config.clustering);
            assert!((2..20).contains(&found.means.nrows()));
            let by_hand = means(latent.view(), &found.of_cell);
            assert!((&by_hand - &found.means).iter().all(|difference| difference.abs() < 1e-4));
        }
    }

    #[test]
    fn few_cells_are_one_cluster_and_too_few_for_k_means_are_refused() {
        let one = cluster(latent(1).view(), &ScpoliConfig::default(), 0).unwrap();
        assert_eq!((one.of_cell, one.means.nrows()), (vec![0], 1));
        let three = ScpoliConfig { clustering: Clustering::Kmeans, n_clusters: Some(3), ..ScpoliConfig::default() };
        let refused = cluster(latent(2).view(), &three, 0).unwrap_err();
        assert!(matches!(refused, Error::Clusters { .. }), "{refused}");
        let nan = Array2::from_elem((40, 2), f32::NAN);
        assert!(cluster(nan.view(), &ScpoliConfig::default(), 0).is_err());
    }
}
