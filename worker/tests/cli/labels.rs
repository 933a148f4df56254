//! Cell types: known for some cells, learnt from, predicted for the others.

use archipelago_anndata::{AnnData, Column, Compression, Values};

use super::Bench;

const SMALL: [&str; 10] =
    ["--n-hidden", "16", "--n-latent", "4", "--device", "cpu", "--seed", "1", "--batch-size", "32"];

/// Rewrites the labels of the cells; `None` is a cell without a label.
fn relabel(bench: &Bench, change: impl Fn(usize, &str) -> Option<String>) {
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let labels = adata.obs.column("cell_type").unwrap().to_strings();
    let labels = labels.iter().enumerate().map(|(cell, label)| change(cell, label.as_deref().unwrap_or_default()));
    let labels: Vec<Option<String>> = labels.collect();
    let missing = labels.iter().map(Option::is_none).collect();
    let values = Values::Str(labels.into_iter().map(Option::unwrap_or_default).collect());
    adata.obs.insert("cell_type", Column::Nullable { values, missing }).unwrap();
    adata.write(bench.path("cells.h5ad"), Compression::None).unwrap();
}

fn train(bench: &Bench, more: &[&str]) -> serde_json::Value {
    let scanvi = ["train", "cells.h5ad", "--model", "scanvi", "--labels-key", "cell_type", "--batches", "a,b"];
    bench.run_json(&[&scanvi[..], &SMALL, more].concat())
}

#[test]
fn cells_without_a_label_are_unlabelled_and_the_others_teach() {
    let bench = Bench::new();
    relabel(&bench, |cell, label| match cell % 3 {
        0 => Some(label.to_owned()),
        1 => Some("unsure".to_owned()),
        _ => None,
    });
    let trained = train(&bench, &["--unlabeled-category", "unsure", "--epochs", "3", "--out", "reference"]);
    // 80 cells in batches a and b, every third one with a label.
    assert_eq!(trained["n_labelled"], 27);
    assert!(trained["accuracy"].as_f64().unwrap() >= 0.0);
    let shown = bench.run_json(&["inspect", "reference"]);
    assert_eq!(shown["options"]["unlabeled_category"], "unsure");

    let predict = ["predict", "reference", "cells.h5ad", "--batches", "a", "--soft", "--out"];
    let predicted = bench.run_json(&[&predict[..], &["p.csv"]].concat());
    assert_eq!(predicted["accuracy"]["n_labelled"], 14);
    assert_eq!(predicted["accuracy"]["n_unknown"], 13, "`unsure` is no label");
    let table = std::fs::read_to_string(bench.path("p.csv")).unwrap();
    assert_eq!(table.lines().count(), 41);
    assert!(table.starts_with("cell,label,probability,type-"), "{table}");
    bench.run(&[&predict[..], &["p.h5ad"]].concat());
    let adata = AnnData::read(bench.path("p.h5ad")).unwrap();
    assert!(adata.obs.column("archipelago_label").is_ok() && adata.obsm("archipelago_label_probabilities").is_ok());
}

#[test]
fn a_labelled_reference_starts_from_one_without_labels() {
    let bench = Bench::with_reference();
    let from = ["--from-reference", "reference", "--overwrite", "--out", "labelled"];
    let args = ["train", "cells.h5ad", "--model", "scanvi", "--labels-key", "cell_type", "--batches", "a,b"];
    let trained = bench.run_json(&[&args[..], &from, &["--n-samples-per-label", "5", "--epochs", "2"]].concat());
    assert_eq!(trained["conditions"], serde_json::json!(["reference/atlas/a", "reference/atlas/b"]));
    let shown = bench.run_json(&["inspect", "labelled"]);
    assert_eq!((&shown["options"]["n_hidden"], &shown["options"]["n_samples_per_label"]), (&16.into(), &5.into()));
    let said = bench.fail(1, &[&["train", "cells.h5ad", "--batches", "a,b"][..], &from].concat());
    assert!(said.contains("`scvi` cannot start from `scvi`"), "{said}");
    let said = bench.fail(1, &[&args[..6], &["--batches", "c"], &from].concat());
    assert!(said.contains("no condition for batch `c`"), "{said}");
}

#[test]
fn a_partly_labelled_query_is_mapped_and_its_labels_matter() {
    let bench = Bench::new();
    train(&bench, &["--epochs", "2", "--out", "reference"]);
    relabel(&bench, |cell, label| (cell % 2 == 0).then(|| label.to_owned()));
    let map = ["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "3", "--device", "cpu", "--out"];
    let some = bench.run_json(&[&map[..], &["some"]].concat())["version"].clone();
    let none = bench.run_json(&[&map[..], &["none", "--ignore-labels"]].concat())["version"].clone();
    assert_ne!(some, none, "labels take part in surgery");
    let predicted = bench.run_json(&["predict", "some", "cells.h5ad", "--batches", "c", "--out", "p.csv"]);
    assert_eq!((&predicted["n_cells"], &predicted["accuracy"]["n_labelled"]), (&40.into(), &20.into()));

    relabel(&bench, |_, label| Some(format!("other {label}")));
    let said = bench.fail(1, &[&map[..], &["unknown"]].concat());
    assert!(said.contains("`labels` holds `other type-") && said.contains("hint: "), "{said}");
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    adata.obs.remove("cell_type");
    adata.write(bench.path("cells.h5ad"), Compression::None).unwrap();
    let unlabelled = bench.run_json(&[&map[..], &["unlabelled"]].concat())["version"].clone();
    assert_eq!(unlabelled, none, "a file without the column holds unlabelled cells");
}

#[test]
fn several_names_can_stand_for_cells_without_a_type_and_new_types_are_told() {
    let bench = Bench::new();
    let name = |cell: usize| Some(["T", "B", "unsure", "doublet"][cell % 4].to_owned());
    relabel(&bench, |cell, _| name(cell));
    let scpoli = ["train", "cells.h5ad", "--model", "scpoli", "--labels-key", "cell_type", "--batches", "a,b"];
    let unknown = ["--unlabeled-category", "unsure", "--unknown-ct-names", "doublet,debris"];
    bench.run(&[&scpoli[..], &unknown, &["--epochs", "2", "--pretraining-epochs", "1", "--out", "reference"]].concat());
    bench.run(&["results", "prototypes", "reference", "--out", "prototypes.csv"]);
    let table = std::fs::read_to_string(bench.path("prototypes.csv")).unwrap();
    let types: Vec<&str> = table.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(types, ["B", "T"], "{table}");

    relabel(&bench, |cell, _| if cell % 2 == 0 { Some("novel".to_owned()) } else { name(cell) });
    let map = ["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "2", "--out"];
    assert_eq!(bench.run_json(&[&map[..], &["mapped"]].concat())["new_labels"]["labels"], serde_json::json!(["novel"]));
    let said = bench.fail(2, &[&map[..], &["x", "--surgery", "upstream", "--prototype-training", "false"]].concat());
    assert!(said.contains("`novel`, which the reference has no prototype of"), "{said}");
}

#[test]
fn labels_are_asked_for_where_a_model_needs_them() {
    let bench = Bench::with_reference();
    let said = bench.fail(1, &["predict", "reference", "cells.h5ad", "--batches", "a", "--out", "p.csv"]);
    assert!(said.contains("`scvi` does not predict labels"), "{said}");
    let said = bench.fail(2, &["train", "absent.h5ad", "--model", "scanvi", "--epochs", "1", "--out", "x"]);
    assert!(said.contains("`scanvi` takes `labels`"), "before the file is looked for: {said}");
    assert!(said.contains("--labels-key"), "{said}");
}
