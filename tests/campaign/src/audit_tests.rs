//! The audit finds what it is there to find.

use archipelago_common::{
    record::{AssignmentRecord, BaseSummary, Event, SubmittedCondition},
    task::{SurgeryTask, TrainSpec},
};

use super::*;

fn site() -> SiteId {
    "north".parse().unwrap()
}

fn key() -> ConditionKey {
    "north/d/b".parse().unwrap()
}

fn submission(columns: &[u8]) -> Submission {
    let condition = SubmittedCondition { columns: BlobRef::of(columns), embeddings: None, metrics: None };
    Submission { task: TaskId(1), epoch: 1, version: first().id(), conditions: BTreeMap::from([(key(), condition)]) }
}

fn first() -> Version {
    Version { base: BlobRef::of(b"base"), columns: BTreeMap::new() }
}

/// One reference, one task, and a submission with these columns that was accepted and merged.
fn state(columns: &[u8]) -> State {
    let merged = first().merged(&BTreeMap::from([(key(), BlobRef::of(columns))])).unwrap();
    let event = |version: &Version, parent: Option<&Version>, cause| Event {
        version: version.id(),
        parent: parent.map(Version::id),
        cause,
        at_ms: 0,
    };
    let lineage = vec![
        event(&first(), None, Cause::Published),
        event(&merged, Some(&first()), Cause::Merged { task: TaskId(1), keys: vec![key()] }),
    ];
    let name: Name = "lung".parse().unwrap();
    let reference = ReferenceRecord {
        name: name.clone(),
        publisher: "anna".parse().unwrap(),
        summary: BaseSummary { model: "scvi".to_owned(), n_genes: 1, columns: BTreeMap::new(), moves_embedding: true },
        current: merged.id(),
        lineage,
        versions: BTreeMap::from([(first().id(), first()), (merged.id(), merged.clone())]),
    };
    let accepted = AssignmentState::Accepted { submission: submission(columns), at_ms: 0, version: Some(merged.id()) };
    let assignment = AssignmentRecord { epoch: 1, state: accepted, lease_until_ms: 0, progress: None };
    let task = TaskRecord {
        id: TaskId(1),
        task: SurgeryTask::new(name.clone(), first().id(), TrainSpec::default()),
        publisher: "anna".parse().unwrap(),
        published_ms: 0,
        state: TaskState::Closed,
        assignments: BTreeMap::from([(site(), assignment)]),
    };
    let (references, tasks) = (BTreeMap::from([(name, reference)]), BTreeMap::from([(TaskId(1), task)]));
    State { references, tasks, guests: BTreeMap::new() }
}

fn written(entries: Vec<SiteEntry>) -> Written {
    Written { sites: BTreeMap::from([(site(), entries)]), operator: vec![OperatorEntry::Task(TaskId(1))] }
}

fn acknowledged(columns: &[u8]) -> Vec<SiteEntry> {
    let submission = submission(columns);
    vec![SiteEntry::Sending(submission.clone()), SiteEntry::Acknowledged { submission, version: None }]
}

#[test]
fn what_was_acknowledged_and_is_there_is_found() {
    let found = Findings::of(&written(acknowledged(b"x")), &state(b"x"));
    assert_eq!(found, Findings { acknowledged: 2, submissions: 1, ..Findings::default() });
}

#[test]
fn an_acknowledged_submission_that_is_not_there_is_lost() {
    for (what, change) in [
        ("task", (|state: &mut State| state.tasks.clear()) as fn(&mut State)),
        ("assignment", |state| state.tasks.get_mut(&TaskId(1)).unwrap().assignments.clear()),
        ("reference", |state| state.references.clear()),
        ("merge", |state| {
            let reference = state.references.values_mut().next().unwrap();
            reference.current = first().id();
        }),
    ] {
        let mut state = state(b"x");
        change(&mut state);
        assert!(!Findings::of(&written(acknowledged(b"x")), &state).lost.is_empty(), "{what}");
    }
    assert_eq!(Findings::of(&written(acknowledged(b"x")), &state(b"y")).lost.len(), 1, "other columns");
}

#[test]
fn a_submission_that_nobody_sent_is_a_problem() {
    assert_eq!(Findings::of(&written(vec![]), &state(b"x")).problems.len(), 1);
}

#[test]
fn a_condition_that_is_merged_twice_is_duplicated() {
    let mut state = state(b"x");
    let reference = state.references.values_mut().next().unwrap();
    let again = Event { parent: Some(reference.current), ..reference.lineage[1].clone() };
    reference.lineage.push(again);
    assert_eq!(Findings::of(&written(acknowledged(b"x")), &state).duplicated.len(), 1);
    let twice = [acknowledged(b"x"), acknowledged(b"x")].concat();
    assert_eq!(Findings::of(&written(twice), &self::state(b"x")).duplicated.len(), 1);
}

#[test]
fn a_version_that_does_not_follow_from_its_parent_is_a_problem() {
    let mut state = state(b"x");
    let reference = state.references.values_mut().next().unwrap();
    let columns = BTreeMap::from([(key(), BlobRef::of(b"x")), ("north/d/c".parse().unwrap(), BlobRef::of(b"z"))]);
    let forged = Version { base: BlobRef::of(b"base"), columns };
    reference.versions.insert(forged.id(), forged.clone());
    reference.lineage[1].version = forged.id();
    reference.current = forged.id();
    assert!(!Findings::of(&written(acknowledged(b"x")), &state).problems.is_empty());
}

#[test]
fn an_answer_that_no_order_explains_is_a_problem() {
    use archipelago_histories::{Answer, Call, Operation};
    let operation = |call, (invoked, returned), answer| Operation {
        client: "site/north".to_owned(),
        call,
        invoked,
        returned: Some(returned),
        answer: Some(answer),
    };
    let reference: Name = "lung".parse().unwrap();
    let published = Call::Publish { reference: reference.clone(), version: first() };
    let shown = |current| {
        let answer = Answer::Reference { current };
        let history = vec![
            operation(published.clone(), (1, 2), Answer::Done),
            operation(Call::ShowReference { reference: reference.clone() }, (3, 4), answer),
        ];
        let mut findings = Findings::default();
        findings.judge_history(&History { operations: history });
        findings
    };
    let right = shown(first().id());
    assert_eq!((right.problems.len(), right.checked.operations), (0, 2));
    let wrong = shown(first().merged(&BTreeMap::from([(key(), BlobRef::of(b"x"))])).unwrap().id());
    assert!(wrong.problems[0].contains("no order of the operations on reference `lung`"), "{:?}", wrong.problems);
}

/// A guest that came in, renewed its key and was shut out, as it is written down and as it is there.
fn guest() -> (Vec<OperatorEntry>, State) {
    let (site, key) = ("guest1".parse::<SiteId>().unwrap(), |key: &str| Fingerprint::of(key.as_bytes()));
    let entries = vec![
        OperatorEntry::Enrolled { site: site.clone(), key: key("first") },
        OperatorEntry::Renewed { site: site.clone(), key: key("second") },
        OperatorEntry::Revoked { site: site.clone() },
    ];
    (entries, State { guests: BTreeMap::from([(site, (key("second"), true))]), ..State::default() })
}

#[test]
fn a_guest_is_there_as_it_was_acknowledged() {
    let (entries, state) = guest();
    let judge = |entries: &[OperatorEntry], state: &State| {
        Findings::of(&Written { operator: entries.to_vec(), ..Written::default() }, state)
    };
    let found = judge(&entries, &state);
    assert_eq!(found, Findings { acknowledged: 3, guests: (1, 1, 1), ..Findings::default() });
    let site = || "guest1".parse::<SiteId>().unwrap();
    let with = |guest: (&str, bool)| State {
        guests: BTreeMap::from([(site(), (Fingerprint::of(guest.0.as_bytes()), guest.1))]),
        ..State::default()
    };
    for (what, state) in
        [("all", State::default()), ("renewal", with(("first", true))), ("revocation", with(("second", false)))]
    {
        assert_eq!(judge(&entries, &state).lost.len(), 1, "{what}");
    }
    assert_eq!(judge(&entries[..2], &state).problems.len(), 1, "nobody said that it is shut out");
    assert_eq!(judge(&[], &state).problems.len(), 1, "nobody said that it is in");
    let twice = [entries[0].clone(), entries[0].clone()];
    assert_eq!(judge(&twice, &with(("first", false))).duplicated.len(), 1);
    let mut two = state;
    two.guests.insert("guest2".parse().unwrap(), two.guests[&site()]);
    assert!(!judge(&entries, &two).duplicated.is_empty(), "one key for two");
}
