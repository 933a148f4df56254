//! Repeated requests get their first answer.

use archipelago_cluster::{Outcome, Refusal};
use archipelago_common::{TaskId, limits};

use crate::script::{OPEN_TASK, Script};

#[test]
fn a_repeated_request_gets_its_first_answer_and_has_no_second_effect() {
    let mut script = Script::after(OPEN_TASK);
    let publish = "operator/anna publish-task atlas key=5";
    assert_eq!(script.ask(publish), Ok(Outcome::Task(TaskId(2))));
    assert_eq!(script.ask(publish), Ok(Outcome::Task(TaskId(2))));
    assert_eq!(script.cluster.tasks().count(), 2);
}

#[test]
fn a_claim_that_arrives_again_after_the_site_gave_up_does_not_claim_again() {
    let mut script = Script::after(OPEN_TASK);
    let first = script.ask("site/a claim 1 key=5");
    script.run("site/a give-up 1 1 tired");
    assert_eq!(script.ask("site/a claim 1 key=5"), first);
    assert!(matches!(script.ask("site/a renew 1 1 3"), Err(Refusal::Stale { .. })));
}

#[test]
fn keys_of_different_askers_are_different() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas key=5\n operator/ben publish-task atlas key=5");
    assert_eq!(script.cluster.tasks().count(), 3);
}

#[test]
fn a_key_that_names_two_requests_is_refused() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna add-site c key=5");
    let answer = script.ask("operator/anna add-site d key=5");
    assert!(matches!(&answer, Err(Refusal::Invalid { reason }) if reason.contains("used before")), "{answer:?}");
}

#[test]
fn a_refused_request_may_be_asked_again_under_its_key() {
    let mut script = Script::after(OPEN_TASK);
    assert!(script.ask("site/c claim 1 key=5").is_err());
    script.run("operator/anna add-site c\n site/c claim 1 key=5");
}

#[test]
fn renewals_are_not_remembered() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1");
    let first = script.ask("@2000 site/a renew 1 1 3 key=5");
    let second = script.ask("@3000 site/a renew 1 1 3 key=5");
    assert_ne!(first, second);
}

/// The same request under other keys, so many of them.
fn repeat(script: &mut Script, line: &str, numbers: std::ops::Range<u64>) {
    script.run(line);
    let command = script.log.last().unwrap().clone();
    for number in numbers {
        let mut again = command.clone();
        again.key[8..].copy_from_slice(&(number + 1).to_le_bytes());
        script.cluster.apply(&again).outcome.unwrap();
    }
}

#[test]
fn an_asker_forgets_its_own_oldest_answers_first() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1 key=1");
    let (claim, first) = (script.log.last().unwrap().clone(), 61_000);
    let lease = |script: &mut Script| match script.cluster.apply(&claim).outcome {
        Ok(Outcome::Assigned { lease_until_ms, .. }) => lease_until_ms,
        other => panic!("{other:?}"),
    };
    let most = limits::REMEMBERED_REQUESTS as u64;
    repeat(&mut script, "@2000 site/a claim 1 key=2", 0..most - 2);
    assert_eq!(lease(&mut script), first);
    repeat(&mut script, "@3000 site/a claim 1 key=3", 0..1);
    assert_ne!(lease(&mut script), first);
}

/// Today's fault: 8,192 requests of one site, a matter of seconds, and a repeated request to publish a task made another.
#[test]
fn a_flood_of_one_asker_makes_nobody_else_forgotten() {
    let mut script = Script::after(OPEN_TASK);
    let publish = "operator/anna publish-task atlas key=5";
    script.run(publish);
    repeat(&mut script, "site/a claim 1 key=6", 0..3 * limits::REMEMBERED_REQUESTS as u64);
    assert_eq!(script.ask(publish), Ok(Outcome::Task(TaskId(2))));
    assert_eq!(script.cluster.tasks().count(), 2);
}

#[test]
fn where_all_together_are_too_many_whoever_has_most_forgets() {
    let mut script = Script::after(OPEN_TASK);
    let publish = "operator/anna publish-task atlas key=5";
    script.run(publish);
    let n_sites = limits::REMEMBERED_IN_ALL / limits::REMEMBERED_REQUESTS + 1;
    for site_idx in 0..n_sites {
        script.run(&format!("operator/ben add-site s{site_idx}"));
        repeat(&mut script, &format!("site/s{site_idx} claim 1"), 0..limits::REMEMBERED_REQUESTS as u64 - 1);
    }
    assert_eq!(script.ask(publish), Ok(Outcome::Task(TaskId(2))));
}

/// Up to the first edition all askers shared one memory, and coordinators of earlier builds still do.
#[test]
fn in_the_first_edition_all_share_one_memory() {
    let mut script = Script::first_edition();
    script.run(OPEN_TASK);
    let publish = "operator/anna publish-task atlas key=5";
    script.run(publish);
    repeat(&mut script, "site/a claim 1 key=6", 0..limits::REMEMBERED_REQUESTS as u64 - 1);
    assert_eq!(script.ask(publish), Ok(Outcome::Task(TaskId(3))));
}
