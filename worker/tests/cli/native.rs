//! Models that scArches has as its own, from training to its files and back.

use crate::Bench;

/// A small trVAE on two batches.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.run(&[
        "train",
        "cells.h5ad",
        "--model",
        "trvae",
        "--batches",
        "a,b",
        "--hidden-layer-sizes",
        "8,6",
        "--latent-dim",
        "3",
        "--epochs",
        "3",
        "--out",
        "reference",
    ]);
    bench
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_native_model_goes_through_every_command() {
    let bench = bench();
    bench.run(&["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "2", "--out", "mapped"]);
    let upstream = ["--surgery", "upstream", "--weight-decay", "0", "--epochs", "2", "--out", "compared"];
    bench.run(&[&["map", "reference", "cells.h5ad", "--batches", "c"], &upstream[..]].concat());
    for place in ["mean", "draw", "decoder"] {
        let out = format!("{place}.csv");
        let shown = bench.run(&[
            "latent",
            "mapped",
            "cells.h5ad",
            "--batches",
            "c",
            "--place",
            place,
            "--format",
            "json",
            "--out",
            &out,
        ]);
        let n_dimensions = if place == "decoder" { 6 } else { 3 };
        assert_eq!(json(&shown)["n_latent"], n_dimensions, "{place}");
    }
    let shown = bench.run(&["inspect", "mapped"]);
    assert!(shown.contains("trvae"), "{shown}");
}

#[test]
fn scarches_folders_and_adaptors_go_there_and_back() {
    let bench = bench();
    bench.run(&[
        "map",
        "reference",
        "cells.h5ad",
        "--batches",
        "c",
        "--owner",
        "site",
        "--epochs",
        "2",
        "--out",
        "mapped",
    ]);
    bench.run(&["export", "reference", "--out", "folder"]);
    let shown = bench.run(&["import", "folder", "--out", "again", "--format", "json"]);
    assert_eq!(json(&shown)["conditions"].as_array().unwrap().len(), 2);
    bench.run(&["export", "mapped", "--condition", "site/query/c", "--out", "adaptor"]);
    let attached = ["--onto", "reference", "--owner", "site", "--dataset", "query", "--format", "json"];
    let shown = json(&bench.run(&[&["import", "adaptor", "--out", "attached"], &attached[..]].concat()));
    let expected = json(&bench.run(&["inspect", "mapped", "--format", "json"]));
    assert_eq!(shown["version"], expected["version"], "an adaptor is a condition's columns");
}

#[test]
fn values_of_the_wrong_kind_are_refused_in_one_sentence() {
    let bench = bench();
    let train = |values: &str, loss: &str, out: &str| {
        let words = ["train", values, "--model", "trvae", "--recon-loss", loss, "--epochs", "1", "--out", out];
        bench.command(&words).output().unwrap()
    };
    let refused = train("cells.h5ad", "mse", "counts");
    assert!(!refused.status.success());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("normalised and log-transformed"), "{message}");
}

/// No layer of scGen hears of conditions, so a saved folder names none: cells of any batch can be placed.
#[test]
fn a_saved_model_without_conditions_places_cells_of_every_batch() {
    let conditional = bench();
    let bench = Bench::new();
    bench.run(&["preprocess", "cells.h5ad", "--normalize", "--out", "logged.h5ad"]);
    let train = ["train", "logged.h5ad", "--model", "scgen", "--batches", "a", "--labels-key", "cell_type"];
    bench.run(&[&train[..], &["--hidden-layer-sizes", "8", "--epochs", "1", "--out", "reference"]].concat());
    bench.run(&["export", "reference", "--out", "saved"]);
    bench.run(&["import", "saved", "--out", "imported"]);
    let places = |reference: &str, batch: &str| {
        let out = format!("{reference}-{batch}.csv");
        bench.run(&["latent", reference, "logged.h5ad", "--batches", batch, "--out", &out, "--batch-key", "batch"]);
        let text = std::fs::read_to_string(bench.path(&out)).unwrap();
        let numbers =
            |line: &str| line.split(',').filter(|cell| cell.parse::<f32>().is_ok()).map(str::to_owned).collect();
        text.lines().skip(1).map(numbers).collect::<Vec<Vec<String>>>()
    };
    assert_eq!(places("imported", "a"), places("reference", "a"));
    assert_eq!(places("imported", "c").len(), 40);
    // What does own something still has to know the batch.
    let said = conditional.fail(1, &["latent", "reference", "cells.h5ad", "--batches", "c", "--out", "x.csv"]);
    assert!(said.contains("no condition for batch `c`"), "{said}");
}
