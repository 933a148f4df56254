//! A bounded set of seeds for every build, and the promise that a seed can be replayed.

use archipelago_simulation::{Settings, campaign::Campaign, run};

#[test]
fn no_rule_is_broken_and_every_fault_happens() {
    let campaign = Campaign::run(0..150, &Settings::default(), |_| {});
    assert!(campaign.is_good(), "{campaign}");
}

#[test]
fn a_seed_gives_the_same_run_again_event_by_event() {
    let settings = Settings { unrest_ms: 20_000, keeps_log: true, ..Settings::default() };
    for seed in 0..6 {
        let (first, again) = (run(seed, &settings), run(seed, &settings));
        assert_eq!(first.log, again.log, "seed {seed}");
        assert_eq!((first.digest, first.history), (again.digest, again.history), "seed {seed}");
    }
}

#[test]
fn two_seeds_are_two_runs() {
    let settings = Settings { unrest_ms: 5_000, ..Settings::default() };
    assert_ne!(run(1, &settings).digest, run(2, &settings).digest);
}

#[test]
fn a_run_that_cannot_finish_in_time_fails_and_says_what_is_left() {
    let settings = Settings { patience_ms: 1, ..Settings::default() };
    // Some have done everything by the time all is healed.
    let failures: Vec<_> = (0..6).filter_map(|seed| run(seed, &settings).failure).collect();
    assert!(!failures.is_empty() && failures.iter().all(|failure| failure.starts_with("liveness: ")), "{failures:?}");
}
