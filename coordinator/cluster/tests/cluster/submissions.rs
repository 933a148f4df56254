//! What is accepted, and what is refused without a trace.

use archipelago_cluster::{Outcome, Refusal};
use archipelago_common::record::AssignmentState;

use crate::script::{OPEN_TASK, OPEN_TASK_AT_CLOSE, Script};

fn claimed() -> Script {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n site/b claim 1");
    script
}

#[track_caller]
fn check_invalid(script: &mut Script, line: &str, word: &str) {
    let answer = script.ask(line);
    assert!(matches!(&answer, Err(Refusal::Invalid { reason }) if reason.contains(word)), "`{line}` gave {answer:?}");
}

#[test]
fn an_accepted_submission_makes_a_version_with_its_columns() {
    let mut script = claimed();
    let answer = script.ask("site/a submit 1 1 a/d/x=1 a/d/y=2");
    assert_eq!(answer, Ok(Outcome::Accepted { version: Some(script.current()) }));
    assert_eq!(script.conditions(), ["a/d/x", "a/d/y", "anna/lung/ref"]);
}

#[test]
fn submissions_of_two_sites_against_one_version_both_merge() {
    let mut script = claimed();
    script.run("site/a submit 1 1 a/d/x=1\n site/b submit 1 1 b/d/x=1");
    assert_eq!(script.conditions(), ["a/d/x", "anna/lung/ref", "b/d/x"]);
}

#[test]
fn a_site_that_submits_keys_of_another_is_refused() {
    let mut script = claimed();
    for keys in ["b/d/x=1", "a/d/x=1 b/d/x=1", "anna/lung/ref=mine"] {
        let answer = script.ask(&format!("site/a submit 1 1 {keys}"));
        assert!(matches!(answer, Err(Refusal::Forbidden { .. })), "{keys}: {answer:?}");
    }
}

#[test]
fn the_same_submission_twice_is_one_record_with_one_answer() {
    let mut script = claimed();
    let first = script.ask("site/a submit 1 1 a/d/x=1 cells=100 training=5");
    script.run("site/b submit 1 1 b/d/x=1");
    let before = script.current();
    // A repetition took another time to train, and that is all.
    assert_eq!(script.ask("site/a submit 1 1 a/d/x=1 cells=100 training=9"), first);
    assert_eq!(script.current(), before);
}

#[test]
fn a_lost_answer_is_given_again_after_the_task_has_ended() {
    let mut script = claimed();
    let first = script.ask("site/a submit 1 1 a/d/x=1");
    script.run("operator/anna close-task 1");
    assert_eq!(script.ask("site/a submit 1 1 a/d/x=1"), first);
}

#[test]
fn a_second_and_different_submission_is_a_conflict() {
    let mut script = claimed();
    script.run("site/a submit 1 1 a/d/x=1");
    for keys in ["a/d/x=2", "a/d/y=1", "a/d/x=1 a/d/y=2", "a/d/x=1 embeddings=e"] {
        let answer = script.ask(&format!("site/a submit 1 1 {keys}"));
        assert!(matches!(answer, Err(Refusal::Conflict { .. })), "{keys}: {answer:?}");
    }
    assert!(matches!(script.ask("site/a claim 1"), Err(Refusal::Conflict { .. })));
}

#[test]
fn a_key_that_is_present_with_other_columns_is_a_conflict() {
    let mut script = claimed();
    script.run("site/a submit 1 1 a/d/x=1\n operator/anna publish-task atlas\n site/a claim 2");
    assert!(matches!(script.ask("site/a submit 2 1 a/d/x=2"), Err(Refusal::Conflict { .. })));
}

#[test]
fn columns_that_are_present_already_make_no_new_version() {
    let mut script = claimed();
    script.run("site/a submit 1 1 a/d/x=1\n operator/anna publish-task atlas\n site/a claim 2");
    let before = script.current();
    assert_eq!(script.ask("site/a submit 2 1 a/d/x=1"), Ok(Outcome::Accepted { version: Some(before) }));
    assert_eq!(script.current(), before);
}

#[test]
fn a_key_that_waits_for_a_close_is_taken() {
    let mut script = Script::after(OPEN_TASK_AT_CLOSE);
    script.run("site/a claim 1\n site/a submit 1 1 a/d/x=1\n operator/anna publish-task atlas\n site/a claim 2");
    assert!(matches!(script.ask("site/a submit 2 1 a/d/x=2"), Err(Refusal::Conflict { .. })));
    script.run("site/a submit 2 1 a/d/x=1\n operator/anna close-task 1");
    assert_eq!(script.conditions(), ["a/d/x", "anna/lung/ref"]);
}

#[test]
fn work_on_another_version_than_the_task_asks_for_is_refused() {
    let mut script = claimed();
    script.run("site/a submit 1 1 a/d/x=1");
    assert!(matches!(script.ask("site/b submit 1 1 b/d/x=1 v=1"), Err(Refusal::Stale { .. })));
}

#[test]
fn work_on_a_version_that_lost_a_condition_since_is_accepted_and_merged_into_the_current_one() {
    let mut script = claimed();
    script.run("operator/anna withdraw atlas anna/lung/ref");
    assert!(matches!(script.ask("operator/anna publish-task atlas v=0"), Err(Refusal::Stale { .. })));
    script.run("site/a claim 1\n site/a submit 1 1 a/d/x=1");
    assert_eq!(script.conditions(), ["a/d/x"]);
}

#[test]
fn what_the_task_does_not_ask_for_is_refused() {
    let mut script = claimed();
    check_invalid(&mut script, "site/a submit 1 1", "has 0 conditions");
    check_invalid(&mut script, "site/a submit 1 1 a/d/x=1 embeddings=e", "does not ask for");
    check_invalid(&mut script, "site/a submit 1 1 a/d/x=1 size=4194305", "more than the limit");
    let many: String = (0..=4_096).map(|batch| format!(" a/d/{batch}=1")).collect();
    check_invalid(&mut script, &format!("site/a submit 1 1{many}"), "has 4097 conditions");
}

#[test]
fn embeddings_are_taken_where_the_task_asks_for_them() {
    let mut script = claimed();
    script.run("operator/anna publish-task atlas embeddings=full\n site/a claim 2");
    script.run("site/a submit 2 1 a/d/x=1 embeddings=e");
}

#[test]
fn metrics_that_make_no_sense_are_refused() {
    let mut script = claimed();
    for (metrics, word) in [
        ("cells=0", "has 0 cells, expected at least 1"),
        ("cells=9 coverage=1.5", "gene coverage"),
        ("cells=9 coverage=NaN", "gene coverage"),
        ("cells=9 elbo=NaN", "NaN or infinite"),
        ("cells=9 elbo=inf", "NaN or infinite"),
    ] {
        check_invalid(&mut script, &format!("site/a submit 1 1 a/d/x=1 {metrics}"), word);
    }
}

#[test]
fn conditions_with_too_few_cells_are_refused() {
    let mut script = claimed();
    script.run("operator/anna publish-task atlas min-cells=50\n site/a claim 2");
    check_invalid(&mut script, "site/a submit 2 1 a/d/x=1 cells=49", "has 49 cells, expected at least 50");
    script.run("site/a submit 2 1 a/d/x=1 cells=50");
}

#[test]
fn a_site_that_keeps_its_metrics_may_take_part() {
    let mut script = claimed();
    script.run("operator/anna publish-task atlas min-cells=50\n site/a claim 2\n site/a submit 2 1 a/d/x=1");
}

#[test]
fn an_unknown_task_is_not_found() {
    let mut script = claimed();
    assert!(matches!(script.ask("site/a submit 9 1 a/d/x=1"), Err(Refusal::NotFound { .. })));
    assert!(matches!(script.ask("site/a claim 9"), Err(Refusal::NotFound { .. })));
}

#[test]
fn at_close_the_record_learns_its_version() {
    let mut script = Script::after(OPEN_TASK_AT_CLOSE);
    script.run("site/a claim 1");
    assert_eq!(script.ask("site/a submit 1 1 a/d/x=1"), Ok(Outcome::Accepted { version: None }));
    script.run("operator/anna close-task 1");
    let task = script.cluster.task("1".parse().unwrap()).unwrap();
    let state = &task.assignments[&"a".parse().unwrap()].state;
    let AssignmentState::Accepted { version, .. } = state else { panic!("{state:?}") };
    assert_eq!(*version, Some(script.current()));
}

#[test]
fn a_model_is_held_to_the_figures_of_its_own_and_to_no_others() {
    let mut script = claimed();
    check_invalid(&mut script, "operator/anna publish-task atlas accuracy=0.5", "`accuracy` is not a valid figure");
    check_invalid(&mut script, "site/a submit 1 1 a/d/x=1 cells=9 accuracy=0.9", "comes with `accuracy`");
    script.run("operator/anna publish-reference labelled figures=accuracy anna/lung/ref=r");
    script.run("operator/anna publish-task labelled accuracy=0.5\n site/a claim 2");
    check_invalid(&mut script, "site/a submit 2 1 a/d/x=1 cells=9", "without its accuracy");
    check_invalid(&mut script, "site/a submit 2 1 a/d/x=1 cells=9 accuracy=0.4", "accuracy is 0.40 share of cells");
    script.run("site/a submit 2 1 a/d/x=1 cells=9 accuracy=0.6");
}

#[test]
fn quality_gates_are_held_to_and_a_condition_without_metrics_meets_none() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas coverage=0.8 elbo=-600 reconstruction=500\n site/a claim 2");
    for (metrics, expected) in [
        ("", "without metrics"),
        (" cells=9 coverage=0.7", "gene coverage is 0.700, expected at least 0.8"),
        (" cells=9 elbo=-601", "ELBO is -601.00"),
        (" cells=9 elbo=-599 reconstruction=501", "reconstruction loss is 501.00"),
    ] {
        let answer = script.ask(&format!("site/a submit 2 1 a/d/x=1{metrics}"));
        assert!(matches!(&answer, Err(Refusal::Invalid { reason }) if reason.contains(expected)), "{answer:?}");
    }
    script.run("site/a submit 2 1 a/d/x=1 cells=9");
}
