//! One of each: what the messages of the test hold.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    ConditionKey, Digest, Fingerprint, NodeId, Role, SiteId, TaskId, Version, VersionId,
    act::{self, Anchor, Anchored, Erasure},
    blob::BlobRef,
    contact::SiteContact,
    enrolment::{CertifiedKey, EnrolmentRecord, EnrolmentState},
    health::{Collected, HealthRecord, NodeState},
    member::{Incarnation, MemberRecord, MemberRole, MemberStatus, Origin},
    policy::EmbeddingRelease,
    proposal::{Act, Proposal, ProposalState},
    record::{
        AssignmentHead, AssignmentRecord, AssignmentState, BaseSummary, Cause, Change, Event, Page, Progress,
        ReferenceHead, ReferenceRecord, StatusRecord, Submission, SubmittedCondition, TaskHead, TaskRecord, TaskState,
        Why,
    },
    signature::Signature,
    standing::{Revocation, Standing},
    state_dict::{DType, TensorSpec},
    task::{
        Bound, ConditionMetrics, EarlyStopping, PublishMode, QualityGates, Stopping, SurgeryTask, TrainSpec, Warmup,
    },
};
use archipelago_protocol::message::{Greeting, Presentation};

pub(crate) fn presentation() -> Presentation {
    Presentation { greeting: greeting(), origin: Origin::Founded(Digest::of(b"founders")) }
}

pub(crate) fn greeting() -> Greeting {
    Greeting { incarnation: Incarnation(1 << 60), last_index: 300, edition: 2 }
}

pub(crate) fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn blob(text: &str) -> BlobRef {
    BlobRef::of(text.as_bytes())
}

pub(crate) fn key() -> ConditionKey {
    "charite/lung/10x 5' v2".parse().unwrap()
}

pub(crate) fn version() -> Version {
    Version { base: blob("base"), columns: BTreeMap::from([(key(), blob("columns"))]) }
}

pub(crate) fn progress() -> Progress {
    Progress { epochs_done: 5, epochs_planned: 50, loss: Some(1_234.5) }
}

pub(crate) fn submission() -> Submission {
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

pub(crate) fn surgery_task() -> SurgeryTask {
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

pub(crate) fn signature() -> Signature {
    Signature {
        of: version().id().0,
        signed_ms: 1_700_000_000_000,
        chain: vec![vec![0x30, 3, 2, 1, 7]],
        scheme: 0x0403,
        bytes: vec![0x30, 6, 2, 1, 1, 2, 1, 2],
    }
}

/// A task that leaves most to the model.
pub(crate) fn asked_task() -> SurgeryTask {
    let train = TrainSpec { kl_warmup: Some(Warmup::Steps(750)), seed: 3, ..TrainSpec::default() };
    SurgeryTask { train, ..surgery_task() }
}

/// A task that says how many steps are taken, and how much the KL term weighs.
pub(crate) fn task_of_steps() -> SurgeryTask {
    let train = TrainSpec { max_steps: Some(200), max_kl_weight: Some(0.5), ..asked_task().train };
    SurgeryTask { train, ..surgery_task() }
}

/// A condition, a key of a further axis and the member of a part.
pub(crate) fn submission_with_parts() -> Submission {
    let bare = |name: &str| SubmittedCondition { columns: blob(name), embeddings: None, metrics: None };
    let further = ["charite/lung@donor/d1", "charite/lung+counts/10x"].map(|key| (key.parse().unwrap(), bare(key)));
    let mut submission = submission();
    submission.conditions.extend(further);
    submission
}

pub(crate) fn task_record() -> TaskRecord {
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

pub(crate) fn reference() -> ReferenceRecord {
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

pub(crate) fn reference_head() -> ReferenceHead {
    let ReferenceRecord { name, publisher, summary, current, .. } = reference();
    ReferenceHead { name, publisher, summary, base: blob("base"), current, n_conditions: 300, n_changes: 3 }
}

pub(crate) fn changes() -> Page<(Change, bool)> {
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

pub(crate) fn assignments() -> Page<(SiteId, AssignmentHead)> {
    let assignments = task_record().assignments;
    Page { items: assignments.iter().map(|(site, a)| (site.clone(), AssignmentHead::from(a))).collect(), more: false }
}

pub(crate) fn task_head() -> TaskHead {
    let own = assignments().items.pop().map(|(_, assignment)| assignment);
    let TaskRecord { id, task, publisher, published_ms, state, .. } = task_record();
    TaskHead { id, task, publisher, published_ms, state, n_assigned: 300, n_accepted: 2, own }
}

pub(crate) fn status() -> StatusRecord {
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

pub(crate) fn gates() -> QualityGates {
    QualityGates { min_gene_coverage: 0.5, bounds: [("elbo".to_owned(), Bound::AtLeast(-2_000.0))].into() }
}

/// Gates on a figure that the first version did not know.
pub(crate) fn gates_on_accuracy() -> QualityGates {
    QualityGates { min_gene_coverage: 0.0, bounds: [("accuracy".to_owned(), Bound::AtLeast(0.75))].into() }
}

/// A submission of a model with figures of its own.
pub(crate) fn submission_with_accuracy() -> Submission {
    let mut submission = submission();
    for condition in submission.conditions.values_mut() {
        let metrics = condition.metrics.as_mut().unwrap();
        metrics.figures = [("accuracy".to_owned(), 0.875)].into();
    }
    submission
}

pub(crate) fn member() -> MemberStatus {
    let member = MemberRecord {
        node: node(4),
        address: "10.0.0.4:7101".to_owned(),
        role: MemberRole::Learner,
        added_ms: 1_000,
        removed_ms: None,
    };
    MemberStatus { member, is_settled: true, is_active: true, entries_behind: 7 }
}

pub(crate) fn health() -> HealthRecord {
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

pub(crate) fn collected() -> Collected {
    Collected { blobs: 2, bytes: 1 << 20, partials: 1 }
}

/// An invitation that nobody has come with.
pub(crate) fn enrolment() -> EnrolmentRecord {
    EnrolmentRecord {
        site: "charite".parse().unwrap(),
        invitation: Fingerprint::of(b"invitation"),
        invited_by: "anna".parse().unwrap(),
        invited_ms: 1_700_000_000_000,
        expires_ms: 1_700_000_600_000,
        state: EnrolmentState::Invited,
    }
}

/// One in every other state.
pub(crate) fn enrolments() -> Vec<EnrolmentRecord> {
    let (key, by, at_ms) = (Fingerprint::of(b"own"), || "ben".parse().unwrap(), 1_700_000_300_000);
    let states = [
        EnrolmentState::Asked { key, request: "a signing request".to_owned(), at_ms },
        EnrolmentState::Approved { key, certificate: "a certificate".to_owned(), by: by(), at_ms },
        EnrolmentState::Refused { key: None, reason: "not one of ours".to_owned(), by: by(), at_ms },
    ];
    states.map(|state| EnrolmentRecord { state, ..enrolment() }).into()
}

pub(crate) fn renewing() -> EnrolmentRecord {
    let (key, request) = (Fingerprint::of(b"new"), "a signing request".to_owned());
    let state = EnrolmentState::Renewing { key, request, signature: Box::new(signature()), at_ms: 1_700_000_300_000 };
    EnrolmentRecord { state, ..enrolment() }
}

pub(crate) fn proposals() -> Vec<Proposal> {
    let waits = Proposal {
        number: 7,
        act: Act::Revoke,
        deed: "shut out `site/charite`".to_owned(),
        role: Role::Enroller,
        by: officer(),
        key: certified_key().key,
        at_ms: 1_700_000_000_000,
        expires_ms: 1_700_604_800_000,
        state: ProposalState::Waits,
    };
    let (by, at_ms) = (standing().who, 1_700_000_100_000);
    let done = ProposalState::Done { by: by.clone(), key: Fingerprint::of(b"another"), at_ms };
    let declined = ProposalState::Declined { by, reason: "not now".to_owned(), at_ms };
    vec![
        waits.clone(),
        Proposal { number: 8, state: done, ..waits.clone() },
        Proposal { number: 9, state: declined, ..waits },
    ]
}

pub(crate) fn officer() -> archipelago_common::Principal {
    "enroller+administrator/emma".parse().unwrap()
}

pub(crate) fn standing() -> Standing {
    let by_ben = |reason: &str| Revocation {
        by: Some("ben".parse().unwrap()),
        at_ms: 1_700_000_300_000,
        reason: reason.to_owned(),
    };
    Standing {
        who: "operator/anna".parse().unwrap(),
        certified: Some(certified_key()),
        revoked: Some(by_ben("has left")),
        revoked_keys: vec![(Fingerprint::of(b"stolen"), by_ben("a laptop"))],
    }
}

pub(crate) fn certified_key() -> CertifiedKey {
    CertifiedKey { key: Fingerprint::of(b"own"), expires_ms: 1_731_000_000_000 }
}

pub(crate) fn anchored() -> Anchored {
    Anchored { n_records: 12, head: Digest::of(b"twelfth") }
}

pub(crate) fn act() -> act::Act {
    act::Act {
        seq: 71,
        at_ms: 1_700_000_000_000,
        who: "site/charite".to_owned(),
        key: Some(certified_key().key),
        what: "anchor".to_owned(),
        about: "records 13 to 13".to_owned(),
        outcome: "done".to_owned(),
        command: Digest::of(b"command"),
        anchor: Some(Anchor { after: anchored(), hashes: vec![Digest::of(b"thirteenth")], follows: true }),
        previous: Digest::of(b"seventieth"),
    }
}

pub(crate) fn erasure() -> Erasure {
    Erasure {
        seq: 2,
        reference: "atlas".parse().unwrap(),
        key: "charite/lung/b1".parse().unwrap(),
        blobs: vec![blob("columns")],
        tasks: vec![TaskId(4)],
        n_changes: 9,
        by: "operator/anna".to_owned(),
        at_ms: 1_700_000_000_000,
    }
}

pub(crate) fn contact() -> SiteContact {
    SiteContact {
        site: "charite".parse().unwrap(),
        is_online: true,
        since_ms: 1_700_000_000_000,
        last_ms: 1_700_000_060_000,
    }
}
