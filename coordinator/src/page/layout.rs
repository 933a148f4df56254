//! What is around every page, and how values are written.

use std::sync::Arc;

use maud::{DOCTYPE, Markup, html};

use super::seen::Seen;
use crate::commands::utc;

/// What every page begins and ends with.
pub(super) struct Shell {
    pub(super) consortium: String,
    /// None before anybody has answered.
    pub(super) seen: Option<Arc<Seen>>,
    /// Why nobody answers, if so.
    pub(super) fault: Option<String>,
}

impl Shell {
    /// A whole document.
    pub(super) fn page(&self, title: &str, main: Option<&Markup>) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) " · " (self.consortium) }
                    link rel="stylesheet" href="/page.css";
                    script src="/page.js" defer {}
                    noscript { meta http-equiv="refresh" content="10"; }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header {
                        p.name { (self.consortium) }
                        nav aria-label="Pages" {
                            ul {
                                li { a href="/" { "Overview" } }
                                li { a href="/tasks" { "Tasks" } }
                                li { a href="/events" { "Events" } }
                            }
                        }
                    }
                    main id="main" tabindex="-1" {
                        h1 { (title) }
                        (self.banner())
                        @if let Some(main) = main { (main) }
                    }
                }
            }
        }
    }

    /// How old what is shown is, and why, where nobody answers.
    fn banner(&self) -> Markup {
        let shown = self.seen.as_ref().map(|seen| utc(seen.now_ms));
        html! {
            @match (&self.fault, shown) {
                (None, Some(at)) => p.at { "As of " (at) },
                (Some(fault), Some(at)) => div.fault role="status" {
                    p { strong { "No coordinator answers." } " What is shown is of " (at) "." }
                    p { (fault) }
                },
                (fault, None) => div.fault role="status" {
                    p { strong { "No coordinator answers." } }
                    @if let Some(fault) = fault { p { (fault) } }
                },
            }
        }
    }
}

/// A table that scrolls by itself where it is too wide, with a heading.
pub(super) fn table(id: &str, heading: &str, columns: &[&str], rows: &[Markup]) -> Markup {
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (heading) }
            @if rows.is_empty() {
                p.none { "None." }
            } @else {
                div.wide tabindex="0" role="group" aria-labelledby=(id) {
                    table {
                        thead { tr { @for column in columns { th scope="col" { (column) } } } }
                        tbody { @for row in rows { (row) } }
                    }
                }
            }
        }
    }
}

/// A section that says why it is empty.
pub(super) fn hidden(id: &str, heading: &str, takes: &str) -> Markup {
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (heading) }
            p.none { "This certificate may not see it: it takes that of " (takes) "." }
        }
    }
}

/// Bytes for people.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..=1_023 => format!("{n} B"),
        1_024..=1_048_575 => format!("{:.1} KiB", n as f64 / 1_024.0),
        1_048_576..=1_073_741_823 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}

/// So many conditions.
pub(super) fn conditions(n: u64) -> String {
    if n == 1 { "1 condition".to_owned() } else { format!("{n} conditions") }
}
