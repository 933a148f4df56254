//! Versions and how one follows another.

use archipelago_cluster::{Body, Outcome, Refusal};
use archipelago_common::{TaskId, record::Why};

use crate::script::{OPEN_TASK, OPEN_TASK_AT_CLOSE, Script, name};

const BOTH_SUBMIT: &str = "
    site/a claim 1
    site/b claim 1
    site/a submit 1 1 a/d/x=1
    site/b submit 1 1 b/d/x=2";

#[test]
fn publishing_each_and_publishing_at_close_end_at_one_version() {
    let mut each = Script::after(OPEN_TASK);
    each.run(BOTH_SUBMIT);
    let mut at_close = Script::after(OPEN_TASK_AT_CLOSE);
    at_close.run(BOTH_SUBMIT);
    assert_ne!(at_close.current(), each.current());
    at_close.run("operator/anna close-task 1");
    assert_eq!(at_close.current(), each.current());
}

#[test]
fn the_deadline_of_a_task_merges_what_waits() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas publish=at-close deadline=5000\n site/a claim 2");
    script.run("site/a submit 2 1 a/d/x=1\n @5001 coordinator/1 tick");
    assert_eq!(script.conditions(), ["a/d/x", "anna/lung/ref"]);
}

#[test]
fn a_close_makes_one_version_of_all_that_waits() {
    let mut script = Script::after(OPEN_TASK_AT_CLOSE);
    script.run(BOTH_SUBMIT);
    script.run("operator/anna close-task 1");
    let atlas = script.cluster.reference(&name("atlas")).unwrap();
    assert_eq!(atlas.changes().len(), 2);
    let change = &atlas.changes()[1];
    assert_eq!((&change.why, change.columns.len()), (&Why::Merged { task: TaskId(1) }, 2));
}

#[test]
fn a_task_that_closes_without_submissions_makes_no_version() {
    let mut script = Script::after(OPEN_TASK_AT_CLOSE);
    let before = script.current();
    script.run("operator/anna close-task 1");
    assert_eq!(script.current(), before);
    assert_eq!(script.cluster.reference(&name("atlas")).unwrap().changes().len(), 1);
}

#[test]
fn a_name_is_published_once() {
    let mut script = Script::after(OPEN_TASK);
    let answer = script.ask("operator/anna publish-reference atlas");
    assert!(matches!(answer, Err(Refusal::Conflict { .. })), "{answer:?}");
}

#[test]
fn a_reference_without_conditions_can_be_published_and_grown() {
    let mut script = Script::after("@1 operator/anna add-site a\n operator/anna publish-reference atlas");
    script.run("operator/anna publish-task atlas\n site/a claim 1\n site/a submit 1 1 a/d/x=1");
    assert_eq!(script.conditions(), ["a/d/x"]);
}

#[test]
fn a_reference_over_a_limit_is_refused() {
    let script = Script::after(OPEN_TASK);
    let publish = |change: fn(&mut Body)| {
        let mut script = Script::after("@1 operator/anna publish-reference first");
        let mut command = script.log.pop().unwrap();
        let Body::PublishReference { name, .. } = &mut command.body else { unreachable!() };
        *name = "second".parse().unwrap();
        command.key = [7; 16];
        change(&mut command.body);
        script.cluster.apply(&command).outcome
    };
    assert!(matches!(publish(|_| {}), Ok(Outcome::Reference { .. })));
    let over = publish(|body| {
        let Body::PublishReference { summary, .. } = body else { unreachable!() };
        summary.n_genes = 1 << 21;
    });
    assert!(matches!(over, Err(Refusal::Invalid { .. })), "{over:?}");
    let over = publish(|body| {
        let Body::PublishReference { version, .. } = body else { unreachable!() };
        version.base.size = u64::MAX;
    });
    assert!(matches!(over, Err(Refusal::Invalid { .. })), "{over:?}");
    assert_eq!(script.cluster.references().count(), 1);
}

#[test]
fn a_model_whose_conditions_own_nothing_gets_no_task() {
    let mut script = Script::after("@1 operator/anna publish-reference first");
    let mut command = script.log.pop().unwrap();
    let Body::PublishReference { name, summary, .. } = &mut command.body else { unreachable!() };
    *name = "atlas".parse().unwrap();
    summary.columns.clear();
    command.key = [7; 16];
    script.cluster.apply(&command).outcome.unwrap();
    assert!(matches!(script.ask("operator/anna publish-task atlas"), Err(Refusal::Invalid { .. })));
}
