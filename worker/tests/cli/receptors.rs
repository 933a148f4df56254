//! Receptors of T cells: from files of every form to clonotypes, a reference, a mapped query; and what is refused.

use std::path::{Path, PathBuf};

use archipelago_anndata::{AnnData, Compression};

use super::Bench;

/// Cells of batches `a`, `b` and `c` with receptors in `tcells.h5ad`.
fn bench() -> Bench {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let sizes = ["--n-cells", "40", "--n-genes", "30", "--n-types", "3", "--out", "cells.h5ad"];
    bench.run(&[&["generate", "--batches", "a,b,c"], &sizes[..]].concat());
    write_tcells(&bench);
    bench
}

/// A reference in `tcells`, of the cells of `tcells.h5ad`, for tests of others.
pub(super) fn write_reference(bench: &Bench) {
    write_tcells(bench);
    let mut train = train(&RECEPTOR);
    let at = train.iter().position(|word| *word == "reference").unwrap();
    train[at] = "tcells";
    bench.run(&train);
}

/// Receptors of clones of up to two cells, and normalised expression.
fn write_tcells(bench: &Bench) {
    bench.run(&["preprocess", "cells.h5ad", "--normalize", "--out", "tcells.h5ad"]);
    rewrite(bench, "tcells.h5ad", |adata| {
        let n = adata.n_obs();
        adata.obs.insert("alpha", (0..n).map(|cell| sequence("CAV", cell / 3, "F")).collect::<Vec<_>>()).unwrap();
        adata.obs.insert("beta", (0..n).map(|cell| sequence("CASS", cell / 2, "YF")).collect::<Vec<_>>()).unwrap();
    });
}

/// A sequence of its own for each number.
fn sequence(start: &str, number: usize, end: &str) -> String {
    const LETTERS: [char; 5] = ['G', 'N', 'Q', 'R', 'T'];
    let digits = [number / 25 % 5, number / 5 % 5, number % 5].map(|digit| LETTERS[digit]);
    format!("{start}{}{end}", digits.iter().collect::<String>())
}

fn rewrite(bench: &Bench, file: &str, change: impl FnOnce(&mut AnnData)) {
    let mut adata = AnnData::read(bench.path(file)).unwrap();
    change(&mut adata);
    adata.write(bench.path(file), Compression::None).unwrap();
}

/// Puts a text into a row of a column.
fn put(bench: &Bench, column: &str, row: usize, text: &str) {
    rewrite(bench, "tcells.h5ad", |adata| {
        let mut texts: Vec<String> =
            adata.obs.column(column).unwrap().to_strings().into_iter().map(Option::unwrap_or_default).collect();
        texts[row] = text.to_owned();
        adata.obs.insert(column, texts).unwrap();
    });
}

const RECEPTOR: [&str; 4] = ["--field", "receptor=obs/alpha", "--field", "receptor=obs/beta"];
const SMALL: [&str; 16] = [
    "--hdim",
    "8",
    "--shared-hidden",
    "8",
    "--zdim",
    "3",
    "--gene-hidden",
    "8",
    "--embedding-size",
    "4",
    "--num-heads",
    "2",
    "--c-embedding-dim",
    "2",
    "--device",
    "cpu",
];

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let train = ["train", "tcells.h5ad", "--model", "mvtcr", "--batches", "a,b", "--epochs", "3", "--out", "reference"];
    [&train[..], &SMALL, more].concat()
}

fn positions(bench: &Bench, file: &str, key: &str) -> Vec<f32> {
    AnnData::read(bench.path(file)).unwrap().obsm(key).unwrap().to_table(key).unwrap().values.into_iter().collect()
}

#[test]
fn a_query_is_mapped_by_rows_alone_and_nothing_shared_moves() {
    let bench = bench();
    bench.run(&train(&RECEPTOR));
    let map = ["map", "reference", "tcells.h5ad", "--batches", "c", "--epochs", "2", "--device", "cpu"];
    let mapped = bench.run_json(&[&map[..], &["--out", "mapped"]].concat());
    assert_eq!(mapped["surgery"], "exact");
    let base = |dir: &str| bench.run_json(&["inspect", dir])["base"].clone();
    assert_eq!(base("mapped"), base("reference"), "statistics and weights are the reference's");
    let query = ["--batches", "c", "--owner", "local", "--dataset", "query"];
    bench.run(&[&["latent", "mapped", "tcells.h5ad", "--out", "latent.h5ad"], &query[..]].concat());
    assert_eq!(
        positions(&bench, "latent.h5ad", "X_archipelago"),
        positions(&bench, "mapped/mapped.h5ad", "X_archipelago")
    );
    let upstream = bench.run_json(&[&map[..], &["--surgery", "upstream", "--out", "as-upstream"]].concat());
    assert!(upstream["surgery"].as_str().unwrap().starts_with("approximate"), "{upstream}");
    assert_ne!(base("as-upstream"), base("reference"), "running statistics move with the query's cells there");

    let ask = ["results", "modalities", "mapped", "tcells.h5ad", "--out", "modalities.h5ad"];
    bench.run(&[&ask[..], &query].concat());
    assert_eq!(positions(&bench, "modalities.h5ad", "X_joint"), positions(&bench, "latent.h5ad", "X_archipelago"));
    bench.run(&["umap", "modalities.h5ad", "--use-rep", "X_tcr", "--maxiter", "5", "--out", "umap.h5ad"]);
    let right = ["results", "amino-acids", "mapped", "tcells.h5ad", "--out", "right.csv"];
    bench.run(&[&right[..], &query].concat());
    let right = std::fs::read_to_string(bench.path("right.csv")).unwrap();
    assert!(right.starts_with("cell,from_rna,from_tcr\n"), "{right}");
}

#[test]
fn every_variant_trains_and_embeds() {
    let bench = bench();
    for (variant, more) in [
        ("rna", &[][..]),
        ("tcr", &RECEPTOR),
        ("concat", &RECEPTOR),
        ("poe", &RECEPTOR),
        ("moe", &["--field", "receptor=obs/beta", "--chains", "beta", "--use-embedding-for-cond", "false"]),
    ] {
        bench.run(&train(&[more, &["--variant", variant, "--overwrite"]].concat()));
        let latent = ["latent", "reference", "tcells.h5ad", "--batches", "a,b", "--out", "latent.h5ad", "--overwrite"];
        bench.run(&latent);
        let found = positions(&bench, "latent.h5ad", "X_archipelago");
        assert!(found.len() == 80 * 3 && found.iter().all(|value| value.is_finite()), "{variant}");
    }
}

#[test]
fn a_state_is_chosen_by_the_criterion_that_is_asked_for() {
    let bench = bench();
    for criterion in ["pseudo-metric", "knn-prediction"] {
        let asked = ["--selected-by", criterion, "--labels-key", "cell_type", "--overwrite"];
        bench.run(&train(&[&RECEPTOR[..], &asked].concat()));
        let history = std::fs::read_to_string(bench.path("reference/history.csv")).unwrap();
        assert!(history.contains("selection"), "{history}");
    }
}

#[test]
fn a_state_is_chosen_by_how_well_a_perturbation_is_predicted() {
    let bench = bench();
    rewrite(&bench, "tcells.h5ad", |adata| {
        let states = (0..adata.n_obs()).map(|cell| if cell % 2 == 0 { "pre" } else { "post" }.to_owned());
        adata.obs.insert("state", states.collect::<Vec<_>>()).unwrap();
    });
    let chosen = [&RECEPTOR[..], &["--selected-by", "modulation-prediction", "--overwrite"]].concat();
    let with = |more: &[&'static str]| train(&[&chosen[..], more].concat());
    let unnamed = bench.fail(2, &with(&["--labels-key", "cell_type"]));
    assert!(unnamed.contains("asks for `unperturbed`"), "{unnamed}");
    let pre = ["--unperturbed", "pre", "--field", "perturbation=obs/state"];
    let groups = bench.fail(1, &with(&pre));
    assert!(groups.contains("`labels` holds 0 with cells before and after the perturbation"), "{groups}");
    let labels = ["--labels-key", "cell_type"];
    let states = bench.fail(1, &with(&[&labels[..], &pre[..2]].concat()));
    assert!(states.contains("expected `pre` among them, which `unperturbed` names"), "{states}");
    let unknown = ["--unperturbed", "before", "--field", "perturbation=obs/state"];
    let unknown = bench.fail(1, &with(&[&labels[..], &unknown].concat()));
    assert!(unknown.contains("holds post, pre, expected `before` among them"), "{unknown}");
    let single = bench.fail(1, &with(&[&["--labels-key", "batch_of_none"][..], &pre].concat()));
    assert!(single.contains("batch_of_none"), "{single}");
    bench.run(&with(&[&labels[..], &pre].concat()));
    let history = std::fs::read_to_string(bench.path("reference/history.csv")).unwrap();
    let values: Vec<f64> = column(&history, "validation_selection");
    assert!(values.len() == 3 && values.iter().all(|value| (0.0..=1.0).contains(value)), "{history}");
    // A query needs neither: exact surgery chooses nothing.
    bench.run(&[
        "map",
        "reference",
        "tcells.h5ad",
        "--batches",
        "c",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--out",
        "mapped",
    ]);
}

/// The numbers of a column of a table.
fn column(table: &str, name: &str) -> Vec<f64> {
    let mut lines = table.lines();
    let at = lines.next().unwrap().split(',').position(|head| head == name).unwrap_or_else(|| panic!("{table}"));
    lines.map(|line| line.split(',').nth(at).unwrap().parse().unwrap()).collect()
}

#[test]
fn a_reference_goes_to_its_package_and_comes_back() {
    let bench = bench();
    bench.run(&train(&RECEPTOR));
    let exported = bench.run_json(&["export", "reference", "--out", "exported"]);
    assert_eq!(exported["package"], "mvtcr 0.2.1");
    let lacking = bench.fail(2, &["import", "exported", "--out", "x"]);
    assert!(lacking.contains("--cells"), "{lacking}");
    bench.run(&["subset", "tcells.h5ad", "--obs", "batch=a,b", "--out", "known.h5ad"]);
    bench.run(&["import", "exported/model.pt", "--cells", "known.h5ad", "--out", "imported"]);
    let latent = |reference: &str, more: &[&str], out: &str| {
        bench.run(&[&["latent", reference, "known.h5ad", "--batches", "a,b", "--out", out], more].concat());
        positions(&bench, out, "X_archipelago")
    };
    assert_eq!(latent("reference", &[], "ours.h5ad"), latent("imported", &RECEPTOR, "back.h5ad"));
}

#[test]
fn a_search_keeps_the_best_of_what_it_has_drawn() {
    let bench = bench();
    let given = [&RECEPTOR[..], &SMALL, &["--encoding-layers", "1", "--decoding-layers", "1", "--seed", "3"]].concat();
    let search = ["search", "tcells.h5ad", "--model", "mvtcr", "--batches", "a,b", "--epochs", "2", "--trials", "3"];
    let search = |more: &[&str]| bench.run_json(&[&search[..], &given, more].concat());
    let found = search(&["--out", "found"]);
    let runs = found["runs"].as_array().unwrap();
    let values: Vec<f64> = runs.iter().map(|run| run["value"].as_f64().unwrap()).collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!((values.len(), values[found["best"].as_u64().unwrap() as usize]), (3, least));
    assert!(runs.iter().all(|run| run["options"]["zdim"] == 3), "what is given is not searched");
    assert_ne!(runs[0]["options"]["loss_weights"], runs[1]["options"]["loss_weights"]);
    let table = std::fs::read_to_string(bench.path("found/trials.csv")).unwrap();
    assert!(table.starts_with("trial,value,epoch,epochs,learning_rate,") && table.lines().count() == 4, "{table}");
    assert_eq!(search(&["--out", "again"])["version"], found["version"], "one seed, one reference");
    bench.run(&["map", "found", "tcells.h5ad", "--batches", "c", "--epochs", "1", "--out", "mapped"]);
    let other = bench.fail(2, &["search", "cells.h5ad", "--model", "scvi", "--batches", "a,b", "--out", "x"]);
    assert!(other.contains("options can be searched"), "{other}");
}

#[test]
fn no_sequence_and_no_clonotype_is_in_what_a_reference_holds() {
    let bench = bench();
    bench.run(&train(&RECEPTOR));
    bench.run(&["map", "reference", "tcells.h5ad", "--batches", "c", "--epochs", "1", "--out", "mapped"]);
    let adata = AnnData::read(bench.path("tcells.h5ad")).unwrap();
    let texts = |column: &str| adata.obs.column(column).unwrap().to_strings().into_iter().flatten();
    let sequences: Vec<String> = texts("alpha").chain(texts("beta")).collect();
    for dir in ["reference", "mapped"] {
        for path in files(&bench.path(dir)).iter().filter(|path| path.extension().is_none_or(|e| e != "h5ad")) {
            let bytes = std::fs::read(path).unwrap();
            let holds = |text: &String| bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!sequences.iter().any(holds), "{}", path.display());
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn receptors_that_a_model_cannot_take_are_refused_in_words() {
    let bench = bench();
    let lacking = bench.fail(2, &train(&[]));
    assert!(lacking.contains("`receptor`"), "{lacking}");
    let one = bench.fail(2, &train(&["--field", "receptor=obs/beta"]));
    assert!(one.contains("alpha first"), "{one}");
    bench.run(&train(&RECEPTOR));

    let last = 119;
    let map = ["map", "reference", "tcells.h5ad", "--batches", "c", "--epochs", "1", "--out", "mapped"];
    for (text, expected) in [
        ("CASSBF", "the letter `B` in the beta chain of cell 39, expected letters of amino acids"),
        ("CASSGGGGGGGYF", "13 amino acids in the beta chain of cell 39, expected at most 9, the model's length"),
        ("", "no beta chain of 1 of 40 cells"),
    ] {
        put(&bench, "beta", last, text);
        let refused = bench.fail(1, &map);
        assert!(refused.contains(expected) && !refused.contains("CASS"), "{refused}");
    }
    put(&bench, "alpha", last, "None");
    let refused = bench.fail(1, &map);
    assert!(refused.contains("no receptor of 1 of 40 cells") && refused.contains("receptors"), "{refused}");
    rewrite(&bench, "tcells.h5ad", |adata| {
        let none = vec![String::new(); adata.n_obs()];
        adata.obs.insert("alpha", none.clone()).unwrap();
        adata.obs.insert("beta", none).unwrap();
    });
    assert!(bench.fail(1, &map).contains("no receptor of any cell"));
    let nothing = ["receptors", "tcells.h5ad", "--receptor", "obs/alpha", "--receptor", "obs/beta", "--out", "x.h5ad"];
    assert!(bench.fail(1, &nothing).contains("a whole receptor"));
}

#[test]
fn clonotypes_are_numbered_by_both_chains() {
    let bench = bench();
    put(&bench, "alpha", 119, "");
    let command = ["receptors", "tcells.h5ad", "--receptor", "obs/alpha", "--receptor", "obs/beta"];
    let found = bench.run_json(&[&command[..], &["--out", "complete.h5ad"]].concat());
    assert_eq!((&found["n_cells"], &found["n_with_receptor"]), (&serde_json::json!([120, 119]), &119.into()));
    // Of every six cells, 0 1 | 2 | 3 | 4 5 agree in both thirds and halves.
    assert_eq!((&found["n_clonotypes"], &found["largest_clone"]), (&80.into(), &2.into()));
    let adata = AnnData::read(bench.path("complete.h5ad")).unwrap();
    let clonotypes = adata.obs.column("clonotype").unwrap().to_strings();
    assert!(clonotypes[0] == clonotypes[1] && clonotypes[1] != clonotypes[2] && clonotypes[2] != clonotypes[3]);
    let all = bench.run_json(&[&command[..], &["--keep-all", "--out", "all.h5ad"]].concat());
    assert_eq!(all["n_cells"], serde_json::json!([120, 120]));
    let adata = AnnData::read(bench.path("all.h5ad")).unwrap();
    assert_eq!(adata.obs.column("clonotype").unwrap().to_strings()[119], None);
}

/// Written by scirpy 0.22 with anndata 0.12: AIRR records of six cells, and the chains that it has indexed.
#[test]
fn records_of_scirpy_are_read_with_and_without_its_index() {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/airr_scirpy.h5ad");
    std::fs::copy(&file, bench.path("airr.h5ad")).unwrap();
    for out in ["indexed.h5ad", "plain.h5ad"] {
        let found = bench.run_json(&["receptors", "airr.h5ad", "--keep-all", "--out", out]);
        assert_eq!(found["n_with_receptor"], 3, "{out}");
        let adata = AnnData::read(bench.path(out)).unwrap();
        let texts = |column: &str| -> Vec<String> {
            adata.obs.column(column).unwrap().to_strings().into_iter().map(Option::unwrap_or_default).collect()
        };
        assert_eq!(texts("receptor_alpha"), ["CAVRF", "CAVRF", "CALF", "CAGF", "", ""], "{out}");
        assert_eq!(texts("receptor_beta"), ["CASSLF", "CASSLF", "CASRF", "", "CASSF", ""], "{out}");
        let mut plain = AnnData::read(bench.path("airr.h5ad")).unwrap();
        plain.obsm.remove("chain_indices");
        plain.write(bench.path("airr.h5ad"), Compression::None).unwrap();
    }
    let missing = bench.fail(1, &["receptors", "airr.h5ad", "--receptor", "obsm/other", "--out", "x.h5ad"]);
    assert!(missing.contains("`other`"), "{missing}");
}

fn data(name: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("ARCHIPELAGO_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    Some(shared.join("data").join(name)).filter(|path| path.exists())
}

/// 200 cells of tumours; the original has one column for each field of each chain, the other one only what is seen.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
#[test]
fn real_cells_have_the_same_receptors_in_every_form() {
    let (Some(original), Some(cut)) = (data("compat_wu2020_original.h5ad"), data("tcr_wu2020.h5ad")) else {
        eprintln!("skipped: the cells are not there; set ARCHIPELAGO_SHARED to the folder with the shared data");
        return;
    };
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let read = |file: &Path, alpha: &str, beta: &str, out: &str| {
        let (file, alpha, beta) = (file.display().to_string(), format!("obs/{alpha}"), format!("obs/{beta}"));
        let found = bench.run_json(&["receptors", &file, "--receptor", &alpha, "--receptor", &beta, "--out", out]);
        let adata = AnnData::read(bench.path(out)).unwrap();
        let texts = |column: &str| adata.obs.column(column).unwrap().to_strings();
        let all: Vec<_> = ["receptor_alpha", "receptor_beta", "clonotype"].map(texts).into();
        (found["n_clonotypes"].as_u64().unwrap(), all)
    };
    let of_original = read(&original, "IR_VJ_1_cdr3", "IR_VDJ_1_cdr3", "original.h5ad");
    let of_cut = read(&cut, "TRA_cdr3", "TRB_cdr3", "cut.h5ad");
    assert!(of_cut.0 > 50, "{}", of_cut.0);
    assert_eq!(of_original, of_cut);
}

/// Four patients' T cells of blood and lung: trained without one patient, who is then mapped.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
#[test]
fn a_held_out_patient_of_real_cells_is_mapped() {
    let Some(file) = data("tcr_lung_blood.h5ad") else {
        eprintln!("skipped: the cells are not there; set ARCHIPELAGO_SHARED to the folder with the shared data");
        return;
    };
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let file = file.display().to_string();
    let places = ["--receptor", "obs/TRA_cdr3", "--receptor", "obs/TRB_cdr3"];
    bench.run(&[&["receptors", &file, "--out", "complete.h5ad"], &places[..]].concat());
    bench.run(&["preprocess", "complete.h5ad", "--normalize", "--out", "tcells.h5ad"]);
    let receptor = ["--field", "receptor=obs/receptor_alpha", "--field", "receptor=obs/receptor_beta"];
    let by_donor = ["--batch-key", "donor", "--overwrite"];
    let mut train = train(&[&receptor[..], &by_donor].concat());
    let at = train.iter().position(|word| *word == "a,b").unwrap();
    let adata = AnnData::read(bench.path("tcells.h5ad")).unwrap();
    let donors: std::collections::BTreeSet<String> =
        adata.obs.column("donor").unwrap().to_strings().into_iter().flatten().collect();
    let others = donors.iter().filter(|donor| *donor != "P17").cloned().collect::<Vec<_>>().join(",");
    train[at] = &others;
    bench.run(&train);
    let mapped =
        bench.run_json(&["map", "reference", "tcells.h5ad", "--batches", "P17", "--epochs", "2", "--out", "m"]);
    assert_eq!(mapped["surgery"], "exact");
    bench.run(&["latent", "reference", "tcells.h5ad", "--batches", &others, "--out", "reference.h5ad"]);
    let judged = bench.run_json(&[
        "transfer",
        "reference.h5ad",
        "m/mapped.h5ad",
        "--labels-key",
        "source",
        "--n-neighbors",
        "5",
        "--out",
        "labelled.h5ad",
    ]);
    let f1 = judged["columns"]["source"]["judged"]["weighted_f1"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&f1), "{judged}");
}
