//! Who may do what.

use archipelago_cluster::{Effect, Refusal};

use crate::script::{OPEN_TASK, Script, principal};

#[track_caller]
fn check_forbidden(script: &mut Script, line: &str) {
    let answer = script.ask(line);
    assert!(matches!(answer, Err(Refusal::Forbidden { .. })), "`{line}` gave {answer:?}");
}

#[test]
fn only_operators_enrol_revoke_and_publish() {
    let mut script = Script::after(OPEN_TASK);
    for asker in ["site/a", "auditor/eve", "coordinator/1"] {
        for deed in [
            "add-site c",
            "revoke-site b",
            "publish-reference other",
            "publish-task atlas",
            "close-task 1",
            "cancel-task 1",
        ] {
            check_forbidden(&mut script, &format!("{asker} {deed}"));
        }
    }
}

#[test]
fn each_role_does_what_is_its_own_and_nothing_of_the_others() {
    let deeds = [
        ("publisher", "publish-reference other"),
        ("publisher", "publish-task atlas"),
        ("publisher", "withdraw atlas anna/lung/ref"),
        ("publisher", "close-task 1"),
        ("publisher", "cancel-task 2"),
        ("enroller", "add-site c"),
        ("enroller", "invite west invite 100000"),
        ("enroller", "refuse west another key"),
        ("enroller", "revoke-site b"),
        ("enroller", "revoke site/a has left"),
        ("administrator", "set-clock 2000"),
        ("administrator", "add-member 4@h4:1"),
        ("administrator", "promote-member 4"),
        ("administrator", "remove-member 4"),
        ("administrator", "revoke operator/joe has left"),
        ("administrator", "revoke coordinator/9 shut=key"),
    ];
    let mut script = Script::after(OPEN_TASK);
    script.run("coordinator/1 adopt-members 1@h1:1\n operator/anna publish-task atlas");
    for (role, deed) in deeds {
        for other in ["publisher", "enroller", "administrator", "auditor"].into_iter().filter(|other| *other != role) {
            check_forbidden(&mut script, &format!("{other}/eve {deed}"));
        }
        check_forbidden(&mut script, &format!("site/a {deed}"));
        let without: Vec<_> =
            ["publisher", "enroller", "auditor", "administrator"].into_iter().filter(|other| *other != role).collect();
        check_forbidden(&mut script, &format!("{}/eve {deed}", without.join("+")));
        script.run(&format!("{role}/ben {deed}"));
    }
}

#[test]
fn whoever_has_some_of_the_roles_comes_when_all_coordinators_know_them() {
    let mut script = Script::first_edition();
    script.run("@1000 coordinator/1 raise-edition 7");
    let admitted = |script: &Script| script.cluster.admit(&principal("publisher+auditor/ben"));
    assert!(admitted(&script).unwrap_err().to_string().contains("upgrade all of them"));
    script.run("coordinator/1 raise-edition 8");
    admitted(&script).unwrap();
    script.run("operator/anna revoke publisher+auditor/ben has left");
    assert!(admitted(&script).unwrap_err().to_string().contains("was revoked by operator `anna`: has left"));
    check_forbidden(&mut script, "publisher+auditor/ben publish-reference other");
}

#[test]
fn only_sites_work_on_tasks() {
    let mut script = Script::after(OPEN_TASK);
    for asker in ["operator/anna", "auditor/eve", "coordinator/1"] {
        for deed in ["claim 1", "renew 1 1 3", "give-up 1 1 tired", "submit 1 1 a/d/x=1"] {
            check_forbidden(&mut script, &format!("{asker} {deed}"));
        }
    }
}

#[test]
fn only_coordinators_tell_the_time() {
    let mut script = Script::after(OPEN_TASK);
    for asker in ["operator/anna", "auditor/eve", "site/a"] {
        check_forbidden(&mut script, &format!("{asker} tick"));
    }
}

#[test]
fn auditors_and_coordinators_withdraw_nothing() {
    let mut script = Script::after(OPEN_TASK);
    check_forbidden(&mut script, "auditor/eve withdraw atlas anna/lung/ref");
    check_forbidden(&mut script, "coordinator/1 withdraw atlas anna/lung/ref");
}

#[test]
fn a_site_that_is_not_enrolled_is_refused() {
    let mut script = Script::after(OPEN_TASK);
    check_forbidden(&mut script, "site/stranger claim 1");
    assert!(script.cluster.admit(&principal("site/stranger")).is_err());
    assert!(script.cluster.admit(&principal("site/a")).is_ok());
    assert!(script.cluster.admit(&principal("auditor/eve")).is_ok());
}

#[test]
fn a_revoked_site_is_cut_off_and_refused_in_the_middle_of_its_work() {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1");
    let applied = script.apply("operator/anna revoke-site a");
    assert!(applied.effects.contains(&Effect::CutSessions { who: principal("site/a") }));
    check_forbidden(&mut script, "site/a submit 1 1 a/d/x=1");
    check_forbidden(&mut script, "site/a renew 1 1 3");
    assert!(script.cluster.admit(&principal("site/a")).is_err());
    assert!(script.cluster.outstanding().contains(&Effect::CutSessions { who: principal("site/a") }));
}

#[test]
fn a_revoked_name_does_not_come_back() {
    let mut script = Script::after(OPEN_TASK);
    script.run("operator/anna revoke-site a");
    assert!(matches!(script.ask("operator/anna add-site a"), Err(Refusal::Conflict { .. })));
}

#[test]
fn enrolling_and_revoking_twice_is_the_same_as_once() {
    let mut script = Script::after(OPEN_TASK);
    let first = script.ask("@2000 operator/anna revoke-site a");
    assert_eq!(script.ask("@3000 operator/anna revoke-site a"), first);
    let first = script.ask("operator/anna add-site c");
    assert_eq!(script.ask("@4000 operator/anna add-site c"), first);
}

#[test]
fn a_site_and_a_publisher_cannot_share_a_namespace() {
    let mut script = Script::after(OPEN_TASK);
    assert!(matches!(script.ask("operator/anna add-site anna"), Err(Refusal::Conflict { .. })));
    assert!(matches!(script.ask("operator/a publish-reference other"), Err(Refusal::Conflict { .. })));
    check_forbidden(&mut script, "operator/ben publish-reference other anna/lung/ref=r");
}
