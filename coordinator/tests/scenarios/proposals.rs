//! Two persons do together what a consortium demands two for, by their commands and whatever happens to the coordinators.

use crate::{
    certificates::begin_session,
    consortium::{Consortium, wait_until},
};

#[test]
fn two_persons_shut_a_site_out_and_a_proposal_outlives_every_coordinator() {
    let mut consortium = Consortium::new(3);
    for (who, folder) in
        [("operator/ben", "ben"), ("publisher/paul", "paul"), ("operator/anna", "annas-other"), ("site/north", "north")]
    {
        consortium.issue(who, folder);
    }
    consortium.ask(&["site", "add", "north"]);
    let connection = consortium.dial(consortium.credentials("north"));
    let _session = begin_session(&connection);
    consortium.ask(&["demands", "add", "two-to-revoke"]);
    let error = consortium.refused(&["site", "revoke", "north"]);
    for said in [
        "two persons do this together, so it is proposed and not done yet",
        "1  shut out `site/north`",
        "proposed by operator/anna",
        "another enroller or operator says `proposals approve 1`",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
    // Whoever leads, and whatever restarts.
    for node in consortium.nodes() {
        consortium.kill(node);
    }
    consortium.nodes().for_each(|node| consortium.start(node));
    let leader = consortium.leader();
    consortium.kill(leader);
    wait_until("another leads", 20, || {
        consortium
            .nodes()
            .filter(|node| *node != leader)
            .any(|node| consortium.leader_of(node).is_some_and(|other| other != leader))
    });
    consortium.start(leader);
    consortium.leader();
    let waiting = consortium.ask(&["proposals", "list"]);
    assert_eq!(waiting.as_array().unwrap().len(), 1, "{waiting}");
    let connection = consortium.dial(consortium.credentials("north"));
    let _session = begin_session(&connection);
    // The same person with the same certificate, or with another.
    for folder in ["anna", "annas-other"] {
        let error = consortium.ask_as(folder, &["proposals", "approve", "1"]).unwrap_err();
        assert!(error.contains("another person approves it, of another name and with another key"), "{error}");
    }
    let error = consortium.ask_as("paul", &["proposals", "approve", "1"]).unwrap_err();
    assert!(error.contains("only an operator or enroller may do this, not `publisher/paul`"), "{error}");
    let error = consortium.ask_as("ben", &["site", "revoke", "north"]).unwrap_err();
    assert!(error.contains("`proposals approve 1` approves it"), "{error}");
    let done = consortium.ask_as("ben", &["proposals", "approve", "1"]).unwrap();
    assert!(done.contains("approved by operator/ben and done"), "{done}");
    let end = crate::certificates::end_of(&connection);
    assert!(end.contains("site `north` was revoked"), "{end}");
    // To demand less, two agree as well; and one who changed their mind takes it back.
    let error = consortium.refused(&["demands", "lift", "two-to-revoke"]);
    assert!(error.contains("demand `two-to-revoke` no more"), "{error}");
    consortium.ask(&["proposals", "decline", "2", "--reason", "it stays"]);
    let error = consortium.ask_as("ben", &["proposals", "approve", "2"]).unwrap_err();
    assert!(error.contains("was declined by `operator/anna`: it stays"), "{error}");
    consortium.refused(&["demands", "lift", "two-to-revoke"]);
    consortium.ask_as("ben", &["proposals", "approve", "3"]).unwrap();
    assert_eq!(consortium.ask(&["demands", "list"]).as_array().unwrap().len(), 0);
    let all = consortium.ask(&["proposals", "list", "--all"]);
    assert_eq!(all.as_array().unwrap().len(), 3, "{all}");
}

#[test]
fn two_persons_change_the_members_and_publish() {
    let consortium = Consortium::new(3);
    consortium.issue("publisher+administrator/ben", "ben");
    consortium.write_reference("lung");
    consortium.ask(&["demands", "add", "two-to-change-members"]);
    consortium.refused(&["demands", "add", "two-to-publish"]);
    consortium.ask_as("ben", &["proposals", "approve", "1"]).unwrap();
    consortium.refused(&["demands", "add", "signatures"]);
    consortium.ask_as("ben", &["proposals", "approve", "2"]).unwrap();
    let error = consortium.refused(&["reference", "publish", "lung", "lung", "--unsigned"]);
    assert!(error.contains("takes no reference that is not signed"), "{error}");
    let error = consortium.refused(&["reference", "publish", "lung", "lung"]);
    assert!(error.contains("3  publish reference `lung`: ") && error.contains(", signed"), "{error}");
    assert_eq!(consortium.ask(&["reference", "list"]).as_array().unwrap().len(), 0);
    consortium.ask_as("ben", &["proposals", "approve", "3"]).unwrap();
    assert_eq!(consortium.ask(&["reference", "list"]).as_array().unwrap().len(), 1);
    consortium.ask(&["reference", "fetch", "lung", "--out", "fetched"]);
    let out = (1..=3).find(|node| *node != consortium.leader()).unwrap().to_string();
    let error = consortium.refused(&["members", "remove", &out]);
    assert!(error.contains(&format!("4  remove coordinator {out}")), "{error}");
    consortium.ask_as("ben", &["proposals", "approve", "4"]).unwrap();
    let members = consortium.ask(&["members", "list"]);
    let removed = members["members"].as_array().unwrap().iter().filter(|member| member["member"]["role"] == "removed");
    assert_eq!(removed.count(), 1, "{members}");
}
