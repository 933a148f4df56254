//! Cells with several condition keys, from files to what leaves a site.

use archipelago_anndata::AnnData;
use archipelago_common::{check, reference_dir::ReferenceDir};
use archipelago_models::layout_of;

use super::{
    Bench,
    coordinator::Coordinator,
    read_json,
    site::{authority, write_site},
};

/// A reference of batches `a` and `b`, whose second condition key are cell types: names that mean the same at every site.
fn bench() -> Bench {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let sizes = ["--n-cells", "60", "--n-genes", "50", "--n-types", "3", "--out", "cells.h5ad"];
    bench.run(&[&["generate", "--batches", "a,b,c"], &sizes[..]].concat());
    bench.run(&["subset", "cells.h5ad", "--obs", "batch=a,b", "--out", "ab.h5ad"]);
    bench.run(&["subset", "cells.h5ad", "--obs", "batch=c", "--out", "c.h5ad"]);
    let keys = ["--condition-keys", "batch,cell_type", "--common-condition-keys", "cell_type"];
    let small = ["--hidden-layer-sizes", "8", "--latent-dim", "3", "--embedding-dims", "4", "--epochs", "3"];
    bench.run(&[&["train", "ab.h5ad", "--model", "scpoli", "--out", "reference"], &keys[..], &small[..]].concat());
    bench
}

fn keys(conditions: &serde_json::Value) -> Vec<&str> {
    conditions.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn batches_that_share_a_key_are_mapped_together_and_found_again() {
    let bench = bench();
    let shown = bench.run(&["inspect", "reference"]);
    for expected in
        ["axis        axis `batch`", "axis        axis `cell_type`", "  shared    type-01, type-02, type-03"]
    {
        assert!(shown.contains(expected), "{shown}");
    }
    let mapped = bench.run_json(&["map", "reference", "c.h5ad", "--epochs", "2", "--out", "mapped"]);
    let conditions = ["local/query/c_type-01", "local/query/c_type-02", "local/query/c_type-03"];
    assert_eq!(keys(&mapped["conditions"]), conditions);
    let grown = ReferenceDir::open(&bench.path("mapped")).unwrap().columns().unwrap();
    let new: Vec<String> =
        grown.keys().filter(|key| key.owner().as_str() == "local").map(ToString::to_string).collect();
    assert_eq!(new, [&conditions[..], &["local/query@batch/c"]].concat());

    bench.run(&["latent", "mapped", "c.h5ad", "--owner", "local", "--dataset", "query", "--out", "latent.h5ad"]);
    let positions = |file: &str| {
        let adata = AnnData::read(bench.path(file)).unwrap();
        adata.obsm("X_archipelago").unwrap().to_table("X_archipelago").unwrap().values
    };
    assert_eq!(positions("latent.h5ad"), positions("mapped/mapped.h5ad"));
    bench.run(&["report", "mapped", "--out", "page.html"]);
    let page = std::fs::read_to_string(bench.path("page.html")).unwrap();
    let rows = [
        "batch</th><td class=\"n\">c</td><td class=\"n\">2</td>",
        "cell_type</th><td class=\"n\">none</td><td class=\"n\">3</td>",
    ];
    assert!(rows.iter().all(|row| page.contains(row)), "{}", page.split("Condition keys").nth(1).unwrap());
    let again = bench.fail(1, &["map", "mapped", "c.h5ad", "--epochs", "2", "--out", "again"]);
    assert!(again.contains("local/query/c_type-01"), "{again}");
    bench.run(&["map", "reference", "c.h5ad", "--surgery", "upstream", "--epochs", "2", "--out", "compared"]);
}

#[test]
fn a_site_hands_in_a_key_of_every_axis_that_is_its_own_and_none_that_it_shares() {
    let bench = bench();
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, |task| task.min_cells = 12);
    write_site(&bench, &authority, "site/north", &coordinator.address);
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    let config = config.replace("cells.h5ad", "c.h5ad").replace("batches = [\"c\"]\n", "");
    std::fs::write(bench.path("policy.toml"), "may_read = [\"cell_type\"]\n").unwrap();
    std::fs::write(bench.path("site.toml"), format!("policy = \"policy.toml\"\n{config}")).unwrap();
    bench.run(&["serve", "--config", "site.toml", "--once"]);

    let summary = read_json(&bench.path("results/task-1/summary.json"));
    let (mapped, withheld) = (keys(&summary["conditions"]), keys(&summary["withheld"]));
    assert_eq!(mapped.len() + withheld.len(), 3, "each type of `c` is a condition: {summary}");
    let state = coordinator.state();
    let [submission] = &state.submissions[..] else { panic!("{} submissions", state.submissions.len()) };
    let handed_in: Vec<String> = submission.conditions.keys().map(ToString::to_string).collect();
    let expected: Vec<&str> = mapped.iter().copied().chain(["north/pbmc@batch/c"]).collect();
    assert_eq!(handed_in, expected);
    let layout = layout_of(&reference.base().unwrap()).unwrap();
    for (key, condition) in &submission.conditions {
        let columns = state.columns(condition.columns);
        check::columns(key, &columns, &layout, 1_000.0).unwrap();
        assert_eq!(condition.metrics.is_some(), mapped.contains(&key.to_string().as_str()), "{key}");
    }
    let audit = bench.run_json(&["audit", "state/audit.jsonl"]);
    let logged = audit["entries"].as_array().unwrap().iter().filter(|entry| entry["release"]["kind"] == "columns");
    let logged: Vec<&str> = logged.map(|entry| entry["release"]["condition"].as_str().unwrap()).collect();
    assert_eq!(logged, expected, "every key is in the log by itself");
}

#[test]
fn what_does_not_fit_the_keys_is_refused_in_words() {
    let bench = bench();
    let refused = |code, more: &[&str]| {
        bench.fail(code, &[&["map", "reference", "c.h5ad", "--epochs", "1", "--out", "refused"], more].concat())
    };
    let lacking = refused(2, &["--field", "batch=obs/plate"]);
    assert!(lacking.contains("no obs column `plate`, where the condition key `batch` should be"), "{lacking}");
    assert!(lacking.contains("--field batch=obs/COLUMN"), "{lacking}");
    let mixed = refused(1, &["--field", "batch=obs/cell_type", "--field", "cell_type=obs/batch"]);
    assert!(mixed.contains("look mixed up"), "{mixed}");
    let shot = refused(1, &["--surgery", "shot"]);
    assert!(shot.contains("a condition of the reference is made of several keys"), "{shot}");
    let one = refused(2, &["--batch-key", "batch"]);
    assert!(one.contains("the condition keys `batch`, `cell_type` name the batches"), "{one}");
}
