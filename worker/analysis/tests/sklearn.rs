//! The figures of a mapping and the PCA beside scikit-learn's on the same input.
//!
//! `testdata/sklearn.json` was written by scikit-learn 1.9 on random cells: 110 reference cells of four types in two
//! batches and 50 query cells of five types in two others, six Gaussian dimensions with shifts per type and batch.
//! Transfer is `KNeighborsClassifier(15)` fitted on the reference, purity and shares come from
//! `NearestNeighbors(16)` without self, connectivity from `scipy.sparse.csgraph.connected_components` of each label's part
//! of the symmetrised graph, the silhouettes from `silhouette_samples`, NMI and ARI from `KMeans(5, n_init=10)`. The two
//! PCA cases are Poisson counts of 40 x 12 and 12 x 20 with `PCA(3, svd_solver="full")`, first five cells projected.

use archipelago_analysis::Labels;
use archipelago_analysis::kmeans::{KMeans, kmeans};
use archipelago_analysis::metrics::{Embedded, mapping_quality};
use archipelago_analysis::pca::Pca;
use ndarray::{Array2, s};
use serde_json::Value;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../testdata/sklearn.json")).unwrap()
}

fn matrix(rows: &Value) -> Array2<f32> {
    let rows = rows.as_array().unwrap();
    let n_cols = rows[0].as_array().unwrap().len();
    Array2::from_shape_fn((rows.len(), n_cols), |(i, j)| rows[i][j].as_f64().unwrap() as f32)
}

fn labels(names: &Value) -> Labels {
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    Labels::from_names(&names)
}

fn check_close(what: &str, found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {found}, not {expected}");
}

#[test]
fn mapping_quality_equals_scikit_learn() {
    let fixture = fixture();
    let (latent, labels, batches) =
        (matrix(&fixture["latent"]), labels(&fixture["labels"]), labels(&fixture["batches"]));
    let n_reference = fixture["n_reference"].as_u64().unwrap() as usize;
    let (reference, query): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|&cell| cell < n_reference);
    let part = |cells: &[usize]| (labels.select(cells), batches.select(cells));
    let ((ref_labels, ref_batches), (query_labels, query_batches)) = (part(&reference), part(&query));
    let (ref_latent, query_latent) = (latent.slice(s![..n_reference, ..]), latent.slice(s![n_reference.., ..]));
    let quality = mapping_quality(
        Embedded { latent: ref_latent, labels: &ref_labels, batches: &ref_batches },
        Embedded { latent: query_latent, labels: &query_labels, batches: &query_batches },
        0,
    );
    let quality = serde_json::to_value(quality.unwrap()).unwrap();
    let expected = fixture["quality"].as_object().unwrap();
    assert_eq!(expected.len(), 11);
    for (figure, expected) in expected {
        check_close(figure, quality[figure].as_f64().unwrap(), expected, 1e-6);
    }
}

#[test]
fn k_means_is_as_tight_as_scikit_learn_s() {
    let fixture = fixture();
    let found = kmeans(matrix(&fixture["latent"]).view(), KMeans::new(5, 0)).unwrap();
    check_close("inertia", found.inertia, &fixture["inertia"], 1e-3);
}

#[test]
fn components_equal_scikit_learn_s_with_their_signs() {
    let fixture = fixture();
    let cases = fixture["pca"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let x = matrix(&case["x"]);
        let fitted = Pca::fit(x.view(), 3).unwrap();
        let projected = fitted.project(x.slice(s![..5, ..])).unwrap();
        for i in 0..3 {
            check_close("variance", fitted.explained_variance[i], &case["explained_variance"][i], 1e-9);
            check_close("ratio", fitted.explained_variance_ratio[i], &case["explained_variance_ratio"][i], 1e-9);
            for gene in 0..x.ncols() {
                check_close("loading", fitted.components[[i, gene]], &case["components"][i][gene], 1e-9);
            }
            for cell in 0..5 {
                check_close("coordinate", f64::from(projected[[cell, i]]), &case["projected"][cell][i], 1e-6);
            }
        }
    }
}
