//! Every question, asked of a state that is as full as it gets: each answer fits into a frame, and none makes more on its way
//! there than a page is worth.

use std::{
    collections::BTreeMap,
    io::Write as _,
    time::{Duration, Instant},
};

use archipelago_cluster::{Body, Command, Outcome, Room, Selection};
use archipelago_common::{
    BlobRef, ConditionKey, DType, SiteId, Version, VersionId,
    record::{BaseSummary, Submission, SubmittedCondition},
    state_dict::TensorSpec,
    task::{ConditionMetrics, SurgeryTask, TrainSpec},
};
use archipelago_protocol::{
    frame,
    message::{FromCoordinator, RequestKey},
};

use super::*;
use crate::server::course::{self, Step};

/// A state under construction.
struct Scene {
    cluster: Cluster,
    n_asked: u64,
}

impl Scene {
    fn ask(&mut self, who: &str, body: Body) -> Outcome {
        self.n_asked += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.n_asked.to_le_bytes());
        let command = Command { key, principal: who.parse().unwrap(), now_ms: 1_000, body };
        self.cluster.apply(&command).outcome.unwrap()
    }

    fn current(&self) -> VersionId {
        self.cluster.reference(&name()).unwrap().current()
    }

    fn publish_task(&mut self) -> TaskId {
        let task = SurgeryTask::new(name(), self.current(), TrainSpec::default());
        match self.ask("operator/anna", Body::PublishTask(Box::new(task))) {
            Outcome::Task(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// A site takes a task and hands in so many conditions.
    fn hand_in(&mut self, task: TaskId, site_idx: usize, n_conditions: usize) {
        let who = format!("site/{}", site(site_idx));
        self.ask(&who, Body::Claim { task });
        let condition = |batch: usize| {
            let columns = BlobRef::of(format!("{task} {site_idx} {batch}").as_bytes());
            let metrics = Some(ConditionMetrics {
                n_cells: 1_000,
                epochs: 100,
                gene_coverage: 1.0,
                figures: [("elbo".to_owned(), -500.0), ("reconstruction".to_owned(), 480.0)].into(),
                training_ms: 1_000,
                deterministic: true,
            });
            // As long as a key may be.
            let batch = format!("{task} {batch} {}", "x".repeat(100));
            let key = ConditionKey::new(site(site_idx), "d".repeat(63).parse().unwrap(), batch).unwrap();
            (key, SubmittedCondition { columns, embeddings: Some(columns), metrics })
        };
        let version = self.cluster.task(task).unwrap().task.version;
        let conditions = (0..n_conditions).map(condition).collect();
        self.ask(&who, Body::Submit(Submission { task, epoch: 1, version, conditions }));
    }
}

fn name() -> Name {
    "atlas".parse().unwrap()
}

fn site(site_idx: usize) -> SiteId {
    format!("site-{site_idx:0>50}").parse().unwrap()
}

/// 65,536 conditions, 1,000 sites, some thousand versions, the longest keys there are.
fn full() -> Scene {
    let mut scene = Scene { cluster: Cluster::founded(), n_asked: 0 };
    let columns = BTreeMap::from([("w".to_owned(), TensorSpec { dtype: DType::F32, shape: vec![8] })]);
    let summary = BaseSummary { model: "scvi".to_owned(), n_genes: 2_000, columns, moves_embedding: true };
    let first = ("anna/d/x".parse().unwrap(), BlobRef::of(b"r"));
    let version = Version { base: BlobRef::of(b"base"), columns: [first].into() };
    scene.ask("operator/anna", Body::PublishReference { name: name(), version, summary: Box::new(summary) });
    for site_idx in 0..SITES {
        scene.ask("operator/anna", Body::AddSite { site: site(site_idx) });
    }
    for _ in 0..2 {
        let task = scene.publish_task_with_embeddings();
        (0..SITES).for_each(|site_idx| scene.hand_in(task, site_idx, 1));
    }
    let task = scene.publish_task_with_embeddings();
    let left = limits::CONDITIONS - 1 - 2 * SITES;
    for site_idx in 0..left.div_ceil(limits::SUBMITTED_CONDITIONS) {
        let n_conditions = limits::SUBMITTED_CONDITIONS.min(left - site_idx * limits::SUBMITTED_CONDITIONS);
        scene.hand_in(task, site_idx, n_conditions);
    }
    // One long withdrawal, so that there is a long change of each kind.
    let selection = Selection::Site(site(0));
    scene.ask("operator/anna", Body::Withdraw { reference: name(), selection });
    for _ in 0..limits::OPEN_TASKS - 3 {
        scene.publish_task();
    }
    scene
}

impl Scene {
    fn publish_task_with_embeddings(&mut self) -> TaskId {
        let mut task = SurgeryTask::new(name(), self.current(), TrainSpec::default());
        task.embeddings = archipelago_common::policy::EmbeddingRelease::Full;
        match self.ask("operator/anna", Body::PublishTask(Box::new(task))) {
            Outcome::Task(id) => id,
            other => panic!("{other:?}"),
        }
    }
}

/// What a piece of work takes: values that are made, the bytes of them, and the time.
struct Work {
    n_made: u64,
    n_bytes: u64,
    took: Duration,
}

impl Work {
    fn of<R>(work: impl FnOnce() -> R) -> (Self, R) {
        let (begun, mut result) = (Instant::now(), None);
        let made = archipelago_fuzz::allocated(|| result = Some(work()));
        let work = Self { n_made: made.count_total, n_bytes: made.bytes_total, took: begun.elapsed() };
        (work, result.unwrap())
    }

    /// Work is counted, because a time depends on who else is at work; the time is printed.
    fn assert_small(&self, what: &str) {
        let Self { n_made, n_bytes, took } = self;
        assert!(*n_made <= MOST_MADE, "{what} makes {n_made} values");
        assert!(*n_bytes <= MOST_BYTES, "{what} makes {n_bytes} bytes");
        let _ = writeln!(std::io::stderr(), "{what}: {n_made} values, {n_bytes} bytes, {took:.2?}");
    }
}

#[test]
fn every_answer_about_a_full_state_fits_into_a_frame_and_holds_nobody_up() {
    let scene = full();
    let cluster = &scene.cluster;
    assert_eq!(
        cluster.reference(&name()).unwrap().columns().len() + limits::SUBMITTED_CONDITIONS + 2,
        limits::CONDITIONS
    );
    let (reference, first) = (name(), cluster.reference(&name()).unwrap().changes()[0].version);
    let (current, task) = (scene.current(), TaskId(3));
    let last = cluster.reference(&name()).unwrap().changes().len() as u64 - 1;
    let middle = cluster.reference(&name()).unwrap().changes()[1_500].version;
    let key = || cluster.reference(&name()).unwrap().columns().keys().nth(30_000).cloned();
    let questions = [
        Request::ListReferences,
        Request::ShowReference { name: name() },
        Request::ListTasks,
        Request::ShowTask { task },
        Request::ListSites,
        Request::ListReferenceHeads { after: None },
        Request::ShowReferenceHead { name: name() },
        Request::ListConditions { reference: name(), version: current, owner: None, after: None },
        Request::ListConditions { reference: name(), version: current, owner: None, after: key() },
        Request::ListConditions { reference: name(), version: middle, owner: None, after: key() },
        Request::ListConditions { reference: name(), version: first, owner: None, after: None },
        Request::ListConditions { reference: name(), version: current, owner: Some(site(7)), after: None },
        Request::ListChanges { reference: name(), from: 0 },
        Request::ListChanges { reference: name(), from: last - 5 },
        Request::ListChanged { reference: name(), change: last, after: None },
        Request::ListTaskHeads { which: message::Which::All, after: None },
        Request::ListTaskHeads { which: message::Which::Open, after: None },
        Request::ShowTaskHead { task },
        Request::ListAssignments { task: TaskId(1), after: None },
        Request::ListSubmitted { task, site: site(1), after: None },
        Request::ListSitesAfter { after: None },
        Request::ShowGates { task },
    ];
    let peers = ["operator/anna".to_owned(), format!("site/{}", site(1)), "auditor/eve".to_owned()];
    let mut n_answered = 0;
    for who in &peers {
        for question in &questions {
            let who: Principal = who.parse().unwrap();
            let answer = || match course::begin(who.clone(), RequestKey([1; 16]), question.clone(), Room::default()) {
                Step::Read(look) => match look(cluster, 1_000) {
                    Step::Done(answer) => answer,
                    _ => panic!("{question:?} is not answered by one look"),
                },
                _ => panic!("{question:?} is no question"),
            };
            let (work, result) = Work::of(answer);
            work.assert_small(&format!("{question:?} of {who}"));
            n_answered += usize::from(result.is_ok());
            let frame = frame::encode(&FromCoordinator::Response { id: 1, result });
            let bytes = frame.unwrap_or_else(|error| panic!("{question:?} of {who}: {error}")).len();
            assert!(bytes < limits::FRAME_BYTES, "{question:?} of {who} has {bytes} bytes");
        }
    }
    assert!(n_answered > 2 * questions.len(), "{n_answered} questions were answered");
    // What a command has changed is told in few words, and where the blobs are is found at once.
    for told in [changed_reference(cluster, &reference), changed_task(cluster, &peers[0].parse().unwrap(), task)] {
        frame::encode(&FromCoordinator::Response { id: 1, result: told }).unwrap();
    }
    let (work, ()) = Work::of(|| {
        assert!(cluster.may_fetch(&peers[1].parse().unwrap(), &BlobRef::of(b"base").digest));
        assert!(!cluster.may_fetch(&peers[1].parse().unwrap(), &BlobRef::of(b"nothing").digest));
        assert!(cluster.stored_bytes(&site(1)) > 0 && cluster.named_blobs(None).len() == limits::PAGE_ITEMS);
    });
    work.assert_small("looking for blobs");
    // It is restored, and is the same, with work that grows as the state does.
    let bytes = cluster.snapshot().unwrap();
    let (work, restored) = Work::of(|| Cluster::restore(&bytes).unwrap());
    assert!(restored == *cluster, "the restored state is another");
    assert!(work.n_bytes < 32 * bytes.len() as u64, "{} bytes are made of {}", work.n_bytes, bytes.len());
    let _ = writeln!(std::io::stderr(), "{} bytes restored in {:.2?}", bytes.len(), work.took);
}

/// Values that an answer may make: the items of a page, each with all its parts.
const MOST_MADE: u64 = 16 * limits::PAGE_ITEMS as u64;
/// Bytes of all that an answer may make on its way to a frame.
const MOST_BYTES: u64 = limits::FRAME_BYTES as u64;
/// Sites of the test.
const SITES: usize = 1_000;
