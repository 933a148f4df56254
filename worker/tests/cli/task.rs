//! A worker and its tasks: what arrives, what is written at the site, what a restart or a lapsed lease changes.

use std::process::{Command, Stdio};

use archipelago_anndata::AnnData;
use archipelago_common::{
    policy::EmbeddingRelease,
    record::Submission,
    reference_dir::ReferenceDir,
    task::{Asks, SurgeryTask},
};

use super::{
    Bench,
    coordinator::Coordinator,
    read_json,
    site::{authority, write_site},
};

const ONCE: [&str; 4] = ["serve", "--config", "site.toml", "--once"];

fn set_up(task: impl FnOnce(&mut SurgeryTask)) -> (Bench, Coordinator) {
    offer(Bench::with_reference(), task)
}

/// The same with a reference that maps by the means of cell types.
fn set_up_scgen(task: impl FnOnce(&mut SurgeryTask)) -> (Bench, Coordinator) {
    let bench = Bench::new();
    bench.run(&["preprocess", "cells.h5ad", "--normalize", "--out", "logged.h5ad"]);
    std::fs::rename(bench.path("logged.h5ad"), bench.path("cells.h5ad")).unwrap();
    let train = ["train", "cells.h5ad", "--model", "scgen", "--batches", "a,b", "--labels-key", "cell_type"];
    let small = ["--hidden-layer-sizes", "8", "--z-dimension", "3", "--epochs", "2", "--out", "reference"];
    bench.run(&[&train[..], &small].concat());
    offer(bench, task)
}

fn offer(bench: Bench, task: impl FnOnce(&mut SurgeryTask)) -> (Bench, Coordinator) {
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, task);
    write_site(&bench, &authority, "site/north", &coordinator.address);
    (bench, coordinator)
}

fn with_policy(bench: &Bench, policy: &str) {
    std::fs::write(bench.path("policy.toml"), policy).unwrap();
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    let labels = config.replace("dataset =", "labels_key = \"cell_type\"\ndataset =");
    std::fs::write(bench.path("site.toml"), format!("policy = \"policy.toml\"\n{labels}")).unwrap();
}

/// Digests of the columns that a submission hands in, by key.
fn columns(submission: &Submission) -> Vec<(String, String)> {
    let each = submission.conditions.iter();
    each.map(|(key, condition)| (key.to_string(), condition.columns.digest.to_string())).collect()
}

#[test]
fn a_task_is_done_and_everything_that_left_is_in_the_log() {
    let (bench, coordinator) = set_up(|_| {});
    bench.run(&ONCE);
    let state = coordinator.state();
    let [submission] = &state.submissions[..] else { panic!("{} submissions", state.submissions.len()) };
    assert_eq!(submission.conditions.keys().map(ToString::to_string).collect::<Vec<_>>(), ["north/pbmc/c"]);
    assert!(state.n_renewals > 0, "the first epoch is reported at once");
    let audit = bench.run_json(&["audit", "state/audit.jsonl"]);
    let logged: Vec<&str> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["release"]["kind"] == "columns")
        .map(|entry| entry["release"]["digest"].as_str().unwrap())
        .collect();
    assert_eq!(logged, state.uploaded.iter().map(|blob| blob.digest.to_string()).collect::<Vec<_>>());
    assert_eq!(audit["bytes_by_kind"]["columns"], state.uploaded[0].size);
    // Nothing came after it: what was handed in was anchored before.
    assert_eq!(state.begun_anew, 0);
    let anchored = (state.anchored.n_records, state.anchored.head.to_string());
    assert_eq!((Some(anchored.0), Some(anchored.1.as_str())), (audit["n_entries"].as_u64(), audit["head"].as_str()));
    let summary = read_json(&bench.path("results/task-1/summary.json"));
    assert_eq!(summary["bytes_out"]["columns"], state.uploaded[0].size);
    let mapped = AnnData::read(bench.path("results/task-1/mapped.h5ad")).unwrap();
    assert_eq!(mapped.n_obs(), 40);
    assert!(mapped.obsm("X_archipelago").is_ok());
}

#[test]
fn a_worker_that_was_killed_hands_in_the_same_columns() {
    let (bench, coordinator) = set_up(|task| task.train.epochs = Some(40));
    let mut first = Command::new(env!("CARGO_BIN_EXE_archipelago-worker"))
        .args(ONCE)
        .current_dir(bench.path("."))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    coordinator.wait_until(|state| state.n_renewals > 0);
    first.kill().unwrap();
    first.wait().unwrap();
    bench.run(&ONCE);
    // Another site directory that was never interrupted.
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    bench.run(&ONCE);
    let state = coordinator.state();
    let handed_in: Vec<_> = state.submissions.iter().map(columns).collect();
    assert!(handed_in.len() >= 2 && handed_in.iter().all(|c| *c == handed_in[0]), "{handed_in:?}");
}

#[test]
fn a_worker_without_memory_for_counts_hands_in_the_same_columns() {
    let (bench, coordinator) = set_up(|_| {});
    bench.run(&ONCE);
    let [state, config] = ["state", "site.toml"].map(|name| bench.path(name));
    std::fs::remove_dir_all(state).unwrap();
    let small = format!("memory = \"0B\"\nscratch = \"scratch\"\n{}", std::fs::read_to_string(&config).unwrap());
    std::fs::write(config, small).unwrap();
    let output = bench.command(&[&ONCE[..], &["--verbose"]].concat()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && log.contains("of counts are in scratch files"), "{log}");
    assert_eq!(std::fs::read_dir(bench.path("scratch")).unwrap().count(), 0);
    let state = coordinator.state();
    assert_eq!(columns(&state.submissions[0]), columns(&state.submissions[1]));
}

#[test]
fn a_finished_condition_is_not_trained_again() {
    let (bench, coordinator) = set_up(|_| {});
    bench.run(&ONCE);
    let output = bench.command(&[&ONCE[..], &["--verbose"]].concat()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && log.contains("taken from its checkpoint"), "{log}");
    assert!(!log.contains("fetching the reference"), "{log}");
    let state = coordinator.state();
    assert_eq!(columns(&state.submissions[0]), columns(&state.submissions[1]));
}

#[test]
fn a_damaged_checkpoint_is_discarded_with_a_warning() {
    let (bench, coordinator) = set_up(|_| {});
    bench.run(&ONCE);
    for entry in std::fs::read_dir(bench.path("state/checkpoints")).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    let output = bench.command(&ONCE).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && log.contains("a checkpoint is damaged and discarded"), "{log}");
    let state = coordinator.state();
    assert_eq!(columns(&state.submissions[0]), columns(&state.submissions[1]));
}

#[test]
fn a_damaged_reference_in_the_cache_is_fetched_again() {
    let (bench, _coordinator) = set_up(|_| {});
    bench.run(&ONCE);
    for entry in std::fs::read_dir(bench.path("state/blobs")).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    let output = bench.command(&ONCE).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && log.contains("fetching the reference"), "{log}");
}

#[test]
fn a_worker_that_died_before_the_answer_learns_that_it_was_accepted() {
    let (bench, coordinator) = set_up(|_| {});
    coordinator.state().remembers = true;
    bench.run(&ONCE);
    let path = bench.path("results/task-1/summary.json");
    let mut summary = read_json(&path);
    assert_eq!(summary["accepted"], true);
    // As it stands when the worker dies between handing in and hearing back.
    summary["accepted"] = false.into();
    std::fs::write(&path, summary.to_string()).unwrap();
    bench.run(&ONCE);
    assert_eq!(read_json(&path)["accepted"], true);
    assert_eq!(coordinator.state().submissions.len(), 1);
}

#[test]
fn a_lapsed_lease_is_claimed_again_and_the_same_columns_handed_in() {
    let (bench, coordinator) = set_up(|_| {});
    coordinator.state().lapses = 1;
    bench.run(&ONCE);
    let state = coordinator.state();
    let [late, accepted] = &state.submissions[..] else { panic!("{} submissions", state.submissions.len()) };
    assert_eq!((late.epoch, accepted.epoch), (1, 2));
    assert_eq!(columns(late), columns(accepted));
}

#[test]
fn label_means_leave_where_task_and_policy_agree() {
    let (bench, coordinator) = set_up(|task| task.embeddings = EmbeddingRelease::Full);
    let means = "embeddings = { label-means = { min_cells = 2, min_donors = 0 } }\n";
    with_policy(&bench, &format!("{means}metrics = false\nnew_labels = true\n"));
    bench.run(&ONCE);
    let state = coordinator.state();
    let condition = state.submissions[0].conditions.values().next().unwrap();
    assert!(condition.embeddings.is_some() && condition.metrics.is_none());
    let bytes = &bench.run_json(&["audit", "state/audit.jsonl"])["bytes_by_kind"];
    assert!(bytes["label-means"].as_u64() > Some(0));
    assert_eq!((&bytes["embeddings"], &bytes["metrics"]), (&0.into(), &0.into()));
}

#[test]
fn a_site_maps_by_what_the_reference_holds_and_hands_in_what_its_cells_add_up_to() {
    let (bench, coordinator) = set_up_scgen(|_| {});
    with_policy(&bench, "parts = { min_cells = 2 }\n");
    bench.run(&ONCE);
    let state = coordinator.state();
    let keys: Vec<String> = columns(&state.submissions[0]).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["north/pbmc/c", "north/pbmc+label-means/c"]);
    let bytes = &bench.run_json(&["audit", "state/audit.jsonl"])["bytes_by_kind"];
    assert!(bytes["parts"].as_u64() > Some(0), "{bytes}");
    // Without a coordinator: the same member, the same places, which are not where the encoder puts the cells.
    bench.run(&["map", "reference", "cells.h5ad", "--batches", "c", "--out", "mapped"]);
    let files = &read_json(&bench.path("mapped/version.json"))["columns"];
    assert_eq!(files["local/query+label-means/c"]["digest"], columns(&state.submissions[0])[1].1.as_str());
    bench.run(&["latent", "mapped", "cells.h5ad", "--batches", "c", "--out", "latent.h5ad"]);
    let places = |file: &str| AnnData::read(bench.path(file)).unwrap().obsm("X_archipelago").unwrap().clone();
    let at_site = places("results/task-1/mapped.h5ad");
    assert_eq!(at_site, places("mapped/mapped.h5ad"));
    assert_ne!(at_site, places("latent.h5ad"));
    bench.run(&["latent", "mapped", "cells.h5ad", "--batches", "c", "--place", "mapped", "--out", "placed.h5ad"]);
    assert_eq!(at_site, places("placed.h5ad"));
}

#[test]
fn a_task_that_asks_for_parts_gets_nothing_else() {
    let (bench, coordinator) = set_up_scgen(|task| task.asks = Asks::Parts);
    with_policy(&bench, "columns = false\nparts = { min_cells = 2 }\n");
    bench.run(&ONCE);
    let state = coordinator.state();
    let keys: Vec<String> = columns(&state.submissions[0]).into_iter().map(|(key, _)| key).collect();
    assert_eq!((keys, state.uploaded.len()), (vec!["north/pbmc+label-means/c".to_owned()], 1));
}

#[test]
fn a_site_with_nothing_to_hand_in_returns_the_task() {
    let (bench, coordinator) = set_up_scgen(|_| {});
    with_policy(&bench, "parts = { min_cells = 41 }\n");
    check_given_up(
        &bench,
        &coordinator,
        "no batch of the site is new to the reference, large enough and allowed to leave",
    );
}

#[test]
fn cells_without_types_cannot_be_mapped_by_them() {
    let (bench, coordinator) = set_up_scgen(|_| {});
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    adata.obs.remove("cell_type");
    adata.write(bench.path("cells.h5ad"), archipelago_anndata::Compression::None).unwrap();
    let said = bench.fail(1, &["map", "reference", "cells.h5ad", "--batches", "c", "--out", "mapped"]);
    assert!(said.contains("the model takes `labels`, which the data lack") && said.contains("--labels-key"), "{said}");
    std::fs::write(bench.path("policy.toml"), "parts = { min_cells = 2 }\n").unwrap();
    check_given_up(&bench, &coordinator, "the site's data cannot be used");
    let said = bench.fail(1, &ONCE);
    assert!(said.contains("which the data lack"), "who was to do one task ends where it cannot be done: {said}");
}

#[test]
fn a_task_that_cannot_be_served_is_returned_with_a_reason_that_tells_nothing() {
    let (bench, coordinator) = set_up(|_| {});
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    adata.var = archipelago_anndata::DataFrame::new((0..60).map(|i| format!("ENSG{i}")));
    adata.write(bench.path("cells.h5ad"), archipelago_anndata::Compression::None).unwrap();
    check_given_up(&bench, &coordinator, "the site's data and the reference's panel share no gene");
}

#[test]
fn conditions_that_are_too_small_stay_at_home() {
    let (bench, coordinator) = set_up(|_| {});
    with_policy(&bench, "min_cells = 41\n");
    check_given_up(
        &bench,
        &coordinator,
        "no batch of the site is new to the reference, large enough and allowed to leave",
    );
}

#[track_caller]
fn check_given_up(bench: &Bench, coordinator: &Coordinator, reason: &str) {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_archipelago-worker"))
        .args(["serve", "--config", "site.toml"])
        .current_dir(bench.path("."))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    coordinator.wait_until(|state| state.given_up.is_some());
    worker.kill().unwrap();
    worker.wait().unwrap();
    let state = coordinator.state();
    assert_eq!(state.given_up.as_deref(), Some(reason));
    assert!(state.uploaded.is_empty() && state.submissions.is_empty());
}
