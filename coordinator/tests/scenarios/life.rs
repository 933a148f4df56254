//! The life of a task, and what is refused on the way, over real connections.

use std::collections::BTreeMap;

use archipelago_client::{Client, ClientError, Source};
use archipelago_common::{
    BlobRef, Columns, TaskId, VersionId,
    record::{ReferenceHistory, Submission, SubmittedCondition},
};
use archipelago_protocol::message::{Refusal, Reply, Request};

use crate::consortium::{Consortium, columns, key};

pub(crate) async fn claim(client: &Client, task: TaskId) -> u64 {
    match client.request(Request::Claim { task }).await.unwrap() {
        Reply::Assigned { epoch, .. } => epoch,
        reply => panic!("{reply:?}"),
    }
}

pub(crate) async fn upload(client: &Client, columns: &Columns) -> BlobRef {
    let bytes = columns.to_bytes();
    let blob = BlobRef::of(&bytes);
    client.put_blob(blob, Source::Bytes(&bytes), |_| ()).await.unwrap();
    blob
}

pub(crate) fn submission(
    task: TaskId,
    epoch: u64,
    version: VersionId,
    condition: &str,
    columns: BlobRef,
) -> Submission {
    let condition = (key(condition), SubmittedCondition { columns, embeddings: None, metrics: None });
    Submission { task, epoch, version, conditions: BTreeMap::from([condition]) }
}

pub(crate) fn refused(result: Result<Reply, ClientError>) -> Refusal {
    match result {
        Err(ClientError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_lives_from_its_publication_to_a_merged_and_withdrawn_version() {
    let consortium = Consortium::new(3);
    let first = consortium.write_reference("reference").version().clone();
    consortium.ask(&["reference", "publish", "lung", "reference"]);
    consortium.ask(&["site", "add", "north"]);
    consortium.issue("site/north", "north");
    let published = consortium.ask(&["task", "publish", "lung", "--epochs", "1"]);
    let task: TaskId = serde_json::from_value(published["id"].clone()).unwrap();

    let north = consortium.client("north").await.unwrap();
    let epoch = claim(&north, task).await;
    let blob = upload(&north, &columns(2.0)).await;
    let good = submission(task, epoch, first.id(), "north/pbmc/b1", blob);
    let accepted = north.request(Request::Submit(good.clone())).await.unwrap();
    let merged = first.merged(&BTreeMap::from([(key("north/pbmc/b1"), blob)])).unwrap();
    assert_eq!(accepted, Reply::Accepted { version: Some(merged.id()) });
    // A second time, as after a lost answer: the same answer, and nothing twice.
    assert_eq!(north.request(Request::Submit(good)).await.unwrap(), accepted);

    let shown = consortium.ask(&["reference", "show", "lung"]);
    let history: ReferenceHistory = serde_json::from_value(shown).unwrap();
    assert_eq!((history.head.current, history.changes.len()), (merged.id(), 2));
    assert_eq!(history.current(), merged);
    let withdrawn = consortium.ask(&["withdraw", "lung", "--condition", "north/pbmc/b1"]);
    let history: ReferenceHistory = serde_json::from_value(withdrawn).unwrap();
    assert_eq!(history.head.current, first.id());
    let status = consortium.ask(&["status"]);
    assert_eq!((&status["references"], &status["sites"]), (&1.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_site_is_cut_off_and_not_let_in_again() {
    let consortium = Consortium::new(1);
    consortium.ask(&["site", "add", "north"]);
    consortium.issue("site/north", "north");
    let north = consortium.client("north").await.unwrap();
    north.request(Request::ListTasks).await.unwrap();
    consortium.ask(&["site", "revoke", "north"]);
    let error = north.request(Request::ListTasks).await.unwrap_err();
    assert!(error.to_string().contains("was revoked"), "{error}");
    let error = consortium.client("north").await.err().unwrap();
    assert!(error.to_string().contains("was revoked"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_was_not_enrolled_is_not_let_in() {
    let consortium = Consortium::new(1);
    consortium.issue("site/south", "south");
    let error = consortium.client("south").await.err().unwrap();
    assert!(error.to_string().contains("is not enrolled"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_nobody_uploaded_cannot_be_published_or_fetched() {
    let consortium = Consortium::new(3);
    let dir = consortium.write_reference("reference");
    let anna = consortium.client("anna").await.unwrap();
    let publish = Request::PublishReference { name: "lung".parse().unwrap(), version: dir.version().clone() };
    assert!(matches!(refused(anna.request(publish).await), Refusal::MissingBlobs { blobs } if blobs.len() == 2));
    let target = consortium.path("missing");
    assert!(anna.get_blob(dir.version().base, &target, |_| ()).await.is_err());
    assert!(!target.exists());
}

#[test]
fn the_doctor_finds_a_consortium_well_and_says_which_coordinator_is_not() {
    let mut consortium = Consortium::new(3);
    let verdicts = |said: &serde_json::Value| -> BTreeMap<String, (String, String)> {
        let findings = said["findings"].as_array().unwrap().iter();
        let text = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        findings.map(|f| (text(f, "what"), (text(f, "verdict"), text(f, "found") + &text(f, "advice")))).collect()
    };
    // A leader knows the time once a majority's clocks have agreed: with the first command.
    consortium.ask(&["site", "add", "north"]);
    let well = verdicts(&consortium.ask(&["doctor"]));
    let of = |what: &str| well[what].0.as_str();
    assert!(well.values().all(|(verdict, _)| verdict == "ok"), "{well:?}");
    assert_eq!((of("coordinator 3, UDP"), of("coordinator 3, TCP"), of("clock")), ("ok", "ok", "ok"));
    assert!(well["clock"].1.contains("within a second"), "{well:?}");

    let dead = (1..=3).find(|node| *node != consortium.leader()).unwrap();
    consortium.kill(dead);
    let output = consortium.try_ask(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let hurt = verdicts(&serde_json::from_slice(&output.stdout).unwrap());
    let (verdict, words) = &hurt[&format!("coordinator {dead}, TCP")];
    assert!(
        verdict == "failed" && words.contains("refused") && words.contains("check that the coordinator runs"),
        "{hurt:?}"
    );
    assert_eq!(hurt["session"].0, "ok", "the others answer: {hurt:?}");
}

#[test]
fn commands_end_with_the_documented_codes_and_words() {
    let consortium = Consortium::new(1);
    let code_and_error = |output: std::process::Output| {
        assert!(output.stdout.is_empty(), "errors do not go to stdout");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = code_and_error(consortium.try_ask(&["reference", "show", "nothing"]));
    assert!(code == 1 && error.starts_with("error: there is no reference `nothing`"), "{code} {error}");
    let (code, error) = code_and_error(consortium.command(&["status"]).output().unwrap());
    assert!(code == 2 && error.contains("--coordinators"), "{code} {error}");
    let (code, _) = code_and_error(consortium.command(&["task", "publish"]).output().unwrap());
    assert_eq!(code, 2);
    let again = consortium.command(&["serve", "--config", "node1/node.toml"]).output().unwrap();
    let (code, error) = code_and_error(again);
    assert!(code == 1 && error.contains("is in use by another process") && error.contains("\nhint: "), "{error}");
}
