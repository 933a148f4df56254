//! The versions of a reference as a picture: one below the other, with an arc where a version is back that was there before.

use std::collections::BTreeMap;

use archipelago_common::{
    VersionId,
    record::{Change, ReferenceHistory, Why},
};
use maud::{Markup, html};

use super::layout::conditions;
use crate::commands::utc;

/// A picture for the eye, and the same as a list for whoever hears it.
pub(super) fn picture(history: &ReferenceHistory) -> Markup {
    let first = history.changes.len().saturating_sub(MOST);
    let shown = &history.changes[first..];
    let height = shown.len() * STEP + STEP / 2;
    let y = |place: usize| place * STEP + STEP / 2;
    let mut there: BTreeMap<VersionId, usize> = BTreeMap::new();
    let mut arcs = Vec::new();
    for (place, change) in shown.iter().enumerate() {
        if let Some(before) = there.insert(change.version, place).filter(|before| before + 1 < place) {
            arcs.push((y(before), y(place)));
        }
    }
    html! {
        div.lineage {
            svg width=(WIDTH) height=(height) viewBox={ "0 0 " (WIDTH) " " (height) } aria-hidden="true" focusable="false" {
                line x1=(X) y1=(y(0)) x2=(X) y2=(y(shown.len().saturating_sub(1))) class="stem" {}
                @for (from, to) in &arcs {
                    path class="back" d={ "M " (X) " " (to) " C 0 " (to) ", 0 " (from) ", " (X) " " (from) } {}
                }
                @for (place, change) in shown.iter().enumerate() {
                    circle cx=(X) cy=(y(place)) r="6" class=(kind(change)) {}
                }
            }
            ol {
                @for change in shown { li { (said(change)) } }
            }
        }
        @if first > 0 { p { "The latest " (shown.len()) " of " (history.changes.len()) " versions." } }
    }
}

fn said(change: &Change) -> Markup {
    let n = conditions(change.columns.len() as u64);
    html! {
        span.at { (utc(change.at_ms)) } " " code { (change.version.0.short()) } " "
        @match &change.why {
            Why::Published => { "published with " (n) },
            Why::Merged { task } => { (n) " merged for " a href={ "/tasks/" (task) } { "task " (task) } },
            Why::Withdrawn { by } => { (n) " withdrawn by " (by) },
            Why::Derived { by, value, .. } => { (value) " derived by " (by) },
        }
    }
}

fn kind(change: &Change) -> &'static str {
    match change.why {
        Why::Published => "published",
        Why::Merged { .. } => "merged",
        Why::Withdrawn { .. } => "withdrawn",
        Why::Derived { .. } => "derived",
    }
}

/// Versions of one picture.
const MOST: usize = 200;
/// Pixels between two; the list's lines are as high.
const STEP: usize = 32;
const WIDTH: usize = 64;
/// Where the stem stands.
const X: usize = 48;
