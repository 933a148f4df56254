//! Figures over seeds beside a peer's: mean, spread, and whether ours are as good.

mod of_sections;
pub mod paired;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Figures of one seed, by name.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Adds a figure.
    pub fn insert(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }
}

impl FromIterator<(String, f64)> for Figures {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// Mean and sample standard deviation over seeds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation; a single seed has none.
    pub std: Option<f64>,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let sum: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { mean, std: (values.len() > 1).then(|| (sum / (n - 1.0)).sqrt()) })
    }
}

/// One figure, ours and the peer's.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Line {
    /// The figure.
    pub name: &'static str,
    /// Ours.
    pub ours: Spread,
    /// The peer's, where it has it.
    pub peer: Option<Spread>,
    /// Whether ours is better, or within two of the peer's standard deviations.
    pub is_as_good: Option<bool>,
}

/// All figures of one model.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// The model.
    pub model: String,
    /// The figures, in order of importance.
    pub lines: Vec<Line>,
}

impl Comparison {
    /// Compares figures of several seeds with those that `peer_quality.py` or `peer_quality_native.py` wrote.
    pub fn new(model: &str, runs: &[Figures], peer: Option<&Value>) -> Self {
        let line = |figure: &Figure| {
            let ours: Vec<f64> = runs.iter().filter_map(|run| run.0.get(figure.name).copied()).collect();
            let theirs: Vec<f64> = peer
                .and_then(|peer| runs_of(peer, model))
                .map(|runs| runs.iter().filter_map(|run| figure.of_peer(run, model)).collect())
                .unwrap_or_default();
            let (ours, peer) = (Spread::of(&ours)?, Spread::of(&theirs));
            // A single run has no spread to be within.
            let is_as_good = peer.and_then(|peer| {
                let away = figure.sign * (ours.mean - peer.mean);
                Some(away >= -2.0 * peer.std? - ROUNDING)
            });
            Some(Line { name: figure.name, ours, peer, is_as_good })
        };
        Self { model: model.to_owned(), lines: FIGURES.iter().chain(of_sections::FIGURES).filter_map(line).collect() }
    }

    /// The figures as a table in Markdown.
    pub fn table(&self) -> String {
        let mut text = format!(
            "### {}\n\n| figure | Archipelago | peer | within 2 sd or better |\n|---|---|---|---|\n",
            self.model
        );
        for Line { name, ours, peer, is_as_good } in &self.lines {
            let shown = |spread: &Spread| {
                let digits = if spread.mean.abs() >= 10.0 { 1 } else { 3 };
                let std = spread.std.map_or_else(|| " (one seed)".to_owned(), |std| format!(" ± {std:.digits$}"));
                format!("{:.digits$}{std}", spread.mean)
            };
            let verdict = match is_as_good {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let peer = peer.as_ref().map(shown).unwrap_or_default();
            text += &format!("| {} | {} | {peer} | {verdict} |\n", name.replace('_', " "), shown(ours));
        }
        text
    }
}

/// A peer's runs of a model, or of `model-variant`. The native models' script writes one model to a file, and each recipe under its own
/// name.
fn runs_of<'a>(peer: &'a Value, model: &str) -> Option<&'a Vec<Value>> {
    let runs = &peer["runs"];
    if let Some((_, variant)) = model.split_once('-') {
        return runs[variant].as_array();
    }
    let of_recipe = || RECIPES.iter().find_map(|recipe| runs[*recipe].as_array()).filter(|_| peer["model"] == model);
    // One set of data to an entry, its runs in a list.
    let alone = || runs.as_array().filter(|_| peer["model"] == model);
    runs[model].as_array().or_else(of_recipe).or_else(alone)
}

/// What the native models' script calls the recipes that ours follow.
const RECIPES: [&str; 5] = ["surgery", "integrate", "predict", "hard", "unlabelled"];

/// A figure: our name, where the peers' scripts put it, and whether more is better.
struct Figure {
    name: &'static str,
    peer: &'static str,
    sign: f64,
}

impl Figure {
    /// The figure of one of the peer's runs of a model; some scripts put all figures below its name.
    fn of_peer(&self, run: &Value, model: &str) -> Option<f64> {
        let place = |pointer: &str| run.pointer(pointer)?.as_f64();
        let of_cells = |part: &str, term: &str| place(&format!("/per_cell/{part}/{term}"));
        let part = if self.name.ends_with("_query") { "query_after_surgery" } else { "reference" };
        let native = || match self.name.split('_').next() {
            Some("reconstruction") => of_cells(part, "reconstruction"),
            Some("asw") => place("/integration/asw_batch_all_cells").filter(|_| self.name == "asw_batch"),
            Some("predict") if self.name != "predict_reference" => {
                place(&format!("/classify/{}", self.name.trim_start_matches("predict_")))
            }
            Some("elbo") => Some(-(of_cells(part, "reconstruction")? + of_cells(part, "kl")?)),
            _ => None,
        };
        place(self.peer).or_else(|| place(&format!("/{model}{}", self.peer))).or_else(native)
    }
}

const fn more(name: &'static str, peer: &'static str) -> Figure {
    Figure { name, peer, sign: 1.0 }
}

const fn less(name: &'static str, peer: &'static str) -> Figure {
    Figure { name, peer, sign: -1.0 }
}

const FIGURES: &[Figure] = &[
    more("predict_accuracy", "/predict/accuracy"),
    more("predict_macro_f1", "/predict/macro_f1"),
    more("predict_balanced_accuracy", "/predict/balanced_accuracy"),
    more("predict_reference", "/predict_reference"),
    more("uncertainty_auroc", "/uncertainty/auroc_error"),
    more("new_type_auroc", "/uncertainty/auroc_new_type"),
    more("new_type_accuracy", "/after_add_new_cell_type/accuracy"),
    more("new_type_recall", "/after_add_new_cell_type/recall_new_type"),
    more("new_type_precision", "/after_add_new_cell_type/precision_new_type"),
    more("knn_accuracy", "/transfer_knn/accuracy"),
    more("macro_f1", "/transfer_knn/macro_f1"),
    more("balanced_accuracy", "/transfer_knn/balanced_accuracy"),
    more("knn_purity", "/integration/knn_purity"),
    more("other_batch_share", "/integration/knn_other_batch"),
    more("reference_share", NO_PEER),
    more("ilisi", NO_PEER),
    more("clisi", NO_PEER),
    more("graph_connectivity", "/integration/graph_connectivity"),
    more("asw_label", "/integration/asw_label"),
    more("asw_batch", "/integration/asw_batch"),
    more("nmi_kmeans", "/integration/nmi_kmeans"),
    more("ari_kmeans", "/integration/ari_kmeans"),
    more("nmi_leiden", "/integration/nmi_leiden"),
    more("ari_leiden", "/integration/ari_leiden"),
    more("perturbation_r2", "/predict_other_types/r2_all"),
    more("perturbation_r2_top100", "/predict_other_types/r2_top100"),
    more("perturbation_all_types_r2", "/predict_all/r2_all"),
    more("perturbation_all_types_r2_top100", "/predict_all/r2_top100"),
    more("shift_of_other_types_r2", "/predict_mean_shift_in_gene_space/r2_all"),
    more("shift_of_other_types_r2_top100", "/predict_mean_shift_in_gene_space/r2_top100"),
    more("unchanged_r2", "/predict_control_unchanged/r2_all"),
    more("unchanged_r2_top100", "/predict_control_unchanged/r2_top100"),
    more("active_terms", "/active_terms"),
    less("rank_of_interferon_sets", "/enrichment/rank_best_of_ifn_family"),
    more("largest_bayes_factor", "/enrichment/top_abs_bf"),
    // Trees of cell types, by nearest cells and by linear machines.
    more("knn_tree_match_recall", "/treearches/knn/tree/match_recall"),
    more("knn_tree_match_precision", "/treearches/knn/tree/match_precision"),
    more("knn_tree_path_recall", "/treearches/knn/tree/path_recall"),
    more("knn_tree_path_precision", "/treearches/knn/tree/path_precision"),
    less("knn_tree_missing", "/treearches/knn/tree/missing_populations"),
    less("knn_tree_labels_lost", "/treearches/knn/tree/labels_lost"),
    more("knn_predict_accuracy", "/treearches/knn/predict/accuracy"),
    more("knn_predict_accuracy_of_accepted", "/treearches/knn/predict/accuracy_of_accepted"),
    more("knn_predict_right_or_coarser", "/treearches/knn/predict/accuracy_or_coarser"),
    more("knn_predict_macro_f1", "/treearches/knn/predict/macro_f1"),
    less("knn_predict_wrong", "/treearches/knn/predict/wrong"),
    less("knn_predict_rejected", "/treearches/knn/predict/rejected"),
    more("knn_updated_match_recall", "/treearches/knn/tree_updated/match_recall"),
    more("knn_updated_match_precision", "/treearches/knn/tree_updated/match_precision"),
    more("knn_updated_path_recall", "/treearches/knn/tree_updated/path_recall"),
    more("knn_updated_path_precision", "/treearches/knn/tree_updated/path_precision"),
    less("knn_updated_missing", "/treearches/knn/tree_updated/missing_populations"),
    less("knn_updated_labels_lost", "/treearches/knn/tree_updated/labels_lost"),
    more("knn_coarse_edge_recall", "/treearches/knn/hierarchy/edge_recall"),
    more("knn_coarse_edge_precision", "/treearches/knn/hierarchy/edge_precision"),
    more("knn_coarse_accuracy", "/treearches/knn/hierarchy/predict/accuracy"),
    more("knn_coarse_right_or_coarser", "/treearches/knn/hierarchy/predict/accuracy_or_coarser"),
    less("knn_coarse_rejected", "/treearches/knn/hierarchy/predict/rejected"),
    more("knn_left_out_rejected", "/treearches/knn/left_out_mean_rejected"),
    less("knn_left_out_rejected_others", "/treearches/knn/left_out_mean_rejected_others"),
    more("svm_tree_match_recall", "/treearches/svm/tree/match_recall"),
    more("svm_tree_match_precision", "/treearches/svm/tree/match_precision"),
    more("svm_tree_path_recall", "/treearches/svm/tree/path_recall"),
    more("svm_tree_path_precision", "/treearches/svm/tree/path_precision"),
    less("svm_tree_missing", "/treearches/svm/tree/missing_populations"),
    less("svm_tree_labels_lost", "/treearches/svm/tree/labels_lost"),
    more("svm_predict_accuracy", "/treearches/svm/predict/accuracy"),
    more("svm_predict_accuracy_of_accepted", "/treearches/svm/predict/accuracy_of_accepted"),
    more("svm_predict_right_or_coarser", "/treearches/svm/predict/accuracy_or_coarser"),
    more("svm_predict_macro_f1", "/treearches/svm/predict/macro_f1"),
    less("svm_predict_wrong", "/treearches/svm/predict/wrong"),
    less("svm_predict_rejected", "/treearches/svm/predict/rejected"),
    more("svm_updated_match_recall", "/treearches/svm/tree_updated/match_recall"),
    more("svm_updated_match_precision", "/treearches/svm/tree_updated/match_precision"),
    more("svm_updated_path_recall", "/treearches/svm/tree_updated/path_recall"),
    more("svm_updated_path_precision", "/treearches/svm/tree_updated/path_precision"),
    less("svm_updated_missing", "/treearches/svm/tree_updated/missing_populations"),
    less("svm_updated_labels_lost", "/treearches/svm/tree_updated/labels_lost"),
    more("svm_coarse_edge_recall", "/treearches/svm/hierarchy/edge_recall"),
    more("svm_coarse_edge_precision", "/treearches/svm/hierarchy/edge_precision"),
    more("svm_coarse_accuracy", "/treearches/svm/hierarchy/predict/accuracy"),
    more("svm_coarse_right_or_coarser", "/treearches/svm/hierarchy/predict/accuracy_or_coarser"),
    less("svm_coarse_rejected", "/treearches/svm/hierarchy/predict/rejected"),
    more("svm_left_out_rejected", "/treearches/svm/left_out_mean_rejected"),
    less("svm_left_out_rejected_others", "/treearches/svm/left_out_mean_rejected_others"),
    // T cells by expression and receptor.
    less("validation_loss", "/mvtcr/reference/best_validation_loss"),
    more("clonotype_1nn_f1", "/mvtcr/by_reconstruction/scores/clonotype_1nn/weighted_f1"),
    more("transfer_weighted_f1", "/mvtcr/by_reconstruction/scores/transfer_source/weighted_f1"),
    more("amino_acids_right_query", "/mvtcr/by_reconstruction/surgery/token_accuracy_query/from_tcr"),
    // Cells of several modalities, and what is hidden of them.
    more("transfer_all_accuracy", "/transfer_knn/all/accuracy"),
    more("transfer_all_macro_f1", "/transfer_knn/all/macro_f1"),
    more("transfer_paired_accuracy", "/transfer_knn/query_cite/accuracy"),
    more("transfer_paired_macro_f1", "/transfer_knn/query_cite/macro_f1"),
    more("transfer_rna_accuracy", "/transfer_knn/query_rna/accuracy"),
    more("transfer_rna_macro_f1", "/transfer_knn/query_rna/macro_f1"),
    more("transfer_proteins_accuracy", "/transfer_knn/query_adt/accuracy"),
    more("transfer_proteins_macro_f1", "/transfer_knn/query_adt/macro_f1"),
    more("means_transfer_all_accuracy", NO_PEER),
    more("means_knn_purity", NO_PEER),
    more("means_other_batch_share", NO_PEER),
    more("means_asw_batch", NO_PEER),
    more("imputed_proteins_reference_per_feature", "/imputation/proteins_ref_rna/pearson_per_feature"),
    more("imputed_proteins_reference_per_cell", "/imputation/proteins_ref_rna/pearson_per_cell"),
    less("imputed_proteins_reference_rmse", "/imputation/proteins_ref_rna/rmse"),
    more("imputed_proteins_query_per_feature", "/imputation/proteins_query_rna/pearson_per_feature"),
    more("imputed_proteins_query_per_cell", "/imputation/proteins_query_rna/pearson_per_cell"),
    less("imputed_proteins_query_rmse", "/imputation/proteins_query_rna/rmse"),
    more("imputed_proteins_seen_per_feature", "/imputation/proteins_query_cite/pearson_per_feature"),
    more("imputed_proteins_seen_per_cell", "/imputation/proteins_query_cite/pearson_per_cell"),
    less("imputed_proteins_seen_rmse", "/imputation/proteins_query_cite/rmse"),
    more("imputed_genes_query_per_feature", "/imputation/rna_query_adt_top200/pearson_per_feature"),
    more("imputed_genes_query_per_cell", "/imputation/rna_query_adt_top200/pearson_per_cell"),
    less("imputed_genes_query_rmse", "/imputation/rna_query_adt_top200/rmse"),
    less("reconstruction_training", "/reference/losses/reconstruction_loss_train"),
    less("reconstruction_validation", "/reference/losses/reconstruction_loss_validation"),
    more("elbo_reference", "/elbo_reference"),
    more("elbo_query", "/elbo_query_after_surgery"),
    less("reconstruction_reference", "/reconstruction_reference"),
    less("reconstruction_query", "/reconstruction_query"),
];

/// Where no peer has a figure.
const NO_PEER: &str = "/";

/// Differences below this are of the last digit shown.
const ROUNDING: f64 = 5e-4;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(purity: f64, elbo: f64, error: f64) -> Figures {
        let named = [("knn_purity", purity), ("elbo_query", elbo), ("reconstruction_query", error)];
        named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn worse_by_more_than_two_standard_deviations_is_told() {
        let theirs = |purity, elbo: f64, error: f64| {
            json!({ "integration": { "knn_purity": purity }, "elbo_query_after_surgery": elbo,
                    "reconstruction_query": error })
        };
        let peer = json!({ "runs": { "scvi": [theirs(0.90, -583.0, 500.0), theirs(0.92, -585.0, 502.0)] } });
        let ours = [run(0.88, -590.0, 400.0), run(0.90, -590.0, 400.0)];
        let comparison = Comparison::new("scvi", &ours, Some(&peer));
        let verdicts: Vec<_> = comparison.lines.iter().map(|line| (line.name, line.is_as_good)).collect();
        let expected = [("knn_purity", Some(true)), ("elbo_query", Some(false)), ("reconstruction_query", Some(true))];
        assert_eq!(verdicts, expected);
        assert!(comparison.table().contains("| elbo query | -590.0 ± 0.0 | -584.0 ± 1.4 | **no** |"));
    }

    /// scPoli's peer writes what it classifies under names of its own.
    #[test]
    fn types_that_scpoli_predicts_are_compared_with_those_that_upstream_classifies() {
        let run = |auroc| json!({ "classify": { "accuracy": 0.8 }, "uncertainty": { "auroc_error": auroc } });
        let peer = json!({ "model": "scpoli", "runs": { "unlabelled": [run(0.6), run(0.62)] } });
        let ours = [("predict_accuracy", 0.9), ("uncertainty_auroc", 0.5)];
        let ours: Figures = ours.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let lines = Comparison::new("scpoli", &[ours], Some(&peer)).lines;
        let told: Vec<_> = lines.iter().map(|line| (line.name, line.is_as_good)).collect();
        assert_eq!(told, [("predict_accuracy", Some(true)), ("uncertainty_auroc", Some(false))]);
    }

    #[test]
    fn a_variant_is_compared_with_the_peers_runs_of_that_variant() {
        let run = |accuracy| json!({ "classify": { "accuracy": accuracy } });
        let peer =
            json!({ "model": "scpoli", "runs": { "unlabelled": [run(0.6), run(0.6)], "half": [run(0.9), run(0.9)] } });
        let ours: Figures = [("predict_accuracy".to_owned(), 0.8)].into_iter().collect();
        let verdict = |model| Comparison::new(model, std::slice::from_ref(&ours), Some(&peer)).lines[0].is_as_good;
        assert_eq!(["scpoli", "scpoli-half", "scpoli-unseen"].map(verdict), [Some(true), Some(false), None]);
    }

    #[test]
    fn without_a_peer_there_is_no_verdict() {
        let comparison = Comparison::new("scvi", &[run(0.9, -1.0, 1.0)], None);
        assert!(comparison.lines.iter().all(|line| line.peer.is_none() && line.is_as_good.is_none()));
    }
}
