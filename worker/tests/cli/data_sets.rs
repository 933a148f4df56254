//! One worker, several data sets, each under a policy of its own.

use std::collections::BTreeSet;

use archipelago_common::{policy::EmbeddingRelease, reference_dir::ReferenceDir, task::SurgeryTask};
use serde_json::{Value, json};

use super::{
    Bench,
    coordinator::Coordinator,
    read_json,
    site::{authority, write_site},
};

const ONCE: [&str; 4] = ["serve", "--config", "site.toml", "--once"];

/// A site with batches `c`, `a` and `b` as the data sets `pbmc`, `lung` and `liver`, the last two under these policies.
fn set_up(lung: &str, liver: &str, task: impl FnOnce(&mut SurgeryTask)) -> (Bench, Coordinator) {
    let bench = Bench::with_reference();
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, task);
    write_site(&bench, &authority, "site/north", &coordinator.address);
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap().replace("[data]", "[[data]]");
    let data_set = |name: &str, batch: &str| {
        format!(
            "[[data]]\npath = \"cells.h5ad\"\ndataset = \"{name}\"\nbatches = [\"{batch}\"]\npolicy = \"{name}.toml\"\n"
        )
    };
    std::fs::write(bench.path("site.toml"), config + &data_set("lung", "a") + &data_set("liver", "b")).unwrap();
    std::fs::write(bench.path("lung.toml"), lung).unwrap();
    std::fs::write(bench.path("liver.toml"), liver).unwrap();
    (bench, coordinator)
}

fn at_site(bench: &Bench, command: &str) -> Value {
    bench.run_json(&[command, "--config", "site.toml"])
}

/// What a person is shown would leave of a data set.
fn leaves(shown: &Value, dataset: &str) -> Value {
    let data = shown["data"].as_array().unwrap();
    data.iter().find(|data| data["dataset"] == dataset).map_or(Value::Null, |data| data["leaves"].clone())
}

#[test]
fn each_data_set_leaves_by_its_own_policy_and_all_are_handed_in_together() {
    let (bench, coordinator) = set_up("embeddings = \"full\"", "metrics = false", |task| {
        task.embeddings = EmbeddingRelease::Full;
    });
    let shown = at_site(&bench, "tasks")[0].clone();
    assert_eq!(leaves(&shown, "pbmc")["embeddings"], json!("none"));
    assert_eq!(leaves(&shown, "lung")["embeddings"], json!("full"));
    assert_eq!(leaves(&shown, "liver")["metrics"], json!(false));
    bench.run(&ONCE);
    let state = coordinator.state();
    let [submission] = &state.submissions[..] else { panic!("{} submissions", state.submissions.len()) };
    let left = submission.conditions.iter();
    let left: Vec<_> =
        left.map(|(key, one)| (key.to_string(), one.embeddings.is_some(), one.metrics.is_some())).collect();
    let expected = [("north/liver/b", false, false), ("north/lung/a", true, true), ("north/pbmc/c", false, true)];
    assert_eq!(left, expected.map(|(key, embeddings, metrics)| (key.to_owned(), embeddings, metrics)));
    for (dataset, key) in [("pbmc", "north/pbmc/c"), ("lung", "north/lung/a"), ("liver", "north/liver/b")] {
        let summary = read_json(&bench.path(&format!("results/task-1/{dataset}/summary.json")));
        assert_eq!(summary["accepted"], json!(true));
        assert!(summary["conditions"][key].is_object() && summary["conditions"].as_object().unwrap().len() == 1);
        assert_eq!(summary["bytes_out"]["embeddings"] == json!(0), dataset != "lung");
        assert!(bench.path(&format!("results/task-1/{dataset}/mapped.h5ad")).exists());
    }
    // Under which policy something left is on record.
    let audit = bench.run_json(&["audit", "state/audit.jsonl"]);
    let columns = audit["entries"].as_array().unwrap().iter().map(|entry| &entry["release"]);
    let policies: BTreeSet<_> =
        columns.filter(|release| release["kind"] == "columns").map(|release| release["policy"].to_string()).collect();
    assert_eq!(policies.len(), 3);
    assert_eq!(at_site(&bench, "names")["keys"].as_object().unwrap().len(), 3);
}

#[test]
fn a_data_set_whose_policy_wants_no_part_in_it_is_left_out() {
    let too_large = "[tasks]\nmax_hidden = 2\n";
    let (bench, coordinator) = set_up("trusted_operators = [\"bob\"]", too_large, |_| {});
    let shown = at_site(&bench, "tasks")[0].clone();
    assert_eq!(leaves(&shown, "lung"), Value::Null, "a person is shown what takes part");
    bench.run(&ONCE);
    let keys: Vec<_> = coordinator.state().submissions[0].conditions.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["north/pbmc/c"]);
    assert!(bench.path("results/task-1/pbmc/mapped.h5ad").exists() && !bench.path("results/task-1/liver").exists());
}

#[test]
fn the_strictest_says_whether_a_person_is_asked() {
    let (bench, coordinator) = set_up("[tasks]\napprove = \"ask\"\n", "", |_| {});
    let said = bench.fail(1, &ONCE);
    assert!(said.contains("task 1 waits for the consent of a person"), "{said}");
    assert!(coordinator.state().task.assignments.is_empty());
    bench.run(&["approve", "1", "--config", "site.toml"]);
    bench.run(&ONCE);
    assert_eq!(coordinator.state().submissions[0].conditions.len(), 3);
}

#[test]
fn what_is_wrong_with_one_data_set_returns_the_task_and_the_doctor_names_it() {
    let (bench, coordinator) = set_up("", "", |_| {});
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    std::fs::copy(bench.path("cells.h5ad"), bench.path("lung.h5ad")).unwrap();
    let elsewhere =
        config.replacen("path = \"cells.h5ad\"\ndataset = \"lung\"", "path = \"lung.h5ad\"\ndataset = \"lung\"", 1);
    std::fs::write(bench.path("site.toml"), elsewhere.replace("batches = [\"a\"]", "batches = [\"z\"]")).unwrap();
    let said = bench.fail(1, &ONCE);
    assert!(said.contains("has no batch `z`"), "{said}");
    assert!(coordinator.state().submissions.is_empty());
    let output = bench.command(&["doctor", "--config", "site.toml"]).output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(
        found.contains("cells, lung") && found.contains("has no batch `z`") && found.contains("policy, pbmc"),
        "{found}"
    );
}
