//! What each peer may see and fetch, and what must be kept.

use archipelago_common::{BlobRef, Digest};

use crate::script::{OPEN_TASK, Script, principal};

fn digest_of(word: &str) -> Digest {
    BlobRef::of(word.as_bytes()).digest
}

fn working() -> Script {
    let mut script = Script::after(OPEN_TASK);
    script.run(
        "operator/anna publish-task atlas embeddings=full
         operator/anna publish-task atlas allow=b
         site/a claim 2
         site/a submit 2 1 a/d/x=1 embeddings=e",
    );
    script
}

#[test]
fn a_site_sees_the_tasks_it_may_take_and_no_assignment_of_another() {
    let script = working();
    let seen =
        |who| script.cluster.tasks_for(&principal(who)).unwrap().iter().map(|task| task.id.0).collect::<Vec<_>>();
    assert_eq!(seen("site/a"), [1, 2]);
    assert_eq!(seen("site/b"), [1, 2, 3]);
    assert_eq!(seen("auditor/eve"), [1, 2, 3]);
    assert_eq!(seen("site/stranger"), [0; 0]);
    let task = |who| script.cluster.task_for(&principal(who), "2".parse().unwrap()).unwrap().unwrap();
    assert!(task("site/b").assignments.is_empty());
    assert_eq!(task("site/a").assignments.len(), 1);
    assert_eq!(task("operator/anna").assignments.len(), 1);
}

#[test]
fn a_site_keeps_sight_of_what_it_has_taken() {
    let mut script = working();
    script.run("operator/anna close-task 2");
    let seen = |who| script.cluster.task_for(&principal(who), "2".parse().unwrap()).is_some();
    assert!(seen("site/a") && !seen("site/b"));
}

#[test]
fn embeddings_of_a_site_are_not_for_other_sites() {
    let script = working();
    let may_fetch = |who, word| script.cluster.may_fetch(&principal(who), &digest_of(word));
    assert!(may_fetch("site/a", "e") && may_fetch("operator/anna", "e"));
    assert!(!may_fetch("site/b", "e"));
    assert!(may_fetch("site/b", "1") && may_fetch("site/b", "base"));
    assert!(!may_fetch("site/stranger", "base") && !may_fetch("site/b", "something else"));
}

#[test]
fn withdrawn_columns_are_kept_for_audit_but_not_given_to_other_sites() {
    let mut script = working();
    script.run("site/a withdraw atlas a");
    let may_fetch = |who, word| script.cluster.may_fetch(&principal(who), &digest_of(word));
    assert!(!may_fetch("site/b", "1"));
    assert!(may_fetch("site/a", "1") && may_fetch("auditor/eve", "1"));
    assert!(script.cluster.referenced_blobs().contains(&BlobRef::of(b"1")));
}

#[test]
fn every_blob_that_the_state_names_is_referenced() {
    let script = working();
    let expected = ["base", "r", "1", "e"].map(|word| BlobRef::of(word.as_bytes()));
    assert_eq!(script.cluster.referenced_blobs(), expected.into());
}

#[test]
fn what_a_site_has_stored_is_counted_once() {
    let mut script = working();
    let stored = |script: &Script, site: &str| script.cluster.stored_bytes(&site.parse().unwrap());
    assert_eq!((stored(&script, "a"), stored(&script, "b")), (2, 0));
    // The same columns for another task are the same blob.
    script.run("site/a claim 1\n site/a submit 1 1 a/d/x=1");
    assert_eq!(stored(&script, "a"), 2);
}

#[test]
fn counts_leave_out_what_is_over() {
    let mut script = working();
    script.run("operator/anna close-task 1\n operator/anna revoke-site b");
    let counts = script.cluster.counts();
    assert_eq!((counts.references, counts.sites, counts.open_tasks), (1, 1, 2));
}
