//! The figures that an integration is judged by, of one embedding: what is kept of the labels, and how well batches mix.

use ndarray::ArrayView2;
use serde::Serialize;

use crate::graph::connectivities;
use crate::kmeans::{KMeans, kmeans};
use crate::neighbours::{Method, nearest_others};
use crate::progress::Progress;
use crate::{AnalysisError, Labels, Result};

use super::isolated::isolated_asw_of;
use super::resolution::{best_of, clusterings};
use super::silhouette::scaled_mean;
use super::{
    NmiAverage, Pools, ari, asw_batch, batch_variance, clisi, entropy_batch_mixing, graph_connectivity, graph_lisi,
    ilisi, isolated_label_f1, kbet_by_label, knn_purity_by_label, mean, nmi, silhouette_samples,
};

/// What a figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Whether cells of one label stay together and apart from others.
    Labels,
    /// Whether cells of different batches mix.
    Batches,
}

/// One figure of an embedding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name in the field.
    pub name: &'static str,
    /// What it is about.
    pub aspect: Aspect,
    /// What it measures, in a line.
    pub meaning: &'static str,
    /// From 0 to 1, higher is better; absent where it is undefined for these cells.
    pub value: Option<f64>,
}

/// All figures of an embedding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Integration {
    /// The figures, in the order of the list.
    pub figures: Vec<Figure>,
    /// Resolution of the Leiden clustering that agrees best with the labels.
    pub resolution: f64,
    /// Share of the variance that batches explain; what `pcr_comparison` compares with that of the unintegrated data.
    pub batch_variance: f64,
}

impl Integration {
    /// The value of a figure, by name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name)?.value
    }

    /// Mean of the figures of an aspect that are defined.
    pub fn score(&self, aspect: Aspect) -> Option<f64> {
        mean(self.figures.iter().filter(|figure| figure.aspect == aspect).filter_map(|figure| figure.value))
    }

    /// 0.6 of the labels' score and 0.4 of the batches'.
    ///
    /// # Source   Luecken et al. 2022
    pub fn total(&self) -> Option<f64> {
        Some(0.6 * self.score(Aspect::Labels)? + 0.4 * self.score(Aspect::Batches)?)
    }

    /// With the figure that takes the unintegrated data: how much less of the variance batches explain.
    #[must_use]
    pub fn compared_with(mut self, unintegrated: f64) -> Self {
        self.figures.push(Figure {
            name: "pcr_comparison",
            aspect: Aspect::Batches,
            meaning: "how much less of the variance batches explain than before",
            value: super::pcr_comparison(unintegrated, self.batch_variance),
        });
        self
    }
}

/// Judges an embedding.
///
/// # Shapes   `x`: `[n_cells, n_dims]`
/// # Errors   fewer than 16 cells, columns of another number of cells, values not finite
/// # Source   Luecken et al. 2022 (scib), Haghverdi et al. 2018 (entropy of batch mixing), Büttner et al. 2019 (kBET),
/// scArches 0.6.1 (purity)
pub fn integration(
    x: ArrayView2<'_, f32>,
    labels: &Labels,
    batches: &Labels,
    seed: u64,
    progress: Progress<'_>,
) -> Result<Integration> {
    labels.check_len("the label column", x.nrows())?;
    batches.check_len("the batch column", x.nrows())?;
    if x.nrows() <= GRAPH_NEIGHBOURS {
        let needed = GRAPH_NEIGHBOURS + 1;
        return Err(AnalysisError::TooFew { step: "the figures", unit: "cells", needed, found: x.nrows() });
    }
    let method = Method::for_size(x.nrows(), x.ncols(), seed);
    let few = |k: usize| k.min(x.nrows() - 1);
    let neighbours = nearest_others(x, few(MIXING_NEIGHBOURS), method, &|share| progress(0.15 * share))?;
    // Scanpy's 15 neighbours count the cell itself.
    let graph = connectivities(&neighbours.nearest(GRAPH_NEIGHBOURS - 1));
    let resolutions: Vec<f64> = (1..=N_RESOLUTIONS).map(|step| f64::from(step) / 10.0).collect();
    let telling = |share| progress(0.15 + 0.35 * share);
    let clusterings = clusterings(&graph, labels.len(), &resolutions, seed, &telling)?;
    let best = best_of(&clusterings, labels, &resolutions)?;
    let k_means = kmeans(x, KMeans::new(labels.names().len(), seed))?.assignment;
    progress(0.6);
    let [label_lisi, batch_lisi] = graph_lisi(&graph, [labels, batches], few(LISI_NEIGHBOURS))?;
    progress(0.75);
    let silhouettes = silhouette_samples(x, labels)?;
    progress(0.85);
    let asw_batch = asw_batch(x, labels, batches)?;
    progress(0.9);
    let kbet = mean(kbet_by_label(x, labels, batches)?.into_iter().map(|(_, accepted)| accepted));
    progress(0.95);
    let isolated_asw = match &silhouettes {
        Some(silhouettes) => isolated_asw_of(silhouettes, labels, batches)?,
        None => None,
    };
    let isolated_f1 = isolated_label_f1(&clusterings, labels, batches)?;
    let labels_figure = |name, meaning, value| Figure { name, aspect: Aspect::Labels, meaning, value };
    let batch_figure = |name, meaning, value| Figure { name, aspect: Aspect::Batches, meaning, value };
    let nmi_kmeans = nmi(labels.codes(), &k_means, NmiAverage::Arithmetic)?;
    let figures = vec![
        labels_figure("nmi_leiden", "agreement of labels and Leiden clusters, best of 20 resolutions", Some(best.nmi)),
        labels_figure("ari_leiden", "the same as adjusted Rand index", Some(best.ari)),
        labels_figure("nmi_kmeans", "agreement of labels and as many k-means clusters", Some(nmi_kmeans)),
        labels_figure("ari_kmeans", "the same as adjusted Rand index", Some(ari(labels.codes(), &k_means)?)),
        labels_figure("asw_label", "silhouette of labels", silhouettes.as_deref().and_then(scaled_mean)),
        labels_figure("clisi", "neighbourhoods hold one label", clisi(&label_lisi, labels)),
        labels_figure(
            "knn_purity",
            "share of 30 neighbours of the own label",
            knn_purity_by_label(&neighbours.nearest(PURITY_NEIGHBOURS), labels)?,
        ),
        labels_figure("isolated_asw", "silhouette of labels of few batches", isolated_asw),
        labels_figure("isolated_f1", "best cluster of labels of few batches", isolated_f1),
        batch_figure("asw_batch", "1 - |silhouette of batches| within labels", asw_batch),
        batch_figure("ilisi", "neighbourhoods hold all batches", ilisi(&batch_lisi, batches)),
        batch_figure(
            "graph_connectivity",
            "cells of a label hang together",
            graph_connectivity(&neighbours.nearest(GRAPH_NEIGHBOURS), labels)?,
        ),
        batch_figure("ebm", "entropy of batches among 50 neighbours", mixing(&neighbours, batches)?),
        batch_figure("kbet", "neighbourhoods within labels as mixed as the label", kbet),
    ];
    let n_components = x.ncols().min(x.nrows() - 1).min(PCR_COMPONENTS);
    let batch_variance = batch_variance(x, batches, n_components)?;
    progress(1.0);
    Ok(Integration { figures, resolution: best.resolution, batch_variance })
}

/// Undefined with one batch, where entropy has no base.
fn mixing(neighbours: &crate::neighbours::Neighbours, batches: &Labels) -> Result<Option<f64>> {
    let n_batches = batches.counts().into_iter().filter(|&count| count > 0).count();
    if n_batches < 2 { Ok(None) } else { entropy_batch_mixing(neighbours, batches, Pools::AllCells) }
}

const GRAPH_NEIGHBOURS: usize = 15;
const PURITY_NEIGHBOURS: usize = 30;
const MIXING_NEIGHBOURS: usize = 50;
const LISI_NEIGHBOURS: usize = 90;
const PCR_COMPONENTS: usize = 50;
/// From 0.1 to 2.0.
const N_RESOLUTIONS: u32 = 20;

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::progress::silent;

    /// Two labels far apart, two batches: mixed, or apart too.
    fn check(batch_effect: f32) -> Integration {
        let x = Array2::from_shape_fn((120, 3), |(i, j)| {
            let noise = ((i * 7919 + j * 104_729) % 997) as f32 / 997.0;
            noise
                + if j == 0 { 9.0 * (i % 2) as f32 } else { 0.0 }
                + if j == 1 { batch_effect * (i / 60) as f32 } else { 0.0 }
        });
        let labels = Labels::from_names(&(0..120).map(|i| ["B", "T"][i % 2]).collect::<Vec<_>>());
        let batches = Labels::from_names(&(0..120).map(|i| ["1", "2"][i / 60]).collect::<Vec<_>>());
        integration(x.view(), &labels, &batches, 0, &silent).unwrap()
    }

    #[test]
    fn a_batch_effect_lowers_the_batches_figures_and_leaves_the_labels() {
        let (mixed, apart) = (check(0.0), check(20.0));
        for name in ["asw_batch", "graph_connectivity", "ebm", "kbet"] {
            assert!(mixed.value(name) > apart.value(name), "{name}: {:?}, {:?}", mixed.value(name), apart.value(name));
        }
        assert!(mixed.value("knn_purity").unwrap() > 0.99 && apart.value("knn_purity").unwrap() > 0.9);
        assert!(mixed.score(Aspect::Batches) > apart.score(Aspect::Batches));
        let compared = mixed.clone().compared_with(apart.batch_variance);
        assert!(compared.value("pcr_comparison").unwrap() > 0.9);
        assert_eq!(mixed.value("isolated_asw"), None, "every label is in both batches");
    }

    #[test]
    fn too_few_cells_are_refused() {
        let labels = Labels::from_names(&["B"; 15]);
        let error = integration(Array2::zeros((15, 2)).view(), &labels, &labels, 0, &silent).unwrap_err();
        assert!(matches!(error, AnalysisError::TooFew { needed: 16, .. }));
    }
}
