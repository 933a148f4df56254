//! Who may ask for what: every request in every role.

use std::collections::BTreeSet;

use archipelago_common::{Fingerprint, Principal};
use archipelago_protocol::role;

use super::{all_requests, name_of};

/// Sites, operators and auditors.
const EVERYBODY: &str = "site operator auditor";
const LOOKING: &str = "operator auditor";
const WORKING: &str = "site";
const DECIDING: &str = "operator";
const INVITED: &str = "invited";

/// By request, the roles that may make it.
const TABLE: &[(&str, &str)] = &[
    ("status", EVERYBODY),
    ("list-references", EVERYBODY),
    ("show-reference", EVERYBODY),
    ("list-tasks", EVERYBODY),
    ("show-task", EVERYBODY),
    ("list-sites", LOOKING),
    ("claim", WORKING),
    ("renew", WORKING),
    ("give-up", WORKING),
    ("submit", WORKING),
    ("submit-figures", WORKING),
    ("submit-parts", WORKING),
    // Of a name, only its own; the state machine and `role.rs` see to that.
    ("withdraw-site", DECIDING),
    ("withdraw-keys", "site operator"),
    ("add-site", DECIDING),
    ("revoke-site", DECIDING),
    ("publish-reference", DECIDING),
    ("publish-task", DECIDING),
    ("publish-task-annotations", DECIDING),
    ("publish-task-parts", DECIDING),
    ("publish-task-steps", DECIDING),
    ("publish-task-asked", DECIDING),
    ("close-task", DECIDING),
    ("cancel-task", DECIDING),
    ("list-members", LOOKING),
    ("add-member", DECIDING),
    ("promote-member", DECIDING),
    ("remove-member", DECIDING),
    ("transfer-leadership", DECIDING),
    ("show-health", LOOKING),
    ("collect-blobs", DECIDING),
    ("verify-blobs", DECIDING),
    ("publish-gated-task", DECIDING),
    ("publish-gated-task-figures", DECIDING),
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
    ("list-sites-after", LOOKING),
    ("derive", "site operator"),
    ("set-clock", DECIDING),
    ("show-time", EVERYBODY),
    ("invite", DECIDING),
    ("request-certificate", INVITED),
    ("show-enrolment", "invited site"),
    ("list-enrolments", LOOKING),
    ("approve-site", DECIDING),
    ("refuse-site", DECIDING),
    ("list-keys", LOOKING),
    ("publish-signed-reference", DECIDING),
    ("publish-signed-task", DECIDING),
    ("show-signature", EVERYBODY),
    ("renew-certificate", WORKING),
    ("list-standings", LOOKING),
    ("revoke", DECIDING),
    ("revoke-key", DECIDING),
];

/// One of each role, with its name in the table.
fn everyone() -> [(&'static str, Principal); 5] {
    let of = |text: &str| text.parse::<Principal>().unwrap();
    [
        ("site", of("site/pasteur")),
        ("operator", of("operator/anna")),
        ("auditor", of("auditor/eve")),
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
