//! Models of RNA and proteins: from counts in two places to imputed proteins.

use archipelago_anndata::{AnnData, Array, Compression, Csr, DataFrame, MuData};
use archipelago_common::reference_dir::ReferenceDir;

use super::{
    Bench,
    coordinator::Coordinator,
    site::{authority, write_site},
};

const PROTEINS: [&str; 6] = ["CD3", "CD4", "CD8", "CD14", "CD19", "CD56"];

/// Puts protein counts beside the bench's cells: all in `cite.h5ad`, without `CD56` and with a stranger in `query.h5ad`, as a
/// modality in `cite.h5mu`.
pub(super) fn add_proteins(bench: &Bench) {
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

const SMALL: [&str; 18] = [
    "--model",
    "totalvi",
    "--batches",
    "a,b",
    "--epochs",
    "2",
    "--n-hidden",
    "16",
    "--n-layers-encoder",
    "1",
    "--n-layers-decoder",
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

    // The cells with their imputed proteins beside them, in a picture with those that were measured.
    let beside = ["results", "proteins", "mapped", "mapped/mapped.h5ad", "--impute", "--device", "cpu"];
    bench.run(&[&beside[..], &["--obsm-key", "imputed", "--out", "beside.h5ad"]].concat());
    let adata = AnnData::read(bench.path("beside.h5ad")).unwrap();
    assert_eq!(adata.obsm("imputed").unwrap().to_table("imputed").unwrap().columns.unwrap(), PROTEINS);
    assert!(adata.obsm.contains_key("X_archipelago") && adata.obsm.contains_key("protein_expression"));
    let colours = "imputed:CD56,imputed:CD3,protein_expression:CD3";
    let plot = ["plot", "embedding", "beside.h5ad", "--basis", "X_archipelago", "--out", "p.png"];
    bench.run(&[&plot[..], &["--color", colours]].concat());
    let said = bench.fail(1, &[&plot[..], &["--color", "imputed:CD5", "--overwrite"]].concat());
    assert!(said.contains("`imputed:CD5`") && said.contains("CD56"), "{said}");
    let said = bench.fail(2, &[&beside[..], &["--obsm-key", "imputed", "--out", "beside.csv"]].concat());
    assert!(said.contains("ends in `.h5ad`"), "{said}");

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

const OBSM: [&str; 2] = ["--protein-obsm-key", "protein_expression"];

#[test]
fn every_question_speaks_of_proteins_too() {
    let bench = Bench::new();
    add_proteins(&bench);
    train(&bench, "cite.h5ad", &[&OBSM[..], &["--out", "reference"]].concat());
    let ask = |what: &str, more: &[&str]| {
        let of = ["results", what, "reference", "cite.h5ad", "--batches", "a", "--device", "cpu"];
        bench.run_json(&[&of[..], more].concat())
    };

    let groups = ["--groupby", "cell_type", "--group1", "type-01", "--n-draws", "50", "--out", "de.csv"];
    let comparison = &ask("differential", &groups)["comparisons"][0];
    assert_eq!(comparison["pseudocount"], 1e-5, "what upstream takes with proteins");
    let table = lines(&bench, "de.csv");
    assert_eq!(table.len(), 1 + 60 + PROTEINS.len());
    let head: Vec<&str> = table[0].split(',').collect();
    let raw_mean = head.iter().position(|name| *name == "raw_mean1").unwrap();
    let row = table.iter().find(|row| row.starts_with("CD3_protein,type-01,Rest,")).unwrap();
    let cite = AnnData::read(bench.path("cite.h5ad")).unwrap();
    let (types, batches) = ["cell_type", "batch"].map(|name| cite.obs.column(name).unwrap().to_strings()).into();
    let counts = cite.obsm("protein_expression").unwrap().to_table("protein_expression").unwrap();
    let group: Vec<f64> = (0..cite.n_obs())
        .filter(|&cell| types[cell].as_deref() == Some("type-01") && batches[cell].as_deref() == Some("a"))
        .map(|cell| f64::from(counts.values[cell * PROTEINS.len()]))
        .collect();
    let found: f64 = row.split(',').nth(raw_mean).unwrap().parse().unwrap();
    assert!((found - group.iter().sum::<f64>() / group.len() as f64).abs() < 1e-4, "{row}");

    ask("correlation", &["--genes", "GENE00001,CD3_protein", "--log", "--n-samples", "2", "--out", "c.csv"]);
    let matrix = lines(&bench, "c.csv");
    assert_eq!(matrix[0], "gene,GENE00001,CD3_protein");
    assert!(matrix[2].starts_with("CD3_protein,") && matrix[2].ends_with(",1"), "{matrix:?}");

    ask("predictive", &["--n-samples", "2", "--out", "drawn.h5ad"]);
    let drawn = AnnData::read(bench.path("drawn.h5ad")).unwrap();
    for sample in ["protein_sample_1", "protein_sample_2"] {
        let table = drawn.obsm(sample).unwrap().to_table(sample).unwrap();
        assert_eq!((table.n_rows, table.columns.unwrap()), (40, PROTEINS.map(str::to_owned).to_vec()));
        assert!(table.values.iter().all(|count| *count >= 0.0 && count.fract() == 0.0));
        assert!(table.values.iter().any(|count| *count > 0.0));
    }
    ask("predictive", &["--out", "drawn.csv"]);
    assert!(lines(&bench, "drawn.csv").iter().any(|row| row.contains(",CD3_protein,1,")));
}

#[test]
fn minified_cells_answer_for_their_proteins() {
    let bench = Bench::new();
    add_proteins(&bench);
    train(&bench, "cite.h5ad", &[&OBSM[..], &["--out", "reference"]].concat());
    let of = ["--batches", "a", "--device", "cpu"];
    bench.run(&[&["results", "minified", "reference", "cite.h5ad", "--out", "small.h5ad"][..], &of].concat());
    let small = AnnData::read(bench.path("small.h5ad")).unwrap();
    assert!(small.obsm("protein_expression").is_err(), "protein counts are gone too");
    for what in [&["latent"][..], &["results", "proteins"], &["results", "proteins", "--what", "foreground"]] {
        let (verb, more) = what.split_at(what.len().min(2));
        let answer = |cells: &str| {
            bench.run(&[verb, &["reference", cells, "--overwrite", "--out", "x.csv"], &of, more].concat());
            let rows = lines(&bench, "x.csv").split_off(1);
            rows.iter()
                .flat_map(|row| row.split(',').skip(1).map(|v| v.parse().unwrap()).collect::<Vec<f64>>())
                .collect()
        };
        let (whole, kept): (Vec<f64>, Vec<f64>) = (answer("cite.h5ad"), answer("small.h5ad"));
        let is_close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * a.abs().max(1.0);
        assert!(whole.len() == kept.len() && whole.iter().zip(&kept).all(is_close), "{what:?}");
    }
    let said = bench.fail(1, &["results", "fit", "reference", "small.h5ad"]);
    assert!(said.contains("the ELBO needs counts, and these cells are minified"), "{said}");
}

/// A site keeps its proteins elsewhere than the reference's cells did, or has none: what it says in `site.toml`.
#[test]
fn a_site_serves_a_model_of_proteins() {
    let bench = Bench::new();
    add_proteins(&bench);
    train(&bench, "cite.h5ad", &[&OBSM[..], &["--out", "reference"]].concat());
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let served = |file: &str, proteins: &str| {
        let coordinator = Coordinator::start(&authority, &reference, |_| {});
        for file in ["site.pem", "site.key"] {
            let _ = std::fs::remove_file(bench.path(file));
        }
        for dir in ["state", "results"] {
            let _ = std::fs::remove_dir_all(bench.path(dir));
        }
        write_site(&bench, &authority, "site/north", &coordinator.address);
        let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
        let config = config.replace("path = \"cells.h5ad\"", &format!("path = \"{file}\"\n{proteins}"));
        std::fs::write(bench.path("policy.toml"), POLICY).unwrap();
        std::fs::write(bench.path("site.toml"), format!("policy = \"policy.toml\"\n{config}")).unwrap();
        bench.run(&["serve", "--config", "site.toml", "--once"]);
        let state = coordinator.state();
        let [submission] = &state.submissions[..] else { panic!("{} submissions", state.submissions.len()) };
        submission.conditions.values().next().unwrap().columns.digest
    };
    let obsm = served("cite.h5ad", "");
    assert_eq!(served("cite.h5ad", "proteins = { obsm = { key = \"protein_expression\" } }"), obsm);
    assert_eq!(served("cite.h5mu", "proteins = { modality = \"prot\" }"), obsm, "the same counts from another place");
    assert_ne!(served("cells.h5ad", "without_proteins = true"), obsm);
}

/// A task that asks for nothing but a number of epochs, and the same asked of `map`: one model, one training, the same bits.
#[test]
fn a_task_trains_a_model_as_map_does() {
    let bench = Bench::new();
    add_proteins(&bench);
    for (model, file, more) in [("totalvi", "cite.h5ad", &OBSM[..]), ("scvi", "cells.h5ad", &[])] {
        let reference = format!("{model}-reference");
        let train = ["train", file, "--model", model, "--batches", "a,b", "--epochs", "2", "--n-hidden", "16"];
        bench.run(&[&train[..], more, &["--device", "cpu", "--out", &reference]].concat());
        let out = format!("{model}-mapped");
        let map = ["map", &reference, file, "--batches", "c", "--owner", "north", "--dataset", "pbmc", "--epochs", "3"];
        bench.run(&[&map[..], &["--seed", "5", "--device", "cpu", "--out", &out]].concat());
        let mapped = ReferenceDir::open(&bench.path(&out)).unwrap();
        let by_map = mapped.version().columns[&"north/pbmc/c".parse().unwrap()];

        let authority = authority();
        let reference = ReferenceDir::open(&bench.path(&reference)).unwrap();
        let coordinator = Coordinator::start(&authority, &reference, |task| {
            (task.train.epochs, task.train.seed) = (Some(3), 5);
        });
        for file in ["site.pem", "site.key"] {
            let _ = std::fs::remove_file(bench.path(file));
        }
        write_site(&bench, &authority, "site/north", &coordinator.address);
        let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
        std::fs::write(bench.path("policy.toml"), POLICY).unwrap();
        let config = format!("policy = \"policy.toml\"\n{}", config.replace("cells.h5ad", file));
        std::fs::write(bench.path("site.toml"), config).unwrap();
        bench.run(&["serve", "--config", "site.toml", "--once"]);
        let state = coordinator.state();
        let [submission] = &state.submissions[..] else { panic!("{} submissions", state.submissions.len()) };
        assert_eq!(submission.conditions.values().next().unwrap().columns, by_map, "{model}");
    }
}

#[test]
fn proteins_that_cannot_be_used_are_refused() {
    let bench = Bench::new();
    add_proteins(&bench);
    let refused = |code, file: &str, model: &str, more: &[&str]| {
        let of = ["train", file, "--model", model, "--epochs", "1", "--device", "cpu", "--out", "x"];
        bench.fail(code, &[&of[..], more].concat())
    };
    let none = refused(2, "cite.h5ad", "totalvi", &[]);
    assert!(none.contains("takes `proteins`") && none.contains("--protein-obsm-key"), "{none}");
    let vain = refused(2, "cite.h5ad", "scvi", &["--protein-obsm-key", "protein_expression"]);
    assert!(vain.contains("does not take `proteins`"), "{vain}");
    let missing = refused(1, "cite.h5ad", "totalvi", &["--protein-obsm-key", "adt"]);
    assert!(missing.contains("adt") && missing.contains("protein_expression"), "{missing}");
    let nameless = refused(1, "negative.h5ad", "totalvi", &["--protein-obsm-key", "protein_expression"]);
    assert!(nameless.contains("--protein-names-uns-key"), "{nameless}");
    let named = ["--protein-obsm-key", "protein_expression", "--protein-names-uns-key", "names"];
    let negative = refused(1, "negative.h5ad", "totalvi", &named);
    assert!(negative.contains("-1 for `CD3` in row 0"), "{negative}");
    let modality = refused(1, "cite.h5mu", "totalvi", &["--protein-modality", "adt"]);
    assert!(modality.contains("adt") && modality.contains("prot"), "{modality}");
}

/// Of a site that lets a reference have its proteins, with fewer cells than numbers in the columns: totalVI's have one for each gene.
const POLICY: &str = "may_read = [\"obsm/protein_expression\"]\n[tasks]\nmax_numbers_per_cell = 10.0\n";
