//! Histories whose verdict is known.

use std::collections::BTreeMap;

use archipelago_common::{BlobRef, Name, TaskId, Version};
use archipelago_histories::{Answer, Call, History, Operation, Seen, check};

fn atlas() -> Name {
    "atlas".parse().unwrap()
}

/// `atlas` with these conditions; a condition's columns are named like it.
fn version(keys: &[&str]) -> Version {
    let columns = keys.iter().map(|key| (key.parse().unwrap(), BlobRef::of(key.as_bytes()))).collect();
    Version { base: BlobRef::of(b"base"), columns }
}

fn operation(client: &str, (invoked, returned): (u64, u64), call: Call, answer: Answer) -> Operation {
    Operation { client: client.to_owned(), call, invoked, returned: Some(returned), answer: Some(answer) }
}

fn publish(time: (u64, u64)) -> Operation {
    operation("operator/anna", time, Call::Publish { reference: atlas(), version: version(&[]) }, Answer::Done)
}

fn show(time: (u64, u64), keys: &[&str]) -> Operation {
    let answer = Answer::Reference { current: version(keys).id() };
    operation("auditor/eve", time, Call::ShowReference { reference: atlas() }, answer)
}

/// A site hands in one condition, and is told that it is in the version with these.
fn submit(site: &str, time: (u64, u64), key: &str, merged: &[&str]) -> Operation {
    let columns = BTreeMap::from([(key.parse().unwrap(), BlobRef::of(key.as_bytes()))]);
    let call = Call::Submit { reference: atlas(), task: TaskId(1), site: site.parse().unwrap(), epoch: 1, columns };
    operation(site, time, call, Answer::Accepted { version: Some(version(merged).id()) })
}

fn claim(site: &str, time: (u64, u64), epoch: u64) -> Operation {
    let call = Call::Claim { task: TaskId(1), site: site.parse().unwrap() };
    operation(site, time, call, Answer::Assigned { epoch })
}

fn look(time: (u64, u64), epoch: u64, seen: Seen) -> Operation {
    let call = Call::ShowTask { task: TaskId(1), site: "a".parse().unwrap() };
    operation("auditor/eve", time, call, Answer::Assignment { epoch, seen })
}

fn unanswered(operation: Operation) -> Operation {
    Operation { returned: None, answer: None, ..operation }
}

fn is_linearizable(operations: Vec<Operation>) -> bool {
    check(&History { operations }).is_ok()
}

#[test]
fn what_happens_one_after_another_is_linearizable() {
    assert!(is_linearizable(vec![
        publish((0, 1)),
        claim("a", (2, 3), 1),
        submit("a", (4, 5), "a/d/x", &["a/d/x"]),
        show((6, 7), &["a/d/x"]),
    ]));
}

#[test]
fn a_read_that_misses_what_was_acknowledged_is_refused() {
    let stale =
        vec![publish((0, 1)), claim("a", (2, 3), 1), submit("a", (4, 5), "a/d/x", &["a/d/x"]), show((6, 7), &[])];
    assert!(!is_linearizable(stale.clone()));
    let told = check(&History { operations: stale }).unwrap_err().to_string();
    assert!(told.contains("reference `atlas`") && told.contains("auditor/eve"), "{told}");
}

#[test]
fn a_read_at_the_same_time_may_see_either() {
    for keys in [&[][..], &["a/d/x"]] {
        let during = show((4, 6), keys);
        assert!(is_linearizable(vec![
            publish((0, 1)),
            claim("a", (2, 3), 1),
            submit("a", (4, 5), "a/d/x", &["a/d/x"]),
            during,
        ]));
    }
}

#[test]
fn two_readers_cannot_see_two_orders() {
    let (a, b) = ("a/d/x", "b/d/x");
    let history = |second: &[&str]| {
        vec![
            publish((0, 1)),
            claim("a", (2, 3), 1),
            claim("b", (2, 3), 1),
            unanswered(submit("a", (4, 4), a, &[])),
            unanswered(submit("b", (4, 4), b, &[])),
            show((5, 6), &[a]),
            show((7, 8), second),
        ]
    };
    assert!(is_linearizable(history(&[a])));
    assert!(is_linearizable(history(&[a, b])));
    assert!(!is_linearizable(history(&[b])));
    assert!(!is_linearizable(history(&[])));
}

#[test]
fn what_was_never_answered_may_have_happened_or_not_but_not_both() {
    let lost = unanswered(submit("a", (4, 4), "a/d/x", &[]));
    let before = [publish((0, 1)), claim("a", (2, 3), 1), lost];
    let and = |more: Vec<Operation>| before.iter().cloned().chain(more).collect::<Vec<_>>();
    assert!(is_linearizable(and(vec![show((5, 6), &[])])));
    assert!(is_linearizable(and(vec![show((5, 6), &["a/d/x"])])));
    assert!(is_linearizable(and(vec![show((5, 6), &[]), show((7, 8), &["a/d/x"])])));
    assert!(!is_linearizable(and(vec![show((5, 6), &["a/d/x"]), show((7, 8), &[])])));
}

#[test]
fn an_epoch_is_given_to_one_claim_after_another() {
    assert!(is_linearizable(vec![claim("a", (0, 1), 1), claim("a", (2, 3), 1)]), "a restarted worker");
    assert!(is_linearizable(vec![claim("a", (0, 1), 1), claim("a", (2, 3), 2)]), "the lease lapsed in between");
    assert!(!is_linearizable(vec![claim("a", (0, 1), 2)]), "nobody had the first");
    assert!(!is_linearizable(vec![claim("a", (0, 1), 1), claim("a", (2, 3), 2), claim("a", (4, 5), 1)]));
}

#[test]
fn a_submission_from_an_old_epoch_is_not_accepted() {
    let late = submit("a", (6, 7), "a/d/x", &["a/d/x"]);
    let history = vec![publish((0, 1)), claim("a", (2, 3), 1), claim("a", (4, 5), 2), late];
    assert!(!is_linearizable(history));
}

#[test]
fn an_assignment_lapses_by_itself_and_does_not_come_back() {
    assert!(is_linearizable(vec![claim("a", (0, 1), 1), look((2, 3), 1, Seen::Lapsed)]));
    let back = vec![claim("a", (0, 1), 1), look((2, 3), 1, Seen::Lapsed), look((4, 5), 1, Seen::Assigned)];
    assert!(!is_linearizable(back));
}

#[test]
fn a_long_history_of_many_at_once_is_searched_in_time() {
    let keys: Vec<String> = (0..300).map(|i| format!("a/d/x{i:03}")).collect();
    let mut operations = vec![publish((0, 1))];
    for i in 0..300_u64 {
        let merged: Vec<&str> = keys[..=i as usize].iter().map(String::as_str).collect();
        let mut submission = submit("a", (10 * i + 2, 10 * i + 30), &keys[i as usize], &merged);
        let Call::Submit { task, .. } = &mut submission.call else { unreachable!("made by `submit`") };
        *task = TaskId(i + 1);
        let claimed = Operation {
            call: Call::Claim { task: TaskId(i + 1), site: "a".parse().unwrap() },
            ..claim("a", (0, 1), 1)
        };
        operations.extend([claimed, submission]);
    }
    let checked = check(&History { operations }).unwrap();
    assert_eq!((checked.objects, checked.operations), (301, 901));
}

#[test]
fn a_history_round_trips_and_a_damaged_line_is_named() {
    let history = History { operations: vec![publish((0, 1)), unanswered(submit("a", (2, 2), "a/d/x", &[]))] };
    assert_eq!(History::parse(&history.to_lines()).unwrap(), history);
    let damaged = history.to_lines() + "nonsense";
    assert!(History::parse(&damaged).unwrap_err().to_string().contains("line 3"));
}

#[test]
fn a_reference_whose_task_closes_is_left_out() {
    let mut waiting = submit("a", (4, 5), "a/d/x", &[]);
    waiting.answer = Some(Answer::Accepted { version: None });
    let history = vec![publish((0, 1)), claim("a", (2, 3), 1), waiting, show((6, 7), &["a/d/x"])];
    let checked = check(&History { operations: history }).unwrap();
    assert_eq!((checked.skipped, checked.objects), (1, 1));
}
