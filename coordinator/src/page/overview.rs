//! The consortium at a glance, its tasks, and what happened.

use archipelago_common::{
    SiteId, TaskId,
    act::Act,
    health::{HealthRecord, NodeState},
    limits,
    member::{MemberRole, MemberStatus},
    record::{AssignmentHead, Stage, TaskHead, TaskState},
    text::printable,
};
use maud::{Markup, html};

use super::{
    layout::{bytes, conditions, hidden, table},
    seen::{Seen, SiteSeen},
};
use crate::commands::{
    events::{concerns_site, concerns_task, sentence},
    pace::{left, remaining_s},
    utc,
};

/// Everything, briefly.
pub(super) fn home(seen: &Seen) -> Markup {
    let open: Vec<_> = seen.tasks.iter().rev().filter(|head| head.state == TaskState::Open).collect();
    html! {
        (coordinators(seen))
        (sites(seen))
        (task_table("tasks", "Open tasks", &open))
        (references(seen))
        section aria-labelledby="latest" {
            h2 id="latest" { "Latest events" }
            (event_list(seen, LATEST, |_| true))
            p { a href="/events" { "All events" } }
        }
    }
}

/// All tasks, the newest first.
pub(super) fn tasks(seen: &Seen) -> Markup {
    let shown: Vec<_> = seen.tasks.iter().rev().take(MOST_ROWS).collect();
    html! {
        (task_table("tasks", "All tasks", &shown))
        @if seen.tasks.len() > shown.len() {
            p { "The newest " (shown.len()) " of " (seen.tasks.len()) "." }
        }
    }
}

/// What happened, the newest first; of a site or a task alone where one is named.
pub(super) fn events(seen: &Seen, site: Option<&SiteId>, task: Option<TaskId>) -> Markup {
    let means = |act: &&Act| {
        site.is_none_or(|site| concerns_site(act, site)) && task.is_none_or(|task| concerns_task(act, task))
    };
    html! {
        @if let Some(site) = site { p { "Of " a href={ "/sites/" (site) } { (site) } ". " a href="/events" { "All events" } } }
        @if let Some(task) = task { p { "Of " a href={ "/tasks/" (task) } { "task " (task) } ". " a href="/events" { "All events" } } }
        (event_list(seen, MOST_ROWS, means))
    }
}

/// Why a page is not there.
pub(super) fn fault(text: &str) -> Markup {
    html! { p { (text) } }
}

fn event_list(seen: &Seen, most: usize, means: impl Fn(&&Act) -> bool) -> Markup {
    let Some(acts) = &seen.acts else {
        return html! { p.none { "This certificate may not see what others did: it takes an auditor's." } };
    };
    let shown: Vec<_> = acts.iter().rev().filter(is_told).filter(means).take(most).collect();
    html! {
        @if shown.is_empty() { p.none { "None." } } @else {
            ol.events {
                @for act in shown {
                    li { span.at { (utc(act.at_ms)) } " " (sentence(act)) }
                }
            }
        }
    }
}

/// What is said to people: not every line of a site's log that was anchored.
fn is_told(act: &&Act) -> bool {
    match act.what.as_str() {
        "anchor" => act.anchor.as_ref().is_some_and(|anchor| !anchor.follows),
        "note-certificate" => false,
        _ => true,
    }
}

fn coordinators(seen: &Seen) -> Markup {
    let Some(members) = &seen.members else {
        return hidden("coordinators", "Coordinators", "an administrator or an auditor");
    };
    let row = |status: &MemberStatus| {
        let MemberStatus { member, is_active, entries_behind, .. } = status;
        let node = member.node;
        let health = seen.health.iter().flatten().find(|of| of.node == node).and_then(|of| of.answer.as_ref());
        let leads = members.leader == Some(node);
        html! {
            tr {
                th scope="row" { (node) }
                td { (member.address) }
                td { @match member.role {
                    MemberRole::Voter if leads => strong { "leads" },
                    MemberRole::Voter => "votes",
                    MemberRole::Learner => "catches up",
                    MemberRole::Removed => "removed",
                } }
                td { @if *is_active || leads { "heard" } @else { strong.bad { "not heard" } } }
                td.number { (entries_behind) }
                td { (state(health)) }
            }
        }
    };
    let there = members.members.iter().filter(|status| status.member.role != MemberRole::Removed);
    let rows: Vec<_> = there.map(row).collect();
    let columns = ["Node", "Address", "Role", "Contact", "Entries behind", "State"];
    table("coordinators", "Coordinators", &columns, &rows)
}

fn state(health: Option<&HealthRecord>) -> Markup {
    let Some(health) = health else { return html! { "does not say" } };
    html! {
        @if health.state == NodeState::Serving { (health.state) } @else { strong.bad { (health.state) } }
        @if let Some(free) = health.disk_free_bytes { ", " (bytes(free)) " free" }
        @if health.blobs_missing > 0 { ", " strong.bad { (health.blobs_missing) " blobs missing" } }
        @if health.blobs_damaged > 0 { ", " strong.bad { (health.blobs_damaged) " blobs were damaged" } }
    }
}

fn sites(seen: &Seen) -> Markup {
    let Some(sites) = &seen.sites else {
        return hidden("sites", "Sites", "a publisher, an enroller or an auditor");
    };
    let row = |(name, site): (&SiteId, &SiteSeen)| {
        html! {
            tr {
                th scope="row" { a href={ "/sites/" (name) } { (name) } }
                td { (presence(site)) }
                td { (certificate(seen, site)) }
                td { @for (task, work) in &site.work {
                    p { a href={ "/tasks/" (task) } { "task " (task) } ": " (stage(seen, name, *task, work)) }
                } }
            }
        }
    };
    let rows: Vec<_> = sites.iter().map(row).collect();
    table("sites", "Sites", &["Site", "There", "Certificate", "At work on"], &rows)
}

/// Whether a site is there.
pub(super) fn presence(site: &SiteSeen) -> Markup {
    html! {
        @match (&site.record.revoked_ms, &site.contact) {
            (Some(at), _) => strong.bad { "shut out " (utc(*at)) },
            (None, Some(contact)) if contact.is_online => { "online since " (utc(contact.since_ms)) },
            (None, Some(contact)) => { "last heard " (utc(contact.last_ms)) },
            (None, None) => { "not heard by the coordinator that leads" },
        }
    }
}

/// When a site's certificate ends.
pub(super) fn certificate(seen: &Seen, site: &SiteSeen) -> Markup {
    let soon_ms = seen.now_ms.saturating_add(limits::CERTIFICATE_WARNING_MS);
    html! {
        @if let (Some(certified), None) = (&site.certified, site.record.revoked_ms) {
            @if certified.expires_ms <= seen.now_ms { strong.bad { "ended " (utc(certified.expires_ms)) } }
            @else if certified.expires_ms <= soon_ms { strong.bad { "ends soon, " (utc(certified.expires_ms)) } }
            @else { "until " (utc(certified.expires_ms)) }
        }
    }
}

/// How a site stands with a task: how far, how long still, or why not.
pub(super) fn stage(seen: &Seen, site: &SiteId, task: TaskId, work: &AssignmentHead) -> Markup {
    html! {
        @match &work.stage {
            Stage::Assigned => {
                @match work.progress.filter(|progress| progress.epochs_planned > 0) {
                    None => "has taken it",
                    Some(progress) => {
                        progress max=(progress.epochs_planned) value=(progress.epochs_done)
                            aria-label={ "epochs of " (site) } {}
                        " " (progress.epochs_done) " of " (progress.epochs_planned) " epochs"
                        @if let Some(seconds) = seen.acts.as_ref().and_then(|acts| remaining_s(acts, seen.now_ms, (site, task), work)) { ", about " (left(seconds)) " left" }
                    },
                }
            },
            Stage::Lapsed => strong.bad { "no sign of life" },
            Stage::GivenUp { reason } => { strong.bad { "gave it back: " } (printable(reason, limits::REASON_BYTES)) },
            Stage::Accepted { at_ms, n_conditions, .. } => { (conditions(*n_conditions)) " accepted " (utc(*at_ms)) },
        }
    }
}

fn task_table(id: &str, heading: &str, tasks: &[&TaskHead]) -> Markup {
    let row = |head: &&TaskHead| {
        let reference = &head.task.reference;
        html! {
            tr {
                th scope="row" { a href={ "/tasks/" (head.id) } { "task " (head.id) } }
                td { a href={ "/references/" (reference) } { (reference) } }
                td { (task_state(&head.state)) }
                td { (utc(head.published_ms)) " by " (head.publisher) }
                td.number { (head.n_accepted) " of " (head.n_assigned) }
                td { @if let Some(deadline_ms) = head.task.deadline_ms { (utc(deadline_ms)) } }
            }
        }
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    table(id, heading, &["Task", "Reference", "State", "Published", "Handed in", "Until"], &rows)
}

/// Whether a task takes submissions.
pub(super) fn task_state(state: &TaskState) -> &'static str {
    match state {
        TaskState::Open => "open",
        TaskState::Closed => "closed",
        TaskState::Cancelled => "cancelled",
        TaskState::Expired => "over its deadline",
    }
}

fn references(seen: &Seen) -> Markup {
    let row = |head: &archipelago_common::record::ReferenceHead| {
        html! {
            tr {
                th scope="row" { a href={ "/references/" (head.name) } { (head.name) } }
                td { (head.summary.model) " on " (head.summary.n_genes) " genes" }
                td.number { (head.n_conditions) }
                td.number { (head.n_changes) }
                td { code { (head.current.0.short()) } }
                td { (head.publisher) }
            }
        }
    };
    let rows: Vec<_> = seen.references.iter().map(row).collect();
    let columns = ["Reference", "Model", "Conditions", "Versions", "Current", "Published by"];
    table("references", "References", &columns, &rows)
}

/// Events on the first page.
const LATEST: usize = 15;
/// Rows of one page.
const MOST_ROWS: usize = 500;
