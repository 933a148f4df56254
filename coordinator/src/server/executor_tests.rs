//! Tests of requests: what only the bytes of blobs can tell, and what the state machine answers.

use std::collections::BTreeMap;

use archipelago_common::{
    Base, BaseCard, BlobRef, Columns, DType, Layout, StateDict, TaskId, Tensor, Version, VersionId,
    record::{Submission, SubmittedCondition},
    state_dict::TensorSpec,
    task::SurgeryTask,
};

use super::*;
use crate::{
    blob::test_blobs::put,
    raft::node::Options,
    server::test_cluster::{LiveNode, TestCluster, wait_until},
};

/// A single node with a reference, an open task, and a site that holds its assignment.
struct Scene {
    _cluster: TestCluster,
    node: LiveNode,
    version: Version,
    task: TaskId,
    epoch: u64,
}

const NORTH: &str = "site/north";
const ANNA: &str = "operator/anna";

impl Scene {
    async fn new() -> Self {
        let (cluster, node) = TestCluster::single().await;
        let version = Version {
            base: put(node.executor.replicas().store(), &base().to_bytes().unwrap()),
            columns: BTreeMap::new(),
        };
        let mut scene = Self { _cluster: cluster, node, version, task: TaskId(0), epoch: 0 };
        scene.done(ANNA, Request::AddSite { site: "north".parse().unwrap() }).await;
        let publish = Request::PublishReference { name: "lung".parse().unwrap(), version: scene.version.clone() };
        scene.done(ANNA, publish).await;
        let task = SurgeryTask::new("lung".parse().unwrap(), scene.version.id(), Default::default());
        let Reply::Task(record) = scene.done(ANNA, Request::PublishTask(Box::new(task))).await else { panic!() };
        scene.task = record.id;
        scene.epoch = scene.claim().await;
        scene
    }

    async fn claim(&self) -> u64 {
        match self.done(NORTH, Request::Claim { task: self.task }).await {
            Reply::Assigned { epoch, .. } => epoch,
            reply => panic!("{reply:?}"),
        }
    }

    async fn ask(&self, who: &str, request: Request) -> Result<Reply, Refusal> {
        let key = RequestKey(rand::random());
        self.node.executor.execute(Arc::new(who.parse::<archipelago_common::Principal>().unwrap()), key, request).await
    }

    async fn done(&self, who: &str, request: Request) -> Reply {
        self.ask(who, request).await.unwrap()
    }

    fn put(&self, columns: &Columns) -> BlobRef {
        put(self.node.executor.replicas().store(), &columns.to_bytes())
    }

    /// Hands in columns for one condition.
    async fn submit(&self, key: &str, columns: BlobRef) -> Result<Reply, Refusal> {
        self.ask(NORTH, Request::Submit(self.submission(key, columns))).await
    }

    fn submission(&self, key: &str, columns: BlobRef) -> Submission {
        let condition = SubmittedCondition { columns, embeddings: None, metrics: None };
        let conditions = BTreeMap::from([(key.parse().unwrap(), condition)]);
        Submission { task: self.task, epoch: self.epoch, version: self.version.id(), conditions }
    }

    /// The last applied entry, after everything that was answered before.
    async fn applied(&self) -> u64 {
        self.node.executor.raft().barrier().await.unwrap()
    }

    async fn assert_nothing_was_merged(&self) {
        let Reply::Reference(record) = self.done(ANNA, Request::ShowReference { name: "lung".parse().unwrap() }).await
        else {
            panic!()
        };
        assert_eq!((record.current, record.lineage.len()), (self.version.id(), 1));
    }
}

fn base() -> Base {
    let spec = TensorSpec { dtype: DType::F32, shape: vec![2] };
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: "scvi".to_owned(),
        config: BTreeMap::new(),
        genes: vec!["LYZ".to_owned()],
        batch_key: "batch".to_owned(),
        labels_key: None,
        labels: vec![],
        layout: Layout::plain(BTreeMap::from([("w".to_owned(), spec)])),
        moves_embedding: true,
        training: BTreeMap::new(),
        recipe: None,
    };
    Base { card, tensors: StateDict::from_iter([("frozen".to_owned(), Tensor::from_f32(&[1], &[1.0]))]) }
}

fn columns(tensors: &[(&str, &[f32])]) -> Columns {
    let tensor = |(name, values): &(&str, &[f32])| ((*name).to_owned(), Tensor::from_f32(&[values.len()], values));
    Columns(tensors.iter().map(tensor).collect())
}

fn reason(result: Result<Reply, Refusal>) -> String {
    match result {
        Err(refusal) => refusal.to_string(),
        Ok(reply) => panic!("not refused: {reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_columns_are_accepted_and_merged() {
    let scene = Scene::new().await;
    let blob = scene.put(&columns(&[("w", &[1.0, 2.0])]));
    let accepted = scene.submit("north/pbmc/b1", blob).await.unwrap();
    let merged = scene.version.merged(&BTreeMap::from([("north/pbmc/b1".parse().unwrap(), blob)])).unwrap();
    assert_eq!(accepted, Reply::Accepted { version: Some(merged.id()) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_of_approximate_surgery_is_not_published() {
    let scene = Scene::new().await;
    let mut made = base();
    let (fact, value) = BaseCard::APPROXIMATE;
    made.card.training.insert(fact.to_owned(), value.into());
    let blob = put(scene.node.executor.replicas().store(), &made.to_bytes().unwrap());
    let version = Version { base: blob, columns: BTreeMap::new() };
    let publish = Request::PublishReference { name: "alone".parse().unwrap(), version };
    let reason = reason(scene.ask(ANNA, publish).await);
    assert!(reason.contains("approximate: upstream's rules"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_break_a_rule_are_refused_with_the_rule() {
    let scene = Scene::new().await;
    for (tensors, expected) in [
        (&[("w", &[1.0, 2.0][..]), ("frozen", &[0.5])][..], "tensor `frozen` does not belong to a condition"),
        (&[("w", &[f32::NAN, 0.0])], "NaN"),
        (&[("w", &[f32::INFINITY, 0.0])], "NaN or infinite"),
        (&[("w", &[1.0, 2.0, 3.0])], "F32[3], expected F32[2]"),
        (&[], "tensor `w` is missing"),
        (&[("w", &[9_999.0, 0.0])], "more than the task's bound"),
    ] {
        let blob = scene.put(&columns(tensors));
        let reason = reason(scene.submit("north/pbmc/b1", blob).await);
        assert!(reason.contains(expected) && reason.contains("north/pbmc/b1"), "{reason}");
    }
    scene.assert_nothing_was_merged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_columns_are_refused() {
    let scene = Scene::new().await;
    let store = scene.node.executor.replicas().store().clone();
    for bytes in [&b""[..], b"garbage", &[0xff; 64]] {
        let blob = put(&store, bytes);
        assert!(reason(scene.submit("north/pbmc/b1", blob).await).contains("north/pbmc/b1"));
    }
    scene.assert_nothing_was_merged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_site_are_refused() {
    let scene = Scene::new().await;
    let blob = scene.put(&columns(&[("w", &[1.0, 2.0])]));
    for key in ["south/pbmc/b1", "anna/ref/a"] {
        let refusal = scene.submit(key, blob).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Forbidden { .. }), "{refusal}");
    }
    scene.assert_nothing_was_merged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_epochs_other_versions_and_closed_tasks_are_refused_as_stale() {
    let scene = Scene::new().await;
    let blob = scene.put(&columns(&[("w", &[1.0, 2.0])]));
    let good = scene.submission("north/pbmc/b1", blob);
    let give_up = Request::GiveUp { task: scene.task, epoch: scene.epoch, reason: "restart".to_owned() };
    scene.done(NORTH, give_up).await;
    assert!(scene.claim().await > scene.epoch);
    let other = VersionId(archipelago_common::Digest::of(b"other"));
    for late in [good.clone(), Submission { epoch: scene.epoch + 1, version: other, ..good.clone() }] {
        let refusal = scene.ask(NORTH, Request::Submit(late)).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Stale { .. }), "{refusal}");
    }
    scene.done(ANNA, Request::CloseTask { task: scene.task }).await;
    let current = Submission { epoch: scene.epoch + 1, ..good };
    let refusal = scene.ask(NORTH, Request::Submit(current)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Stale { .. }), "{refusal}");
    scene.assert_nothing_was_merged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_gets_the_same_answer_and_leaves_one_record() {
    let scene = Scene::new().await;
    let blob = scene.put(&columns(&[("w", &[1.0, 2.0])]));
    let first = scene.submit("north/pbmc/b1", blob).await.unwrap();
    let applied = scene.applied().await;
    assert_eq!(scene.submit("north/pbmc/b1", blob).await.unwrap(), first);
    let Reply::Reference(record) = scene.done(ANNA, Request::ShowReference { name: "lung".parse().unwrap() }).await
    else {
        panic!()
    };
    assert_eq!(record.lineage.len(), 2);
    assert!(scene.applied().await > applied, "it went through the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_nowhere_are_named() {
    let scene = Scene::new().await;
    let missing = BlobRef::of(b"never uploaded");
    let refusal = scene.submit("north/pbmc/b1", missing).await.unwrap_err();
    assert_eq!(refusal, Refusal::MissingBlobs { blobs: vec![missing] });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_is_none_is_refused() {
    let scene = Scene::new().await;
    let store = scene.node.executor.replicas().store().clone();
    let publish = |version| Request::PublishReference { name: "kidney".parse().unwrap(), version };
    let no_base = Version { base: put(&store, b"no safetensors"), columns: BTreeMap::new() };
    assert!(reason(scene.ask(ANNA, publish(no_base)).await).contains("reference"));
    let blob = scene.put(&columns(&[("v", &[1.0])]));
    let columns = BTreeMap::from([("anna/ref/a".parse().unwrap(), blob)]);
    let odd_columns = Version { columns, ..scene.version.clone() };
    assert!(reason(scene.ask(ANNA, publish(odd_columns)).await).contains("`v` does not belong"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_slips_through_is_refused_where_the_command_is_applied() {
    let scene = Scene::new().await;
    let refusal = scene.ask(NORTH, Request::RevokeSite { site: "north".parse().unwrap() }).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Forbidden { .. }), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_that_come_too_often_stay_out_of_the_log() {
    let scene = Scene::new().await;
    let progress = archipelago_common::record::Progress { epochs_done: 1, epochs_planned: 2, loss: None };
    let renew = Request::Renew { task: scene.task, epoch: scene.epoch, progress };
    let applied = scene.applied().await;
    let Reply::Assigned { epoch, .. } = scene.done(NORTH, renew).await else { panic!() };
    assert_eq!((epoch, scene.applied().await), (scene.epoch, applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_over_lapses_by_itself() {
    let scene = Scene::new().await;
    let mut task = SurgeryTask::new("lung".parse().unwrap(), scene.version.id(), Default::default());
    task.lease_ms = archipelago_common::limits::SHORTEST_LEASE_MS;
    let Reply::Task(record) = scene.done(ANNA, Request::PublishTask(Box::new(task))).await else { panic!() };
    scene.done(NORTH, Request::Claim { task: record.id }).await;
    let ticker = tokio::spawn(crate::server::ticker::run(scene.node.executor.clone()));
    let raft = scene.node.executor.raft();
    let mut effects = raft.effects();
    // The tick that ends the lease announces the task anew.
    let announced = tokio::time::timeout(std::time::Duration::from_secs(10), effects.recv()).await.unwrap().unwrap();
    assert_eq!(announced, archipelago_cluster::Effect::AnnounceTasks);
    let state =
        raft.peek(move |cluster| cluster.task(record.id).unwrap().assignments.values().next().unwrap().state.clone());
    assert_eq!(state.await.unwrap(), archipelago_common::record::AssignmentState::Lapsed);
    ticker.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_carries_out_commands_and_without_a_majority_nobody_does() {
    let cluster = TestCluster::new(3, Options::default());
    let mut nodes = vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await];
    let leads = |node: &LiveNode| node.executor.raft().view().is_leader();
    wait_until("a leader", || nodes.iter().any(leads)).await;
    let leader = nodes.remove(nodes.iter().position(leads).unwrap());
    let request = || Request::AddSite { site: "north".parse().unwrap() };
    let ask = async |node: &LiveNode| {
        node.executor
            .execute(Arc::new(ANNA.parse::<archipelago_common::Principal>().unwrap()), RequestKey([1; 16]), request())
            .await
    };
    wait_until("the followers know the leader", || nodes.iter().all(|n| n.executor.raft().view().leader.is_some()))
        .await;
    let refusal = ask(&nodes[0]).await.unwrap_err();
    assert_eq!(refusal, Refusal::NotLeader { leader: Some(leader.executor.raft().view().node) });
    ask(&leader).await.unwrap();

    nodes.clear();
    let blob = put(leader.executor.replicas().store(), b"alone");
    let error = leader.executor.replicas().ensure_majority(blob).await.unwrap_err();
    assert!(matches!(error, crate::Error::NoMajority { found: 1, needed: 2, .. }), "{error}");
    let refusal = ask(&leader).await;
    assert!(matches!(refusal, Err(Refusal::NotLeader { .. })), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_is_caught_up_over_the_wire() {
    let options = Options { snapshot_every: 10, keep_entries: 1, ..Options::default() };
    let cluster = TestCluster::new(3, options);
    let nodes = [cluster.start(1).await, cluster.start(2).await];
    let leads = |node: &LiveNode| node.executor.raft().view().is_leader();
    wait_until("a leader", || nodes.iter().any(leads)).await;
    let leader = nodes.iter().find(|node| leads(node)).unwrap();
    for number in 0..30 {
        let site = format!("site-{number}").parse().unwrap();
        let who = Arc::new(ANNA.parse::<archipelago_common::Principal>().unwrap());
        leader.executor.execute(who, RequestKey(rand::random()), Request::AddSite { site }).await.unwrap();
    }
    let late = cluster.start(3).await;
    let applied = leader.executor.raft().view().applied;
    wait_until("the late node is there", || late.executor.raft().view().applied >= applied).await;
    let n_sites = late.executor.raft().peek(|cluster| cluster.sites().count()).await.unwrap();
    assert_eq!(n_sites, 30);
}
