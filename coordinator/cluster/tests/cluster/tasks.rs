//! Publishing and ending tasks.

use archipelago_cluster::{Effect, Refusal};
use archipelago_common::record::{AssignmentState, TaskState};

use crate::script::{OPEN_TASK, OPEN_TASK_AT_CLOSE, Script};

fn state(script: &Script) -> TaskState {
    script.cluster.task("1".parse().unwrap()).unwrap().state.clone()
}

#[test]
fn tasks_are_numbered_from_one() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas");
    let ids: Vec<_> = script.cluster.tasks().map(|task| task.id.0).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn a_task_that_makes_no_sense_is_refused() {
    let mut script = Script::after(OPEN_TASK);
    for (options, word) in [
        ("weight-decay=0.04", "weight decay is 0.04"),
        ("norm=0", "bound on the norm is 0"),
        ("norm=NaN", "bound on the norm is NaN"),
        ("lease=999", "lease is 999 ms"),
        ("lease=604800001", "lease is 604800001 ms"),
        ("deadline=999", "deadline 999 has passed"),
        ("allow=", "allow-list is empty"),
    ] {
        let answer = script.ask(&format!("operator/anna publish-task atlas {options}"));
        assert!(matches!(&answer, Err(Refusal::Invalid { reason }) if reason.contains(word)), "{options}: {answer:?}");
    }
}

#[test]
fn a_task_names_a_reference_a_version_and_sites_that_exist() {
    let mut script = Script::after(OPEN_TASK);
    for line in ["publish-task nothing", "publish-task atlas v=7"] {
        let answer = script.ask(&format!("operator/anna {line}"));
        assert!(matches!(answer, Err(Refusal::NotFound { .. })), "{line}: {answer:?}");
    }
    let answer = script.ask("operator/anna publish-task atlas allow=a,stranger");
    assert!(matches!(answer, Err(Refusal::Invalid { .. })), "{answer:?}");
}

#[test]
fn only_listed_sites_take_a_task_with_an_allow_list() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas allow=a\n site/a claim 2");
    assert!(matches!(script.ask("site/b claim 2"), Err(Refusal::Forbidden { .. })));
}

#[test]
fn nothing_is_accepted_after_close_cancel_or_deadline() {
    for end in ["operator/anna close-task 1", "operator/anna cancel-task 1"] {
        let mut script = Script::after(OPEN_TASK);
        script.run(&format!("site/a claim 1\n {end}"));
        for line in ["site/a submit 1 1 a/d/x=1", "site/b claim 1", "site/a renew 1 1 3"] {
            assert!(matches!(script.ask(line), Err(Refusal::Stale { .. })), "{end}: {line}");
        }
    }
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas deadline=9000\n site/a claim 2\n site/b claim 2");
    script.run("@9000 site/a submit 2 1 a/d/x=1");
    assert!(matches!(script.ask("@9001 site/b submit 2 1 b/d/x=1"), Err(Refusal::Stale { .. })));
}

#[test]
fn a_deadline_ends_a_task_by_itself_and_says_so() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas deadline=9000");
    assert_eq!(script.apply("@9000 coordinator/1 tick").effects, []);
    assert_eq!(script.apply("@9001 coordinator/1 tick").effects, [Effect::AnnounceTasks]);
    assert_eq!(script.cluster.task("2".parse().unwrap()).unwrap().state, TaskState::Expired);
}

#[test]
fn ending_twice_the_same_way_is_one_end_and_another_way_is_refused() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna close-task 1\n operator/anna close-task 1");
    assert!(matches!(script.ask("operator/anna cancel-task 1"), Err(Refusal::Stale { .. })));
    assert_eq!(state(&script), TaskState::Closed);
}

#[test]
fn a_lapse_or_an_end_leaves_nobody_at_work() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n operator/anna close-task 1");
    let task = script.cluster.task("1".parse().unwrap()).unwrap();
    assert!(task.assignments.values().all(|assignment| assignment.state == AssignmentState::Lapsed));
}

#[test]
fn an_absent_site_does_not_hold_up_the_others() {
    let mut script = Script::after(OPEN_TASK_AT_CLOSE);
    script.run("site/a claim 1\n site/b claim 1\n site/b submit 1 1 b/d/x=1\n operator/anna close-task 1");
    assert_eq!(script.conditions(), ["anna/lung/ref", "b/d/x"]);
}

#[test]
fn a_cancelled_task_keeps_what_was_published_and_drops_what_waits() {
    let mut each = Script::after(OPEN_TASK);
    each.run("site/a claim 1\n site/a submit 1 1 a/d/x=1\n operator/anna cancel-task 1");
    assert_eq!(each.conditions(), ["a/d/x", "anna/lung/ref"]);
    let mut at_close = Script::after(OPEN_TASK_AT_CLOSE);
    at_close.run("site/a claim 1\n site/a submit 1 1 a/d/x=1\n operator/anna cancel-task 1");
    assert_eq!(at_close.conditions(), ["anna/lung/ref"]);
    // Its key is free again.
    at_close.run("operator/anna publish-task atlas\n site/a claim 2\n site/a submit 2 1 a/d/x=other");
}

#[test]
fn the_number_of_open_tasks_is_bounded() {
    let mut script = Script::after(OPEN_TASK);
    let mut line = script.log.last().unwrap().clone();
    for number in 1..1_024_u64 {
        line.key[8..].copy_from_slice(&number.to_le_bytes());
        script.cluster.apply(&line).outcome.unwrap();
    }
    let answer = script.ask("operator/anna publish-task atlas");
    assert!(matches!(&answer, Err(Refusal::Conflict { reason }) if reason.contains("1024 open tasks")), "{answer:?}");
    script.run("operator/anna close-task 1\n operator/anna publish-task atlas");
}
