//! The main job as a user runs it: real processes, real TLS, real files, on synthetic cells and on a real data set.
//!
//! Runs the built programs; `make test` builds them first.

mod anchors;
mod joining;
mod keys;
mod parts;
mod prototypes;
mod shared_tree;
mod space;
mod terms;
mod traps;
mod world;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

#[test]
fn synthetic_sites_map_merge_and_withdraw_while_the_leader_dies() -> Result<()> {
    let summary = demo(&[
        "--sites",
        "3",
        "--cells",
        "150",
        "--genes",
        "300",
        "--reference-epochs",
        "15",
        "--surgery-epochs",
        "15",
    ])?;
    check_proofs(&summary)?;
    ensure!(summary["exact"]["orders_tried"] == 6, "three sites have six orders: {}", summary["exact"]);
    ensure!(summary["sites"].as_array().map(Vec::len) == Some(3), "three sites: {}", summary["sites"]);
    Ok(())
}

#[test]
fn real_cells_map_onto_a_reference_better_than_without_correction() -> Result<()> {
    let Some(data) = shared("data/pbmc_5batch.h5ad") else { return Ok(()) };
    let data = data.to_str().context("the path is UTF-8")?;
    let summary = demo(&[
        "--data",
        data,
        "--batch-key",
        "batch",
        "--labels-key",
        "cell_type",
        "--query",
        "10x_5p,10x_pbmc3k",
        "--reference-epochs",
        "40",
        "--surgery-epochs",
        "20",
    ])?;
    check_proofs(&summary)?;
    let share = |space: &str| summary["quality"][space]["other_batch_share"].as_f64().context("a share");
    // Upstream's mapping mixes batches twice as well as plain PCA here (0.41 against 0.21); a broken mapping does not.
    ensure!(share("surgery")? > 1.4 * share("pca")?, "batches are not mixed: {}", summary["quality"]);
    Ok(())
}

/// Runs the demonstration into a folder of its own and returns its summary.
fn demo(arguments: &[&str]) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("out");
    let output = Command::new(program("archipelago-demo")?)
        .arg("--out")
        .arg(&out)
        .args(arguments)
        .output()
        .context("failed to start the demonstration")?;
    ensure!(output.status.success(), "the demonstration failed:\n{}", String::from_utf8_lossy(&output.stderr));
    for file in ["index.html", "umap.png", "umap-untrained.png"] {
        ensure!(out.join(file).metadata()?.len() > 1_000, "`{file}` is empty");
    }
    Ok(serde_json::from_slice(&std::fs::read(out.join("summary.json"))?)?)
}

fn check_proofs(summary: &Value) -> Result<()> {
    for claim in ["order_free", "earlier_bit_identical", "withdraw_restores", "repeatable"] {
        ensure!(summary["exact"][claim] == true, "`{claim}` does not hold: {}", summary["exact"]);
    }
    ensure!(summary["leader_kills"] == 1, "the leader was not killed");
    ensure!(summary["lost"] == 0, "acknowledged submissions were lost: {}", summary["lost"]);
    for site in summary["sites"].as_array().context("`sites` is a list")? {
        let sent = |kind: &str| site["bytes_out"][kind].as_u64().context("bytes are numbers");
        ensure!(sent("embeddings")? == 0, "the default policy let embeddings out: {site}");
        ensure!((1..=20_000).contains(&sent("columns")?), "columns of one condition are small: {site}");
        ensure!(
            site["bytes_kept"].as_u64() > Some(sent("columns")? + sent("metrics")?),
            "more left than stayed: {site}"
        );
    }
    Ok(())
}

/// A program of the workspace, beside the folder this test runs from.
fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let release = here.parent().and_then(Path::parent).context("the test lies in the build folder")?;
    let path = release.join(name);
    ensure!(path.is_file(), "`{}` does not exist; run `make build` first", path.display());
    Ok(path)
}

/// A file of the shared data, or a line that says why the test is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn shared(file: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = std::env::var_os("ARCHIPELAGO_SHARED").map_or_else(|| root.join("../../shared"), PathBuf::from);
    let path = dir.join(file);
    if !path.is_file() {
        eprintln!(
            "skipped: `{}` is not there; set ARCHIPELAGO_SHARED to the folder with the shared data",
            path.display()
        );
        return None;
    }
    Some(path)
}
