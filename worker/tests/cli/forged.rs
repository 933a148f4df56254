//! Coordinators that lie, all of them: what they hand on is not what a publisher signed, and a real worker sees it.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use archipelago_common::{
    Base, BlobRef, Principal, TaskId, Version,
    reference_dir::ReferenceDir,
    signature::{Statement, Subject},
};
use archipelago_transport::{
    Credentials,
    ca::{Authority, Validity},
};

use super::{
    Bench, TRAIN,
    coordinator::{Coordinator, State},
    serve::start,
    site::{authority, write_site},
};

const ONCE: [&str; 4] = ["serve", "--config", "site.toml", "--once"];
const TASKS: [&str; 3] = ["tasks", "--config", "site.toml"];
/// What coordinators are told, whatever was found.
const TOLD: &str = "declined by the site: its reference or the task is not what its publisher signed, or older than what \
                    the site has used";

/// A site under coordinators that `alice` has published at.
struct Consortium {
    bench: Bench,
    authority: Authority,
    coordinator: Coordinator,
}

impl Consortium {
    fn new(unsigned: &str) -> Self {
        let bench = Bench::new();
        bench.run(&[&TRAIN[..], &["--owner", "alice"]].concat());
        let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
        let coordinator = Coordinator::start(&authority, &reference, |_| {});
        coordinator.state().remembers = true;
        write_site(&bench, &authority, "site/north", &coordinator.address);
        let policy = format!("trusted_operators = [\"alice\"]\n[tasks]\nunsigned = \"{unsigned}\"\n");
        std::fs::write(bench.path("policy.toml"), policy).unwrap();
        let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
        std::fs::write(bench.path("site.toml"), format!("policy = \"policy.toml\"\n{config}")).unwrap();
        let consortium = Self { bench, authority, coordinator };
        sign_reference(&mut consortium.coordinator.state(), &consortium.alice(), minutes_ago(50));
        sign_task(&mut consortium.coordinator.state(), &consortium.alice(), minutes_ago(40));
        consortium
    }

    fn alice(&self) -> Credentials {
        credentials(&self.authority, "operator/alice")
    }

    /// Offers a task under a number that was not used, signed so long ago.
    fn offer(&self, id: u64, signed_ms: u64) {
        let mut state = self.coordinator.state();
        state.task.id = TaskId(id);
        state.task.assignments.clear();
        state.given_up = None;
        sign_task(&mut state, &self.alice(), signed_ms);
    }

    /// Runs a worker that must decline all there is; what it says.
    fn declines(&self) -> String {
        let n_uploaded = self.coordinator.state().uploaded.len();
        let said = self.bench.fail(1, &ONCE);
        assert_eq!(self.coordinator.state().given_up.as_deref(), Some(TOLD), "{said}");
        assert_eq!(self.coordinator.state().uploaded.len(), n_uploaded, "nothing leaves");
        said
    }
}

fn credentials(authority: &Authority, principal: &str) -> Credentials {
    let issued = authority.issue(&principal.parse::<Principal>().unwrap(), Validity::days(1)).unwrap();
    Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
}

/// Certificates of the tests hold since an hour ago.
fn minutes_ago(minutes: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - minutes * 60_000
}

fn sign_reference(state: &mut State, by: &Credentials, signed_ms: u64) {
    let name = state.reference.name.clone();
    let signature = by.sign(&Statement::of_reference(&name, state.version.id(), signed_ms)).unwrap();
    state.signatures.insert(Subject::Reference(name), signature);
}

fn sign_task(state: &mut State, by: &Credentials, signed_ms: u64) {
    let signature = by.sign(&Statement::of_task(&state.task.task, signed_ms).unwrap()).unwrap();
    let id = state.task.id;
    state.signatures.insert(Subject::Task(id), signature);
}

/// Columns of one key that are those of the other.
fn swap_columns(version: &mut Version) {
    let other = *version.columns.values().next_back().unwrap();
    *version.columns.values_mut().next().unwrap() = other;
}

/// What coordinators do, with the words in which a site declines it.
type Attack = (&'static str, fn(&mut State, &Consortium), &'static str);

const ATTACKS: [Attack; 9] = [
    (
        "a forged card",
        |state, _| {
            let mut base = Base::from_bytes(&state.bytes(state.reference.base)).unwrap();
            base.card.genes.reverse();
            let bytes = base.to_bytes().unwrap();
            state.reference.base = BlobRef::of(&bytes);
            state.version.base = state.reference.base;
            state.blobs.insert(state.reference.base, bytes);
        },
        "has another base, or other columns, than its id says",
    ),
    (
        "forged columns",
        |state, _| swap_columns(&mut state.version),
        "has another base, or other columns, than its id says",
    ),
    (
        "forged columns in a version with an id of its own",
        |state, consortium| {
            let first = state.version.clone();
            swap_columns(&mut state.version);
            (state.task.task.version, state.reference.current) = (state.version.id(), state.version.id());
            state.earlier.push(first);
            // Who publishes the task does not look into the version.
            sign_task(state, &consortium.alice(), minutes_ago(30));
        },
        "columns of `alice/atlas/a` are not those of version",
    ),
    (
        "a reference of another publisher",
        |state, consortium| {
            sign_reference(state, &credentials(&consortium.authority, "operator/mallory"), minutes_ago(50));
        },
        "is signed by `operator/mallory`, and said to be published by `alice`",
    ),
    (
        "a task of another publisher",
        |state, consortium| {
            sign_task(state, &credentials(&consortium.authority, "operator/mallory"), minutes_ago(40));
        },
        "is signed by `operator/mallory`, and said to be published by `alice`",
    ),
    (
        "a task that a coordinator signed in the publisher's name",
        |state, consortium| sign_task(state, &credentials(&consortium.authority, "coordinator/1"), minutes_ago(40)),
        "is signed by `coordinator/1`, and said to be published by `alice`",
    ),
    (
        "a publisher of another authority of the same name",
        |state, _| sign_reference(state, &credentials(&authority(), "operator/alice"), minutes_ago(50)),
        "its certificate was not signed by the authority of consortium `test`",
    ),
    ("a changed task", |state, _| state.task.task.train.epochs = Some(3), "task 1 is not what `alice` signed"),
    ("signatures that are gone", |state, _| state.signatures.clear(), "the policy takes nothing unsigned"),
];

#[test]
fn what_a_majority_of_coordinators_forges_is_declined_in_words() {
    let consortium = Consortium::new("refuse");
    let (honest, bench) = (Honest::of(&consortium.coordinator.state()), &consortium.bench);
    for (attack, change, words) in ATTACKS {
        honest.restore(&mut consortium.coordinator.state());
        change(&mut consortium.coordinator.state(), &consortium);
        let said = consortium.declines();
        assert!(said.contains(words), "{attack}: {said}");
        let seen = &bench.run_json(&TASKS)[0]["standing"];
        assert_eq!(seen["is"], "passed-over", "{attack}");
        assert!(seen["reason"].as_str().unwrap().contains(words), "{attack}: {seen}");
        let said = bench.fail(1, &["approve", "1", "--config", "site.toml"]);
        assert!(said.contains("cannot be approved") && said.contains(words), "{attack}: {said}");
    }
    honest.restore(&mut consortium.coordinator.state());
    let seen = &bench.run_json(&TASKS)[0];
    assert!(seen["signed"]["reference_ms"].is_u64() && seen["signed"]["task_ms"].is_u64(), "{seen}");
    bench.run(&ONCE);
    assert_eq!(consortium.coordinator.state().submissions.len(), 1, "what is signed is done");
}

/// What honest coordinators have.
struct Honest {
    reference: archipelago_common::record::ReferenceHead,
    version: Version,
    task: archipelago_common::record::TaskRecord,
    signatures: BTreeMap<Subject, archipelago_common::signature::Signature>,
}

impl Honest {
    fn of(state: &State) -> Self {
        let (reference, version) = (state.reference.clone(), state.version.clone());
        Self { reference, version, task: state.task.clone(), signatures: state.signatures.clone() }
    }

    fn restore(&self, state: &mut State) {
        (state.reference, state.version) = (self.reference.clone(), self.version.clone());
        (state.task, state.signatures) = (self.task.clone(), self.signatures.clone());
        state.earlier.clear();
        state.given_up = None;
    }
}

#[test]
fn nothing_older_than_what_was_used_comes_back_over_a_restart() {
    let consortium = Consortium::new("until-signed");
    let honest = Honest::of(&consortium.coordinator.state());
    let first = honest.version.clone();
    consortium.bench.run(&ONCE);
    // A version that grew by columns of another site; its task is signed later than the first.
    {
        let mut state = consortium.coordinator.state();
        let columns = *state.version.columns.values().next().unwrap();
        state.version.columns.insert("south/pbmc/x".parse().unwrap(), columns);
        state.task.task.version = state.version.id();
        state.earlier.push(first.clone());
    }
    consortium.offer(2, minutes_ago(20));
    consortium.bench.run(&ONCE);
    assert_eq!(consortium.coordinator.state().submissions.len(), 2);

    consortium.coordinator.state().task.task.version = first.id();
    consortium.offer(3, minutes_ago(30));
    let said = consortium.declines();
    assert!(said.contains("which is older than one that was used here"), "{said}");
    // Signed anew it is the publisher's own will.
    let signed_ms = minutes_ago(10);
    consortium.offer(4, signed_ms);
    consortium.bench.run(&ONCE);

    honest.restore(&mut consortium.coordinator.state());
    consortium.offer(5, signed_ms);
    let said = consortium.declines();
    assert!(said.contains("task 5 is task 4, which was taken here, once more"), "{said}");

    let mut other = first.clone();
    swap_columns(&mut other);
    {
        let mut state = consortium.coordinator.state();
        (state.task.task.version, state.version) = (other.id(), other);
        sign_reference(&mut state, &consortium.alice(), minutes_ago(55));
    }
    consortium.offer(6, minutes_ago(5));
    let said = consortium.declines();
    assert!(said.contains("was published so before one of this name that was used here"), "{said}");

    honest.restore(&mut consortium.coordinator.state());
    consortium.offer(7, minutes_ago(4));
    consortium.coordinator.state().signatures.clear();
    let said = consortium.declines();
    assert!(said.contains("is not signed, and `alice` signs what they publish"), "{said}");
}

#[test]
fn a_worker_that_declined_what_was_forged_serves_on() {
    let consortium = Consortium::new("until-signed");
    let honest = Honest::of(&consortium.coordinator.state());
    consortium.coordinator.state().task.task.train.epochs = Some(3);
    let mut worker = start(&consortium.bench, "is not what `alice` signed");
    consortium.coordinator.wait_until(|state| state.given_up.is_some());
    honest.restore(&mut consortium.coordinator.state());
    consortium.offer(2, minutes_ago(1));
    consortium.coordinator.wait_until(|state| !state.submissions.is_empty());
    worker.kill().unwrap();
    worker.wait().unwrap();
    let state = consortium.coordinator.state();
    assert_eq!((state.submissions.len(), state.submissions[0].task), (1, TaskId(2)));
}
