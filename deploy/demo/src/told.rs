//! How a demonstration of contributions tells what it found: on a terminal, and at the end of its page.

use std::{fmt::Write as _, path::Path};

use archipelago_analysis::page::{Page, bytes, table};

use crate::{
    page,
    summary::{Run, Site},
};

/// Whether something holds, what it is, and how it was found out.
pub(crate) type Claim = (bool, &'static str, String);

/// A kind of what left a site: its name, and its bytes.
pub(crate) type Kind = (&'static str, fn(&Site) -> u64);

/// What was found.
pub(crate) struct Told<'a> {
    pub(crate) claims: Vec<Claim>,
    pub(crate) figures: Vec<(&'static str, String)>,
    /// By what the figures judge.
    pub(crate) judged_by: &'static str,
    pub(crate) kinds: &'a [Kind],
    pub(crate) run: &'a Run,
}

/// The claim that every run makes.
pub(crate) fn nothing_lost(run: &Run) -> Claim {
    let detail = format!("the leader was killed {} times; {} sites are missing", run.leader_kills, run.lost);
    (run.lost == 0, "Nothing acknowledged is lost", detail)
}

impl Told<'_> {
    /// Whether every claim held.
    pub(crate) fn holds(&self) -> bool {
        self.claims.iter().all(|(holds, ..)| *holds)
    }

    /// For a terminal; `last` stands before the time that it took.
    pub(crate) fn text(&self, last: &str, out: &Path) -> String {
        let mut text = String::new();
        for (holds, claim, detail) in &self.claims {
            let _ = writeln!(text, "{claim:<40} {}  {detail}", if *holds { "yes" } else { "NO" });
        }
        for (name, value) in &self.figures {
            let _ = writeln!(text, "{name:<44} {value}");
        }
        for site in &self.run.sites {
            let left = self.kinds.iter().map(|(name, n_bytes)| format!("{} B {name}", n_bytes(site)));
            let left = left.collect::<Vec<_>>().join(", ");
            let Site { site, n_cells, bytes_kept, .. } = site;
            let _ = writeln!(text, "{site:<28} {n_cells} cells; out: {left}; kept: {bytes_kept} B");
        }
        let _ = write!(text, "{last}\n{:.0} s; open {}", self.run.seconds, out.join("index.html").display());
        text
    }

    /// The claims, where a page begins.
    pub(crate) fn begin(&self, page: &mut Page) {
        page.html(&page::told(&self.claims));
    }

    /// Figures, what left each site, and the lineage, with which a page ends.
    pub(crate) fn finish(&self, mut page: Page) -> String {
        let figures: Vec<Vec<String>> =
            self.figures.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
        page.section("What was found", &table(self.judged_by, &["figure", ""], &figures));
        let row = |site: &Site| {
            let left = self.kinds.iter().map(|(_, n_bytes)| bytes(n_bytes(site)));
            let about = [site.site.clone(), site.n_cells.to_string()];
            about.into_iter().chain(left).chain([bytes(site.bytes_kept)]).collect()
        };
        let rows: Vec<Vec<String>> = self.run.sites.iter().map(row).collect();
        let left: Vec<String> = self.kinds.iter().map(|(name, _)| format!("{name} out")).collect();
        let head: Vec<&str> =
            ["site", "cells"].into_iter().chain(left.iter().map(String::as_str)).chain(["data kept"]).collect();
        page.section("What left each site", &table("By each site's own audit log", &head, &rows));
        page.html(&page::lineage(&self.run.lineage));
        page.finish()
    }
}
