//! How sites come in.

use archipelago_cluster::{Cluster, Edition, Effect, Outcome, Refusal};
use archipelago_common::{
    enrolment::{CertifiedKey, EnrolmentState},
    limits,
};

use crate::script::{Script, key, principal};

/// A site that was invited until 100,000.
const INVITED: &str = "@1000 operator/anna invite north i 100000";

#[track_caller]
fn check_refused(script: &mut Script, line: &str, why: &str) {
    let refusal = script.ask(line).unwrap_err().to_string();
    assert!(refusal.contains(why), "`{line}`: {refusal}");
}

fn state<'a>(script: &'a Script, site: &str) -> &'a EnrolmentState {
    &script.cluster.enrolment_of(&site.parse().unwrap()).unwrap().state
}

#[test]
fn a_site_that_is_invited_asks_is_approved_and_is_enrolled() {
    let mut script = Script::after(INVITED);
    let invited = principal("invited:i");
    assert!(script.cluster.admit(&invited).is_ok());
    assert!(script.cluster.admit(&principal("site/north")).is_err());
    assert_eq!(script.ask("invited:i ask own").unwrap(), Outcome::Enrolment(key("i")));
    assert!(script.cluster.enrolment(&key("i")).unwrap().waits(1_000));
    assert!(script.cluster.admit(&principal("site/north")).is_err(), "asking is not being let in");
    script.run("operator/ben approve north own");
    assert!(script.cluster.admit(&principal("site/north")).is_ok());
    let EnrolmentState::Approved { certificate, by, .. } = state(&script, "north") else { panic!("it is approved") };
    assert_eq!((certificate.as_str(), by.as_str()), ("own", "ben"));
    assert!(script.cluster.admit(&invited).is_ok(), "the certificate is to be fetched");
    assert_eq!(Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap(), script.cluster);
}

#[test]
fn an_invitation_is_used_once_and_by_one_key() {
    let mut script = Script::after(INVITED);
    script.run("invited:i ask own");
    script.cluster = Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap();
    check_refused(&mut script, "invited:i ask other", "was used already, by key");
    script.run("invited:i ask own");
    script.run("operator/anna approve north own");
    check_refused(&mut script, "invited:i ask other", "was used already");
    script.run("invited:i ask own");
    assert!(matches!(state(&script, "north"), EnrolmentState::Approved { .. }), "asking again takes nothing back");
}

#[test]
fn a_key_that_was_stolen_is_replaced_and_the_site_keeps_its_name() {
    let mut script = Script::after(INVITED);
    script.run("invited:i ask own\noperator/anna approve north own");
    let (north, by_hand) = (principal("site/north"), principal("site/by-hand"));
    script.run("operator/anna add-site by-hand");
    assert!(script.cluster.recognise_key(&north, key("own")).is_ok());
    assert!(script.cluster.recognise_key(&north, key("stolen")).is_err());
    assert!(script.cluster.recognise_key(&by_hand, key("any")).is_ok());
    script.run("operator/anna invite north j 100000\ninvited:j ask new");
    assert!(script.cluster.recognise_key(&north, key("own")).is_ok(), "it counts until another is approved");
    let applied = script.apply("operator/anna approve north new");
    assert!(applied.effects.contains(&Effect::CutSessions { who: principal("site/north") }));
    assert!(script.cluster.recognise_key(&north, key("new")).is_ok());
    let refusal = script.cluster.recognise_key(&north, key("own")).unwrap_err().to_string();
    assert!(refusal.contains("it was replaced"), "{refusal}");
}

#[test]
fn a_site_renews_its_key_and_the_one_before_counts_until_the_new_one_comes() {
    let mut script = Script::after(INVITED);
    script.run("invited:i ask own\noperator/anna approve north own");
    let north = principal("site/north");
    check_refused(&mut script, "site/stranger renew-certificate new for=stranger", "is not enrolled");
    script.run("@2000 site/north renew-certificate new");
    let record = script.cluster.enrolment_of(&"north".parse().unwrap()).unwrap();
    assert!(record.waits(2_000) && matches!(record.state, EnrolmentState::Renewing { .. }), "{record:?}");
    assert_eq!(script.cluster.n_waiting(), 1);
    assert!(script.cluster.recognise_key(&north, key("new")).is_err(), "asking is not having");
    check_refused(&mut script, "operator/anna invite north j 100000", "say `approve north` or `refuse north` first");
    // Its new key was lost before it was approved: the next one takes its place.
    script.run("site/north renew-certificate newer\nsite/north renew-certificate newer");
    check_refused(&mut script, "operator/anna approve north new", "that waits is");
    script.run("operator/anna approve north newer\nsite/north renew-certificate newer");
    assert!(script.cluster.recognise_key(&north, key("own")).is_ok(), "it counts until the other comes");
    assert!(script.cluster.recognise_key(&north, key("newer")).is_ok());
    assert!(!script.cluster.is_news(&north, CertifiedKey { key: key("else"), expires_ms: 9_000_000 }));
    let applied = script.apply("coordinator/1 note site/north newer 1000000");
    assert!(applied.effects.contains(&Effect::CutSessions { who: north.clone() }));
    let refusal = script.cluster.recognise_key(&north, key("own")).unwrap_err().to_string();
    assert!(refusal.contains("it was replaced"), "{refusal}");
    assert!(script.cluster.recognise_key(&north, key("newer")).is_ok());
    assert_eq!(script.cluster.certified(&"north".parse().unwrap()).unwrap().key, key("newer"));
    assert_eq!(Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap(), script.cluster);
}

#[test]
fn a_renewal_that_was_refused_is_asked_for_with_another_key_and_one_that_was_not_used_ends_with_an_invitation() {
    let mut script = Script::after(INVITED);
    script.run("invited:i ask own\noperator/anna approve north own\nsite/north renew-certificate new");
    script.run("operator/anna refuse north call me first");
    check_refused(&mut script, "site/north renew-certificate new", "refused another key of `north`: call me first");
    script.run("site/north renew-certificate other\noperator/anna approve north other");
    script.run("operator/anna invite north j 100000");
    assert!(script.cluster.recognise_key(&principal("site/north"), key("other")).is_err());
    check_refused(&mut script, "site/north renew-certificate third", "was invited anew");
    script.run("invited:j ask new\noperator/anna approve north new");
    assert!(script.cluster.recognise_key(&principal("site/north"), key("own")).is_err());
}

#[test]
fn a_site_that_was_certified_by_hand_is_bound_to_its_key_when_it_renews() {
    let mut script = Script::after("@1000 operator/anna add-site north\ncoordinator/1 note site/north by-hand 500000");
    let north = principal("site/north");
    assert!(script.cluster.recognise_key(&north, key("any")).is_ok());
    script.run(
        "site/north renew-certificate new\noperator/anna approve north new\ncoordinator/1 note site/north new 900000",
    );
    assert!(script.cluster.recognise_key(&north, key("by-hand")).is_err());
}

#[test]
fn nothing_comes_of_an_invitation_after_its_end_by_the_states_time() {
    let mut script = Script::after(INVITED);
    let mut late = script.clone();
    script.run("@60000 coordinator/1 tick");
    script.run("@100000 invited:i ask own");
    late.run("@60000 coordinator/1 tick");
    check_refused(&mut late, "@100001 invited:i ask own", "has expired; ask operator `anna`");
    assert!(matches!(late.cluster.admit(&principal("invited:i")), Err(Refusal::Stale { .. })));
    check_refused(&mut script, "@100001 operator/anna approve north own", "has expired; invite it anew");
    script.run("operator/anna invite north j 200000");
    assert_eq!(script.cluster.enrolments().count(), 1);
    check_refused(&mut script, "invited:i ask own", "not known here");
}

#[test]
fn a_later_invitation_takes_the_place_of_one_that_was_lost_but_not_of_a_request() {
    let mut script = Script::after(INVITED);
    script.run("operator/anna invite north j 100000");
    check_refused(&mut script, "invited:i ask own", "not known here");
    script.run("invited:j ask own");
    check_refused(&mut script, "operator/anna invite north k 100000", "say `approve north` or `refuse north` first");
    check_refused(&mut script, "operator/anna invite south j 100000", "with this key already");
    script.run("operator/anna refuse north not one of ours");
    check_refused(&mut script, "invited:j ask own", "refused `north`: not one of ours");
    check_refused(&mut script, "operator/anna approve north own", "invite it anew");
    script.run("operator/anna invite north k 100000");
}

#[test]
fn what_is_approved_is_the_key_that_waits() {
    let mut script = Script::after(INVITED);
    check_refused(&mut script, "operator/anna approve north own", "has not asked yet");
    check_refused(&mut script, "operator/anna approve south own", "there is no invitation of site `south`");
    script.run("invited:i ask own");
    check_refused(&mut script, "operator/anna approve north other", "that waits is");
    script.run("operator/anna approve north own");
    script.run("operator/anna approve north own");
    check_refused(&mut script, "operator/anna refuse north", "site revoke north");
}

#[test]
fn only_operators_invite_and_approve_and_only_who_is_invited_asks() {
    let mut script = Script::after(INVITED);
    script.run("operator/anna add-site a");
    for asker in ["site/a", "auditor/eve", "coordinator/1", "invited:i"] {
        for deed in ["invite south s 100000", "approve north own", "refuse north no", "add-site c", "revoke-site a"] {
            let answer = script.ask(&format!("{asker} {deed}"));
            assert!(matches!(answer, Err(Refusal::Forbidden { .. })), "`{asker} {deed}` gave {answer:?}");
        }
    }
    for asker in ["site/a", "auditor/eve", "coordinator/1", "operator/anna", "invited:unknown"] {
        let answer = script.ask(&format!("{asker} ask own"));
        assert!(matches!(answer, Err(Refusal::Forbidden { .. })), "`{asker}` gave {answer:?}");
    }
    for deed in ["claim 1", "withdraw atlas a", "publish-task atlas", "tick"] {
        let answer = script.ask(&format!("invited:i {deed}"));
        assert!(
            matches!(answer, Err(Refusal::Forbidden { .. } | Refusal::NotFound { .. })),
            "`{deed}` gave {answer:?}"
        );
    }
}

#[test]
fn names_that_cannot_be_a_sites_are_not_invited_and_ends_are_bounded() {
    let mut script = Script::after("@1000 operator/anna add-site a\noperator/anna publish-reference atlas");
    script.run("operator/anna revoke-site a");
    check_refused(&mut script, "operator/anna invite a i 100000", "was revoked; enrol it under a new name");
    check_refused(&mut script, "operator/anna invite anna i 100000", "namespace of an operator");
    check_refused(&mut script, "operator/anna invite north i 1000", "would end 0 s from now");
    check_refused(&mut script, "operator/anna invite north i 99999999999", "expected at most 30 days");
}

#[test]
fn there_is_room_for_so_many_and_what_has_ended_makes_room() {
    let mut script = Script::default();
    for i in 0..limits::INVITATIONS {
        script.quiet(&format!("@1000 operator/anna invite s{i} i{i} {}", 50_000 + i));
    }
    check_refused(&mut script, "operator/anna invite north i 100000", "1024 invitations, which is the limit");
    script.quiet("@50001 coordinator/1 tick");
    script.run("operator/anna invite north i 100000");
    assert_eq!(script.cluster.enrolments().count(), limits::INVITATIONS);
}

#[test]
fn an_earlier_edition_has_none() {
    let mut script = Script::first_edition();
    check_refused(&mut script, "@1000 operator/anna invite north i 100000", "upgrade all of them");
    assert!(Edition::LATEST >= Edition::Seventh);
}
