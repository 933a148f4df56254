//! Graph and integration metrics beside scanpy's, harmonypy's and scib's on the same input.
//!
//! `testdata/scib.json` belongs to the 160 embedded cells of `testdata/sklearn.json`: `obsp['connectivities']` of
//! scanpy's `neighbors(n_neighbors=15)`, `compute_lisi` of harmonypy for labels and batches with perplexity 10 (30
//! neighbours), `isolated_labels_asw` and `pcr` (all six components) of scib 1.1.7, its `ilisi_graph` and
//! `clisi_graph` with `k0` 30, and the modularity that
//! `community_leiden` of igraph reaches in two iterations at five resolutions.

use archipelago_analysis::Labels;
use archipelago_analysis::graph::{Edge, connectivities};
use archipelago_analysis::leiden::leiden;
use archipelago_analysis::metrics::{batch_variance, clisi, graph_lisi, ilisi, isolated_label_asw, lisi};
use archipelago_analysis::neighbours::self_knn;
use ndarray::Array2;
use serde_json::Value;

struct Cells {
    latent: Array2<f32>,
    labels: Labels,
    batches: Labels,
}

impl Cells {
    fn read() -> Self {
        let fixture: Value = serde_json::from_str(include_str!("../testdata/sklearn.json")).unwrap();
        let names = |column: &str| -> Vec<String> { serde_json::from_value(fixture[column].clone()).unwrap() };
        let rows: Vec<Vec<f32>> = serde_json::from_value(fixture["latent"].clone()).unwrap();
        let latent = Array2::from_shape_fn((rows.len(), rows[0].len()), |(cell, axis)| rows[cell][axis]);
        Self { latent, labels: Labels::from_names(&names("labels")), batches: Labels::from_names(&names("batches")) }
    }
}

fn expected() -> Value {
    serde_json::from_str(include_str!("../testdata/scib.json")).unwrap()
}

fn check_close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {found}, not {expected}");
}

#[test]
fn connectivities_equal_scanpy_s() {
    let (cells, expected) = (Cells::read(), expected());
    let indptr: Vec<usize> = serde_json::from_value(expected["indptr"].clone()).unwrap();
    let tails: Vec<u32> = serde_json::from_value(expected["indices"].clone()).unwrap();
    let weights: Vec<f64> = serde_json::from_value(expected["weights"].clone()).unwrap();
    let edges = connectivities(&self_knn(cells.latent.view(), 14).unwrap());
    assert_eq!(edges.len(), weights.len());
    for (at, edge) in edges.iter().enumerate() {
        let head = indptr.partition_point(|&start| start <= at) - 1;
        assert_eq!((edge.head as usize, edge.tail), (head, tails[at]), "edge {at}");
        // Bisection there ends within 1e-5 of the target and is done in single precision.
        check_close("weight", edge.weight, weights[at], 1e-4);
    }
}

#[test]
fn local_diversity_equals_harmonypy_s() {
    let (cells, expected) = (Cells::read(), expected());
    let neighbours = self_knn(cells.latent.view(), 30).unwrap();
    for (column, groups) in [("lisi_label", &cells.labels), ("lisi_batch", &cells.batches)] {
        let found = lisi(&neighbours, groups, 10.0).unwrap();
        let expected: Vec<f64> = serde_json::from_value(expected[column].clone()).unwrap();
        assert_eq!(found.len(), expected.len());
        found.iter().zip(&expected).for_each(|(&found, &expected)| check_close(column, found, expected, 1e-4));
    }
}

/// Upstream computes its graph in single precision and breaks ties between equal paths by the order of a heap.
#[test]
fn scaled_diversity_along_the_graph_equals_scib_s() {
    let (cells, expected) = (Cells::read(), expected());
    let edges = connectivities(&self_knn(cells.latent.view(), 14).unwrap());
    let [of_batches, of_labels] = graph_lisi(&edges, [&cells.batches, &cells.labels], 30).unwrap();
    let mixing = ilisi(&of_batches, &cells.batches).unwrap();
    check_close("iLISI", mixing, expected["graph_ilisi"].as_f64().unwrap(), 2e-3);
    let separation = clisi(&of_labels, &cells.labels).unwrap();
    check_close("cLISI", separation, expected["graph_clisi"].as_f64().unwrap(), 2e-3);
}

#[test]
fn isolated_labels_and_batch_variance_equal_scib_s() {
    let (cells, expected) = (Cells::read(), expected());
    let isolated = isolated_label_asw(cells.latent.view(), &cells.labels, &cells.batches).unwrap().unwrap();
    check_close("isolated labels", isolated, expected["isolated_asw"].as_f64().unwrap(), 1e-6);
    let explained = batch_variance(cells.latent.view(), &cells.batches, 6).unwrap();
    check_close("batch variance", explained, expected["pcr_all"].as_f64().unwrap(), 1e-5);
}

#[test]
fn leiden_reaches_igraph_s_modularity() {
    let (cells, expected) = (Cells::read(), expected());
    let edges = connectivities(&self_knn(cells.latent.view(), 14).unwrap());
    let runs: Vec<(f64, f64)> = serde_json::from_value(expected["leiden"].clone()).unwrap();
    assert_eq!(runs.len(), 5);
    for (resolution, expected) in runs {
        let clusters = leiden(&edges, cells.labels.len(), resolution, 0).unwrap();
        let found = modularity(&edges, &clusters, resolution);
        assert!(found >= 0.99 * expected, "at {resolution}: {found}, igraph {expected}");
    }
}

fn modularity(edges: &[Edge], clusters: &[u32], resolution: f64) -> f64 {
    let total: f64 = edges.iter().map(|edge| edge.weight).sum();
    let mut strength = vec![0.0; clusters.len()];
    let mut inside = 0.0;
    for edge in edges {
        strength[clusters[edge.head as usize] as usize] += edge.weight / total;
        if clusters[edge.head as usize] == clusters[edge.tail as usize] {
            inside += edge.weight / total;
        }
    }
    inside - resolution * strength.iter().map(|share| share * share).sum::<f64>()
}
