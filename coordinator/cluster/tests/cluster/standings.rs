//! Until when everybody is certified, and who is shut out.

use archipelago_cluster::{Cluster, Effect, Refusal, Room};
use archipelago_common::{Principal, enrolment::CertifiedKey, limits};

use crate::script::{OPEN_TASK, Script, key, principal};

#[track_caller]
fn check_refused(script: &mut Script, line: &str, why: &str) {
    let refusal = script.ask(line).unwrap_err().to_string();
    assert!(refusal.contains(why), "`{line}`: {refusal}");
}

fn ends(script: &Script) -> Vec<(String, u64)> {
    let mut ends: Vec<_> = script.cluster.ends().map(|(who, ends_ms)| (who.to_string(), ends_ms)).collect();
    ends.sort();
    ends
}

#[test]
fn a_revoked_operator_is_cut_off_and_nothing_of_theirs_is_carried_out() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/ben add-site c");
    let applied = script.apply("@2000 operator/anna revoke operator/ben has left");
    assert!(applied.effects.contains(&Effect::CutSessions { who: principal("operator/ben") }));
    for deed in ["add-site d", "publish-reference other", "close-task 1", "revoke operator/anna", "withdraw atlas a"] {
        check_refused(&mut script, &format!("operator/ben {deed}"), "was revoked by operator `anna`: has left");
    }
    assert!(matches!(script.cluster.admit(&principal("operator/ben")), Err(Refusal::Forbidden { .. })));
    assert!(script.cluster.admit(&principal("operator/anna")).is_ok());
    assert!(script.cluster.outstanding().contains(&Effect::CutSessions { who: principal("operator/ben") }));
    script.cluster = Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap();
    check_refused(&mut script, "operator/ben add-site d", "was revoked");
    let revocation = script.cluster.standing(&principal("operator/ben")).revoked.unwrap();
    assert_eq!((revocation.at_ms, revocation.reason.as_str()), (2_000, "has left"));
}

#[test]
fn everybody_can_be_shut_out_and_nobody_by_themselves() {
    let mut script = Script::after(OPEN_TASK);
    script.run("coordinator/1 adopt-members 1@h1:1 2@h2:1");
    for who in ["auditor/eve", "operator/ben", "coordinator/9", "site/a"] {
        script.run(&format!("operator/anna revoke {who}"));
        assert!(script.cluster.admit(&principal(who)).is_err(), "{who}");
        assert!(script.cluster.standing(&principal(who)).revoked.is_some(), "{who}");
        script.run(&format!("operator/anna revoke {who} said twice"));
    }
    check_refused(&mut script, "operator/anna revoke operator/anna", "another operator is to say this");
    check_refused(&mut script, "operator/anna revoke coordinator/2", "`members remove 2` takes it out");
    check_refused(&mut script, "operator/anna revoke invited:i", "taken back with `refuse`");
    check_refused(&mut script, "operator/anna revoke site/stranger", "there is no site");
    script.run("operator/anna remove-member 2\noperator/anna revoke coordinator/2");
    assert!(script.cluster.standing(&principal("coordinator/2")).revoked.is_some());
    check_refused(&mut script, "operator/anna add-member 9@h9:1", "was revoked; add it under another id");
    for asker in ["site/b", "auditor/may", "coordinator/1", "invited:i"] {
        let answer = script.ask(&format!("{asker} revoke operator/anna"));
        assert!(matches!(answer, Err(Refusal::Forbidden { .. })), "`{asker}` gave {answer:?}");
    }
}

#[test]
fn sessions_are_looked_at_when_a_key_is_replaced_and_not_whenever_somebody_comes() {
    let mut script = Script::after("@1000 operator/anna add-site by-hand\n operator/anna invite north i 100000");
    let north = Effect::CutSessions { who: principal("site/north") };
    let by_hand = Effect::CutSessions { who: principal("site/by-hand") };
    let mut cuts = |line: &str| {
        let applied = script.apply(line);
        applied.outcome.unwrap_or_else(|refusal| panic!("`{line}` was refused: {refusal}"));
        let cut = |effect: &Effect| matches!(effect, Effect::CutSessions { .. });
        applied.effects.into_iter().filter(cut).collect::<Vec<_>>()
    };
    // Whoever comes for the first time, comes again, or has its own certificate made to last longer.
    for line in [
        "coordinator/1 note site/by-hand any 400000",
        "coordinator/1 note site/by-hand other 500000",
        "coordinator/1 note operator/anna annas 500000",
        "invited:i ask own",
        "operator/anna approve north own",
        "operator/anna approve north own",
        "coordinator/1 note site/north own 2000000",
        "site/north renew-certificate newer",
        "operator/anna approve north newer",
        "coordinator/1 note site/north own 3000000",
    ] {
        assert_eq!(cuts(line), [], "{line}");
    }
    let of_north = std::slice::from_ref(&north);
    assert_eq!(cuts("coordinator/1 note site/north newer 4000000"), of_north, "the first use of a renewed key");
    assert_eq!(cuts("coordinator/1 note site/north newer 4000000"), [], "and its second");
    cuts("operator/anna invite north j 100000");
    cuts("invited:j ask another");
    assert_eq!(cuts("operator/anna approve north another"), of_north, "another key under the name");
    cuts("operator/anna invite by-hand k 100000");
    cuts("invited:k ask bound");
    assert_eq!(cuts("operator/anna approve by-hand bound"), [by_hand], "the first key that binds a name of any key");
}

#[test]
fn a_stolen_key_is_shut_out_and_its_name_goes_on_with_another() {
    let mut script = Script::after("@1000 coordinator/1 note operator/anna stolen 500000");
    let anna = principal("operator/anna");
    let applied = script.apply("operator/ben revoke operator/anna shut=stolen a laptop on a train");
    assert!(applied.effects.contains(&Effect::CutSessions { who: anna.clone() }));
    let refusal = script.cluster.recognise_key(&anna, key("stolen")).unwrap_err().to_string();
    assert!(refusal.contains("was revoked by operator `ben`: a laptop on a train"), "{refusal}");
    assert!(script.cluster.admit(&anna).is_ok() && script.cluster.recognise_key(&anna, key("other")).is_ok());
    assert_eq!(ends(&script), [], "what cannot be used does not end");
    assert!(!script.cluster.is_news(&anna, CertifiedKey { key: key("stolen"), expires_ms: 900_000 }));
    script.run("coordinator/1 note operator/anna other 400000\noperator/anna add-site north");
    assert_eq!(ends(&script), [("operator/anna".to_owned(), 400_000)]);
    script.run("operator/ben revoke site/north shut=norths");
    check_refused(&mut script, "site/north renew-certificate norths", "was revoked; `site/north` needs another");
    script.run("operator/anna invite north i 100000\ninvited:i ask norths");
    check_refused(&mut script, "operator/anna approve north norths", "was revoked; `site/north` needs another");
    assert_eq!(script.cluster.standing(&anna).revoked_keys.len(), 1);
}

#[test]
fn of_several_certificates_the_one_is_kept_that_ends_last_and_who_is_shut_out_ends_no_more() {
    let mut script = Script::after("@1000 operator/anna add-site a\noperator/anna add-site b");
    script.run("coordinator/1 note operator/anna one 500000\ncoordinator/1 note operator/anna two 400000");
    script.run("coordinator/1 note site/a a 300000\ncoordinator/1 note auditor/eve eve 200000");
    script.run("coordinator/1 note site/b b 100000\noperator/anna revoke-site b");
    let expected = [("auditor/eve", 200_000), ("operator/anna", 500_000), ("site/a", 300_000)];
    assert_eq!(ends(&script), expected.map(|(who, ends_ms)| (who.to_owned(), ends_ms)));
    assert_eq!(script.cluster.standing(&principal("operator/anna")).certified.unwrap().key, key("one"));
    for asker in ["operator/anna", "site/a", "auditor/eve"] {
        check_refused(&mut script, &format!("{asker} note operator/anna mine 900000"), "only a coordinator");
    }
    // A key and its later certificate.
    script.run("coordinator/1 note site/a a 600000");
    assert!(ends(&script).contains(&("site/a".to_owned(), 600_000)));
}

#[test]
fn all_that_are_known_come_page_by_page_and_once() {
    let mut script = Script::after("@1000 operator/anna add-site a\noperator/anna add-site b");
    script.run("coordinator/1 adopt-members 1@h1:1 2@h2:1\ncoordinator/1 note coordinator/1 one 5000");
    script.run("coordinator/1 note operator/anna anna 5000\noperator/anna revoke operator/ben\noperator/anna revoke auditor/eve shut=eves");
    let room = Room { items: 2, ..Room::default() };
    let (mut all, mut after) = (Vec::<Principal>::new(), None);
    loop {
        let page = script.cluster.standing_page(room, after.as_ref());
        assert!(page.items.len() <= 2);
        all.extend(page.items.into_iter().map(|standing| standing.who));
        after = all.last().cloned();
        if !page.more {
            break;
        }
    }
    let names: Vec<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["coordinator/1", "coordinator/2", "site/a", "site/b", "operator/anna", "operator/ben", "auditor/eve"]
    );
}

#[test]
fn there_is_room_for_so_many_names_and_revoking_is_not_refused_for_want_of_space() {
    let mut script = Script::default();
    for i in 0..limits::REVOCATIONS {
        script.quiet(&format!("@1000 operator/anna revoke operator/o{i}"));
    }
    check_refused(&mut script, "operator/anna revoke operator/one-more", "which is the limit");
    script.run("operator/anna revoke operator/ben shut=bens");
}
