//! Surgery under either rules, covariates, and cells at the edge of what can be mapped.

use archipelago_anndata::{AnnData, Array, Column, Compression, Csr, Element, Matrix, Values};

use super::{Bench, TRAIN, read_json};

const MAP: [&str; 11] = [
    "map",
    "reference",
    "cells.h5ad",
    "--batches",
    "c",
    "--epochs",
    "2",
    "--device",
    "cpu",
    "--out=mapped",
    "--overwrite",
];

fn rewrite(bench: &Bench, change: impl FnOnce(&mut AnnData)) {
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    change(&mut adata);
    adata.write(bench.path("cells.h5ad"), Compression::None).unwrap();
}

#[test]
fn surgery_under_upstreams_rules_is_labelled_everywhere() {
    let bench = Bench::with_reference();
    let upstream = [&MAP[..], &["--surgery", "upstream", "--freeze-dropout"]].concat();
    let mapped = bench.run_json(&upstream);
    assert_eq!(mapped["surgery"], "approximate: upstream's rules");
    assert_eq!(mapped["conditions"]["local/query/c"]["epochs"], 2);
    assert_eq!(read_json(&bench.path("mapped/summary.json"))["surgery"], mapped["surgery"]);
    let shown = bench.run_json(&["inspect", "mapped"]);
    assert_eq!(shown["training"]["surgery"], mapped["surgery"]);
    assert_ne!(shown["base"], bench.run_json(&["inspect", "reference"])["base"], "shared tensors have moved");
    let marked = |dir: &str| match &AnnData::read(bench.path(dir)).unwrap().uns["archipelago_surgery"] {
        Element::Array(array) => Array::as_text(array).unwrap().to_owned(),
        other => panic!("the mark is {}", other.kind()),
    };
    assert_eq!(marked("mapped/mapped.h5ad"), "approximate: upstream's rules");
    assert_eq!(bench.run_json(&upstream)["version"], mapped["version"], "one seed, one result");
    assert_eq!(shown["training"]["train_mode"], false, "as scvi-tools maps today");
    let training = bench.run_json(&[&upstream[..], &["--train-mode"]].concat());
    assert_ne!(training["version"], mapped["version"], "batch statistics take part");
    assert_eq!(bench.run_json(&["inspect", "mapped"])["training"]["train_mode"], true);

    let exact = bench.run_json(&MAP);
    assert_eq!((&exact["surgery"], marked("mapped/mapped.h5ad").as_str()), (&"exact".into(), "exact"));
}

#[test]
fn exact_surgery_takes_no_flag_of_upstreams() {
    let bench = Bench::with_reference();
    for (flags, word) in [
        (&["--weight-decay", "0.1"][..], "--weight-decay` is 0.1"),
        (&["--unfrozen"], "--unfrozen` is true"),
        (&["--freeze-classifier", "false"], "--freeze-classifier` is false"),
        (&["--placement", "end"], "--placement"),
        (&["--train-mode"], "--train-mode` is true"),
    ] {
        let said = bench.fail(2, &[&MAP[..], flags].concat());
        assert!(said.contains(word) && said.contains("--surgery upstream"), "{said}");
    }
    bench.fail(2, &[&MAP[..], &["--surgery", "upstream", "--untrained"]].concat());
    bench.fail(2, &[&MAP[..], &["--surgery", "fast"]].concat());
    let said = bench.fail(2, &[&MAP[..], &["--subsample", "0.5"]].concat());
    assert!(said.contains("--surgery shot"), "{said}");
}

#[test]
fn shot_surgery_takes_over_what_the_likest_batch_owns_and_trains_only_if_it_is_asked_to() {
    let bench = Bench::with_reference();
    let shot = |more: &[&str]| -> Vec<String> {
        let args = ["map", "reference", "cells.h5ad", "--batches", "c", "--surgery", "shot", "--device", "cpu"];
        [&args[..], &["--out=mapped", "--overwrite"], more].concat().into_iter().map(str::to_owned).collect()
    };
    let run = |more: &[&str]| bench.run_json(&shot(more).iter().map(String::as_str).collect::<Vec<_>>());
    let owned = |dir: &str, key: &str| read_json(&bench.path(dir))["columns"][key]["digest"].clone();
    let key = "local/query/c";

    let kept = run(&[]);
    assert_eq!((&kept["surgery"], &kept["conditions"][key]["epochs"]), (&"shot".into(), &0.into()), "{kept}");
    let losses = kept["likeness"][key]["losses"].as_object().unwrap();
    let nearest = kept["likeness"][key]["nearest"].as_str().unwrap();
    assert_eq!(losses.len(), 2, "{kept}");
    assert!(losses.values().all(|loss| loss.as_f64() >= losses[nearest].as_f64()), "{kept}");
    assert_eq!(owned("mapped/version.json", key), owned("reference/version.json", nearest));
    let base = |dir: &str| bench.run_json(&["inspect", dir])["base"].clone();
    assert_eq!(base("mapped"), base("reference"), "nothing shared has moved");
    match &AnnData::read(bench.path("mapped/mapped.h5ad")).unwrap().uns["archipelago_surgery"] {
        Element::Array(array) => assert_eq!(array.as_text(), Some("shot")),
        other => panic!("the mark is {}", other.kind()),
    }

    let trained = run(&["--epochs", "2"]);
    assert_eq!(trained["conditions"][key]["epochs"], 2);
    assert_eq!(trained["likeness"], kept["likeness"]);
    assert_ne!(owned("mapped/version.json", key), owned("reference/version.json", nearest));
    assert_eq!(run(&[])["version"], kept["version"], "a trained run leaves nothing behind that another takes up");

    let half = run(&["--subsample", "0.5"]);
    let of_half = half["likeness"][key]["losses"].as_object().unwrap();
    assert!(of_half.iter().all(|(known, loss)| *loss != losses[known]), "other cells are looked at: {half}");
    assert_eq!(half["conditions"][key]["n_cells"], kept["conditions"][key]["n_cells"], "and all are mapped");
    assert_eq!(run(&["--subsample", "0.5"])["likeness"], half["likeness"], "one seed, the same cells");

    for (flags, word) in [
        (&["--subsample", "0"][..], "`--subsample` is 0, expected a share above 0"),
        (&["--learning-rate", "0.1"], "`--learning-rate` is 0.1, expected nothing without `--epochs` or"),
        (&["--weight-decay", "0.1"], "--surgery upstream"),
    ] {
        let args = shot(flags);
        let said = bench.fail(2, &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.contains(word), "{said}");
    }
}

/// Adds a chemistry, an age and a depth to every cell.
fn with_covariates(adata: &mut AnnData) {
    let n = adata.n_obs();
    let chemistry: Vec<&str> = (0..n).map(|cell| if cell % 2 == 0 { "v2" } else { "v3" }).collect();
    adata.obs.insert("chemistry", Column::categorical(&chemistry)).unwrap();
    let numbers = |f: fn(usize) -> f64| Column::Plain(Values::F64((0..n).map(f).collect()));
    adata.obs.insert("age", numbers(|cell| cell as f64 / 100.0)).unwrap();
    adata.obs.insert("depth", numbers(|cell| 1.0 + (cell % 5) as f64)).unwrap();
}

#[test]
fn covariates_are_registered_and_asked_for_again() {
    let bench = Bench::new();
    rewrite(&bench, with_covariates);
    let covariates = ["--categorical-covariate-keys", "chemistry", "--continuous-covariate-keys", "age"];
    bench.run(&[&TRAIN[..], &covariates, &["--size-factor-key", "depth"]].concat());
    bench.run(&MAP);
    bench.run(&["latent", "mapped", "cells.h5ad", "--batches", "c", "--out", "latent.csv"]);

    rewrite(&bench, |adata| adata.obs.insert("chemistry", Column::categorical(&["v4"; 120])).unwrap());
    let said = bench.fail(1, &MAP);
    assert!(said.contains("`chemistry` holds `v4`") && said.contains("it knows `v2`, `v3`"), "{said}");
    rewrite(&bench, |adata| {
        with_covariates(adata);
        adata.obs.insert("age", Column::categorical(&["old"; 120])).unwrap();
    });
    assert!(bench.fail(1, &MAP).contains("`age` of `cells.h5ad` holds text, expected numbers"));
    rewrite(&bench, |adata| drop(adata.obs.remove("age")));
    assert!(bench.fail(1, &MAP).contains("no column `age`"));
    let said = bench.fail(1, &[&TRAIN[..], &["--categorical-covariate-keys", "chemistri", "--overwrite"]].concat());
    assert!(said.contains("no column `chemistri`"), "{said}");
}

#[test]
fn cells_without_a_count_and_batches_of_one_cell_are_mapped() {
    let bench = Bench::with_reference();
    rewrite(&bench, |adata| {
        let mut dense = adata.matrix(None).unwrap().to_csr().unwrap().to_dense();
        dense[100 * 60..101 * 60].fill(0.0);
        adata.x = Some(Matrix::from(Csr::from_dense(120, 60, &dense).unwrap()));
        let batch = |cell: usize| if cell == 119 { "lone" } else { ["a", "b", "c"][cell / 40] };
        adata.obs.insert("batch", Column::categorical(&(0..120).map(batch).collect::<Vec<_>>())).unwrap();
    });
    let args = ["map", "reference", "cells.h5ad", "--batches", "c,lone", "--epochs", "2", "--out=mapped"];
    let output = bench.command(&[&args[..], &["--format", "json"]].concat()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("n_empty_cells=1"), "{said}");
    let mapped: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&mapped["n_empty_cells"], &mapped["n_cells"]), (&1.into(), &40.into()));
    for key in ["local/query/c", "local/query/lone"] {
        assert!(mapped["conditions"][key]["elbo"].as_f64().unwrap().is_finite(), "{mapped}");
    }
    // A reference can hold such a batch, too.
    let mut train = TRAIN;
    train[3] = "a,lone";
    assert_eq!(bench.run_json(&[&train[..], &["--overwrite"]].concat())["n_cells"], 41);
    let said = bench.fail(1, &["train", "cells.h5ad", "--batches", "lone", "--epochs", "1", "--out", "x"]);
    assert!(said.contains("the training set has 1 cells, at least 2 are needed"), "{said}");
}

#[test]
fn a_condition_without_cells_is_refused_where_it_is_named_and_else_left_out() {
    let bench = Bench::with_reference();
    rewrite(&bench, |adata| {
        let codes = (0..120).map(|cell| cell / 40).collect();
        let names = Values::Str(["a", "b", "c", "nobody"].map(str::to_owned).to_vec());
        let batch = archipelago_anndata::Categorical::new(codes, names, false).unwrap();
        adata.obs.insert("batch", Column::Categorical(batch)).unwrap();
    });
    let mut args = MAP;
    args[4] = "c,nobody";
    assert!(bench.fail(1, &args).contains("has no batch `nobody`; there are: `a`, `b`, `c`"));
    let all = bench.run_json(&["map", "reference", "cells.h5ad", "--epochs", "1", "--out", "mapped"]);
    assert_eq!(all["conditions"].as_object().unwrap().len(), 3, "{all}");
}

#[test]
fn every_option_of_a_model_is_described_with_its_default() {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let shown = bench.run_json(&["models", "scanvi"])[0]["options"].clone();
    let option = |name: &str| shown.as_array().unwrap().iter().find(|option| option["name"] == name).unwrap().clone();
    assert_eq!(
        (&option("n_latent")["default"], &option("unlabeled_category")["default"]),
        (&10.into(), &"Unknown".into())
    );
    assert!(bench.run(&["models", "scvi"]).contains("use_observed_lib_size = true"));
}

#[test]
fn training_options_reach_the_training() {
    let bench = Bench::new();
    let further = [
        "--train-size",
        "0.5",
        "--validation-size",
        "0.4",
        "--optimizer",
        "adamw",
        "--n-steps-kl-warmup",
        "5",
        "--max-kl-weight",
        "0.5",
        "--early-stopping-patience",
        "1",
        "--early-stopping-min-delta",
        "1e9",
        "--reduce-lr-on-plateau",
        "--lr-patience",
        "1",
        "--dispersion",
        "gene-batch",
        "--deeply-inject-covariates",
    ];
    let mut train = TRAIN;
    train[5] = "9";
    // The first evaluation is the best so far; the second is no better by a billion, which ends it.
    assert_eq!(bench.run_json(&[&train[..], &further].concat())["epochs"], 2);
    for (flag, value, word) in [
        ("--validation-size", "1.5", "validation size"),
        ("--max-kl-weight", "-1", "largest KL weight"),
        ("--eps", "0", "Adam epsilon"),
    ] {
        let flag = format!("{flag}={value}");
        let said = bench.fail(2, &[&TRAIN[..], &[flag.as_str(), "--overwrite"]].concat());
        assert!(said.contains(word), "{said}");
    }
}
