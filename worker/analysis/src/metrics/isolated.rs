//! Labels that few batches share: the ones an integration loses first.

use ndarray::ArrayView2;

use crate::{AnalysisError, Labels, Result};

use super::{mean, silhouette_samples};

/// Names of the labels that occur in the fewest batches; none when every label occurs in every batch.
///
/// # Errors   labels and batches of different numbers of cells
/// # Source   Luecken et al. 2022
pub fn isolated_labels(labels: &Labels, batches: &Labels) -> Result<Vec<String>> {
    batches.check_len("the batch column", labels.len())?;
    let n_names = batches.names().len();
    let mut occurs = vec![vec![false; n_names]; labels.names().len()];
    for (&label, &batch) in labels.codes().iter().zip(batches.codes()) {
        occurs[label as usize][batch as usize] = true;
    }
    let n_batches = batches.counts().into_iter().filter(|&count| count > 0).count();
    let batches_of: Vec<usize> = occurs.iter().map(|row| row.iter().filter(|&&occurs| occurs).count()).collect();
    let fewest = batches_of.iter().copied().filter(|&n| n > 0).min();
    let isolated = labels.names().iter().zip(batches_of).filter(|&(_, n)| Some(n) == fewest && n < n_batches);
    Ok(isolated.map(|(name, _)| name.clone()).collect())
}

/// Mean over isolated labels of the mean silhouette of their cells, scaled to 0..1; `None` without isolated labels.
///
/// # Errors   columns of another number of cells, values that are not finite
/// # Source   `isolated_labels_asw` of scib
pub fn isolated_label_asw(x: ArrayView2<'_, f32>, labels: &Labels, batches: &Labels) -> Result<Option<f64>> {
    let Some(silhouettes) = silhouette_samples(x, labels)? else { return Ok(None) };
    isolated_asw_of(&silhouettes, labels, batches)
}

/// The same from the silhouettes of all cells by label.
///
/// # Errors   columns of different numbers of cells
pub(super) fn isolated_asw_of(silhouettes: &[f64], labels: &Labels, batches: &Labels) -> Result<Option<f64>> {
    let isolated = isolated_labels(labels, batches)?;
    let members = labels.members();
    let per_label = isolated.iter().filter_map(|name| labels.code(name)).filter_map(|code| {
        mean(members[code as usize].iter().map(|&cell| silhouettes[cell])).map(|silhouette| (silhouette + 1.0) / 2.0)
    });
    Ok(mean(per_label))
}

/// Mean over isolated labels of the best F1 that any cluster of any given clustering reaches for the label; `None`
/// without isolated labels.
///
/// # Errors   a clustering of another number of cells
/// # Source   `isolated_labels_f1` of scib, over clusterings at several resolutions
pub fn isolated_label_f1(clusterings: &[Vec<u32>], labels: &Labels, batches: &Labels) -> Result<Option<f64>> {
    if let Some(clusters) = clusterings.iter().find(|clusters| clusters.len() != labels.len()) {
        let (found, expected) = (clusters.len(), labels.len());
        return Err(AnalysisError::Length { what: "a clustering", found, expected });
    }
    let isolated = isolated_labels(labels, batches)?;
    let codes: Vec<u32> = isolated.iter().filter_map(|name| labels.code(name)).collect();
    Ok(mean(
        codes
            .into_iter()
            .map(|code| clusterings.iter().map(|clusters| best_f1(clusters, labels, code)).fold(0.0, f64::max)),
    ))
}

fn best_f1(clusters: &[u32], labels: &Labels, code: u32) -> f64 {
    let n_clusters = clusters.iter().max().map_or(0, |&last| last as usize + 1);
    let (mut sizes, mut shared) = (vec![0u64; n_clusters], vec![0u64; n_clusters]);
    for (&cluster, &label) in clusters.iter().zip(labels.codes()) {
        sizes[cluster as usize] += 1;
        shared[cluster as usize] += u64::from(label == code);
    }
    let label_size: u64 = shared.iter().sum();
    let scores = sizes.iter().zip(&shared).map(|(&size, &both)| 2.0 * both as f64 / (size + label_size).max(1) as f64);
    scores.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_in_the_fewest_batches_are_isolated() {
        let labels = Labels::from_names(&["B", "B", "T", "T", "NK", "DC"]);
        let batches = Labels::from_names(&["1", "2", "1", "2", "1", "2"]);
        assert_eq!(isolated_labels(&labels, &batches).unwrap(), ["DC", "NK"]);
        let shared = Labels::from_names(&["B", "B"]);
        assert!(isolated_labels(&shared, &Labels::from_names(&["1", "2"])).unwrap().is_empty());
    }

    #[test]
    fn the_best_cluster_of_the_best_clustering_counts() {
        let labels = Labels::from_names(&["B", "B", "T", "T"]);
        let batches = Labels::from_names(&["1", "2", "1", "1"]);
        let found = isolated_label_f1(&[vec![0, 0, 0, 0], vec![0, 0, 0, 1]], &labels, &batches).unwrap();
        assert!((found.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    }
}
