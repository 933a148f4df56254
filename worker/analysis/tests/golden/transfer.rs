//! Label transfer and metrics, computed by scArches 0.6.1: every case in the folders `knn` and `metrics`, and the gene sets of `expimap`.

use std::path::{Path, PathBuf};

use archipelago_analysis::Labels;
use archipelago_analysis::graph::connectivities;
use archipelago_analysis::metrics::{
    Confusion, NmiAverage, Pools, asw_batch, asw_batch_by_label, asw_label, batch_entropies, best_resolution,
    entropy_batch_mixing, knn_purity_by_label, nmi, silhouette_samples,
};
use archipelago_analysis::neighbours::{Neighbours, knn, self_knn};
use archipelago_analysis::plot::SankeyGeometry;
use archipelago_analysis::preprocess::{SetOptions, gene_sets};
use archipelago_analysis::transfer::{
    UNKNOWN, Unknown, matching_columns, neighbour_weights, true_label_uncertainty, weighted,
};
use serde_json::Value;

use crate::case::{Case, strings};

impl Case {
    fn labels(&self, facts: &Value) -> Labels {
        Labels::from_names(&strings(facts))
    }

    fn n_neighbors(&self) -> usize {
        let facts = [&self.facts["n_neighbors"], &self.facts["options"]["n_neighbors"]];
        facts.into_iter().find_map(Value::as_u64).unwrap() as usize
    }
}

/// The cases state 1e-5 relative for single-precision intermediates upstream; double precision keeps this.
const TOLERANCE: (f64, f64) = (1e-5, 1e-6);

#[test]
fn knn_neighbours_and_weights() {
    for case in Case::all("knn", "knn_", TOLERANCE) {
        let found = neighbours(&case);
        let distances: Vec<f64> = found.iter().flat_map(|(_, distances)| distances).copied().collect();
        case.check_all("distance", &distances, "neighbor.distance");
        let weights: Vec<f64> = found.iter().flat_map(|(_, distances)| neighbour_weights(distances)).collect();
        case.check_all("weight", &weights, "neighbor.weight");
        check_rows(&case, &found);
    }
}

/// Rows at equal distances have no defined order upstream, ours go by row number: compare those at distinct distances.
fn check_rows(case: &Case, found: &Neighbours) {
    let expected = case.values("neighbor.index");
    let mut n_compared = 0;
    for (cell, (rows, distances)) in found.iter().enumerate() {
        for (rank, &row) in rows.iter().enumerate() {
            let is_tied = |other: usize| distances.get(other).is_none_or(|&d| (d - distances[rank]).abs() < 1e-6);
            if is_tied(rank + 1) || rank > 0 && is_tied(rank - 1) {
                continue;
            }
            n_compared += 1;
            assert_eq!(f64::from(row), expected[cell * found.k() + rank], "{}: cell {cell}, rank {rank}", case.name);
        }
    }
    assert!(n_compared > found.n_cells(), "{}: hardly a neighbour was compared", case.name);
}

fn neighbours(case: &Case) -> Neighbours {
    knn(case.cells("in.query").view(), case.cells("in.ref").view(), case.n_neighbors()).unwrap()
}

#[test]
fn knn_labels_and_uncertainties() {
    for case in Case::all("knn", "knn_", TOLERANCE) {
        let found = neighbours(&case);
        let names: Vec<&String> = case.facts["ref_labels"].as_object().unwrap().keys().collect();
        let columns = matching_columns(&names, case.facts["label_keys"].as_str().unwrap());
        assert!(!columns.is_empty());
        for column in columns {
            let reference = case.labels(&case.facts["ref_labels"][column]);
            let transfer = weighted(&found, &reference).unwrap();
            for (mode, output) in case.facts["outputs"].as_object().unwrap() {
                case.check_all(mode, &transfer.uncertainty, &format!("{mode}.{column}.uncertainty"));
                let rule = output["options"]["threshold"].as_f64().map_or(Unknown::Never, Unknown::MinProbability);
                assert_eq!(transfer.labels_with(rule), strings(&output["preds"][column]), "{}: {mode}", case.name);
            }
            let truth = case.labels(&case.facts["query_true_labels"][column]);
            let of_truth = true_label_uncertainty(&found, &reference, &truth).unwrap();
            case.check_all("paper mode", &of_truth, &format!("paper_definition.{column}.uncertainty"));
        }
    }
}

#[test]
fn knn_documented_threshold_on_the_uncertainty() {
    for case in Case::all("knn", "knn_", TOLERANCE) {
        let expected = strings(&case.facts["posthoc_threshold_0.2"]);
        let columns = case.facts["ref_labels"].as_object().unwrap();
        let fits = columns.values().any(|column| {
            let transfer = weighted(&neighbours(&case), &case.labels(column)).unwrap();
            transfer.labels_with(Unknown::MaxUncertainty(0.2)) == expected
        });
        assert!(fits, "{}", case.name);
        assert!(expected.contains(&UNKNOWN));
    }
}

#[test]
fn metrics_of_an_embedding() {
    for case in Case::all("metrics", "metrics_", TOLERANCE) {
        let x = case.cells("in.x");
        let (types, batches) = (case.labels(&case.facts["cell_type"]), case.labels(&case.facts["batch"]));
        let expected = |fact: &str| case.facts[fact].as_f64().unwrap();

        let silhouettes = silhouette_samples(x.view(), &types).unwrap().unwrap();
        case.check("silhouette", silhouettes.iter().sum::<f64>() / types.len() as f64, expected("silhouette_unscaled"));
        case.check("asw label", asw_label(x.view(), &types).unwrap().unwrap(), expected("asw_cell_type"));
        case.check("asw batch", asw_batch(x.view(), &types, &batches).unwrap().unwrap(), expected("asw_batch"));
        let by_type = asw_batch_by_label(x.view(), &types, &batches).unwrap();
        assert_eq!(by_type.len(), case.facts["asw_batch_per_type"].as_object().unwrap().len());
        for (name, found) in by_type {
            case.check(&name, found, case.facts["asw_batch_per_type"][&name].as_f64().unwrap());
        }

        let found = self_knn(x.view(), case.n_neighbors()).unwrap();
        case.check("purity", knn_purity_by_label(&found, &types).unwrap().unwrap(), expected("knn_purity"));
        let one_pool = entropy_batch_mixing(&found, &batches, Pools::AllCells).unwrap().unwrap();
        case.check("ebm of all cells", one_pool, expected("ebm_one_pool"));
        let entropies = batch_entropies(&found, &batches).unwrap();
        let drawn = case.values("ebm.sample_indices");
        let over_pools = drawn.iter().map(|&cell| entropies[cell as usize]).sum::<f64>() / drawn.len() as f64;
        case.check("ebm of the drawn cells", over_pools, expected("ebm"));
    }
}

#[test]
fn metrics_of_given_clusters() {
    for case in Case::all("metrics", "metrics_", TOLERANCE) {
        let types = case.labels(&case.facts["cell_type"]);
        let clusters = case.labels(&case.facts["clusters_for_nmi"]);
        let averages = [
            ("arithmetic", NmiAverage::Arithmetic),
            ("geometric", NmiAverage::Geometric),
            ("min", NmiAverage::Min),
            ("max", NmiAverage::Max),
        ];
        for (name, average) in averages {
            let found = nmi(types.codes(), clusters.codes(), average).unwrap();
            case.check(name, found, case.facts["nmi_given_clusters"][name].as_f64().unwrap());
        }
    }
}

/// Upstream clusters by Louvain at twenty resolutions; another community library may differ by what the case allows.
#[test]
fn metrics_of_the_best_clustering() {
    for case in Case::all("metrics", "metrics_", TOLERANCE) {
        let types = case.labels(&case.facts["cell_type"]);
        let edges = connectivities(&self_knn(case.cells("in.x").view(), 14).unwrap());
        let resolutions: Vec<f64> = (1..=20).map(|tenths| f64::from(tenths) / 10.0).collect();
        let found = best_resolution(&edges, &types, &resolutions, 0).unwrap();
        let expected = case.facts["nmi_opt_louvain"].as_f64().unwrap();
        assert!((found.nmi - expected).abs() <= 0.05, "{}: {}, not {expected}", case.name, found.nmi);
    }
}

#[test]
fn metrics_of_predictions() {
    for case in Case::all("metrics", "metrics_", TOLERANCE) {
        let facts = &case.facts["classification"];
        let found = Confusion::new(&case.labels(&facts["true"]), &case.labels(&facts["pred"])).unwrap();
        assert_eq!(found.labels, strings(&facts["labels"]), "{}", case.name);
        assert_eq!(serde_json::to_value(&found.counts).unwrap(), facts["confusion"], "{}", case.name);
        let expected = |fact: &str| facts[fact].as_f64().unwrap();
        case.check("macro F1", found.macro_f1().unwrap(), expected("f1_macro"));
        case.check("weighted F1", found.weighted_f1().unwrap(), expected("f1_weighted"));
        case.check("accuracy", found.accuracy().unwrap(), expected("accuracy"));
    }
}

#[test]
fn sankey_geometry() {
    for case in Case::all("metrics", "sankey_", TOLERANCE) {
        let pairs: Vec<(String, String)> = serde_json::from_value(case.facts["pairs"].clone()).unwrap();
        let (left, right): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
        let resolution = case.facts["resolution"].as_u64().unwrap() as usize;
        let found = SankeyGeometry::new(&Labels::from_names(&left), &Labels::from_names(&right), resolution).unwrap();
        let names = |side: &[(String, u64)]| side.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found.left), strings(&case.facts["left_order"]), "{}", case.name);
        assert_eq!(names(&found.right), strings(&case.facts["right_order"]), "{}", case.name);
        case.check("gap", found.v_gap, case.facts["v_gap"].as_f64().unwrap());
        for side in [0, 1] {
            case.check("height", found.heights[side], case.facts["group_widths"][side].as_f64().unwrap());
        }
        let expected = case.facts["veins"].as_array().unwrap();
        assert_eq!(found.veins.len(), expected.len(), "{}", case.name);
        for (i, (vein, expected)) in found.veins.iter().zip(expected).enumerate() {
            let facts = (expected["from"].as_str(), expected["to"].as_str(), expected["count"].as_u64());
            assert_eq!((Some(&*vein.from), Some(&*vein.to), Some(vein.count)), facts, "{}", case.name);
            case.check_all("outline", &flat(&vein.outline), &format!("vein.{i}.polygon"));
            case.check_all("left box", &flat(&vein.left_box), &format!("vein.{i}.left_box"));
            case.check_all("right box", &flat(&vein.right_box), &format!("vein.{i}.right_box"));
        }
    }
}

fn flat(points: &[(f64, f64)]) -> Vec<f64> {
    points.iter().flat_map(|&(x, y)| [x, y]).collect()
}

#[test]
fn gene_sets_become_the_upstream_mask() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let root = std::env::var_os("ARCHIPELAGO_GOLDEN").map_or(repository, PathBuf::from);
    let text = std::fs::read_to_string(root.join("expimap/add_annotations.json")).unwrap();
    let facts: Value = serde_json::from_str(&text).unwrap();
    let genes = strings(&facts["var_names"]);
    let cases = facts["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let default = SetOptions::default();
        let given = |name: &str| &case["options"][name];
        let options = SetOptions {
            min_genes: given("min_genes").as_u64().map_or(default.min_genes, |n| n as usize),
            max_genes: given("max_genes").as_u64().map(|n| n as usize),
            clean: given("clean").as_bool().unwrap_or(default.clean),
            upper: given("genes_use_upper").as_bool().unwrap_or(default.upper),
        };
        let files: Vec<&str> = strings(&case["files"]).into_iter().map(|name| facts[name].as_str().unwrap()).collect();
        let found = gene_sets(&files, &genes, options);
        assert_eq!(found.terms, strings(&case["terms"]), "{case}");
        let mask: Vec<Vec<u8>> = (0..genes.len())
            .map(|gene| found.members.iter().map(|members| u8::from(members[gene])).collect())
            .collect();
        assert_eq!(serde_json::to_value(mask).unwrap(), case["I"], "{case}");
    }
}
