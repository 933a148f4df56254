//! The largest state that the limits allow: one reference of 16,384 changes and 65,533 conditions, by 1,000 sites. Prints
//! what it takes: `FULL=1 cargo nextest run --release -p archipelago-coordinator --no-capture scale`. Without `FULL` an eighth
//! of the history is made, because making it takes minutes where restoring it takes seconds: the id of every version is a
//! digest of all that is in it.

use std::{collections::BTreeMap, io::Write as _, time::Instant};

use archipelago_cluster::{Body, Cluster, Command, Outcome};
use archipelago_common::{
    BlobRef, ConditionKey, DType, TaskId, Version, VersionId, limits,
    record::{BaseSummary, Submission, SubmittedCondition},
    state_dict::TensorSpec,
    task::{SurgeryTask, TrainSpec},
};

struct Scene {
    cluster: Cluster,
    n_asked: u64,
}

impl Scene {
    fn ask(&mut self, who: &str, body: Body) -> Outcome {
        self.n_asked += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.n_asked.to_le_bytes());
        self.cluster.apply(&Command { key, principal: who.parse().unwrap(), now_ms: 1_000, body }).outcome.unwrap()
    }

    fn current(&self) -> VersionId {
        self.cluster.reference(&"atlas".parse().unwrap()).unwrap().current()
    }

    fn publish_task(&mut self) -> TaskId {
        let task = SurgeryTask::new("atlas".parse().unwrap(), self.current(), TrainSpec::default());
        match self.ask("operator/anna", Body::PublishTask(Box::new(task))) {
            Outcome::Task(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn hand_in(&mut self, task: TaskId, site: usize) {
        let who = format!("site/s{site}");
        self.ask(&who, Body::Claim { task });
        let condition = |batch: usize| {
            let key: ConditionKey = format!("s{site}/pbmc/{task}-{batch}").parse().unwrap();
            let columns = BlobRef::of(format!("{key}").as_bytes());
            (key, SubmittedCondition { columns, embeddings: None, metrics: None })
        };
        let version = self.cluster.task(task).unwrap().task.version;
        let conditions = (0..CONDITIONS_EACH).map(condition).collect();
        self.ask(&who, Body::Submit(Submission { task, epoch: 1, version, conditions }));
    }
}

#[test]
fn the_largest_state_is_restored_as_it_was() {
    let begun = Instant::now();
    let mut scene = Scene { cluster: Cluster::founded(), n_asked: 0 };
    let columns = BTreeMap::from([("w".to_owned(), TensorSpec { dtype: DType::F32, shape: vec![8] })]);
    let summary = BaseSummary { model: "scvi".to_owned(), n_genes: 2_000, columns, moves_embedding: true };
    let first = ("anna/d/x".parse().unwrap(), BlobRef::of(b"r"));
    let version = Version { base: BlobRef::of(b"base"), columns: [first].into() };
    let name = "atlas".parse().unwrap();
    scene.ask("operator/anna", Body::PublishReference { name, version, summary: Box::new(summary) });
    for site in 0..SITES {
        scene.ask("operator/anna", Body::AddSite { site: format!("s{site}").parse().unwrap() });
    }
    let most = if std::env::var_os("FULL").is_some() { limits::LINEAGE } else { limits::LINEAGE / 8 };
    let mut n_versions = 1;
    while n_versions < most {
        let task = scene.publish_task();
        for site in 0..SITES.min(most - n_versions) {
            scene.hand_in(task, site);
            n_versions += 1;
        }
    }
    let built = begun.elapsed();
    let reference = scene.cluster.reference(&"atlas".parse().unwrap()).unwrap();
    assert_eq!(reference.changes().len(), most);
    assert_eq!(reference.columns().len(), 1 + CONDITIONS_EACH * (most - 1));
    let took = |begun: Instant| begun.elapsed();
    let begun = Instant::now();
    let snapshot = scene.cluster.snapshot().unwrap();
    let written = took(begun);
    let begun = Instant::now();
    let restored = Cluster::restore(&snapshot).unwrap();
    let read = took(begun);
    assert_eq!(restored, scene.cluster);
    let begun = Instant::now();
    let oldest = reference.version(reference.changes()[most / 2].version).unwrap();
    let found = took(begun);
    assert!(oldest.columns.len() > CONDITIONS_EACH);
    let _ = writeln!(
        std::io::stderr(),
        "{} conditions in {} versions of {SITES} sites: {} commands in {built:.1?}, a snapshot of {:.1} MB written in \
         {written:.2?}, restored in {read:.2?}; a version from the middle found in {found:.2?}",
        reference.columns().len(),
        reference.changes().len(),
        scene.n_asked,
        snapshot.len() as f64 / 1e6,
    );
    assert!(snapshot.len() < 64 << 20, "{} bytes", snapshot.len());
}

const SITES: usize = 1_000;
const CONDITIONS_EACH: usize = 4;
