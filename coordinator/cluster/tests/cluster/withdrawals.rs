//! Taking conditions out again.

use archipelago_cluster::Refusal;
use archipelago_common::{BlobRef, record::Why};

use crate::script::{OPEN_TASK, OPEN_TASK_AT_CLOSE, Script, name};

fn merged() -> Script {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n site/b claim 1\n site/a submit 1 1 a/d/x=1 a/d/y=2\n site/b submit 1 1 b/d/x=3");
    script
}

#[test]
fn withdrawing_a_site_restores_the_version_without_it() {
    let mut with_b_only = Script::after(OPEN_TASK);
    with_b_only.run("site/b claim 1\n site/b submit 1 1 b/d/x=3");
    let mut script = merged();
    script.run("site/a withdraw atlas a");
    assert_eq!(script.current(), with_b_only.current());
    script.run("operator/anna withdraw atlas b");
    assert_eq!(script.current(), Script::after(OPEN_TASK).current());
}

#[test]
fn single_conditions_can_be_withdrawn() {
    let mut script = merged();
    script.run("site/a withdraw atlas a/d/x");
    assert_eq!(script.conditions(), ["a/d/y", "anna/lung/ref", "b/d/x"]);
}

#[test]
fn a_site_withdraws_only_its_own() {
    let mut script = merged();
    for what in ["b", "b/d/x", "a/d/x b/d/x", "anna"] {
        let answer = script.ask(&format!("site/a withdraw atlas {what}"));
        assert!(matches!(answer, Err(Refusal::Forbidden { .. })), "{what}: {answer:?}");
    }
}

#[test]
fn the_lineage_keeps_what_was_withdrawn_and_by_whom() {
    let mut script = merged();
    script.run("operator/ben withdraw atlas a/d/x");
    let atlas = script.cluster.reference(&name("atlas")).unwrap();
    let last = atlas.changes().last().unwrap();
    assert_eq!(last.why, Why::Withdrawn { by: name("ben") });
    assert_eq!(last.columns, [("a/d/x".parse().unwrap(), BlobRef::of(b"1"))].into());
    // Every version is there to be looked at, also those that hold what was withdrawn.
    let sizes = atlas.changes().iter().map(|change| atlas.version(change.version).unwrap().columns.len());
    assert_eq!(sizes.collect::<Vec<_>>(), [1, 3, 4, 3]);
}

#[test]
fn what_is_not_there_cannot_be_withdrawn() {
    let mut script = merged();
    for line in ["withdraw atlas c", "withdraw atlas a/d/z", "withdraw atlas a/d/x a/d/z", "withdraw nothing a"] {
        let answer = script.ask(&format!("operator/anna {line}"));
        assert!(matches!(answer, Err(Refusal::NotFound { .. })), "{line}: {answer:?}");
    }
}

#[test]
fn withdrawn_conditions_may_be_handed_in_again_for_a_new_task() {
    let mut script = merged();
    script.run("site/a withdraw atlas a\n operator/anna publish-task atlas\n site/a claim 2");
    script.run("site/a submit 2 1 a/d/x=better");
    assert_eq!(script.conditions(), ["a/d/x", "anna/lung/ref", "b/d/x"]);
}

#[test]
fn other_sites_go_on_working_when_a_sibling_is_withdrawn() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n site/b claim 1\n site/a submit 1 1 a/d/x=1\n site/a withdraw atlas a");
    script.run("site/b submit 1 1 b/d/x=3");
    assert_eq!(script.conditions(), ["anna/lung/ref", "b/d/x"]);
}

#[test]
fn what_waits_for_a_close_can_be_withdrawn_before_it_is_merged() {
    let mut script = Script::after(OPEN_TASK_AT_CLOSE);
    script.run("site/a claim 1\n site/b claim 1\n site/a submit 1 1 a/d/x=1 a/d/y=2\n site/b submit 1 1 b/d/x=3");
    let before = script.current();
    script.run("site/a withdraw atlas a/d/x\n site/b withdraw atlas b");
    assert_eq!(script.current(), before, "nothing was merged, so nothing is unmerged");
    // What was withdrawn whole may be done again.
    script.run("site/b claim 1\n site/b submit 1 2 b/d/x=4\n operator/anna close-task 1");
    assert_eq!(script.conditions(), ["a/d/y", "anna/lung/ref", "b/d/x"]);
}

/// Today's fault: whoever worked on a version of which anything was withdrawn had worked in vain.
#[test]
fn a_withdrawal_stops_nobody() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n site/a submit 1 1 a/d/x=1\n operator/anna publish-task atlas\n site/b claim 2");
    script.run("site/a withdraw atlas a");
    script.run("site/b renew 2 1 5\n site/b submit 2 1 b/d/x=3");
    assert_eq!(script.conditions(), ["anna/lung/ref", "b/d/x"]);
    // Nor does one between a task's publication and a claim.
    script.run("operator/anna add-site c\n site/c claim 2\n site/c submit 2 1 c/d/x=4");
    assert_eq!(script.conditions(), ["anna/lung/ref", "b/d/x", "c/d/x"]);
    // A new task begins with what is there.
    let answer = script.ask("operator/anna publish-task atlas v=1");
    assert!(matches!(answer, Err(Refusal::Stale { .. })), "{answer:?}");
}

/// A cluster of coordinators of two builds decides by the earlier one's rules until all know the later ones.
#[test]
fn until_the_edition_is_raised_a_withdrawal_ends_work_as_it_did() {
    let begin = || {
        let mut script = Script::first_edition();
        script.run(OPEN_TASK);
        script.run("site/a claim 1\n site/a submit 1 1 a/d/x=1\n operator/anna publish-task atlas\n site/b claim 2");
        script
    };
    let mut script = begin();
    script.run("site/a withdraw atlas a");
    assert!(matches!(script.ask("site/b submit 2 1 b/d/x=3"), Err(Refusal::Stale { .. })));
    let mut script = begin();
    script.run("coordinator/1 raise-edition 2\n site/a withdraw atlas a\n site/b submit 2 1 b/d/x=3");
    assert_eq!(script.conditions(), ["anna/lung/ref", "b/d/x"]);
}
