//! Figures about embeddings, clusterings and predictions.
//!
//! Each file holds one family; [`mapping_quality`] computes the set a mapping is judged by. Where a figure is undefined
//! for the given cells (one batch only, say) the result is `None`, never a made-up number.

mod agreement;
mod classification;
mod clustering;
mod connectivity;
mod integration;
mod isolated;
mod kbet;
mod lisi;
mod mixing;
mod pcr;
mod quality;
mod resolution;
mod silhouette;

pub use agreement::{Agreement, gene_means, increased_genes};
pub use classification::{ClassReport, Confusion};
pub use clustering::{NmiAverage, ari, nmi};
pub use connectivity::graph_connectivity;
pub use integration::{Aspect, Figure, Integration, integration};
pub use isolated::{isolated_label_asw, isolated_label_f1, isolated_labels};
pub use kbet::{kbet, kbet_by_label};
pub use lisi::{clisi, graph_lisi, ilisi, lisi};
pub use mixing::{Pools, batch_entropies, entropy_batch_mixing, knn_purity, knn_purity_by_label, other_batch_share};
pub use pcr::{batch_variance, pcr_comparison};
pub use quality::{Embedded, INTEGRATION_NEIGHBOURS, MappingQuality, mapping_quality};
pub use resolution::{BestResolution, best_resolution};
pub use silhouette::{asw_batch, asw_batch_by_label, asw_label, silhouette_samples};

fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.into_iter().fold((0.0, 0usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}
