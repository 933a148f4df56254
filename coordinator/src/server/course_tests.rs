//! Tests of the course of a request, step by step.

use std::collections::BTreeMap;

use archipelago_common::{
    DType, SiteId,
    record::SubmittedCondition,
    signature::Statement,
    state_dict::TensorSpec,
    task::{SurgeryTask, TrainSpec},
};

use super::*;

const KEY: RequestKey = RequestKey([7; 16]);

fn who(text: &str) -> Principal {
    text.parse().unwrap()
}

/// Carries out commands, each under a key of its own but for the last, which gets [`KEY`].
fn applied(commands: Vec<(&str, Body)>) -> Cluster {
    let mut cluster = Cluster::founded();
    let n = commands.len();
    for (i, (asker, body)) in commands.into_iter().enumerate() {
        let key = if i + 1 == n { KEY } else { RequestKey([i as u8 + 100; 16]) };
        let command = Proposal { key, principal: who(asker), body }.stamped(1_000);
        cluster.apply(&command).outcome.unwrap();
    }
    cluster
}

fn version() -> Version {
    Version { base: BlobRef::of(b"base"), columns: BTreeMap::new() }
}

fn publish_reference() -> Body {
    let spec = TensorSpec { dtype: DType::F32, shape: vec![8] };
    let columns = BTreeMap::from([("w".to_owned(), spec)]);
    let model = "scvi".to_owned();
    let summary = archipelago_common::record::BaseSummary { model, n_genes: 2, columns, moves_embedding: true };
    Body::PublishReference { name: "atlas".parse().unwrap(), version: version(), summary: Box::new(summary) }
}

fn submission() -> Submission {
    let condition = SubmittedCondition { columns: BlobRef::of(b"columns"), embeddings: None, metrics: None };
    let conditions = BTreeMap::from([("a/d/x".parse().unwrap(), condition)]);
    Submission { task: TaskId(1), epoch: 1, version: version().id(), conditions }
}

fn until_submission() -> Vec<(&'static str, Body)> {
    let site: SiteId = "a".parse().unwrap();
    let task = SurgeryTask::new("atlas".parse().unwrap(), version().id(), Default::default());
    vec![
        ("operator/anna", Body::AddSite { site }),
        ("operator/anna", publish_reference()),
        ("operator/anna", Body::PublishTask(Box::new(task))),
        ("site/a", Body::Claim { task: TaskId(1) }),
    ]
}

/// Follows a course over looks at this state, up to the first step that needs something else.
fn follow(mut step: Step, cluster: &Cluster) -> Step {
    loop {
        step = match step {
            Step::Lead(then) => then(),
            Step::Read(look) | Step::Peek(look) => look(cluster, 1_000),
            step => return step,
        }
    }
}

#[test]
fn a_submission_names_its_blobs_before_it_is_proposed() {
    let cluster = applied(until_submission());
    let other = RequestKey([8; 16]);
    let step = follow(begin(who("site/a"), other, Request::Submit(submission()), Room::default()), &cluster);
    assert!(matches!(step, Step::Durable(blobs, _) if blobs == [BlobRef::of(b"columns")]));
}

/// Found by the simulation (seed 38): the leader died between commit and answer, its successor lacked the blob and could
/// reach nobody who had it, and so refused what was accepted.
#[test]
fn a_submission_that_was_accepted_is_not_refused_where_its_blobs_are_missing() {
    let mut commands = until_submission();
    commands.push(("site/a", Body::Submit(submission())));
    let cluster = applied(commands);
    let step = follow(begin(who("site/a"), KEY, Request::Submit(submission()), Room::default()), &cluster);
    assert!(matches!(step, Step::Done(Ok(Reply::Accepted { version: Some(_) }))));
    let step = follow(begin(who("site/b"), KEY, Request::Submit(submission()), Room::default()), &cluster);
    assert!(matches!(step, Step::Durable(..)), "another's key");
}

#[test]
fn a_reference_that_was_published_is_not_refused_where_its_blobs_are_missing() {
    let cluster = applied(vec![("operator/anna", publish_reference())]);
    let request = || Request::PublishReference { name: "atlas".parse().unwrap(), version: version() };
    let step = follow(begin(who("operator/anna"), KEY, request(), Room::default()), &cluster);
    assert!(matches!(step, Step::Done(Ok(Reply::Reference(_)))));
    let step = follow(begin(who("operator/anna"), RequestKey([8; 16]), request(), Room::default()), &cluster);
    assert!(matches!(step, Step::Durable(..)), "another request");
}

/// A coordinator of an earlier build would stop at the entry.
#[test]
fn a_task_that_not_all_coordinators_can_read_is_not_proposed() {
    let task = SurgeryTask::new("atlas".parse().unwrap(), version().id(), Default::default());
    let published = |cluster: &Cluster, task: SurgeryTask| {
        let task = Request::PublishTask(Box::new(task));
        follow(begin(who("operator/anna"), RequestKey([8; 16]), task, Room::default()), cluster)
    };
    let mut cluster = Cluster::default();
    let mut raise = |edition| {
        let body = Body::RaiseEdition { edition };
        let command = Proposal { key: KEY, principal: who("coordinator/1"), body }.stamped(1_000);
        cluster.apply(&command).outcome.unwrap();
        let of_steps = TrainSpec { max_steps: Some(200), ..TrainSpec::default() };
        [
            SurgeryTask { asks: Asks::Parts, ..task.clone() },
            SurgeryTask { asks: Asks::Annotations, ..task.clone() },
            SurgeryTask { train: of_steps, ..task.clone() },
        ]
        .map(|task| published(&cluster, task))
    };
    let refuses = |step: &Step| match step {
        Step::Done(Err(refusal)) => refusal.to_string().contains("upgrade all of them"),
        Step::Propose(..) => false,
        _ => panic!("a task is proposed or refused"),
    };
    for (edition, refused) in [
        (Edition::Third, [false, true, true]),
        (Edition::Fourth, [false, false, true]),
        (Edition::Fifth, [false, false, false]),
    ] {
        assert_eq!(raise(edition).each_ref().map(refuses), refused, "{edition:?}");
    }
}

#[test]
fn a_signature_that_not_all_coordinators_can_read_is_not_proposed() {
    let task = Box::new(SurgeryTask::new("atlas".parse().unwrap(), version().id(), Default::default()));
    let of = Statement::of_task(&task, 900).unwrap().of;
    let signature = Signature { of, signed_ms: 900, chain: vec![vec![0x30, 0]], scheme: 0x0403, bytes: vec![7] };
    let mut cluster = Cluster::default();
    for (edition, is_proposed) in [(Edition::Fifth, false), (Edition::Sixth, true)] {
        let body = Body::RaiseEdition { edition };
        let command = Proposal { key: KEY, principal: who("coordinator/1"), body }.stamped(1_000);
        cluster.apply(&command).outcome.unwrap();
        let (task, gates, signature) = (task.clone(), Default::default(), Box::new(signature.clone()));
        let request = Request::PublishSignedTask { task, gates, signature };
        let step = follow(begin(who("operator/anna"), RequestKey([8; 16]), request, Room::default()), &cluster);
        assert_eq!(matches!(step, Step::Propose(..)), is_proposed, "{edition:?}");
    }
}

#[test]
fn a_revoked_site_is_told_nothing_over_a_session_that_it_still_has() {
    let questions = || [Request::ListTasks, Request::ListReferences, Request::ShowTask { task: TaskId(1) }];
    let mut history = until_submission();
    let enrolled = applied(history.clone());
    history.push(("operator/anna", Body::RevokeSite { site: "a".parse().unwrap() }));
    let revoked = applied(history);
    let answer = |request, cluster| match follow(begin(who("site/a"), KEY, request, Room::default()), cluster) {
        Step::Done(answer) => answer,
        _ => panic!("a question needs nothing but the state"),
    };
    for question in questions() {
        assert!(answer(question, &enrolled).is_ok());
    }
    for question in questions() {
        let refusal = answer(question, &revoked).unwrap_err();
        assert!(matches!(&refusal, Refusal::Forbidden { .. }), "{refusal}");
    }
}
