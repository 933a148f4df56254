//! Who may ask for what: every request in every role.

use std::collections::BTreeSet;

use archipelago_common::{Fingerprint, Principal, Role, Roles};
use archipelago_protocol::role;

use super::{all_requests, name_of};

/// Whoever has a session, and is not there to get in.
const EVERYBODY: &str = "site operator publisher enroller auditor administrator";
const WORKING: &str = "site";
const OWNING: &str = "site operator publisher";
const PUBLISHING: &str = "operator publisher";
const ENROLLING: &str = "operator enroller";
const ADMINISTERING: &str = "operator administrator";
/// Who reads the names of sites.
const NAMES: &str = "operator publisher enroller auditor";
/// Who reads the keys of sites.
const KEYS: &str = "operator enroller auditor";
const STANDINGS: &str = "operator enroller auditor administrator";
/// Who reads how coordinators are.
const NODES: &str = "operator auditor administrator";
const PEOPLE: &str = "operator publisher enroller auditor administrator";
/// Of which of them, the proposal says.
const DECIDING: &str = "operator publisher enroller administrator";
const INVITED: &str = "invited";

/// By request, the roles that may make it.
const TABLE: &[(&str, &str)] = &[
    ("status", EVERYBODY),
    ("list-references", EVERYBODY),
    ("show-reference", EVERYBODY),
    ("list-tasks", EVERYBODY),
    ("show-task", EVERYBODY),
    ("list-sites", NAMES),
    ("claim", WORKING),
    ("renew", WORKING),
    ("give-up", WORKING),
    ("submit", WORKING),
    ("submit-figures", WORKING),
    ("submit-parts", WORKING),
    // A site its own only; the state machine and `role.rs` see to that.
    ("withdraw-site", OWNING),
    ("withdraw-keys", OWNING),
    ("add-site", ENROLLING),
    ("revoke-site", ENROLLING),
    ("publish-reference", PUBLISHING),
    ("publish-task", PUBLISHING),
    ("publish-task-annotations", PUBLISHING),
    ("publish-task-parts", PUBLISHING),
    ("publish-task-steps", PUBLISHING),
    ("publish-task-asked", PUBLISHING),
    ("close-task", PUBLISHING),
    ("cancel-task", PUBLISHING),
    ("list-members", NODES),
    ("add-member", ADMINISTERING),
    ("promote-member", ADMINISTERING),
    ("remove-member", ADMINISTERING),
    ("transfer-leadership", ADMINISTERING),
    ("show-health", NODES),
    ("collect-blobs", ADMINISTERING),
    ("verify-blobs", ADMINISTERING),
    ("publish-gated-task", PUBLISHING),
    ("publish-gated-task-figures", PUBLISHING),
    ("show-gates", EVERYBODY),
    ("list-reference-heads", EVERYBODY),
    ("show-reference-head", EVERYBODY),
    ("list-conditions", EVERYBODY),
    ("list-changes", EVERYBODY),
    ("list-changed", EVERYBODY),
    ("list-task-heads", EVERYBODY),
    ("show-task-head", EVERYBODY),
    ("list-assignments", EVERYBODY),
    ("list-submitted", EVERYBODY),
    ("list-sites-after", NAMES),
    ("derive", OWNING),
    ("set-clock", ADMINISTERING),
    ("show-time", EVERYBODY),
    ("invite", ENROLLING),
    ("request-certificate", INVITED),
    ("show-enrolment", "invited site"),
    ("list-enrolments", KEYS),
    ("approve-site", ENROLLING),
    ("refuse-site", ENROLLING),
    ("list-keys", KEYS),
    ("publish-signed-reference", PUBLISHING),
    ("publish-signed-task", PUBLISHING),
    ("show-signature", EVERYBODY),
    ("renew-certificate", WORKING),
    ("list-standings", STANDINGS),
    ("revoke", ADMINISTERING),
    ("revoke-key", ADMINISTERING),
    ("revoke-a-site", ENROLLING),
    ("revoke-officer", ADMINISTERING),
    ("show-demands", EVERYBODY),
    ("demand", ADMINISTERING),
    ("list-proposals", PEOPLE),
    ("approve-proposal", DECIDING),
    ("decline-proposal", DECIDING),
    ("anchor", WORKING),
    ("show-anchor", WORKING),
    ("list-acts", "site operator auditor"),
    ("erase-keys", OWNING),
    ("erase-site", OWNING),
    ("list-erasures", EVERYBODY),
    ("list-contacts", NAMES),
];

/// One of each role, with its name in the table.
fn everyone() -> [(&'static str, Principal); 8] {
    let of = |text: &str| text.parse::<Principal>().unwrap();
    [
        ("site", of("site/charite")),
        ("operator", of("operator/anna")),
        ("publisher", of("publisher/paul")),
        ("enroller", of("enroller/emma")),
        ("auditor", of("auditor/eve")),
        ("administrator", of("administrator/adam")),
        ("coordinator", of("coordinator/1")),
        ("invited", Principal::Invited(Fingerprint::of(b"invitation"))),
    ]
}

#[test]
fn every_role_may_ask_for_what_the_table_says_and_nothing_else() {
    for request in all_requests() {
        let name = name_of(&request);
        let (_, may) =
            TABLE.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("`{name}` is not in the table"));
        for (role, who) in everyone() {
            let expected = may.split(' ').any(|other| other == role);
            assert_eq!(role::permit(&who, &request).is_ok(), expected, "`{name}` by {who}");
        }
    }
    let asked: BTreeSet<_> = all_requests().iter().map(name_of).collect();
    assert_eq!(TABLE.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), asked);
}

#[test]
fn a_certificate_with_several_roles_may_what_each_of_them_may() {
    for roles in Roles::all() {
        let who = Principal::Officer(roles, "ben".parse().unwrap());
        for request in all_requests() {
            let alone = everyone().into_iter().filter(|(_, one)| {
                let held = Role::ALL.into_iter().find(|role| role.as_str() == one.role());
                held.is_some_and(|role| roles.contains(role))
            });
            let expected = alone.map(|(_, one)| role::permit(&one, &request)).any(|permitted| permitted.is_ok());
            assert_eq!(role::permit(&who, &request).is_ok(), expected, "`{}` by {who}", name_of(&request));
        }
    }
}

#[test]
fn a_site_withdraws_nothing_by_the_name_of_another() {
    let request = all_requests().into_iter().find(|request| name_of(request) == "withdraw-site").unwrap();
    let permitted = |who: &str| role::permit(&who.parse().unwrap(), &request);
    assert!(permitted("site/pasteur").is_err() && permitted("site/charite").is_ok());
}

#[test]
fn the_page_for_governance_says_what_every_role_may_ask_for() {
    const BEGIN: &str = "<!-- made by a test: roles -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/governance.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (found, after) = rest.split_once("<!-- end -->").expect("and an end of it");
    let roles = everyone().map(|(role, _)| role);
    let mut table = format!("| Request | {} |\n|---|{}\n", roles.join(" | "), "---|".repeat(roles.len()));
    for request in all_requests() {
        let may = |(_, who): (_, Principal)| if role::permit(&who, &request).is_ok() { "yes" } else { "" };
        table += &format!("| {} | {} |\n", name_of(&request).replace('-', " "), everyone().map(may).join(" | "));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}<!-- end -->{after}")).unwrap();
    } else {
        assert!(found == table, "docs/governance.md has another table of roles; `UPDATE=1` renews it");
    }
}
