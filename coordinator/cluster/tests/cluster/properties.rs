//! What holds for any sequence of commands.

use archipelago_cluster::{Cluster, Command, Outcome};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::script::{OPEN_TASK, OPEN_TASK_AT_CLOSE, Script};

const SITES: [&str; 3] = ["a", "b", "c"];

/// A line that is often, but not always, one that can be carried out.
fn line() -> impl Strategy<Value = String> {
    let site = || select(&SITES[..]);
    let (task, epoch) = (|| 1..4_u64, || 1..4_u64);
    // Now and then the columns are not those that this condition gets elsewhere.
    let columns = || select(&["", "", "other"][..]);
    let keys = move |owner: &'static str| {
        let key = (select(&["x", "y", "z"][..]), columns());
        vec(key, 1..3).prop_map(move |keys| {
            keys.iter().map(|(batch, blob)| format!(" {owner}/d/{batch}={owner}{batch}{blob}")).collect::<String>()
        })
    };
    prop_oneof![
        2 => Just("coordinator/1 tick".to_owned()),
        1 => site().prop_map(|site| format!("operator/anna add-site {site}")),
        1 => (site(), 0..8).prop_map(|(site, dice)| match dice {
            0 => format!("operator/anna revoke-site {site}"),
            _ => format!("site/{site} add-site d"),
        }),
        2 => (0..3_usize, select(&["each", "at-close"][..]), select(&["", " allow=a,b", " deadline=90000"][..]))
            .prop_map(|(v, publish, more)| format!("operator/anna publish-task atlas v={v} publish={publish}{more}")),
        1 => task().prop_map(|task| format!("operator/anna close-task {task}")),
        1 => (task(), 0..3).prop_map(|(task, dice)| match dice {
            0 => format!("operator/anna cancel-task {task}"),
            _ => format!("site/a cancel-task {task}"),
        }),
        6 => (site(), task()).prop_map(|(site, task)| format!("site/{site} claim {task}")),
        3 => (site(), task(), epoch()).prop_map(|(site, task, epoch)| format!("site/{site} renew {task} {epoch} 5")),
        1 => (site(), task(), epoch()).prop_map(|(site, task, epoch)| format!("site/{site} give-up {task} {epoch} why")),
        8 => (site(), task(), epoch(), site()).prop_flat_map(move |(site, task, epoch, other)| {
            // One owner in nine is another than the submitter.
            let owner = if other == "c" && site != "c" { other } else { site };
            keys(owner).prop_map(move |keys| format!("site/{site} submit {task} {epoch}{keys}"))
        }),
        2 => (site(), site()).prop_map(|(site, owner)| format!("site/{site} withdraw atlas {owner}")),
        1 => (site(), select(&["x", "y"][..]))
            .prop_map(|(owner, batch)| format!("operator/ben withdraw atlas {owner}/d/{batch}")),
    ]
}

/// Lines with their stamps and, for some, a request key that may have been used before. Clocks jump both ways.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let step = prop_oneof![4 => 0_i64..5_000, 1 => 0_i64..80_000, 1 => -20_000_i64..0];
    let key = proptest::option::weighted(0.2, 0..6_u64);
    vec((step, line(), key), 1..60).prop_map(|steps| {
        let mut now_ms = 1_000_i64;
        let mut stamped = Vec::new();
        for (step, line, key) in steps {
            now_ms = (now_ms + step).max(0);
            let key = key.map(|key| format!(" key={key}")).unwrap_or_default();
            stamped.push(format!("@{now_ms} {line}{key}"));
        }
        stamped
    })
}

/// [`Script::apply`] checks the invariants, and that what is refused changes nothing.
fn applied(lines: &[String]) -> Script {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna publish-task atlas publish=at-close");
    for site in ["a", "b"] {
        script.run(&format!("site/{site} claim 1\n site/{site} claim 2"));
    }
    for line in lines {
        script.apply(line);
    }
    script
}

/// Every site hands in two conditions, in the order given.
fn submit_all(start: &str, order: &[&str]) -> Script {
    let mut script = Script::after(start);
    script.run("operator/anna add-site c");
    for site in order {
        script.run(&format!("site/{site} claim 1\n site/{site} submit 1 1 {site}/d/x={site}1 {site}/d/y={site}2"));
    }
    script
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn random_commands_keep_the_invariants_and_replay_to_the_same_state(lines in lines()) {
        let script = applied(&lines);
        let mut again = Cluster::founded();
        for command in &script.log {
            again.apply(command);
        }
        prop_assert_eq!(again.digest().unwrap(), script.cluster.digest().unwrap());
    }

    #[test]
    fn a_snapshot_at_any_point_and_the_rest_of_the_log_are_the_whole(lines in lines(), at in any::<prop::sample::Index>()) {
        let script = applied(&lines);
        let (before, after) = script.log.split_at(at.index(script.log.len() + 1));
        let mut early = Cluster::founded();
        for command in before {
            early.apply(command);
        }
        let mut restored = Cluster::restore(&early.snapshot().unwrap()).unwrap();
        for command in after {
            prop_assert_eq!(restored.apply(command), early.apply(command));
        }
        prop_assert_eq!(restored.digest().unwrap(), script.cluster.digest().unwrap());
    }

    #[test]
    fn what_was_accepted_once_is_never_merged_again(lines in lines()) {
        let mut script = applied(&lines);
        let mut replay = Cluster::founded();
        let is_accepted = |command: &&Command| {
            matches!(replay.apply(command).outcome, Ok(Outcome::Accepted { .. }))
        };
        let accepted: Vec<_> = script.log.iter().filter(is_accepted).cloned().collect();
        let before: Vec<_> = script.cluster.references().cloned().collect();
        for (mut command, number) in accepted.into_iter().zip(1_u8..) {
            // A caller that forgot its key: only the content tells that this is a repetition.
            command.key = [number; 16];
            script.cluster.apply(&command);
        }
        prop_assert_eq!(script.cluster.references().cloned().collect::<Vec<_>>(), before);
    }

    #[test]
    fn the_order_of_submissions_does_not_change_the_version(order in Just(SITES.to_vec()).prop_shuffle()) {
        let expected = submit_all(OPEN_TASK, &SITES).current();
        prop_assert_eq!(submit_all(OPEN_TASK, &order).current(), expected);
        let mut at_close = submit_all(OPEN_TASK_AT_CLOSE, &order);
        at_close.run("operator/anna close-task 1");
        prop_assert_eq!(at_close.current(), expected);
    }

    #[test]
    fn withdrawing_restores_the_version_of_those_who_stay(
        order in Just(SITES.to_vec()).prop_shuffle(),
        leaving in Just(SITES.to_vec()).prop_shuffle(),
        n_leaving in 0..=3_usize,
    ) {
        let mut script = submit_all(OPEN_TASK, &order);
        let (leaving, staying) = leaving.split_at(n_leaving);
        for site in leaving {
            script.run(&format!("site/{site} withdraw atlas {site}"));
        }
        prop_assert_eq!(script.current(), submit_all(OPEN_TASK, staying).current());
    }
}
