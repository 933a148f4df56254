//! From counts to mapped cells, and what each step leaves behind.

use archipelago_anndata::{AnnData, Element};

use super::{Bench, TRAIN, read_json};

const MAP: [&str; 11] =
    ["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "2", "--device", "cpu", "--out", "mapped"];

fn latent(adata: &AnnData, name: &str) -> (Vec<usize>, Vec<f32>) {
    match adata.obsm(name).unwrap() {
        Element::Array(array) => (array.shape().to_vec(), array.values().to_f32().unwrap()),
        other => panic!("`{name}` is {}", other.kind()),
    }
}

#[test]
fn a_reference_is_trained_and_described() {
    let bench = Bench::new();
    let trained = bench.run_json(&TRAIN);
    assert_eq!(trained["n_cells"], 80);
    assert_eq!(trained["conditions"], serde_json::json!(["reference/atlas/a", "reference/atlas/b"]));
    let shown = bench.run_json(&["inspect", "reference"]);
    assert_eq!((&shown["version"], &shown["model"]), (&trained["version"], &"scvi".into()));
    assert_eq!(shown["moves_embedding"], true);
    let history = std::fs::read_to_string(bench.path("reference/history.csv")).unwrap();
    assert_eq!(history.lines().count(), 3, "a head and two epochs:\n{history}");
    assert_eq!(read_json(&bench.path("reference/summary.json"))["version"], trained["version"]);
    assert!(!bench.path("reference/training.checkpoint").exists());
}

#[test]
fn training_again_gives_the_same_version() {
    let bench = Bench::new();
    let first = bench.run_json(&TRAIN)["version"].clone();
    assert_eq!(first, bench.run_json(&[&TRAIN[..], &["--overwrite"]].concat())["version"]);
}

#[test]
fn a_query_is_mapped_and_the_reference_grows_by_its_condition() {
    let bench = Bench::with_reference();
    let mapped = bench.run_json(&[&MAP[..], &["--untrained"]].concat());
    assert_eq!(mapped["conditions"]["local/query/c"]["n_cells"], 40);
    assert_eq!(mapped["parent"], bench.run_json(&["inspect", "reference"])["version"]);
    let grown = bench.run_json(&["inspect", "mapped"]);
    assert_eq!(grown["version"], mapped["version"]);
    assert_eq!(grown["conditions"], serde_json::json!(["local/query/c", "reference/atlas/a", "reference/atlas/b"]));
    let adata = AnnData::read(bench.path("mapped/mapped.h5ad")).unwrap();
    let (shape, trained) = latent(&adata, "X_archipelago");
    let (_, untrained) = latent(&adata, "X_archipelago_untrained");
    assert_eq!((shape, adata.n_vars()), (vec![40, 4], 60));
    assert_ne!(trained, untrained, "surgery moves the embedding");
    assert_eq!(adata.obs.column("archipelago_condition").unwrap().to_strings()[0].as_deref(), Some("local/query/c"));
}

#[test]
fn earlier_cells_stay_where_they_were_when_others_are_mapped() {
    let bench = Bench::with_reference();
    bench.run(&MAP);
    bench.run(&["latent", "reference", "cells.h5ad", "--batches", "a", "--out", "before.h5ad", "--device", "cpu"]);
    bench.run(&["latent", "mapped", "cells.h5ad", "--batches", "a", "--out", "after.h5ad", "--device", "cpu"]);
    let positions = |name| latent(&AnnData::read(bench.path(name)).unwrap(), "X_archipelago");
    assert_eq!(positions("before.h5ad"), positions("after.h5ad"));
}

#[test]
fn the_latent_of_a_mapped_batch_is_the_one_that_map_wrote() {
    let bench = Bench::with_reference();
    bench.run(&MAP);
    bench.run(&["latent", "mapped", "cells.h5ad", "--batches", "c", "--out", "latent.h5ad", "--device", "cpu"]);
    let positions = |name| latent(&AnnData::read(bench.path(name)).unwrap(), "X_archipelago");
    assert_eq!(positions("latent.h5ad"), positions("mapped/mapped.h5ad"));
}

#[test]
fn a_latent_table_has_a_row_per_cell() {
    let bench = Bench::with_reference();
    bench.run(&["latent", "reference", "cells.h5ad", "--batches", "b", "--out", "latent.csv"]);
    let table = std::fs::read_to_string(bench.path("latent.csv")).unwrap();
    let head = table.lines().next().unwrap();
    assert_eq!(head, "cell,mean_1,mean_2,mean_3,mean_4,var_1,var_2,var_3,var_4");
    assert_eq!(table.lines().count(), 41);
    assert!(table.lines().nth(1).unwrap().starts_with("b-000001,"));
}

#[test]
fn settings_are_printed_and_nothing_is_done() {
    let bench = Bench::new();
    let text = bench.run(&[&TRAIN[..], &["--print-config"]].concat());
    assert!(text.contains("--epochs") && text.contains("2  (command line)"), "{text}");
    assert!(!bench.path("reference").exists());
}

#[test]
fn the_zoo_and_a_file_are_shown() {
    let bench = Bench::new();
    assert_eq!(bench.run_json(&["models", "scvi"])[0]["title"], "scVI");
    let shown = bench.run_json(&["inspect", "cells.h5ad"]);
    assert_eq!((&shown["n_obs"], &shown["x"]["looks_like_counts"]), (&120.into(), &true.into()));
}

#[test]
fn a_completion_script_knows_the_commands() {
    let script = Bench { dir: tempfile::tempdir().unwrap() }.run(&["completions", "bash"]);
    assert!(script.contains("archipelago-worker") && script.contains("--batch-key"));
}
