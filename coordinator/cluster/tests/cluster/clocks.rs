//! Time, and clocks that are wrong.

use archipelago_cluster::Refusal;

use crate::script::{OPEN_TASK, Script};

const DAY_MS: u64 = 86_400_000;

/// Three coordinators, a task with a deadline in an hour, a site at work.
fn working() -> Script {
    let mut script = Script::after(OPEN_TASK);
    script.run("coordinator/1 adopt-members 1@h1:1 2@h2:1 3@h3:1\n operator/anna publish-task atlas deadline=3600000");
    script.run("site/a claim 2");
    script
}

fn is_open(script: &Script) -> bool {
    script.cluster.task("2".parse().unwrap()).unwrap().state == archipelago_common::record::TaskState::Open
}

/// Today's fault: eight seconds of a leader three days ahead ended every open task, and froze time for three days.
#[test]
fn a_leader_that_is_days_ahead_ends_nothing() {
    let mut script = working();
    script.run(&format!("@{} operator/anna add-site c", 3 * DAY_MS));
    assert!(is_open(&script) && script.cluster.now_ms() < 2_000);
    // The next one goes on where time is.
    script.run("@3000 site/a renew 2 1 5");
    assert_eq!(script.cluster.now_ms(), 3_000);
}

#[test]
fn a_majority_of_clocks_makes_a_long_step_and_fewer_do_not() {
    let mut script = working();
    let late = 7_200_000;
    let answer = script.ask(&format!("coordinator/1 agree-on-time 1={late} 2=1000"));
    assert!(matches!(answer, Err(Refusal::Invalid { .. })), "{answer:?}");
    // Of a coordinator that is none it does not count.
    assert!(script.ask(&format!("coordinator/1 agree-on-time 1={late} 9={late}")).is_err());
    script.run(&format!("coordinator/1 agree-on-time 1={late} 2=1000 3={late}"));
    assert!(!is_open(&script) && script.cluster.now_ms() == late);
}

#[test]
fn more_than_a_day_is_for_an_operator_to_say_and_so_is_a_step_back() {
    let mut script = working();
    let late = 3 * DAY_MS;
    let answer = script.ask(&format!("coordinator/1 agree-on-time 1={late} 2={late} 3={late}"));
    assert!(matches!(&answer, Err(Refusal::Conflict { reason }) if reason.contains("clock set")), "{answer:?}");
    assert!(is_open(&script));
    assert!(script.ask(&format!("coordinator/1 set-clock {late}")).is_err());
    script.run(&format!("operator/anna set-clock {late}"));
    assert!(!is_open(&script));
    // All clocks were wrong; the operator repairs it, and time goes on from there.
    script.run("operator/anna set-clock 5000\n site/b claim 1\n @6000 site/b renew 1 1 5");
    assert_eq!(script.cluster.now_ms(), 6_000);
}

#[test]
fn who_holds_a_lease_keeps_what_is_left_of_it_when_the_clock_is_set() {
    let mut script = working();
    script.run("@31000 operator/anna set-clock 900000");
    script.run("@929999 coordinator/1 tick\n site/a renew 2 1 5");
}

/// Coordinators of an earlier build let any stamp move time, and the state must be the same on all.
#[test]
fn in_the_first_edition_any_stamp_moves_time() {
    let mut script = Script::first_edition();
    script.run(OPEN_TASK);
    script.run(&format!("@{} coordinator/1 tick", 3 * DAY_MS));
    assert_eq!(script.cluster.now_ms(), 3 * DAY_MS);
}
