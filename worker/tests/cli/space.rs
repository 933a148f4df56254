//! Cells in space: sections are learnt, dissociated cells mapped, pictures drawn, and what is said of bad input.

use std::path::{Path, PathBuf};

use archipelago_anndata::{AnnData, Array, Column, Compression, Csr, DataFrame, Element, Matrix};

use super::Bench;

const N_GENES: usize = 8;
const N_CELLS: usize = 120;

/// Two sections of two fields that lie apart, and dissociated cells of the same: half of the genes belong to either field.
fn sections() -> Bench {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    cells(&["s0", "s1"], N_GENES, true).write(bench.path("sections.h5ad"), Compression::None).unwrap();
    cells(&["q"], N_GENES, false).write(bench.path("query.h5ad"), Compression::None).unwrap();
    bench
}

fn cells(batches: &[&str], n_genes: usize, with_places: bool) -> AnnData {
    let (mut of, mut fields, mut x, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for batch in batches {
        for cell in 0..N_CELLS {
            let field = cell / (N_CELLS / 2);
            let draw =
                |salt: usize| ((cell * salt + batch.as_bytes()[batch.len() - 1] as usize * 7) % 23) as f32 / 23.0;
            let common = draw(13);
            x.extend((0..n_genes).map(|gene| {
                let own = if gene % 2 == field { 1.5 + common } else { 0.0 };
                own + 0.4 * draw(31 + 2 * gene)
            }));
            places.extend([(cell % 60 / 10) as f32 + 30.0 * field as f32, (cell % 10) as f32]);
            of.push(*batch);
            fields.push(["left", "right"][field]);
        }
    }
    let n = of.len();
    let mut obs = DataFrame::new((0..n).map(|i| format!("cell{i}")));
    obs.insert("batch", Column::categorical(&of)).unwrap();
    obs.insert("field", Column::categorical(&fields)).unwrap();
    obs.insert("one", Column::categorical(&vec!["all"; n])).unwrap();
    let genes = DataFrame::new((0..n_genes).map(|gene| format!("g{gene}")));
    let mut adata = AnnData::new(Csr::from_dense(n, n_genes, &x).unwrap(), obs, genes).unwrap();
    if with_places {
        adata.obsm.insert("spatial".to_owned(), Element::Array(Array::matrix(n, 2, places).unwrap()));
    }
    adata
}

const OPTIONS: [&str; 8] =
    ["--resolutions", "0.05,0.3", "--alphas", "0.1,0.25", "--network-epochs", "40", "--network-rate", "0.02"];

fn train(bench: &Bench, more: &[&str]) -> serde_json::Value {
    bench.run_json(&[&["space", "train", "sections.h5ad"], &OPTIONS[..], more].concat())
}

fn numbers(path: &Path, column: &str) -> Vec<f64> {
    AnnData::read(path).unwrap().obs.column(column).unwrap().to_f64().unwrap()
}

#[test]
fn sections_are_learnt_and_dissociated_cells_are_put_into_their_parts() {
    let bench = sections();
    let trained = train(&bench, &["--out", "ensemble"]);
    assert_eq!(trained["sections"].as_array().unwrap().len(), 2);
    let network = &trained["sections"][0]["networks"][0];
    assert!(network["n_parts"].as_u64().unwrap() >= 2 && network["accuracy"].as_f64().unwrap() > 0.9, "{trained}");
    let drawn = AnnData::read(bench.path("ensemble/sections.h5ad")).unwrap();
    assert!(drawn.obs.column("leiden_0.05").is_ok() && drawn.obsm.contains_key("spatial"));

    let mapped = bench.run_json(&["space", "map", "ensemble", "query.h5ad", "--out", "mapped.h5ad"]);
    assert_eq!((&mapped["n_cells"], &mapped["n_networks"]), (&120.into(), &4.into()));
    assert!(mapped["confidence"].as_f64().unwrap() > 0.3, "{mapped}");
    let adata = AnnData::read(bench.path("mapped.h5ad")).unwrap();
    let parts = adata.obs.column("pred_s1_leiden_0.05").unwrap().to_strings();
    let (left, right) = (parts[..60].iter().collect::<std::collections::BTreeSet<_>>(), &parts[60..]);
    assert!(right.iter().filter(|part| left.contains(part)).count() < 6, "fields share parts: {parts:?}");
    assert!(adata.obs.column("ent_s0_leiden_0.3").is_ok() && adata.var.column("s0_importance").is_ok());
    assert!(adata.obsm.contains_key("X_dist_map_pca") && adata.obsp.contains_key("connectivities"));
    let Matrix::Dense(distances) = &adata.obsp["dist_map"] else { panic!("distances are a matrix") };
    let all = distances.values().to_f64().unwrap();
    let mean = |others: std::ops::Range<usize>| {
        let of = |cell: usize| others.clone().map(move |other| cell * N_CELLS + other);
        (0..60).flat_map(of).map(|at| all[at]).sum::<f64>() / 3600.0
    };
    assert!(mean(0..60) < 0.7 * mean(60..120), "{} within a field, {} between", mean(0..60), mean(60..120));

    let shown = bench.run_json(&["space", "show", "ensemble", "--picture", "sections.png"]);
    assert_eq!(shown["sections"][0]["tag"], "s0");
    assert!(!shown["sections"][0]["informative"].as_array().unwrap().is_empty(), "{shown}");
    bench.run(&["space", "show", "mapped.h5ad", "--basis", "X_dist_map_pca", "--picture", "mapped.svg"]);
    assert!(std::fs::read(bench.path("sections.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(std::fs::read_to_string(bench.path("mapped.svg")).unwrap().contains("confidence"));
}

#[test]
fn an_ensemble_grows_by_sections_as_if_they_had_come_together() {
    let bench = sections();
    train(&bench, &["--out", "both"]);
    train(&bench, &["--batches", "s0", "--out", "first"]);
    let onto = ["space", "train", "sections.h5ad", "--batches", "s1", "--onto", "first", "--out", "grown"];
    bench.run(&onto);
    let mut confidences = Vec::new();
    for ensemble in ["both", "grown"] {
        let out = format!("{ensemble}.h5ad");
        bench.run(&["space", "map", ensemble, "query.h5ad", "--no-distances", "--out", &out]);
        confidences.push(numbers(&bench.path(&out), "confidence"));
    }
    assert_eq!(confidences[0], confidences[1]);
    let again = bench.fail(1, &["space", "train", "sections.h5ad", "--batches", "s1", "--onto", "both", "--out", "no"]);
    assert!(again.contains("already has the condition `reference/atlas/s1`"), "{again}");
}

#[test]
fn partitions_that_somebody_made_are_learnt_too() {
    let bench = sections();
    let trained = train(&bench, &["--partition-keys", "field", "--engine", "autograd", "--out", "ensemble"]);
    assert_eq!(trained["sections"][0]["networks"][0]["partition"], "field");
    bench.run(&["space", "map", "ensemble", "query.h5ad", "--out", "mapped.h5ad"]);
    let adata = AnnData::read(bench.path("mapped.h5ad")).unwrap();
    let parts = adata.obs.column("pred_s0_field").unwrap().to_strings();
    let right = parts.iter().enumerate().filter(|(cell, part)| part.as_deref() == Some(["0", "1"][cell / 60]));
    assert!(right.count() > 110, "{parts:?}");
}

#[test]
fn what_cannot_be_learnt_or_mapped_is_refused_in_words() {
    let bench = sections();
    let check = |code: i32, args: &[&str], words: &[&str]| {
        let said = bench.fail(code, args);
        words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in:\n{said}"));
    };
    // No coordinates.
    check(1, &["space", "train", "query.h5ad", "--out", "no"], &["query.h5ad", "spatial"]);
    // A partition with one class.
    let one = ["space", "train", "sections.h5ad", "--partition-keys", "one", "--out", "no"];
    check(1, &one, &["`one` holds one part, expected at least two"]);
    // Sections with other genes, and a query that lacks some.
    train(&bench, &["--batches", "s0", "--out", "ensemble"]);
    cells(&["s2"], N_GENES - 2, true).write(bench.path("narrow.h5ad"), Compression::None).unwrap();
    let lacks = ["`narrow.h5ad` lacks 2 of the 8 genes that the networks take, `g6` among them"];
    check(1, &["space", "train", "narrow.h5ad", "--onto", "ensemble", "--out", "no"], &lacks);
    check(1, &["space", "map", "ensemble", "narrow.h5ad", "--out", "no.h5ad"], &lacks);
    // Options of an ensemble that has its own, values that make no sense, raw counts.
    let onto = ["space", "train", "sections.h5ad", "--onto", "ensemble", "--k", "3", "--out", "no"];
    check(2, &onto, &["--onto", "expected the options of the ensemble"]);
    check(2, &["space", "train", "sections.h5ad", "--classifier", "conv1d", "--out", "no"], &["conv1d"]);
    let raw = Csr::from_dense(7, N_GENES, &[3.0; 7 * N_GENES]).unwrap();
    let mut counts = cells(&["s3"], N_GENES, true);
    counts = AnnData::new(
        Csr::vstack(N_GENES, [raw.clone(), raw]).unwrap(),
        counts.obs.select_rows(&(0..14).collect::<Vec<_>>()),
        counts.var,
    )
    .unwrap();
    counts.write(bench.path("counts.h5ad"), Compression::None).unwrap();
    check(1, &["space", "map", "ensemble", "counts.h5ad", "--out", "no.h5ad"], &["counts.h5ad", "normalised"]);
    // Another model's reference, cells that nobody mapped, pictures of another kind.
    bench.run(&["generate", "--batches", "a,b", "--n-cells", "30", "--n-genes", "20", "--out", "raw.h5ad"]);
    bench.run(&["train", "raw.h5ad", "--epochs", "1", "--n-hidden", "8", "--n-latent", "3", "--out", "reference"]);
    check(1, &["space", "show", "reference"], &["`reference` holds a reference of `scvi`, expected an ensemble"]);
    check(1, &["space", "show", "query.h5ad"], &["were not mapped by an ensemble"]);
    check(2, &["space", "show", "ensemble", "--picture", "no.gif"], &["--picture", ".png or .svg"]);
    std::fs::remove_file(bench.path("ensemble/sections.h5ad")).unwrap();
    check(1, &["space", "show", "ensemble", "--picture", "no.png"], &["no sections to draw"]);
}

/// One section of real cells, and dissociated cells of the same tissue, of which four have no count.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
#[test]
fn dissociated_cells_of_merfish_are_mapped_onto_their_section() {
    let shared = std::env::var_os("ARCHIPELAGO_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared")).join("data");
    let files = ["spatial_merfish.h5ad", "spatial_merfish_dissociated.h5ad"].map(|name| shared.join(name));
    if let Some(absent) = files.iter().find(|file| !file.exists()) {
        eprintln!("skipped: no {}", absent.display());
        return;
    }
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    for (file, out) in files.iter().zip(["section.h5ad", "dissociated.h5ad"]) {
        let normalise = ["--min-counts", "1", "--target-sum", "1e4", "--out", out];
        bench.run(&[&["preprocess", file.to_str().unwrap()], &normalise[..]].concat());
    }
    let trained = bench.run_json(&["space", "train", "section.h5ad", "--out", "ensemble"]);
    let section = &trained["sections"][0];
    assert_eq!((&section["n_cells"], &trained["n_genes"]), (&750.into(), &134.into()));
    // Upstream's 326 ± 20 pairs are of four fifths of the cells.
    let n_edges = section["n_edges"].as_u64().unwrap();
    assert!((280..=370).contains(&n_edges), "{n_edges} pairs of genes");
    let networks = section["networks"].as_array().unwrap();
    assert!(networks.iter().all(|network| network["accuracy"].as_f64() > Some(0.35)), "{networks:?}");
    let mapped = bench.run_json(&["space", "map", "ensemble", "dissociated.h5ad", "--out", "mapped.h5ad"]);
    assert_eq!((&mapped["n_cells"], &mapped["n_networks"]), (&1304.into(), &3.into()));
    // Upstream is as unsure of cells of another method: 0.146 ± 0.063.
    let confidence = mapped["confidence"].as_f64().unwrap();
    assert!((0.02..0.28).contains(&confidence), "{confidence}");
    let raw = bench.fail(1, &["space", "map", "ensemble", files[1].to_str().unwrap(), "--out", "no.h5ad"]);
    assert!(raw.contains("normalised"), "{raw}");
}
