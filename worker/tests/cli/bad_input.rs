//! What the program says when its input is bad: what is wrong, where, and what to do.

use archipelago_anndata::{AnnData, Column, Compression, Csr, DataFrame, Matrix};

use super::{Bench, TRAIN};

/// Runs a command that must fail, and looks for words in what it says.
#[track_caller]
fn check(bench: &Bench, code: i32, args: &[&str], words: &[&str]) {
    let said = bench.fail(code, args);
    assert!(said.lines().any(|line| line.starts_with("error: ")), "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in:\n{said}");
    }
}

/// Rewrites the cells with other counts.
fn with_counts(bench: &Bench, change: impl Fn(&mut Vec<f32>)) {
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let (n_obs, n_vars) = (adata.n_obs(), adata.n_vars());
    let mut dense = adata.matrix(None).unwrap().to_csr().unwrap().to_dense();
    change(&mut dense);
    adata.x = Some(Matrix::from(Csr::from_dense(n_obs, n_vars, &dense).unwrap()));
    adata.write(bench.path("cells.h5ad"), Compression::None).unwrap();
}

fn train_on(file: &str) -> Vec<&str> {
    let mut args = TRAIN.to_vec();
    args[1] = file;
    args
}

#[test]
fn a_missing_file_is_named() {
    check(&Bench::new(), 1, &train_on("nowhere.h5ad"), &["`nowhere.h5ad`", "no such file", "hint: check the path"]);
}

#[test]
fn a_file_that_is_not_hdf5_is_refused() {
    let bench = Bench::new();
    std::fs::write(bench.path("text.h5ad"), "cell,gene\n").unwrap();
    check(&bench, 1, &train_on("text.h5ad"), &["not an HDF5 file", "hint: h5ad files are HDF5"]);
}

#[test]
fn a_truncated_file_is_refused() {
    let bench = Bench::new();
    let bytes = std::fs::read(bench.path("cells.h5ad")).unwrap();
    std::fs::write(bench.path("cut.h5ad"), &bytes[..bytes.len() / 2]).unwrap();
    check(&bench, 1, &train_on("cut.h5ad"), &["truncated", "hint:"]);
}

#[test]
fn a_missing_obs_column_lists_those_there_are() {
    let args = [&TRAIN[..], &["--batch-key", "study"]].concat();
    check(&Bench::new(), 1, &args, &["no column `study`", "`batch`, `cell_type`, `donor`", "--batch-key"]);
    let args = [&TRAIN[..], &["--labels-key", "type"]].concat();
    check(&Bench::new(), 1, &args, &["no column `type`", "--labels-key"]);
}

#[test]
fn a_missing_layer_is_named() {
    check(&Bench::new(), 1, &[&TRAIN[..], &["--layer", "counts"]].concat(), &["no layer `counts`", "--layer"]);
}

#[test]
fn an_unknown_batch_lists_those_there_are() {
    let mut args = TRAIN;
    args[3] = "a,z";
    check(&Bench::new(), 1, &args, &["no batch `z`", "`a`, `b`, `c`"]);
}

#[test]
fn counts_that_are_none_are_named_by_cell_and_gene() {
    for (bad, shown) in [(-2.0, "-2"), (1.5, "1.5"), (f32::NAN, "NaN")] {
        let bench = Bench::new();
        with_counts(&bench, |counts| counts[60 * 7 + 3] = bad);
        check(
            &bench,
            1,
            &TRAIN,
            &["`X` of `cells.h5ad`", "in row 7", "`GENE00004`", shown, "expected raw counts", "hint: choose the layer"],
        );
    }
}

#[test]
fn counts_that_are_no_whole_numbers_are_taken_where_it_is_said() {
    let bench = Bench::new();
    with_counts(&bench, |counts| counts.iter_mut().filter(|count| **count > 0.0).for_each(|count| *count -= 0.25));
    check(&bench, 1, &TRAIN, &["expected raw counts", "`--fractional-counts`"]);
    let output = bench.command(&[&TRAIN[..], &["--fractional-counts"]].concat()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("numbers that are not whole"), "{said}");
    let map = ["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "2", "--out", "mapped"];
    check(&bench, 1, &map, &["expected raw counts", "`--fractional-counts`"]);
    bench.run(&[&map[..], &["--fractional-counts"]].concat());
    // What is below 0 stays what it is.
    with_counts(&bench, |counts| counts[60 * 7 + 3] = -0.25);
    let train = [&TRAIN[..12], &["--out=again", "--fractional-counts"]].concat();
    check(&bench, 1, &train, &["-0.25 for `GENE00004` in row 7"]);
}

#[test]
fn too_few_cells_for_a_variance_are_named_before_training() {
    let bench = Bench::new();
    check(
        &bench,
        2,
        &[&TRAIN[..], &["--batch-size", "1"]].concat(),
        &["`1` is not a valid minibatch size", "at least 2"],
    );
    bench.run(&[&TRAIN[..], &["--use-observed-lib-size", "false"]].concat());
    let cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let batches = cells.obs.column("batch").unwrap().to_strings();
    let lone = batches.iter().position(|batch| batch.as_deref() == Some("c")).unwrap();
    cells.select_obs(&[lone]).unwrap().write(bench.path("lone.h5ad"), Compression::None).unwrap();
    let map = ["map", "reference", "lone.h5ad", "--batches", "c", "--epochs", "2", "--out", "mapped"];
    check(
        &bench,
        1,
        &map,
        &["the 1 cells of `local/query/c` have the same total count", "hint: leave the condition out"],
    );
}

#[test]
fn a_file_without_cells_is_refused() {
    let bench = Bench::new();
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap().select_obs(&[]).unwrap();
    adata.uns.clear();
    adata.write(bench.path("empty.h5ad"), Compression::None).unwrap();
    let mut args = train_on("empty.h5ad");
    args.drain(2..4);
    check(&bench, 1, &args, &["there are no cells"]);
}

#[test]
fn genes_that_do_not_match_are_shown_from_both_sides() {
    let bench = Bench::with_reference();
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    adata.var = DataFrame::new((0..60).map(|i| format!("ENSG{i}")));
    adata.write(bench.path("other.h5ad"), Compression::None).unwrap();
    let args = ["map", "reference", "other.h5ad", "--out", "mapped"];
    check(&bench, 1, &args, &["no gene in common", "`ENSG0`", "`GENE00001`", "hint: both sides must use one naming"]);
}

#[test]
fn few_common_genes_are_a_warning() {
    let bench = Bench::with_reference();
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    adata.var = DataFrame::new((0..60).map(|i| if i < 30 { format!("GENE{:05}", i + 1) } else { format!("X{i}") }));
    adata.write(bench.path("half.h5ad"), Compression::None).unwrap();
    let args = ["map", "reference", "half.h5ad", "--batches", "c", "--epochs", "1", "--out", "mapped"];
    let output = bench.command(&args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("under 80 %") && said.contains("n_found=30"), "{said}");
}

#[test]
fn a_damaged_reference_is_refused_by_file() {
    let bench = Bench::with_reference();
    let path = bench.path("reference/columns/0.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let args = ["map", "reference", "cells.h5ad", "--batches", "c", "--out", "mapped"];
    check(
        &bench,
        1,
        &args,
        &["`reference`", "0.safetensors", "does not match its digest", "hint: the reference was changed"],
    );
}

#[test]
fn a_file_in_place_of_a_reference_is_refused() {
    let args = ["map", "cells.h5ad", "cells.h5ad", "--out", "mapped"];
    check(&Bench::new(), 1, &args, &["failed to open the reference `cells.h5ad`", "hint: name a directory"]);
}

#[test]
fn a_batch_that_was_never_mapped_has_no_latent() {
    let args = ["latent", "reference", "cells.h5ad", "--batches", "c", "--out", "x.csv"];
    check(
        &Bench::with_reference(),
        1,
        &args,
        &["no condition for batch `c`", "`reference/atlas/a`", "hint: map the batch first"],
    );
}

#[test]
fn a_condition_is_not_mapped_twice_under_one_key() {
    let bench = Bench::with_reference();
    let args = [
        "map",
        "reference",
        "cells.h5ad",
        "--batches",
        "a",
        "--epochs",
        "1",
        "--out",
        "m",
        "--owner",
        "reference",
        "--dataset",
        "atlas",
    ];
    check(&bench, 1, &args, &["already has the condition `reference/atlas/a`", "hint:"]);
}

#[test]
fn a_damaged_training_checkpoint_is_refused_with_its_path() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("reference")).unwrap();
    std::fs::write(bench.path("reference/training.checkpoint"), "not a checkpoint").unwrap();
    check(&bench, 1, &TRAIN, &["training.checkpoint", "caused by:", "hint: repeat the command"]);
}

#[test]
fn unknown_models_and_options_are_named() {
    let bench = Bench::new();
    check(
        &bench,
        2,
        &[&TRAIN[..], &["--model", "scvii"]].concat(),
        &["no model `scvii`", "`scvi`", "hint: list the zoo"],
    );
    check(&bench, 2, &[&TRAIN[..], &["--gene-likelihood", "gauss"]].concat(), &["gauss"]);
    check(
        &bench,
        2,
        &[&TRAIN[..], &["--n-layers-encoder", "3"]].concat(),
        &["no option `n_layers_encoder`", "n_layers"],
    );
    check(
        &bench,
        2,
        &["train", "cells.h5ad", "--n-hidden", "0", "--out", "reference"],
        &["`n_hidden` is 0", "from 1 to 65536"],
    );
    check(&bench, 2, &[&TRAIN[..], &["--train-size", "7"]].concat(), &["train size", "`7`", "up to 1"]);
}

#[test]
fn settings_that_make_no_sense_are_usage_errors() {
    let bench = Bench::new();
    check(&bench, 2, &["generate", "--out", "x.h5ad", "--n-cells", "0"], &["`--n-cells` is 0", "at least 1"]);
    check(&bench, 2, &["train", "cells.h5ad"], &["--out"]);
    check(&bench, 2, &["map", "reference", "cells.h5ad", "--out", "m", "--owner", "North Site"], &["North Site"]);
}

#[test]
fn an_audit_log_that_was_changed_is_refused() {
    let bench = Bench::new();
    std::fs::write(bench.path("audit.jsonl"), "{}\n").unwrap();
    check(&bench, 1, &["audit", "audit.jsonl"], &["broken at line 1", "hint: keep the file as evidence"]);
}

#[test]
fn a_label_that_the_reference_does_not_know_is_named() {
    let bench = Bench::new();
    bench.run(&[&TRAIN[..], &["--labels-key", "cell_type", "--dispersion", "gene-label"]].concat());
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    adata.obs.insert("cell_type", Column::categorical(&["type-99"; 120])).unwrap();
    adata.write(bench.path("cells.h5ad"), Compression::None).unwrap();
    let args = ["map", "reference", "cells.h5ad", "--batches", "c", "--out", "mapped"];
    check(&bench, 1, &args, &["`labels` holds `type-99`", "it knows `type-01`", "hint:"]);
}

#[test]
fn a_missing_configuration_is_named() {
    check(&Bench::new(), 2, &["serve", "--config", "nowhere.toml"], &["`nowhere.toml`", "No such file", "hint:"]);
}
