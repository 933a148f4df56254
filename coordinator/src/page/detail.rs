//! One task, one reference, one site.

use std::collections::BTreeMap;

use archipelago_common::{
    ConditionKey, SiteId, TaskId,
    record::{AssignmentHead, AssignmentState, TaskRecord, Why},
    task::ConditionMetrics,
    text::printable,
};
use maud::{Markup, html};

use super::{
    layout::{bytes, table},
    lineage,
    overview::{certificate, presence, stage, task_state},
    seen::{Left, ReferenceSeen, Seen},
};
use crate::commands::{task::asked, utc};

/// What is asked, and what became of it at each site.
pub(super) fn task(seen: &Seen, record: &TaskRecord) -> Markup {
    let TaskRecord { id, task, publisher, published_ms, state, assignments } = record;
    let row = |(site, assignment): (&SiteId, _)| {
        html! {
            tr {
                th scope="row" { a href={ "/sites/" (site) } { (site) } }
                td { (stage(seen, site, *id, &AssignmentHead::from(assignment))) }
            }
        }
    };
    let rows: Vec<_> = assignments.iter().map(row).collect();
    let submitted = assignments.values().filter_map(|assignment| match &assignment.state {
        AssignmentState::Accepted { submission, .. } => Some(&submission.conditions),
        _ => None,
    });
    let row = |(key, condition): (&ConditionKey, &archipelago_common::record::SubmittedCondition)| {
        html! {
            tr {
                th scope="row" { (printable(&key.to_string(), KEY_CHARS)) }
                (figures(condition.metrics.as_ref()))
                td.number { (bytes(condition.columns.size)) }
                td.number { @match condition.embeddings { Some(blob) => (bytes(blob.size)), None => "none" } }
            }
        }
    };
    let conditions: Vec<_> = submitted.flatten().map(row).collect();
    html! {
        dl {
            dt { "Reference" } dd { a href={ "/references/" (task.reference) } { (task.reference) } ", version " code { (task.version.0.short()) } }
            dt { "State" } dd { (task_state(state)) }
            dt { "Published" } dd { (utc(*published_ms)) " by " (publisher) }
            dt { "Asks for" } dd { (asked(task)) }
            @if let Some(epochs) = task.train.epochs { dt { "Epochs" } dd { (epochs) } }
            @if let Some(deadline_ms) = task.deadline_ms { dt { "Until" } dd { (utc(deadline_ms)) } }
        }
        (table("sites", "Sites", &["Site", "Stands"], &rows))
        (table("conditions", "What was handed in", &["Condition", "Cells", "Genes found", "Figures", "Columns", "Embeddings"], &conditions))
        p { a href={ "/events?task=" (id) } { "Its events" } }
    }
}

/// What a reference is, how it came to be, and its conditions.
pub(super) fn reference(found: &ReferenceSeen) -> Markup {
    let head = &found.history.head;
    let mut brought: BTreeMap<&ConditionKey, Option<TaskId>> = BTreeMap::new();
    for change in found.history.changes.iter().filter(|change| change.adds()) {
        let task = match &change.why {
            Why::Merged { task } => Some(*task),
            Why::Published | Why::Withdrawn { .. } | Why::Derived { .. } => None,
        };
        change.columns.keys().for_each(|key| {
            brought.insert(key, task);
        });
    }
    let current = found.history.current();
    let row = |(key, blob): (&ConditionKey, &archipelago_common::BlobRef)| {
        html! {
            tr {
                th scope="row" { (printable(&key.to_string(), KEY_CHARS)) }
                (figures(found.metrics.get(key)))
                td.number { (bytes(blob.size)) }
                td { @match brought.get(key).copied().flatten() {
                    Some(task) => a href={ "/tasks/" (task) } { "task " (task) },
                    None => "published with it",
                } }
            }
        }
    };
    let rows: Vec<_> = current.columns.iter().map(row).collect();
    html! {
        dl {
            dt { "Model" } dd { (head.summary.model) " on " (head.summary.n_genes) " genes" }
            dt { "Published by" } dd { (head.publisher) }
            dt { "Current version" } dd { code { (head.current) } }
        }
        section aria-labelledby="lineage" {
            h2 id="lineage" { "Versions" }
            (lineage::picture(&found.history))
        }
        (table("conditions", "Conditions of the current version", &["Condition", "Cells", "Genes found", "Figures", "Columns", "Came with"], &rows))
        @if found.is_cut { p { "Figures are those of the latest tasks." } }
    }
}

/// A site, and what left it.
pub(super) fn site(seen: &Seen, name: &SiteId, left: &[(TaskId, Left)]) -> Option<Markup> {
    let site = seen.sites.as_ref()?.get(name)?;
    let mut sum = Left::default();
    let mut row = |(task, of): &(TaskId, Left)| {
        sum.n_columns += of.n_columns;
        sum.column_bytes += of.column_bytes;
        sum.n_embeddings += of.n_embeddings;
        sum.embedding_bytes += of.embedding_bytes;
        sum.n_figures += of.n_figures;
        html! { tr { th scope="row" { a href={ "/tasks/" (task) } { "task " (task) } } (kinds(of)) } }
    };
    let mut rows: Vec<_> = left.iter().map(&mut row).collect();
    if rows.len() > 1 {
        rows.push(html! { tr { th scope="row" { "together" } (kinds(&sum)) } });
    }
    Some(html! {
        dl {
            dt { "Enrolled" } dd { (utc(site.record.enrolled_ms)) }
            dt { "There" } dd { (presence(site)) }
            dt { "Certificate" } dd { (certificate(seen, site)) }
            @if let Some(certified) = &site.certified { dt { "Key" } dd { code { (certified.key) } } }
            @for (task, work) in &site.work {
                dt { a href={ "/tasks/" (task) } { "Task " (task) } } dd { (stage(seen, name, *task, work)) }
            }
        }
        (table("left", "What left it, by task", &["Task", "Columns", "Embeddings", "Figures"], &rows))
        p { a href={ "/events?site=" (name) } { "Its events" } }
    })
}

fn kinds(left: &Left) -> Markup {
    html! {
        td.number { (left.n_columns) ", " (bytes(left.column_bytes)) }
        td.number { (left.n_embeddings) ", " (bytes(left.embedding_bytes)) }
        td.number { (left.n_figures) }
    }
}

/// Cells, genes and the model's figures of a condition, where its site let them out.
fn figures(metrics: Option<&ConditionMetrics>) -> Markup {
    html! {
        @match metrics {
            None => { td {} td {} td { "not told" } },
            Some(metrics) => {
                td.number { (metrics.n_cells) }
                td.number { (format!("{:.0} %", metrics.gene_coverage * 100.0)) }
                td { @for (name, value) in &metrics.figures { span.figure { (name.replace('_', " ")) " " (value) } " " } }
            },
        }
    }
}

/// Characters of a key that are shown: more than a key may have.
const KEY_CHARS: usize = 1_024;
