//! Models of RNA and proteins: from counts in two places to imputed proteins.

use archipelago_anndata::{AnnData, Array, Compression, Csr, DataFrame, MuData};

use super::Bench;

const PROTEINS: [&str; 6] = ["CD3", "CD4", "CD8", "CD14", "CD19", "CD56"];

/// Puts protein counts beside the bench's cells: all in `cite.h5ad`, without `CD56` and with a stranger in `query.h5ad`, as a
/// modality in `cite.h5mu`.
fn add_proteins(bench: &Bench) {
    let adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let count = |cell: usize, protein: usize| (3 + (cell * 7 + protein * 11) % 17) as f32;
    let frame = |names: &[&str]| {
        let mut frame = DataFrame::new(adata.obs_names().to_vec());
        for (at, name) in names.iter().enumerate() {
            let values: Vec<f32> = (0..adata.n_obs()).map(|cell| count(cell, at)).collect();
            frame.insert(*name, values).unwrap();
        }
        frame
    };
    let mut cite = adata.clone();
    cite.obsm.insert("protein_expression".to_owned(), frame(&PROTEINS).into());
    cite.write(bench.path("cite.h5ad"), Compression::None).unwrap();
    let mut query = adata.clone();
    query.obsm.insert("protein_expression".to_owned(), frame(&["CD3", "CD4", "CD8", "CD14", "CD19", "CD99"]).into());
    query.write(bench.path("query.h5ad"), Compression::None).unwrap();

    let values: Vec<f32> = (0..adata.n_obs()).flat_map(|cell| (0..6).map(move |p| count(cell, p))).collect();
    let counts = Csr::from_dense(adata.n_obs(), 6, &values).unwrap();
    let proteins = AnnData::new(counts, DataFrame::new(adata.obs_names().to_vec()), DataFrame::new(PROTEINS)).unwrap();
    let modalities = [("rna".to_owned(), adata.clone()), ("prot".to_owned(), proteins)].into();
    MuData { modalities }.write(bench.path("cite.h5mu"), Compression::None).unwrap();

    let mut negative = adata;
    let matrix = Array::matrix(negative.n_obs(), 1, vec![-1.0_f32; negative.n_obs()]).unwrap();
    negative.obsm.insert("protein_expression".to_owned(), matrix.into());
    negative.uns.insert("names".to_owned(), Array::vector(vec!["CD3"]).into());
    negative.write(bench.path("negative.h5ad"), Compression::None).unwrap();
}

const SMALL: [&str; 16] = [
    "--model",
    "totalvi",
    "--batches",
    "a,b",
    "--epochs",
    "2",
    "--n-hidden",
    "16",
    "--n-layers",
    "1",
    "--batch-size",
    "32",
    "--device",
    "cpu",
    "--format",
    "json",
];

fn train(bench: &Bench, file: &str, more: &[&str]) -> serde_json::Value {
    serde_json::from_str(&bench.run(&[&["train", file][..], &SMALL, more].concat())).unwrap()
}

fn lines(bench: &Bench, name: &str) -> Vec<String> {
    std::fs::read_to_string(bench.path(name)).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn proteins_are_trained_mapped_imputed_and_written() {
    let bench = Bench::new();
    add_proteins(&bench);
    let obsm = ["--protein-obsm-key", "protein_expression", "--out", "reference"];
    assert_eq!(train(&bench, "cite.h5ad", &obsm)["n_proteins"], 6);

    let map = ["--batches", "c", "--epochs", "2", "--device", "cpu"];
    let mapped = bench.run_json(&[&["map", "reference", "query.h5ad", "--out", "mapped"][..], &map].concat());
    assert_eq!(mapped["proteins"]["missing"], serde_json::json!(["CD56"]));
    assert_eq!(mapped["proteins"]["unknown"], serde_json::json!(["CD99"]));
    let without = ["map", "reference", "cells.h5ad", "--without-proteins", "--out", "blind"];
    let blind = bench.run_json(&[&without[..], &map].concat());
    assert_eq!(blind["proteins"]["missing"].as_array().unwrap().len(), 6);

    let ask = |out: &str, more: &[&str]| {
        let of =
            ["results", "proteins", "blind", "cells.h5ad", "--without-proteins", "--batches", "c", "--device", "cpu"];
        bench.run_json(&[&of[..], &["--out", out], more].concat());
    };
    ask("imputed.csv", &["--impute", "--n-samples", "2", "--proteins", "CD56,CD3"]);
    assert_eq!(lines(&bench, "imputed.csv")[0], "cell,CD56,CD3");
    assert_eq!(lines(&bench, "imputed.csv").len(), 41);
    ask("as_a.csv", &["--transform-batch", "a,b", "--n-samples", "2", "--proteins", "CD56,CD3"]);
    assert_eq!(lines(&bench, "imputed.csv"), lines(&bench, "as_a.csv"), "all conditions of the reference were stained");
    ask("foreground.h5ad", &["--what", "foreground"]);
    let foreground = AnnData::read(bench.path("foreground.h5ad")).unwrap();
    assert_eq!(foreground.var_names(), PROTEINS);
    let values = foreground.matrix(None).unwrap().to_csr().unwrap().to_dense();
    assert!(values.iter().all(|p| (0.0..=1.0).contains(p)));

    // A reference that came from one place takes cells from the other.
    let modality = ["--protein-modality", "prot", "--out", "modal"];
    train(&bench, "cite.h5mu", &modality);
    let latent = |reference: &str, file: &str, more: &[&str], out: &str| {
        let of = ["latent", reference, file, "--batches", "a", "--device", "cpu", "--out", out];
        bench.run(&[&of[..], more].concat());
    };
    latent("modal", "cite.h5mu", &[], "modal.csv");
    latent("modal", "cite.h5ad", &["--protein-obsm-key", "protein_expression"], "obsm.csv");
    latent("reference", "cite.h5ad", &[], "reference.csv");
    assert_eq!(lines(&bench, "modal.csv"), lines(&bench, "obsm.csv"));
    assert_eq!(
        lines(&bench, "modal.csv"),
        lines(&bench, "reference.csv"),
        "one seed, one result, wherever proteins are"
    );
}

#[test]
fn proteins_that_cannot_be_used_are_refused() {
    let bench = Bench::new();
    add_proteins(&bench);
    let refused = |code, file: &str, model: &str, more: &[&str]| {
        let of = ["train", file, "--model", model, "--epochs", "1", "--device", "cpu", "--out", "x"];
        bench.fail(code, &[&of[..], more].concat())
    };
    let none = refused(1, "cite.h5ad", "totalvi", &[]);
    assert!(none.contains("takes `proteins`") && none.contains("--protein-obsm-key"), "{none}");
    let vain = refused(2, "cite.h5ad", "scvi", &["--protein-obsm-key", "protein_expression"]);
    assert!(vain.contains("does not take proteins"), "{vain}");
    let missing = refused(1, "cite.h5ad", "totalvi", &["--protein-obsm-key", "adt"]);
    assert!(missing.contains("adt") && missing.contains("protein_expression"), "{missing}");
    let nameless = refused(1, "negative.h5ad", "totalvi", &["--protein-obsm-key", "protein_expression"]);
    assert!(nameless.contains("--protein-names-uns-key"), "{nameless}");
    let named = ["--protein-obsm-key", "protein_expression", "--protein-names-uns-key", "names"];
    let negative = refused(1, "negative.h5ad", "totalvi", &named);
    assert!(negative.contains("protein `CD3` of cell 0") && negative.contains("-1"), "{negative}");
    let modality = refused(1, "cite.h5mu", "totalvi", &["--protein-modality", "adt"]);
    assert!(modality.contains("adt") && modality.contains("prot"), "{modality}");
}
