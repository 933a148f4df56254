//! What the demonstration of sections found: `summary.json`, the page and the lines on a terminal.

use std::path::Path;

use archipelago_analysis::page::{Page, data_uri};
use serde::Serialize;

use crate::{
    summary::Run,
    told::{self, Claim, Told},
};

/// What was proven; each field is computed, none is assumed.
#[derive(Clone, Debug, Serialize)]
pub struct SpaceProofs {
    /// Merging what the sites handed in, in every order, gives one version id, the coordinators'.
    pub order_free: bool,
    /// Number of orders that were tried.
    pub orders_tried: usize,
    /// Learning the same sections at one place, the last one first, gives the coordinators' version id.
    pub repeatable: bool,
    /// Both ensembles map the same cells to the same numbers, bit for bit.
    pub mapped_alike: bool,
    /// Confidences and distances that were compared.
    pub numbers_compared: usize,
    /// After withdrawing the last site, the coordinators are back at the earlier version id.
    pub withdraw_restores: bool,
}

/// Everything in `summary.json`.
#[derive(Clone, Debug, Serialize)]
pub struct SpaceSummary {
    /// The claims, as computed.
    pub exact: SpaceProofs,
    /// Sections whose networks the ensemble holds.
    pub n_sections: usize,
    /// Mean over the mapped cells of one minus the mean entropy.
    pub confidence: f64,
    /// How much the parts of the best network tell of the mapped cells' types: normalised mutual information.
    pub agreement: f64,
    /// How it went.
    #[serde(flatten)]
    pub run: Run,
}

impl SpaceSummary {
    /// Whether every claim held.
    pub fn holds(&self) -> bool {
        self.told().holds()
    }

    /// What was found, for a terminal.
    pub fn text(&self, out: &Path) -> String {
        self.told().text("", out)
    }

    fn told(&self) -> Told<'_> {
        Told {
            claims: self.claims(),
            figures: self.figures(),
            judged_by: "Judged by what the mapped cells really are",
            kinds: &[("networks", |site| site.bytes_out.parts), ("metrics", |site| site.bytes_out.metrics)],
            run: &self.run,
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let exact = &self.exact;
        let sent = self.run.sites.iter().all(|site| site.bytes_out.columns == 0 && site.bytes_out.embeddings == 0);
        vec![
            (
                exact.order_free,
                "Order does not matter",
                format!("{} orders of merging give the coordinators' version", exact.orders_tried),
            ),
            (
                exact.repeatable,
                "A section is a function of its cells",
                "learnt at one place, in another order, the sections make the same version".to_owned(),
            ),
            (
                exact.mapped_alike,
                "Everybody maps alike",
                format!("{} confidences and distances have the same bits", exact.numbers_compared),
            ),
            (
                exact.withdraw_restores,
                "A site can take its part back",
                "after a withdrawal the earlier version is back".to_owned(),
            ),
            told::nothing_lost(&self.run),
            (sent, "No cell and no place left a site", "networks did; see below".to_owned()),
        ]
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        vec![
            ("sections in the ensemble", self.n_sections.to_string()),
            ("mean confidence of mapped cells", format!("{:.3}", self.confidence)),
            ("parts against cell types (NMI, best network)", format!("{:.3}", self.agreement)),
        ]
    }

    /// What was found, as a page around pictures (PNG) of the operator's sections and of the mapped cells.
    pub(crate) fn page(&self, sections: &[u8], mapped: &[u8]) -> String {
        let lead = "Sites learned networks of their own sections and handed them in. One site mapped its cells by all of them, as if \
                    nobody knew where these cells lie. No cell and no place left a site.";
        let (mut page, told) = (Page::new("One ensemble over several sections", lead), self.told());
        told.begin(&mut page);
        for (picture, alt) in [
            (
                mapped,
                "The mapped cells, where they really lie, by the parts into which each network put them, and by confidence",
            ),
            (sections, "The operator's sections by their partitions"),
        ] {
            let source = data_uri("image/png", picture);
            page.html(&format!(
                "<figure><img alt=\"{alt}\" src=\"{source}\"><figcaption>{alt}</figcaption></figure>\n"
            ));
        }
        told.finish(page)
    }
}
