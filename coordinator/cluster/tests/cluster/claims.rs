//! Leases and their fencing epochs.

use archipelago_cluster::{Outcome, Refusal};

use crate::script::{OPEN_TASK, Script};

const LEASE_MS: u64 = 60_000;

#[track_caller]
fn check_leased(answer: Result<Outcome, Refusal>, epoch: u64, lease_until_ms: u64) {
    assert_eq!(answer, Ok(Outcome::Assigned { epoch, lease_until_ms }));
}

#[track_caller]
fn check_stale(answer: Result<Outcome, Refusal>) {
    assert!(matches!(answer, Err(Refusal::Stale { .. })), "{answer:?}");
}

#[test]
fn the_first_claim_has_epoch_one() {
    let mut script = Script::after(OPEN_TASK);
    check_leased(script.ask("site/a claim 1"), 1, 1_000 + LEASE_MS);
}

#[test]
fn every_site_has_its_own_assignment() {
    let mut script = Script::after(OPEN_TASK);
    check_leased(script.ask("site/a claim 1"), 1, 1_000 + LEASE_MS);
    check_leased(script.ask("site/b claim 1"), 1, 1_000 + LEASE_MS);
}

#[test]
fn a_restarted_worker_gets_its_epoch_back_and_a_fresh_lease() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1");
    check_leased(script.ask("@5000 site/a claim 1"), 1, 5_000 + LEASE_MS);
}

#[test]
fn a_lease_lives_through_its_last_millisecond_and_no_longer() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n @31000 coordinator/1 tick");
    let mut late = script.clone();
    check_leased(script.ask("@61000 site/a renew 1 1 3"), 1, 61_000 + LEASE_MS);
    check_stale(late.ask("@61001 site/a renew 1 1 3"));
}

#[test]
fn what_ends_a_millisecond_earlier_takes_nothing_else_with_it() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas deadline=61001\n site/a claim 1\n @1001 site/b claim 1");
    script.run("@61001 coordinator/1 tick");
    check_stale(script.ask("site/a renew 1 1 3"));
    script.run("site/b renew 1 1 3\n site/a claim 2");
}

#[test]
fn a_claim_after_a_lapse_has_the_next_epoch() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n @31000 coordinator/1 tick\n @70000 coordinator/1 tick");
    check_leased(script.ask("site/a claim 1"), 2, 70_000 + LEASE_MS);
}

#[test]
fn a_claim_after_giving_up_has_the_next_epoch() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1");
    assert_eq!(script.ask("site/a give-up 1 1 disk full"), Ok(Outcome::Released));
    check_stale(script.ask("site/a submit 1 1 a/d/x=1"));
    check_leased(script.ask("site/a claim 1"), 2, 1_000 + LEASE_MS);
}

#[test]
fn everything_from_an_old_epoch_is_refused() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n @31000 coordinator/1 tick\n @70000 site/a claim 1");
    for line in ["site/a renew 1 1 3", "site/a give-up 1 1 tired", "site/a submit 1 1 a/d/x=1"] {
        check_stale(script.ask(line));
    }
    script.run("site/a submit 1 2 a/d/x=1");
}

#[test]
fn an_epoch_that_was_never_given_is_invalid() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1");
    for line in ["site/a submit 1 2 a/d/x=1", "site/b submit 1 1 b/d/x=1", "site/a renew 1 7 3"] {
        let answer = script.ask(line);
        assert!(matches!(answer, Err(Refusal::Invalid { .. })), "`{line}` gave {answer:?}");
    }
}

#[test]
fn a_late_submission_is_refused_even_if_no_tick_came_between() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n @31000 coordinator/1 tick");
    check_stale(script.ask("@61001 site/a submit 1 1 a/d/x=1"));
}

#[test]
fn a_clock_that_goes_back_neither_shortens_nor_revives_a_lease() {
    let mut script = Script::after(OPEN_TASK);
    script.run("@50000 site/a claim 1");
    check_leased(script.ask("@10 site/a renew 1 1 3"), 1, 50_000 + LEASE_MS);
    script.run("@100000 coordinator/2 tick\n @150000 coordinator/2 tick");
    check_stale(script.ask("@10 site/a submit 1 1 a/d/x=1"));
    assert_eq!(script.cluster.now_ms(), 150_000);
}

#[test]
fn the_leader_learns_when_a_tick_is_due() {
    let mut script = Script::after(OPEN_TASK);
    assert_eq!(script.cluster.next_due_ms(), None);
    script.run("site/a claim 1");
    assert_eq!(script.cluster.next_due_ms(), Some(61_001));
    script.run("@31000 coordinator/1 tick\n @61001 coordinator/1 tick");
    assert_eq!(script.cluster.next_due_ms(), None);
}

#[test]
fn renewals_in_quick_succession_need_no_log_entry() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1");
    let without_log = |script: &Script, epoch, now_ms| {
        script.cluster.renewal_without_log(&"a".parse().unwrap(), "1".parse().unwrap(), epoch, now_ms)
    };
    let held = Outcome::Assigned { epoch: 1, lease_until_ms: 1_000 + LEASE_MS };
    assert_eq!(without_log(&script, 1, 10_999), Some(held));
    assert_eq!(without_log(&script, 1, 11_000), None);
    assert_eq!(without_log(&script, 2, 2_000), None);
    script.run("operator/anna publish-task atlas lease=6000\n site/b claim 2");
    let short = |now_ms| script.cluster.renewal_without_log(&"b".parse().unwrap(), "2".parse().unwrap(), 1, now_ms);
    assert!(short(2_999).is_some() && short(3_000).is_none());
}

#[test]
fn a_report_that_is_no_number_or_too_long_is_refused() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1");
    assert!(matches!(script.ask("site/a renew 1 1 3 loss=NaN"), Err(Refusal::Invalid { .. })));
    let long = format!("site/a give-up 1 1 {}", "x".repeat(1_025));
    assert!(matches!(script.ask(&long), Err(Refusal::Invalid { .. })));
}
