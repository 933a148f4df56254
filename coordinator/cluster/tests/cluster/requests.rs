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

#[test]
fn the_oldest_answers_are_forgotten_first() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1 key=1");
    let claim = script.log.last().unwrap().clone();
    let with_key = |number: u64| {
        let mut command = claim.clone();
        command.key[8..].copy_from_slice(&number.to_le_bytes());
        command.now_ms = 2_000;
        command
    };
    // The answer to the claim above is the oldest but for the four of the set-up.
    for number in 1..=limits::REMEMBERED_REQUESTS as u64 - 1 {
        script.cluster.apply(&with_key(number)).outcome.unwrap();
    }
    let first = Ok(Outcome::Assigned { epoch: 1, lease_until_ms: 61_000 });
    assert_eq!(script.cluster.apply(&claim).outcome, first);
    script.cluster.apply(&with_key(0xffff)).outcome.unwrap();
    assert_ne!(script.cluster.apply(&claim).outcome, first);
}
