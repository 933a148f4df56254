//! What was done is on record, and what was erased is on no disk.

use std::path::Path;

use archipelago_client::Client;
use archipelago_common::{
    BlobRef, Digest, TaskId,
    act::{Act, Anchored, Erasure},
};
use archipelago_protocol::message::{Refusal, Reply, Request, Withdrawal};

use crate::{
    consortium::{Consortium, columns, wait_until},
    life::{claim, refused, submission, upload},
};

/// A consortium with a task that a site has done, and the blobs of two conditions.
async fn handed_in() -> (Consortium, Client, [BlobRef; 2]) {
    let consortium = Consortium::new(3);
    let first = consortium.write_reference("reference").version().id();
    consortium.ask(&["reference", "publish", "lung", "reference"]);
    consortium.ask(&["site", "add", "north"]);
    consortium.issue("site/north", "north");
    consortium.issue("auditor/eva", "eva");
    let north = consortium.client("north").await.unwrap();
    let mut blobs = Vec::new();
    for (value, key) in [(2.0, "north/pbmc/b1"), (3.0, "north/pbmc/b2")] {
        let published = consortium.ask(&["task", "publish", "lung", "--epochs", "1"]);
        let task: TaskId = serde_json::from_value(published["id"].clone()).unwrap();
        let epoch = claim(&north, task).await;
        let blob = upload(&north, &columns(value)).await;
        let version = consortium.ask(&["task", "show", &task.to_string()])["task"]["version"].clone();
        let version = serde_json::from_value(version).unwrap_or(first);
        north.request(Request::Submit(submission(task, epoch, version, key, blob))).await.unwrap();
        blobs.push(blob);
    }
    (consortium, north, blobs.try_into().unwrap())
}

impl Consortium {
    /// The output of a command as an auditor, or its error.
    fn audits(&self, args: &[&str]) -> Result<String, String> {
        let files = ["--ca", "eva/ca.pem", "--cert", "eva/cert.pem", "--key", "eva/key.pem"];
        let connection = [&["--coordinators", self.peers()], &files[..]].concat();
        let output = self.command(args).args(connection).args(["--format", "json"]).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// Whether a node has the bytes of a blob anywhere in its data.
    fn holds(&self, node: u64, blob: &BlobRef) -> bool {
        fn holds(dir: &Path, name: &str) -> bool {
            let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
            entries.map(|entry| entry.path()).any(|path| match path.is_dir() {
                true => holds(&path, name),
                false => path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)),
            })
        }
        holds(&self.path(&format!("node{node}")), &blob.digest.to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_on_no_disk_and_on_that_of_a_node_that_was_away_when_it_is_back() {
    let (mut consortium, north, [one, other]) = handed_in().await;
    for node in consortium.nodes() {
        wait_until("every node has both", 60, || consortium.holds(node, &one) && consortium.holds(node, &other));
    }
    let leader = consortium.leader();
    let away = consortium.nodes().find(|node| *node != leader).unwrap();
    consortium.kill(away);
    let told = consortium.ask(&["withdraw", "lung", "--condition", "north/pbmc/b1", "--erase"]);
    let receipts: Vec<Erasure> = serde_json::from_value(told).unwrap();
    assert_eq!((receipts.len(), &receipts[0].blobs, receipts[0].by.as_str()), (1, &vec![one], "operator/anna"));
    for node in consortium.nodes().filter(|node| *node != away) {
        wait_until("it is deleted", 60, || !consortium.holds(node, &one));
        assert!(consortium.holds(node, &other), "another condition's stays");
    }
    assert!(consortium.holds(away, &one));
    consortium.start(away);
    wait_until("a node that was away deletes it", 60, || !consortium.holds(away, &one));
    // Withdrawn by default, it stays; erased later, by its owner, it goes.
    consortium.ask(&["withdraw", "lung", "--site", "north"]);
    let what = Withdrawal::Site("north".parse().unwrap());
    let reference = "lung".parse().unwrap();
    assert!(consortium.nodes().all(|node| consortium.holds(node, &other)));
    north.request(Request::Erase { reference, what }).await.unwrap();
    for node in consortium.nodes() {
        wait_until("it is deleted", 60, || !consortium.holds(node, &other));
    }
    let receipts: Vec<Erasure> = serde_json::from_str(&consortium.audits(&["audit", "erasures"]).unwrap()).unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.by.as_str()).collect::<Vec<_>>(), ["site/north"; 2]);
    // Nothing is missed by whoever looks for what should be there.
    consortium.ask(&["blobs", "verify"]);
    wait_until("all nodes are complete", 60, || {
        let health = consortium.ask(&["status"])["nodes"].to_string();
        !health.contains("\"missing_blobs\":1") && !health.contains("\"missing_blobs\":2")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_is_on_record_in_an_export_that_holds_without_coordinators() {
    let (mut consortium, north, _) = handed_in().await;
    let hashes = vec![Digest::of(b"first record"), Digest::of(b"second")];
    north.request(Request::Anchor { after: Anchored::default(), hashes }).await.unwrap();
    let listed: Vec<Act> = serde_json::from_str(&consortium.audits(&["audit", "list"]).unwrap()).unwrap();
    let told: Vec<_> = listed.iter().map(|act| (act.who.as_str(), act.what.as_str())).collect();
    for expected in [
        ("operator/anna", "publish-reference"),
        ("operator/anna", "add-site"),
        ("site/north", "claim"),
        ("site/north", "submit"),
        ("site/north", "anchor"),
    ] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    let submitted = listed.iter().find(|act| act.what == "submit").unwrap();
    assert!(submitted.outcome.starts_with("accepted, version "), "{submitted:?}");
    // A site sees its own, and nobody else's.
    let Reply::Acts(page) = north.request(Request::ListActs { after: 0 }).await.unwrap() else { panic!() };
    assert!(!page.items.is_empty() && page.items.iter().all(|act| act.who == "site/north"), "{:?}", page.items);

    consortium.audits(&["audit", "export", "acts.jsonl"]).unwrap();
    let n_first = std::fs::read_to_string(consortium.path("acts.jsonl")).unwrap().lines().count();
    let leader = consortium.leader();
    consortium.kill(leader);
    wait_until("another node leads", 30, || consortium.try_ask(&["site", "add", "south"]).status.success());
    consortium.audits(&["audit", "export", "acts.jsonl"]).unwrap();
    let text = std::fs::read_to_string(consortium.path("acts.jsonl")).unwrap();
    assert!(text.lines().count() > n_first, "what came since is appended");
    consortium.nodes().filter(|node| *node != leader).for_each(|node| consortium.kill(node));

    let verified = consortium.done(&["audit", "verify", "acts.jsonl"]);
    assert!(verified.contains("is intact"), "{verified}");
    let fails = |text: &str, expected: &str| {
        std::fs::write(consortium.path("forged.jsonl"), text).unwrap();
        let output = consortium.command(&["audit", "verify", "forged.jsonl"]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{error}");
    };
    fails(&text.replacen("operator/anna", "operator/oleg", 1), "was changed");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    fails(&[&lines[..2], &lines[3..]].concat().concat(), "act 4 comes after act 2");
    fails(&text[..text.len() - 3], "has no end");
    let last: Act = serde_json::from_str(lines.last().unwrap()).unwrap();
    std::fs::write(consortium.path("cut.jsonl"), lines[..lines.len() - 1].concat()).unwrap();
    let cut =
        consortium.command(&["audit", "verify", "cut.jsonl", "--head", &last.hash().to_string()]).output().unwrap();
    assert!(String::from_utf8(cut.stderr).unwrap().contains("cut from its end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_or_writes_records_that_are_not_theirs() {
    let (consortium, north, _) = handed_in().await;
    consortium.ask(&["site", "add", "south"]);
    consortium.issue("site/south", "south");
    let south = consortium.client("south").await.unwrap();
    let reference = || "lung".parse().unwrap();
    let theirs = Withdrawal::Keys(vec!["north/pbmc/b1".parse().unwrap()]);
    let asked = south.request(Request::Erase { reference: reference(), what: theirs.clone() }).await;
    assert!(matches!(refused(asked), Refusal::Forbidden { .. }));
    let eva = consortium.client("eva").await.unwrap();
    let asked = eva.request(Request::Erase { reference: reference(), what: theirs }).await;
    assert!(matches!(refused(asked), Refusal::Forbidden { .. }));
    let anchor = Request::Anchor { after: Anchored::default(), hashes: vec![Digest::of(b"x")] };
    assert!(matches!(refused(eva.request(anchor.clone()).await), Refusal::Forbidden { .. }));
    south.request(anchor).await.unwrap();
    let asked = north.request(Request::ShowAnchor).await.unwrap();
    assert_eq!(asked, Reply::Anchored(Anchored::default()), "another site's anchor is another site's");
}
