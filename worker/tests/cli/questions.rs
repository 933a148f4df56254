//! What a trained model says about cells: `results`, question by question.

use archipelago_anndata::AnnData;

use super::{Bench, TRAIN};

const CELLS: [&str; 6] = ["reference", "cells.h5ad", "--batches", "a", "--device", "cpu"];

fn ask(bench: &Bench, what: &str, more: &[&str]) -> serde_json::Value {
    bench.run_json(&[&["results", what][..], &CELLS, more].concat())
}

fn lines(bench: &Bench, name: &str) -> Vec<String> {
    std::fs::read_to_string(bench.path(name)).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_reference_says_which_questions_it_answers() {
    let bench = Bench::with_reference();
    let listed = bench.run_json(&["results", "questions", "reference"]);
    assert_eq!(listed["decodes"], serde_json::json!(["rna"]));
    let questions = listed["questions"].as_array().unwrap();
    let only = |name: &str| &questions.iter().find(|question| question["name"] == name).unwrap()["only"];
    assert_eq!(*only("differential"), serde_json::json!([]));
    assert_eq!(*only("proteins"), serde_json::json!(["totalVI"]));
    let said = bench.fail(1, &["results", "proteins", "reference", "cells.h5ad", "--out", "x.csv"]);
    assert!(said.contains("does not answer `proteins`") && said.contains("results questions"), "{said}");
    let help = bench.run(&["results", "proteins", "--help"]);
    assert!(help.contains("--sample-protein-mixing") && help.contains("foreground"), "{help}");
}

#[test]
fn expression_is_written_per_cell_and_gene() {
    let bench = Bench::with_reference();
    ask(&bench, "expression", &["--out", "all.h5ad"]);
    let all = AnnData::read(bench.path("all.h5ad")).unwrap();
    assert_eq!((all.n_obs(), all.n_vars()), (40, 60));
    let x = all.matrix(None).unwrap().to_csr().unwrap();
    assert!(x.row_sums().iter().all(|sum| (sum - 1.0).abs() < 1e-3), "shares add up to 1");

    let some = ["--genes", "GENE00003,GENE00001", "--library-size", "10000", "--n-samples", "3", "--out", "x.csv"];
    ask(&bench, "expression", &some);
    assert_eq!(lines(&bench, "x.csv")[0], "cell,GENE00003,GENE00001");
    assert_eq!(lines(&bench, "x.csv").len(), 41);
    ask(&bench, "expression", &[&some[..7], &["y.csv", "--transform-batch", "b"]].concat());
    assert_ne!(lines(&bench, "x.csv")[1], lines(&bench, "y.csv")[1], "decoded as another batch");
    ask(&bench, "expression", &[&some[..7], &["z.csv"]].concat());
    assert_eq!(lines(&bench, "x.csv"), lines(&bench, "z.csv"), "one seed, one result");

    let refused = |more: &[&str], code| bench.fail(code, &[&["results", "expression"][..], &CELLS, more].concat());
    assert!(refused(&["--genes", "CD3D", "--out", "none.csv"], 1).contains("decodes no feature `CD3D`, of 60 in all"));
    assert!(refused(&["--transform-batch", "c", "--out", "none.csv"], 1).contains("no condition for batch `c`"));
    assert!(refused(&["--library-size=-1", "--out", "none.csv"], 2).contains("a number above 0, or `latent`"));
    assert!(refused(&["--out", "x.txt"], 2).contains("ends in `.h5ad` or `.csv`"));
}

#[test]
fn fit_library_and_draws_are_told() {
    let bench = Bench::with_reference();
    let fit = ask(&bench, "fit", &["--marginal-samples", "20", "--out", "marginal.csv"]);
    let figure = |name: &str| fit[name].as_f64().unwrap();
    assert!(figure("elbo") < 0.0 && figure("reconstruction") > 0.0);
    assert!(figure("marginal_log_likelihood") >= figure("elbo") - 1.0, "the ELBO is its lower bound: {fit}");
    assert_eq!(lines(&bench, "marginal.csv").len(), 41);

    ask(&bench, "library", &["--out", "library.csv"]);
    let cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let total = cells.matrix(None).unwrap().to_csr().unwrap().row_sums()[0];
    assert_eq!(lines(&bench, "library.csv")[1], format!("{},{total}", cells.obs_names()[0]));
    ask(&bench, "library", &["--out", "library.h5ad"]);
    assert!(AnnData::read(bench.path("library.h5ad")).unwrap().obs.column("archipelago_library_size").is_ok());

    ask(&bench, "predictive", &["--n-samples", "2", "--out", "drawn.h5ad"]);
    let drawn = AnnData::read(bench.path("drawn.h5ad")).unwrap();
    let counts = |layer| drawn.matrix(layer).unwrap().to_csr().unwrap();
    assert_eq!(counts(None), counts(Some("sample_1")));
    assert_ne!(counts(Some("sample_1")), counts(Some("sample_2")));
    assert!(counts(None).data().iter().all(|count| count.fract() == 0.0));
    ask(&bench, "predictive", &["--out", "drawn.csv"]);
    assert_eq!(lines(&bench, "drawn.csv").len(), counts(None).nnz() + 1, "zeros are left out");
}

#[test]
fn genes_are_correlated_with_each_other() {
    let bench = Bench::with_reference();
    let genes = ["--genes", "GENE00001,GENE00002", "--n-samples", "2"];
    ask(&bench, "correlation", &[&genes[..], &["--out", "c.csv"]].concat());
    let table = lines(&bench, "c.csv");
    assert_eq!(table[0], "gene,GENE00001,GENE00002");
    let rows: Vec<Vec<f64>> =
        table[1..].iter().map(|row| row.split(',').skip(1).map(|value| value.parse().unwrap()).collect()).collect();
    assert!((rows[0][0] - 1.0).abs() < 1e-6 && (rows[0][1] - rows[1][0]).abs() < 1e-6, "{rows:?}");
    ask(&bench, "correlation", &["--kind", "pearson", "--transform-batch", "a,b", "--out", "c.h5ad"]);
    assert_eq!(AnnData::read(bench.path("c.h5ad")).unwrap().n_obs(), 60);
}

#[test]
fn groups_are_compared_gene_by_gene() {
    let bench = Bench::with_reference();
    let group = ["--groupby", "cell_type", "--n-draws", "100"];
    let change =
        ask(&bench, "differential", &[&group[..], &["--cred-interval-lvls", "0.5", "--out", "de.csv"]].concat());
    let comparisons = change["comparisons"].as_array().unwrap();
    assert!(comparisons.len() > 1 && comparisons.iter().all(|comparison| comparison["group2"] == "Rest"), "{change}");
    let table = lines(&bench, "de.csv");
    assert!(table[0].starts_with("gene,group1,group2,proba_de,proba_not_de,bayes_factor,scale1,scale2,lfc_mean,"));
    assert!(table[0].ends_with("lfc_ci_0.5_min,lfc_ci_0.5_max,is_de_fdr_0.05"), "{}", table[0]);
    assert_eq!(table.len(), 60 * comparisons.len() + 1);
    assert!(table[1..].iter().all(|row| row.split(',').count() == table[0].split(',').count()));

    let (first, second) = (&comparisons[0]["group1"], &comparisons[1]["group1"]);
    let help = bench.run(&["results", "differential", "--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("own default is vanilla where a model decodes genes alone"), "{help}");
    let pair = ["--group1", first.as_str().unwrap(), "--group2", second.as_str().unwrap(), "--mode", "vanilla"];
    let vanilla = [&group[..], &pair, &["--batch-correction", "--batchid", "a,b", "--out", "v.csv"]].concat();
    assert_eq!(ask(&bench, "differential", &vanilla)["comparisons"][0]["group2"], *second);
    assert!(lines(&bench, "v.csv")[0].contains("proba_m1,proba_m2,bayes_factor"));

    let refused = |more: &[&str], code| {
        bench.fail(code, &[&["results", "differential"][..], &CELLS, more, &["--out", "x.csv"]].concat())
    };
    let unknown = refused(&["--groupby", "cell_type", "--group1", "neutrophil"], 1);
    assert!(unknown.contains("has no value `neutrophil`; there are: `type-"), "{unknown}");
    assert!(refused(&["--groupby", "type"], 1).contains("no column `type`"));
    assert!(refused(&["--groupby", "cell_type", "--fdr", "2"], 2).contains("`--fdr` is 2"));
}

#[test]
fn a_learnt_library_size_has_a_posterior() {
    let bench = Bench::new();
    bench.run(&[&TRAIN[..], &["--use-observed-lib-size", "false", "--latent-distribution", "ln"]].concat());
    ask(&bench, "library", &["--out", "library.csv"]);
    let sizes: Vec<f64> =
        lines(&bench, "library.csv")[1..].iter().map(|row| row.split(',').nth(1).unwrap().parse().unwrap()).collect();
    assert!(sizes.iter().all(|size| size.is_finite() && *size > 0.0));
    let latent = ["latent", "reference", "cells.h5ad", "--batches", "a", "--variance", "--out", "latent.h5ad"];
    bench.run(&latent);
    assert!(AnnData::read(bench.path("latent.h5ad")).unwrap().obsm("X_archipelago_var").is_ok());
}

#[test]
fn minified_cells_answer_without_their_counts() {
    let bench = Bench::new();
    bench.run(&[&TRAIN[..], &["--latent-distribution", "ln"]].concat());
    ask(&bench, "minified", &["--out", "small.h5ad"]);
    let small = AnnData::read(bench.path("small.h5ad")).unwrap();
    assert_eq!((small.n_obs(), small.matrix(None).unwrap().to_csr().unwrap().nnz()), (40, 0));
    let answer = |what: &[&str], cells: &str| -> Vec<f64> {
        let args = ["reference", cells, "--batches", "a", "--device", "cpu", "--overwrite", "--out", "x.csv"];
        bench.run(&[what, &args].concat());
        let rows = lines(&bench, "x.csv").split_off(1);
        rows.iter().flat_map(|row| row.split(',').skip(1).map(|v| v.parse().unwrap()).collect::<Vec<f64>>()).collect()
    };
    for what in [&["latent"][..], &["results", "expression"], &["results", "library"]] {
        let (whole, kept) = (answer(what, "cells.h5ad"), answer(what, "small.h5ad"));
        // The last bits depend on how many conditions a module is built for.
        let is_close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * a.abs().max(1.0);
        assert!(whole.len() == kept.len() && whole.iter().zip(&kept).all(is_close), "{what:?}");
    }
    bench.run(&["results", "predictive", "reference", "small.h5ad", "--out", "drawn.csv"]);
    let said = bench.fail(1, &["results", "fit", "reference", "small.h5ad"]);
    assert!(said.contains("the ELBO needs counts, and these cells are minified"), "{said}");
}
