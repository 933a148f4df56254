//! What two persons do together.

use archipelago_cluster::{Cluster, Effect, Refusal, Room};
use archipelago_common::{BlobRef, limits, proposal::ProposalState};

use crate::script::{OPEN_TASK, Script, principal};

/// A consortium that demands two persons for everything that it can.
fn demanding() -> Script {
    let mut script = Script::after(OPEN_TASK);
    script.run("coordinator/1 adopt-members 1@h1:1 2@h2:1 3@h3:1");
    script.run("operator/anna demand two-to-publish");
    for (number, demand) in (1..).zip(["two-to-revoke", "two-to-withdraw", "two-to-change-members"]) {
        script.run(&format!("operator/anna propose with=annas demand {demand}"));
        script.run(&format!("operator/ben approve-proposal {number} with=bens"));
    }
    assert_eq!(script.cluster.demands().len(), 4);
    script
}

/// Everything that two persons are demanded for, with the role that it needs.
const DEEDS: [(&str, &str); 9] = [
    ("publisher", "publish-reference other ANNA/lung/ref=new"),
    ("publisher", "withdraw atlas a/d/x"),
    ("enroller", "revoke-site b"),
    ("enroller", "revoke site/a has left"),
    ("administrator", "revoke operator/joe has left"),
    ("administrator", "revoke operator/joe shut=joes"),
    ("administrator", "add-member 4@h4:1"),
    ("administrator", "remove-member 3"),
    ("administrator", "lift two-to-publish"),
];

/// The last proposal's number.
fn last(script: &Script) -> u64 {
    let all = Room { items: usize::MAX, bytes: u64::MAX, ..Room::default() };
    script.cluster.proposal_page(all, None).items.last().unwrap().number
}

fn refused(script: &mut Script, line: &str, why: &str) {
    let refusal = script.ask(line).expect_err(line).to_string();
    assert!(refusal.contains(why), "`{line}` was refused: {refusal}");
}

fn state(script: &Script, number: u64) -> ProposalState {
    script.cluster.proposal(number).unwrap().state.clone()
}

#[test]
fn nobody_does_alone_what_two_are_demanded_for_and_two_do_it() {
    for (role, deed) in DEEDS {
        let mut script = demanding();
        script.run("site/a claim 1\n site/a submit 1 1 a/d/x=c");
        let deed = deed.replace("ANNA", "anna");
        let (one, other) = (format!("{role}/anna"), format!("{role}/ben"));
        refused(&mut script, &format!("{one} {deed}"), "two persons do this together");
        refused(&mut script, &format!("operator/anna {deed}"), "two persons do this together");
        script.run(&format!("{one} propose with=annas {deed}"));
        let number = last(&script);
        // The same person by another certificate, another person with the same key, and people without the role.
        for (who, why) in [
            (format!("{one} approve-proposal {number} with=annas"), "another person approves it"),
            (format!("{one} approve-proposal {number} with=annas2"), "another person approves it"),
            (format!("operator/anna approve-proposal {number} with=annas2"), "another person approves it"),
            (format!("{other} approve-proposal {number} with=annas"), "another person approves it"),
            (format!("auditor/ben approve-proposal {number} with=bens"), "only an operator or"),
            (format!("site/a approve-proposal {number} with=bens"), "only an operator or"),
        ] {
            refused(&mut script, &who, why);
            assert_eq!(state(&script, number), ProposalState::Waits);
        }
        // It waits in a snapshot as well.
        script.cluster = Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap();
        script.run(&format!("{other} approve-proposal {number} with=bens"));
        assert!(matches!(state(&script, number), ProposalState::Done { .. }), "{deed}");
        // Asked again after a lost answer, and by a third.
        script.run(&format!("{other} approve-proposal {number} with=bens"));
        refused(&mut script, &format!("{role}/cleo approve-proposal {number} with=cleos"), "was approved by");
        refused(&mut script, &format!("{role}/cleo decline-proposal {number} no"), "and is done");
    }
}

#[test]
fn each_role_approves_its_own() {
    for (role, deed) in DEEDS {
        let mut script = demanding();
        script.run("site/a claim 1\n site/a submit 1 1 a/d/x=c");
        let deed = deed.replace("ANNA", "anna");
        script.run(&format!("operator/anna propose with=annas {deed}"));
        let number = last(&script);
        for other in ["publisher", "enroller", "administrator"].into_iter().filter(|other| *other != role) {
            refused(&mut script, &format!("{other}/ben approve-proposal {number} with=bens"), "only an operator or");
            refused(&mut script, &format!("{other}/ben decline-proposal {number} no"), "only an operator or");
            refused(&mut script, &format!("{other}/ben propose with=bens {deed}"), "only an operator or");
        }
        script.run(&format!("{role}/ben approve-proposal {number} with=bens"));
    }
}

#[test]
fn what_is_done_is_what_was_proposed_and_in_the_name_of_who_did() {
    let mut script = demanding();
    script.run("publisher/anna propose with=annas publish-reference other anna/lung/ref=new");
    let (new, number) = (BlobRef::of(b"new"), last(&script));
    assert!(script.cluster.names(&new), "its blobs are kept while it waits");
    script.run("publisher/ben decline-proposal 4 not this one");
    assert!(!script.cluster.names(&new), "and no longer");
    assert_eq!(number, 4);
    refused(&mut script, "publisher/ben approve-proposal 4 with=bens", "was declined by `publisher/ben`: not this one");
    script.run("publisher/anna propose with=annas publish-reference other anna/lung/ref=new");
    script.run("operator/ben approve-proposal 5 with=bens");
    let other = script.cluster.reference(&"other".parse().unwrap()).unwrap();
    assert_eq!(other.publisher().as_str(), "anna");
    script.run("enroller/anna propose with=annas revoke-site b");
    let applied = script.apply("enroller/ben approve-proposal 6 with=bens");
    assert!(applied.effects.contains(&Effect::CutSessions { who: principal("site/b") }), "{:?}", applied.effects);
    assert!(script.cluster.admit(&principal("site/b")).is_err());
    script.run("administrator/anna propose with=annas revoke auditor/eve has left");
    let applied = script.apply("administrator/ben approve-proposal 7 with=bens");
    assert!(applied.effects.contains(&Effect::CutSessions { who: principal("auditor/eve") }), "{:?}", applied.effects);
    assert_eq!(script.cluster.standing(&principal("auditor/eve")).revoked.unwrap().by.unwrap().as_str(), "anna");
}

#[test]
fn a_proposal_that_nobody_approves_comes_to_nothing() {
    let mut script = demanding();
    script.run("@1000 operator/anna propose with=annas publish-reference other anna/lung/ref=new");
    let expires_ms = script.cluster.proposal(4).unwrap().expires_ms;
    assert_eq!(expires_ms, 1_000 + limits::PROPOSAL_MS);
    script.run(&format!("operator/anna set-clock {}", expires_ms + 1));
    let line = format!("@{} operator/ben approve-proposal 4 with=bens", expires_ms + 1);
    refused(&mut script, &line, "nobody approved proposal 4 in time");
    script.run("operator/anna propose with=annas publish-reference other anna/lung/ref=new");
    script.run("operator/ben approve-proposal 5 with=bens");
}

#[test]
fn who_was_shut_out_since_has_nothing_done() {
    for shut in [
        "operator/joe propose with=joes revoke operator/anna has left",
        "operator/joe propose with=joes revoke operator/anna shut=annas",
    ] {
        let mut script = demanding();
        script.run("operator/anna propose with=annas revoke-site b");
        script.run(&format!("{shut}\n operator/ben approve-proposal 5 with=bens"));
        refused(&mut script, "operator/ben approve-proposal 4 with=bens", "was shut out since");
        assert!(script.cluster.admit(&principal("site/b")).is_ok());
        script.run("operator/ben decline-proposal 4 not hers");
    }
}

#[test]
fn what_became_impossible_is_refused_and_what_is_so_already_is_not_proposed() {
    let mut script = demanding();
    for (deed, why) in [
        ("publish-reference atlas anna/lung/ref=r", "is there already"),
        ("withdraw atlas b", "there is no condition of `b`"),
        ("revoke-site stranger", "there is no site `stranger`"),
        ("revoke coordinator/1 has left", "is a member"),
        ("revoke operator/anna has left", "would shut itself out"),
        ("promote-member 9", "there is no coordinator 9"),
    ] {
        refused(&mut script, &format!("operator/anna propose with=annas {deed}"), why);
    }
    // Two propose one name, and the second comes late.
    script.run("operator/anna propose with=annas publish-reference other anna/lung/ref=r");
    script.run("operator/ben propose with=bens publish-reference other ben/lung/ref=r");
    script.run("operator/cleo approve-proposal 4 with=cleos");
    refused(&mut script, "operator/cleo approve-proposal 5 with=cleos", "is there already");
    assert_eq!(state(&script, 5), ProposalState::Waits);
}

#[test]
fn what_waits_is_proposed_once() {
    let mut script = demanding();
    script.run("operator/anna propose with=annas revoke-site b\n operator/anna propose with=annas revoke-site b");
    assert_eq!(last(&script), 4);
    refused(&mut script, "operator/ben propose with=bens revoke-site b", "`proposals approve 4` approves it");
    for site in 5..4 + limits::PROPOSALS {
        script.quiet(&format!("operator/anna propose with=annas revoke operator/o{site} has left"));
    }
    refused(&mut script, "operator/anna propose with=annas revoke operator/joe left", "proposals that wait");
    script.run("operator/anna decline-proposal 4 my mistake");
    script.run("operator/anna propose with=annas revoke operator/joe left");
    // Answered ones make room for later ones.
    for person in 0..limits::PROPOSALS_KEPT {
        script.quiet(&format!("operator/anna decline-proposal {} no", last(&script)));
        script.quiet(&format!("operator/anna propose with=annas revoke operator/p{person} left"));
    }
    let kept = (1..=last(&script)).filter(|number| script.cluster.proposal(*number).is_some()).count();
    assert!(kept <= limits::PROPOSALS_KEPT, "{kept}");
}

#[test]
fn one_is_enough_for_what_is_ones_own_and_where_nothing_is_demanded() {
    let mut script = demanding();
    script.run("site/a claim 1\n site/a submit 1 1 a/d/x=c\n site/a withdraw atlas a/d/x");
    script.run("operator/anna withdraw atlas anna/lung/ref");
    refused(&mut script, "operator/ben propose with=bens withdraw atlas ben", "one person may do this");
    let mut script = Script::after(OPEN_TASK);
    refused(&mut script, "operator/anna propose with=annas revoke-site b", "one person may do this");
    script.run("operator/anna demand signatures\n operator/anna lift signatures\n operator/anna revoke-site b");
}

#[test]
fn nothing_unsigned_is_published_where_signatures_are_demanded() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna demand signatures");
    for line in ["publish-reference other anna/lung/ref=r", "publish-reference other parts=models anna/lung/ref=r"] {
        refused(&mut script, &format!("operator/anna {line}"), "takes no reference that is not signed");
    }
    for line in ["publish-task atlas", "publish-task atlas coverage=0.5"] {
        refused(&mut script, &format!("operator/anna {line}"), "takes no task that is not signed");
    }
    script.run("operator/anna publish-reference other signed=900 anna/lung/ref=r");
    script.run("operator/anna publish-task atlas signed=900");
    script.run("operator/anna demand two-to-publish");
    let line = "operator/anna propose with=annas publish-reference third anna/lung/ref=r";
    refused(&mut script, line, "takes no reference that is not signed");
}

#[test]
fn only_administrators_demand() {
    let mut script = Script::after(OPEN_TASK);
    for who in ["publisher+enroller+auditor/eve", "site/a", "auditor/eve", "coordinator/1"] {
        let answer = script.ask(&format!("{who} demand signatures"));
        assert!(matches!(answer, Err(Refusal::Forbidden { .. })), "{who}: {answer:?}");
    }
    script.run("administrator/adam demand signatures");
}
