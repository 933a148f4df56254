//! The bytes of every message, kept in `testdata/v1`: what was written yesterday is read tomorrow.
//!
//! `UPDATE=1 cargo test -p archipelago-protocol --test golden` writes the files of new messages. A changed file is a
//! changed protocol: that needs a new version, not a new file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use archipelago_common::{
    ConditionKey, Digest, NodeId, SiteId, TaskId, Version, VersionId,
    blob::BlobRef,
    health::{Collected, HealthRecord, NodeState, OfNode},
    member::{Incarnation, MemberRecord, MemberRole, MemberStatus, MembersRecord, Origin},
    policy::EmbeddingRelease,
    record::{
        AssignmentHead, AssignmentRecord, AssignmentState, BaseSummary, Cause, Change, Event, Page, Progress,
        ReferenceHead, ReferenceRecord, SiteRecord, StatusRecord, Submission, SubmittedCondition, TaskHead, TaskRecord,
        TaskState, Why,
    },
    state_dict::{DType, TensorSpec},
    task::{
        Asks, Bound, ConditionMetrics, EarlyStopping, PublishMode, QualityGates, Stopping, SurgeryTask, TrainSpec,
        Warmup,
    },
};
use archipelago_protocol::{
    frame::{self, Message},
    message::{
        Chunk, FromCoordinator, GetReply, Greeting, Hello, Notice, PeerAsk, PeerReply, Presentation, PutReply, Refusal,
        Reply, Request, RequestKey, StreamOpen, ToCoordinator, Welcome, Which, Withdrawal,
    },
};
use proptest::prelude::*;

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let mut golden = Golden::default();
    stream_openings(&mut golden);
    requests(&mut golden);
    replies(&mut golden);
    refusals(&mut golden);
    others(&mut golden);
    golden.finish();
}

/// Compares messages with their files.
#[derive(Default)]
struct Golden {
    names: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Golden {
    fn check<M: Message + PartialEq + std::fmt::Debug>(&mut self, name: &str, message: &M) {
        assert!(self.names.insert(format!("{name}.bin")), "two messages are called {name}");
        let path = dir().join(name).with_extension("bin");
        let bytes = frame::encode(message).unwrap();
        assert_eq!(&frame::decode::<M>(&bytes).unwrap(), message, "{name} does not round trip");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        } else if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
            self.wrong.push(name.to_owned());
        }
    }

    fn finish(self) {
        assert_eq!(self.wrong, [""; 0], "these messages have other bytes than their files in testdata/v1");
        let files = std::fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(files.collect::<BTreeSet<_>>(), self.names, "files and messages are not the same");
    }
}

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

fn stream_openings(golden: &mut Golden) {
    let opens = [
        StreamOpen::Control(Hello { protocol: 1, software: "archipelago-worker 0.1.0".to_owned() }),
        StreamOpen::Put(blob("columns")),
        StreamOpen::Get { blob: blob("base"), from_chunk: 300 },
        StreamOpen::Raft,
        StreamOpen::Peer(PeerAsk::Barrier),
        StreamOpen::Peer(PeerAsk::Holdings),
        StreamOpen::Peer(PeerAsk::Health),
        StreamOpen::Peer(PeerAsk::Collect { dry_run: true }),
        StreamOpen::Peer(PeerAsk::Verify),
        StreamOpen::Peer(PeerAsk::Greet(greeting())),
        StreamOpen::Peer(PeerAsk::Vouch { node: node(4), incarnation: Incarnation(9) }),
        StreamOpen::Peer(PeerAsk::Clock),
        StreamOpen::Peer(PeerAsk::Marks),
        StreamOpen::Peer(PeerAsk::Present(presentation())),
        StreamOpen::RaftFrom { address: "10.0.0.4:7101".to_owned() },
        StreamOpen::Relay(blob("columns")),
    ];
    for open in opens {
        // The compiler asks for a line here, and with it for an example above, when there is a new variant.
        let name = match open {
            StreamOpen::Control(_) => "control",
            StreamOpen::Put(_) => "put",
            StreamOpen::Get { .. } => "get",
            StreamOpen::Raft => "raft",
            StreamOpen::RaftFrom { .. } => "raft-from",
            StreamOpen::Relay(_) => "relay",
            StreamOpen::Peer(PeerAsk::Barrier) => "peer-barrier",
            StreamOpen::Peer(PeerAsk::Holdings) => "peer-holdings",
            StreamOpen::Peer(PeerAsk::Health) => "peer-health",
            StreamOpen::Peer(PeerAsk::Collect { .. }) => "peer-collect",
            StreamOpen::Peer(PeerAsk::Verify) => "peer-verify",
            StreamOpen::Peer(PeerAsk::Greet(_)) => "peer-greet",
            StreamOpen::Peer(PeerAsk::Vouch { .. }) => "peer-vouch",
            StreamOpen::Peer(PeerAsk::Clock) => "peer-clock",
            StreamOpen::Peer(PeerAsk::Marks) => "peer-marks",
            StreamOpen::Peer(PeerAsk::Present(_)) => "peer-present",
        };
        golden.check(&format!("open-{name}"), &open);
    }
}

fn requests(golden: &mut Golden) {
    let (name, task) = ("lung-atlas".parse().unwrap(), TaskId(7));
    let site = || "charite".parse().unwrap();
    let withdraw = |what| Request::Withdraw { reference: "lung-atlas".parse().unwrap(), what };
    let requests = [
        Request::Status,
        Request::ListReferences,
        Request::ShowReference { name },
        Request::ListTasks,
        Request::ShowTask { task },
        Request::ListSites,
        Request::Claim { task },
        Request::Renew { task, epoch: 2, progress: progress() },
        Request::GiveUp { task, epoch: 2, reason: "out of disk".to_owned() },
        Request::Submit(submission()),
        withdraw(Withdrawal::Site(site())),
        withdraw(Withdrawal::Keys(vec![key()])),
        Request::AddSite { site: site() },
        Request::RevokeSite { site: site() },
        Request::PublishReference { name: "lung-atlas".parse().unwrap(), version: version() },
        Request::PublishTask(Box::new(surgery_task())),
        Request::CloseTask { task },
        Request::CancelTask { task },
        Request::ListMembers,
        Request::AddMember { node: node(4), address: "10.0.0.4:7101".to_owned() },
        Request::PromoteMember { node: node(4) },
        Request::RemoveMember { node: node(3) },
        Request::TransferLeadership { to: Some(node(2)) },
        Request::ShowHealth,
        Request::CollectBlobs { dry_run: true },
        Request::VerifyBlobs,
        Request::PublishGatedTask { task: Box::new(surgery_task()), gates: gates() },
        Request::ShowGates { task },
        Request::PublishTask(Box::new(asked_task())),
        Request::ListReferenceHeads { after: Some(reference().name) },
        Request::ShowReferenceHead { name: reference().name },
        Request::ListConditions {
            reference: reference().name,
            version: version().id(),
            owner: Some(site()),
            after: Some(key()),
        },
        Request::ListChanges { reference: reference().name, from: 300 },
        Request::ListChanged { reference: reference().name, change: 2, after: None },
        Request::ListTaskHeads { which: Which::Open, after: Some(task) },
        Request::ShowTaskHead { task },
        Request::ListAssignments { task, after: Some(site()) },
        Request::ListSubmitted { task, site: site(), after: Some(key()) },
        Request::ListSitesAfter { after: None },
        Request::PublishGatedTask { task: Box::new(surgery_task()), gates: gates_on_accuracy() },
        Request::Submit(submission_with_accuracy()),
        Request::Derive {
            reference: reference().name,
            version: version().id(),
            value: "totals".parse().unwrap(),
            result: blob("totals"),
        },
        Request::Submit(submission_with_parts()),
        Request::SetClock { now_ms: 1_700_000_000_000 },
        Request::PublishTask(Box::new(SurgeryTask { asks: Asks::Parts, ..surgery_task() })),
    ];
    for (id, body) in (1..).zip(requests) {
        let name = match &body {
            Request::Status => "status",
            Request::ListReferences => "list-references",
            Request::ShowReference { .. } => "show-reference",
            Request::ListTasks => "list-tasks",
            Request::ShowTask { .. } => "show-task",
            Request::ListSites => "list-sites",
            Request::Claim { .. } => "claim",
            Request::Renew { .. } => "renew",
            Request::GiveUp { .. } => "give-up",
            Request::Submit(submission) if *submission == submission_with_accuracy() => "submit-figures",
            Request::Submit(submission) if submission.conditions.len() > 1 => "submit-parts",
            Request::Submit(_) => "submit",
            Request::Withdraw { what: Withdrawal::Site(_), .. } => "withdraw-site",
            Request::Withdraw { what: Withdrawal::Keys(_), .. } => "withdraw-keys",
            Request::AddSite { .. } => "add-site",
            Request::RevokeSite { .. } => "revoke-site",
            Request::PublishReference { .. } => "publish-reference",
            Request::PublishTask(task) if task.asks != Asks::Both => "publish-task-parts",
            Request::PublishTask(task) if !task.train.is_in_first_layout() => "publish-task-asked",
            Request::PublishTask(_) => "publish-task",
            Request::CloseTask { .. } => "close-task",
            Request::CancelTask { .. } => "cancel-task",
            Request::ListMembers => "list-members",
            Request::AddMember { .. } => "add-member",
            Request::PromoteMember { .. } => "promote-member",
            Request::RemoveMember { .. } => "remove-member",
            Request::TransferLeadership { .. } => "transfer-leadership",
            Request::ShowHealth => "show-health",
            Request::CollectBlobs { .. } => "collect-blobs",
            Request::VerifyBlobs => "verify-blobs",
            Request::PublishGatedTask { gates, .. } if !gates.are_in_first_layout() => "publish-gated-task-figures",
            Request::PublishGatedTask { .. } => "publish-gated-task",
            Request::ShowGates { .. } => "show-gates",
            Request::ListReferenceHeads { .. } => "list-reference-heads",
            Request::ShowReferenceHead { .. } => "show-reference-head",
            Request::ListConditions { .. } => "list-conditions",
            Request::ListChanges { .. } => "list-changes",
            Request::ListChanged { .. } => "list-changed",
            Request::ListTaskHeads { .. } => "list-task-heads",
            Request::ShowTaskHead { .. } => "show-task-head",
            Request::ListAssignments { .. } => "list-assignments",
            Request::ListSubmitted { .. } => "list-submitted",
            Request::ListSitesAfter { .. } => "list-sites-after",
            Request::Derive { .. } => "derive",
            Request::SetClock { .. } => "set-clock",
        };
        let key = RequestKey([id as u8; 16]);
        golden.check(&format!("request-{name}"), &ToCoordinator::Request { id, key, body });
    }
    golden.check("ping", &ToCoordinator::Ping);
}

fn replies(golden: &mut Golden) {
    let site = SiteRecord { site: "charite".parse().unwrap(), enrolled_ms: 1_000, revoked_ms: Some(2_000) };
    let site_record = site.clone();
    let replies = [
        Reply::Status(status()),
        Reply::References(vec![reference()]),
        Reply::Reference(Box::new(reference())),
        Reply::Tasks(vec![task_record()]),
        Reply::Task(Box::new(task_record())),
        Reply::Sites(vec![site.clone()]),
        Reply::Site(site),
        Reply::Assigned { epoch: 3, lease_until_ms: 1_700_000_060_000 },
        Reply::Released,
        Reply::Accepted { version: Some(version().id()) },
        Reply::Members(MembersRecord { leader: Some(node(1)), members: vec![member()] }),
        Reply::Health(vec![OfNode { node: node(1), answer: Some(health()) }, OfNode { node: node(2), answer: None }]),
        Reply::Collected(vec![OfNode { node: node(1), answer: Some(collected()) }]),
        Reply::Gates(gates()),
        Reply::ReferenceHeads(Page { items: vec![reference_head()], more: true }),
        Reply::ReferenceHead(Box::new(reference_head())),
        Reply::Conditions(Page { items: vec![(key(), blob("columns"))], more: false }),
        Reply::Changes(changes()),
        Reply::TaskHeads(Page { items: vec![task_head()], more: true }),
        Reply::TaskHead(Box::new(task_head())),
        Reply::Assignments(assignments()),
        Reply::Submitted(Page { items: submission().conditions.into_iter().collect(), more: true }),
        Reply::SitePage(Page { items: vec![site_record], more: true }),
    ];
    for (id, reply) in (1..).zip(replies) {
        let name = match &reply {
            Reply::Status(_) => "status",
            Reply::References(_) => "references",
            Reply::Reference(_) => "reference",
            Reply::Tasks(_) => "tasks",
            Reply::Task(_) => "task",
            Reply::Sites(_) => "sites",
            Reply::Site(_) => "site",
            Reply::Assigned { .. } => "assigned",
            Reply::Released => "released",
            Reply::Accepted { .. } => "accepted",
            Reply::Members(_) => "members",
            Reply::Health(_) => "health",
            Reply::Collected(_) => "collected",
            Reply::Gates(_) => "gates",
            Reply::ReferenceHeads(_) => "reference-heads",
            Reply::ReferenceHead(_) => "reference-head",
            Reply::Conditions(_) => "conditions",
            Reply::Changes(_) => "changes",
            Reply::TaskHeads(_) => "task-heads",
            Reply::TaskHead(_) => "task-head",
            Reply::Assignments(_) => "assignments",
            Reply::Submitted(_) => "submitted",
            Reply::SitePage(_) => "site-page",
        };
        golden.check(&format!("reply-{name}"), &FromCoordinator::Response { id, result: Ok(reply) });
    }
}

fn refusals(golden: &mut Golden) {
    let reason = || "the version was superseded".to_owned();
    let refusals = [
        Refusal::NotLeader { leader: Some(node(2)) },
        Refusal::Busy { retry_after_ms: 50 },
        Refusal::Forbidden { reason: reason() },
        Refusal::NotFound { what: "task 7".to_owned() },
        Refusal::Invalid { reason: reason() },
        Refusal::Stale { reason: reason() },
        Refusal::Conflict { reason: reason() },
        Refusal::MissingBlobs { blobs: vec![blob("columns")] },
    ];
    for (id, refusal) in (1..).zip(refusals) {
        let name = match &refusal {
            Refusal::NotLeader { .. } => "not-leader",
            Refusal::Busy { .. } => "busy",
            Refusal::Forbidden { .. } => "forbidden",
            Refusal::NotFound { .. } => "not-found",
            Refusal::Invalid { .. } => "invalid",
            Refusal::Stale { .. } => "stale",
            Refusal::Conflict { .. } => "conflict",
            Refusal::MissingBlobs { .. } => "missing-blobs",
        };
        golden.check(&format!("refusal-{name}"), &FromCoordinator::Response { id, result: Err(refusal) });
    }
}

fn others(golden: &mut Golden) {
    golden.check("welcome", &FromCoordinator::Welcome(Welcome { protocol: 1, node: node(1), leader: Some(node(3)) }));
    golden.check("notice-tasks-changed", &FromCoordinator::Notice(Notice::TasksChanged));
    golden.check("notice-leader-changed", &FromCoordinator::Notice(Notice::LeaderChanged { leader: Some(node(2)) }));
    let reason = "shutting down".to_owned();
    golden.check("notice-closing", &FromCoordinator::Notice(Notice::Closing { reason }));
    let addresses = BTreeMap::from([(node(1), "10.0.0.1:7101".to_owned())]);
    golden.check("notice-members-changed", &FromCoordinator::Notice(Notice::MembersChanged { addresses }));
    golden.check("pong", &FromCoordinator::Pong);
    golden.check("peer-barrier", &PeerReply::Barrier { index: 1_000 });
    golden.check("peer-holdings", &PeerReply::Holdings { applied: 1_000, missing: 2 });
    golden.check("peer-health", &PeerReply::Health(health()));
    golden.check("peer-collected", &PeerReply::Collected(collected()));
    golden.check("peer-refused", &PeerReply::Refused(Refusal::NotLeader { leader: None }));
    golden.check("peer-greeting", &PeerReply::Greeting(greeting()));
    golden.check("peer-known", &PeerReply::Known);
    golden.check("peer-clock", &PeerReply::Clock { now_ms: 1_700_000_000_000 });
    golden.check("peer-presentation", &PeerReply::Presentation(presentation()));
    golden.check("peer-marks", &PeerReply::Marks(vec![(64, Digest::of(b"64"))]));
    golden.check("put-send", &PutReply::Send { from_chunk: 2 });
    golden.check("put-durable", &PutReply::Durable);
    golden.check("put-refused", &PutReply::Refused(Refusal::Busy { retry_after_ms: 50 }));
    golden.check("put-has", &PutReply::Has { n_chunks: 3 });
    golden.check("get-sending", &GetReply::Sending);
    golden.check("get-refused", &GetReply::Refused(Refusal::NotFound { what: "blob".to_owned() }));
    golden.check("get-sending-part", &GetReply::SendingPart { n_chunks: 3 });
    let bytes = b"one chunk".to_vec();
    golden.check("chunk", &Chunk { chunk_idx: 300, digest: Digest::of(&bytes), bytes });
}

fn presentation() -> Presentation {
    Presentation { greeting: greeting(), origin: Origin::Founded(Digest::of(b"founders")) }
}

fn greeting() -> Greeting {
    Greeting { incarnation: Incarnation(1 << 60), last_index: 300, edition: 2 }
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

fn blob(text: &str) -> BlobRef {
    BlobRef::of(text.as_bytes())
}

fn key() -> ConditionKey {
    "charite/lung/10x 5' v2".parse().unwrap()
}

fn version() -> Version {
    Version { base: blob("base"), columns: BTreeMap::from([(key(), blob("columns"))]) }
}

fn progress() -> Progress {
    Progress { epochs_done: 5, epochs_planned: 50, loss: Some(1_234.5) }
}

fn submission() -> Submission {
    let metrics = ConditionMetrics {
        n_cells: 3_000,
        epochs: 50,
        gene_coverage: 0.98,
        figures: [("elbo".to_owned(), -1_200.25), ("reconstruction".to_owned(), 1_150.5)].into(),
        training_ms: 12_000,
        deterministic: true,
    };
    let condition =
        SubmittedCondition { columns: blob("columns"), embeddings: Some(blob("means")), metrics: Some(metrics) };
    let conditions = BTreeMap::from([(key(), condition)]);
    Submission { task: TaskId(7), epoch: 2, version: VersionId(Digest::of(b"version")), conditions }
}

fn surgery_task() -> SurgeryTask {
    let train = TrainSpec {
        epochs: Some(50),
        minibatch: Some(128),
        learning_rate: Some(1e-3),
        adam_eps: Some(0.01),
        weight_decay: Some(0.0),
        kl_warmup: Some(Warmup::Epochs(400)),
        train_size: Some(0.9),
        early_stopping: Some(Stopping::After(EarlyStopping { patience: 10, min_delta: 0.5 })),
        ..TrainSpec::default()
    };
    let task = SurgeryTask::new("lung-atlas".parse().unwrap(), VersionId(Digest::of(b"version")), train);
    SurgeryTask {
        embeddings: EmbeddingRelease::LabelMeans { min_cells: 20, min_donors: 2 },
        publish: PublishMode::AtClose,
        allow: Some(BTreeSet::from(["charite".parse().unwrap()])),
        deadline_ms: Some(1_700_000_000_000),
        lease_ms: 60_000,
        ..task
    }
}

/// A task that leaves most to the model.
fn asked_task() -> SurgeryTask {
    let train = TrainSpec { kl_warmup: Some(Warmup::Steps(750)), seed: 3, ..TrainSpec::default() };
    SurgeryTask { train, ..surgery_task() }
}

/// A condition, a key of a further axis and the member of a part.
fn submission_with_parts() -> Submission {
    let bare = |name: &str| SubmittedCondition { columns: blob(name), embeddings: None, metrics: None };
    let further = ["charite/lung@donor/d1", "charite/lung+counts/10x"].map(|key| (key.parse().unwrap(), bare(key)));
    let mut submission = submission();
    submission.conditions.extend(further);
    submission
}

fn task_record() -> TaskRecord {
    let assignment = |state| AssignmentRecord { epoch: 2, state, lease_until_ms: 1_000, progress: Some(progress()) };
    let accepted = AssignmentState::Accepted { submission: submission(), at_ms: 900, version: None };
    let given_up = AssignmentState::GivenUp { reason: "out of disk".to_owned() };
    let states = [("a", AssignmentState::Assigned), ("b", AssignmentState::Lapsed), ("c", given_up), ("d", accepted)];
    TaskRecord {
        id: TaskId(7),
        task: surgery_task(),
        publisher: "anna".parse().unwrap(),
        published_ms: 500,
        state: TaskState::Open,
        assignments: states.map(|(site, state)| (site.parse().unwrap(), assignment(state))).into(),
    }
}

fn reference() -> ReferenceRecord {
    let version = version();
    let event = |cause| Event { version: version.id(), parent: None, cause, at_ms: 400 };
    ReferenceRecord {
        name: "lung-atlas".parse().unwrap(),
        publisher: "anna".parse().unwrap(),
        summary: BaseSummary {
            model: "scvi".to_owned(),
            n_genes: 2_000,
            columns: BTreeMap::from([("w".to_owned(), TensorSpec { dtype: DType::F32, shape: vec![128] })]),
            moves_embedding: true,
        },
        current: version.id(),
        lineage: vec![
            event(Cause::Published),
            event(Cause::Merged { task: TaskId(7), keys: vec![key()] }),
            event(Cause::Withdrawn { by: "charite".parse().unwrap(), keys: vec![key()] }),
        ],
        versions: BTreeMap::from([(version.id(), version.clone())]),
    }
}

fn reference_head() -> ReferenceHead {
    let ReferenceRecord { name, publisher, summary, current, .. } = reference();
    ReferenceHead { name, publisher, summary, base: blob("base"), current, n_conditions: 300, n_changes: 3 }
}

fn changes() -> Page<(Change, bool)> {
    let change = |why| {
        let columns = BTreeMap::from([(key(), blob("columns"))]);
        (Change { version: version().id(), why, at_ms: 400, columns }, false)
    };
    let by = "charite".parse().unwrap();
    let (value, function) = ("totals".parse().unwrap(), "sum-1".parse().unwrap());
    let derived = Why::Derived { by: "anna".parse().unwrap(), value, function, result: blob("totals") };
    let mut items =
        vec![change(Why::Published), change(Why::Merged { task: TaskId(7) }), change(Why::Withdrawn { by })];
    items.push((Change { columns: BTreeMap::new(), ..change(derived).0 }, false));
    Page { items, more: false }
}

fn assignments() -> Page<(SiteId, AssignmentHead)> {
    let assignments = task_record().assignments;
    Page { items: assignments.iter().map(|(site, a)| (site.clone(), AssignmentHead::from(a))).collect(), more: false }
}

fn task_head() -> TaskHead {
    let own = assignments().items.pop().map(|(_, assignment)| assignment);
    let TaskRecord { id, task, publisher, published_ms, state, .. } = task_record();
    TaskHead { id, task, publisher, published_ms, state, n_assigned: 300, n_accepted: 2, own }
}

fn status() -> StatusRecord {
    StatusRecord {
        node: node(1),
        leader: Some(node(3)),
        term: 4,
        applied: 1_000,
        voters: vec![node(1), node(2), node(3)],
        references: 2,
        sites: 3,
        open_tasks: 1,
        blobs: 12,
        blob_bytes: 1 << 30,
    }
}

fn gates() -> QualityGates {
    QualityGates { min_gene_coverage: 0.5, bounds: [("elbo".to_owned(), Bound::AtLeast(-2_000.0))].into() }
}

/// Gates on a figure that the first version did not know.
fn gates_on_accuracy() -> QualityGates {
    QualityGates { min_gene_coverage: 0.0, bounds: [("accuracy".to_owned(), Bound::AtLeast(0.75))].into() }
}

/// A submission of a model with figures of its own.
fn submission_with_accuracy() -> Submission {
    let mut submission = submission();
    for condition in submission.conditions.values_mut() {
        let metrics = condition.metrics.as_mut().unwrap();
        metrics.figures = [("accuracy".to_owned(), 0.875)].into();
    }
    submission
}

fn member() -> MemberStatus {
    let member = MemberRecord {
        node: node(4),
        address: "10.0.0.4:7101".to_owned(),
        role: MemberRole::Learner,
        added_ms: 1_000,
        removed_ms: None,
    };
    MemberStatus { member, is_settled: true, is_active: true, entries_behind: 7 }
}

fn health() -> HealthRecord {
    HealthRecord {
        node: node(1),
        state: NodeState::DiskLow,
        disk_free_bytes: Some(1 << 27),
        disk_reserve_bytes: 1 << 28,
        blobs_missing: 1,
        blobs_damaged: 2,
        reclaimed_bytes: 3,
        is_verifying: true,
        verified_ms: Some(1_000),
    }
}

fn collected() -> Collected {
    Collected { blobs: 2, bytes: 1 << 20, partials: 1 }
}

/// Decodes as every kind; any answer will do, but there must be one.
fn decode_as_everything(bytes: &[u8]) -> usize {
    [
        frame::decode::<StreamOpen>(bytes).is_ok(),
        frame::decode::<ToCoordinator>(bytes).is_ok(),
        frame::decode::<FromCoordinator>(bytes).is_ok(),
        frame::decode::<PutReply>(bytes).is_ok(),
        frame::decode::<PeerReply>(bytes).is_ok(),
        frame::decode::<GetReply>(bytes).is_ok(),
        frame::decode::<Chunk>(bytes).is_ok(),
    ]
    .into_iter()
    .filter(|is_ok| *is_ok)
    .count()
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_as_everything(&bytes);
        decode_as_everything(&[&[1], &bytes[..]].concat());
    }

    #[test]
    fn damaged_messages_are_errors_or_messages_and_never_a_panic(
        file in 0_usize..1_000, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut files: Vec<_> = std::fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut bytes = std::fs::read(&files[file % files.len()]).unwrap();
        prop_assert!(decode_as_everything(&bytes) >= 1);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        decode_as_everything(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decode_as_everything(&bytes);
    }
}
