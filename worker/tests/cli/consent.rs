//! A person at the site says yes or no to tasks, while a real worker waits.

use archipelago_common::{reference_dir::ReferenceDir, task::SurgeryTask};
use serde_json::{Value, json};

use super::{
    Bench,
    coordinator::Coordinator,
    serve::start,
    site::{authority, write_site},
};

const ONCE: [&str; 4] = ["serve", "--config", "site.toml", "--once"];
const ASK: &str = "[tasks]\napprove = \"ask\"\n";

fn set_up(policy: &str, task: impl FnOnce(&mut SurgeryTask)) -> (Bench, Coordinator) {
    let bench = Bench::with_reference();
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, task);
    coordinator.state().remembers = true;
    write_site(&bench, &authority, "site/north", &coordinator.address);
    write_policy(&bench, policy);
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    std::fs::write(bench.path("site.toml"), format!("policy = \"policy.toml\"\n{config}")).unwrap();
    (bench, coordinator)
}

fn write_policy(bench: &Bench, policy: &str) {
    std::fs::write(bench.path("policy.toml"), policy).unwrap();
}

fn at_site<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--config", "site.toml"]].concat()
}

/// The one task as the site sees it.
fn seen(bench: &Bench) -> Value {
    bench.run_json(&at_site(&["tasks"]))[0].clone()
}

fn decisions(bench: &Bench) -> Vec<Value> {
    let audit = bench.run_json(&["audit", "state/audit.jsonl"]);
    let entries = audit["entries"].as_array().unwrap().iter().map(|entry| entry["release"].clone());
    entries.filter(|release| release["kind"] == "decision").collect()
}

#[test]
fn a_task_waits_unclaimed_and_is_done_once_it_is_approved() {
    let (bench, coordinator) = set_up(ASK, |_| {});
    let worker = start(&bench, "waits for consent");
    let shown = seen(&bench);
    assert_eq!(
        (&shown["standing"]["is"], &shown["data"][0]["leaves"]["columns"]),
        (&json!("waits-for-consent"), &json!(true))
    );
    let cells = &shown["data"][0]["cells"][0];
    assert_eq!((&cells["condition"], &cells["n_cells"]), (&json!("north/pbmc/c"), &json!(40)));
    assert!(coordinator.state().task.assignments.is_empty(), "nothing is claimed before somebody consents");
    let text = bench.run(&at_site(&["tasks"]));
    assert!(
        text.contains("waits for consent") && text.contains("asked by   alice") && text.contains("40 cells"),
        "{text}"
    );

    let digest = shown["digest"].as_str().unwrap();
    let approved = bench.run_json(&at_site(&["approve", "1", "--offer", digest]));
    assert_eq!(approved["standing"]["is"], "approved");
    coordinator.wait_until(|state| !state.submissions.is_empty());
    let handed_in = coordinator.state().submissions[0].conditions.values().next().unwrap().columns;
    assert_eq!(
        cells["numbers"].as_u64().unwrap() as usize,
        numbers(&coordinator, handed_in),
        "what left is what was shown"
    );
    stop(worker);
    assert_eq!(seen(&bench)["standing"]["is"], "done");
    let [decision] = &decisions(&bench)[..] else { panic!("one decision is acted on") };
    assert_eq!((&decision["digest"], &decision["task"]), (&shown["digest"], &json!(1)));
}

fn numbers(coordinator: &Coordinator, columns: archipelago_common::BlobRef) -> usize {
    coordinator.state().columns(columns).0.iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum()
}

#[test]
fn a_worker_for_one_task_ends_where_it_waits_and_says_what_to_do() {
    let (bench, coordinator) = set_up(ASK, |_| {});
    let said = bench.fail(1, &ONCE);
    assert!(said.contains("task 1 waits for the consent of a person") && said.contains("approve 1"), "{said}");
    assert!(coordinator.state().task.assignments.is_empty());
    bench.run(&at_site(&["approve", "1"]));
    bench.run(&ONCE);
    assert_eq!(coordinator.state().submissions.len(), 1);
}

#[test]
fn a_declined_task_goes_back_with_the_word_and_nothing_else() {
    let (bench, coordinator) = set_up(ASK, |_| {});
    let declined = bench.run_json(&at_site(&["decline", "1", "--because", "purpose"]));
    assert_eq!(declined["standing"], json!({"is": "declined", "because": "purpose"}));
    let said = bench.fail(1, &ONCE);
    assert!(said.contains("declined by a person at this site"), "{said}");
    let told = coordinator.state().given_up.clone().unwrap();
    assert_eq!(told, "declined by a person at the site: what its cells may be used for does not cover the task");
    assert!(coordinator.state().uploaded.is_empty());
    assert_eq!(decisions(&bench)[0]["size"], told.len());
    assert_eq!(bench.run_json(&["audit", "state/audit.jsonl"])["n_entries"], 1);
    // Another start says it again to nobody.
    bench.fail(1, &ONCE);
    assert_eq!(decisions(&bench).len(), 1);
    assert_eq!(seen(&bench)["standing"]["is"], "declined");
    // Who changes their mind is heard.
    bench.run(&at_site(&["approve", "1"]));
    bench.run(&ONCE);
    assert_eq!(coordinator.state().submissions.len(), 1);
}

#[test]
fn a_no_is_heard_where_nobody_is_asked() {
    let (bench, coordinator) = set_up("", |_| {});
    assert_eq!(seen(&bench)["standing"]["is"], "ready");
    bench.run(&at_site(&["decline", "1", "--because", "later"]));
    bench.fail(1, &ONCE);
    assert!(coordinator.state().given_up.as_ref().unwrap().ends_with("not at this time"));
}

#[test]
fn a_task_at_work_is_stopped_by_a_no_and_taken_up_again_by_a_yes() {
    let (bench, coordinator) = set_up(ASK, |task| task.train.epochs = Some(1_000_000));
    std::fs::write(bench.path("policy.toml"), format!("{ASK}max_travel_per_cell = 1e9\n")).unwrap();
    bench.run(&at_site(&["approve", "1"]));
    let worker = start(&bench, "claimed");
    coordinator.wait_until(|state| state.n_renewals > 0);
    bench.run(&at_site(&["decline", "1", "--because", "release"]));
    coordinator.wait_until(|state| state.given_up.is_some());
    assert!(coordinator.state().given_up.as_ref().unwrap().ends_with("more would leave than it wants to give"));
    coordinator.state().task.task.train.epochs = Some(2);
    bench.run(&at_site(&["approve", "1"]));
    coordinator.wait_until(|state| !state.submissions.is_empty());
    stop(worker);
}

#[test]
fn what_changes_after_it_was_shown_is_asked_again() {
    let (bench, coordinator) = set_up(ASK, |_| {});
    let check_asked_again = |what: &str| {
        assert_eq!(seen(&bench)["standing"]["is"], "changed", "{what}");
        assert!(bench.fail(1, &ONCE).contains("waits for the consent"), "{what}");
        assert!(coordinator.state().task.assignments.is_empty(), "{what}");
    };
    bench.run(&at_site(&["approve", "1"]));
    coordinator.state().task.task.train.epochs = Some(3);
    check_asked_again("the task");
    bench.run(&at_site(&["approve", "1"]));
    coordinator.state().task.publisher = "mallory".parse().unwrap();
    check_asked_again("the publisher");
    bench.run(&at_site(&["approve", "1"]));
    write_policy(&bench, &format!("embeddings = \"full\"\n{ASK}"));
    coordinator.state().task.task.embeddings = archipelago_common::policy::EmbeddingRelease::Full;
    check_asked_again("what leaves");
    bench.run(&at_site(&["approve", "1"]));
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    std::fs::write(bench.path("site.toml"), config.replace("[\"c\"]", "[\"b\", \"c\"]")).unwrap();
    check_asked_again("the cells");
    bench.run(&at_site(&["approve", "1"]));
    coordinator.state().reference.base.size += 1;
    check_asked_again("the reference");
}

#[test]
fn another_offer_or_task_than_there_is_cannot_be_approved() {
    let (bench, coordinator) = set_up(ASK, |_| {});
    let digest = seen(&bench)["digest"].as_str().unwrap().to_owned();
    coordinator.state().task.task.min_cells = 2;
    let said = bench.fail(1, &at_site(&["approve", "1", "--offer", &digest]));
    assert!(said.contains("is not what was shown") && said.contains(&digest), "{said}");
    assert!(
        bench.fail(1, &at_site(&["decline", "7", "--because", "cells"])).contains("no task 7 is open for this site")
    );
    let said = bench.fail(2, &at_site(&["decline", "1", "--because", "bored"]));
    assert!(said.contains("purpose") && said.contains("publisher"), "{said}");
    assert!(!bench.path("state/decisions").exists());
}

#[test]
fn what_coordinators_say_of_a_reference_is_compared_with_its_card() {
    let (bench, coordinator) = set_up("", |_| {});
    coordinator.state().reference.summary.columns.clear();
    let worker = start(&bench, "is not what the coordinators say of it");
    coordinator.wait_until(|state| state.given_up.is_some());
    stop(worker);
    assert_eq!(coordinator.state().given_up.as_deref(), Some("the reference cannot be read or does not verify"));
    assert_eq!(coordinator.state().submissions.len(), 0);
}

fn stop(mut worker: std::process::Child) {
    worker.kill().unwrap();
    worker.wait().unwrap();
}
