//! What the demonstration of a shared tree found: `summary.json`, the page and the lines on a terminal.

use std::{collections::BTreeMap, path::Path};

use archipelago_analysis::page::{Page, data_uri, note, table};
use serde::Serialize;

use crate::{
    summary::Run,
    told::{self, Claim, Told},
};

/// What was proven; each field is computed, none is assumed.
#[derive(Clone, Debug, Serialize)]
pub struct TreeProofs {
    /// Merging what the sites handed in, in every order, gives one version id, the coordinators'.
    pub order_free: bool,
    /// Number of orders that were tried.
    pub orders_tried: usize,
    /// Every one of these orders gives the same bytes of the tree.
    pub tree_order_free: bool,
    /// The digest in the lineage is that of the tree that this program computes from the fetched version.
    pub digest_in_lineage: bool,
    /// The worker makes the same tree of the tables alone.
    pub same_from_tables: bool,
    /// Of the cells of the site without labels, the consortium counts those that the site's own file puts at each label, and no label of
    /// few cells.
    pub annotations_counted: bool,
    /// After a site withdrew, the tree in the lineage is the one that the others' members give.
    pub withdrawal_replays: bool,
}

/// Everything in `summary.json`.
#[derive(Clone, Debug, Serialize)]
pub struct TreeSummary {
    /// The claims, as computed.
    pub exact: TreeProofs,
    /// The tree that all sites learned, with all names.
    pub tree: String,
    /// The tree after a site withdrew.
    pub tree_after_withdrawal: String,
    /// Of pairs of labels of two sites that mean one type: the share that lies on one node.
    pub matched: f64,
    /// Of pairs of labels of two sites on one node: the share that means one type.
    pub matched_rightly: f64,
    /// The type that one site alone has, and whether it is a node of its own right below the root.
    pub new_type: (String, bool),
    /// Of cells without labels: the share that the tree puts at the node of their type.
    pub annotated_rightly: Option<f64>,
    /// Of cells without labels: how many the consortium knows to be at which node, or rejected.
    pub annotated: BTreeMap<String, u64>,
    /// How it went.
    #[serde(flatten)]
    pub run: Run,
}

impl TreeSummary {
    /// Whether every claim held.
    pub fn holds(&self) -> bool {
        self.told().holds()
    }

    /// What was found, for a terminal.
    pub fn text(&self, out: &Path) -> String {
        self.told().text(&format!("\n{}\n", self.tree), out)
    }

    fn told(&self) -> Told<'_> {
        Told {
            claims: self.claims(),
            figures: self.figures(),
            judged_by: "Judged by the types that the cells really have",
            kinds: &[
                ("columns", |site| site.bytes_out.columns),
                ("machines and counts", |site| site.bytes_out.parts),
                ("metrics", |site| site.bytes_out.metrics),
            ],
            run: &self.run,
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let exact = &self.exact;
        let orders = exact.orders_tried;
        vec![
            (exact.order_free, "Order does not matter", format!("{orders} orders of merging give the coordinators' version")),
            (exact.tree_order_free, "One tree", format!("each of the {orders} orders gives the same bytes of the tree")),
            (
                exact.digest_in_lineage && exact.same_from_tables,
                "Everybody computes it",
                "coordinators, this program and the worker, from members and from the tables alone, have one tree; its digest \
                 stands in the lineage"
                    .to_owned(),
            ),
            (
                exact.annotations_counted,
                "Annotations are counts",
                "of cells without labels the consortium knows how many are of which, the site which is of which".to_owned(),
            ),
            (
                exact.withdrawal_replays,
                "A site can take its part back",
                "the tree after a withdrawal is that of the others' members".to_owned(),
            ),
            told::nothing_lost(&self.run),
            (
                self.run.sites.iter().all(|site| site.bytes_out.embeddings == 0),
                "No position of a cell left a site",
                "machines, counts and columns did; see below".to_owned(),
            ),
        ]
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let (label, is_new) = &self.new_type;
        let mut figures = vec![
            ("pairs of names that mean one type", format!("{:.3} of them on one node", self.matched)),
            ("pairs of names on one node", format!("{:.3} of them mean one type", self.matched_rightly)),
            (
                "a type that one site alone has",
                format!("{label}: {}", if *is_new { "a node of its own" } else { "NOT found" }),
            ),
        ];
        if let Some(share) = self.annotated_rightly {
            figures.push(("cells without labels", format!("{share:.3} of them at the node of their type")));
        }
        figures
    }

    /// What was found, as a page around a picture of the tree (SVG).
    pub(crate) fn page(&self, picture: &[u8]) -> String {
        let lead = "Three sites named their cell types by their own hand, one of them a type that nobody else has. They learned one \
                    tree over a shared reference, and no cell and no position of a cell left a site.";
        let (mut page, told) = (Page::new("One tree of cell types over three sites", lead), self.told());
        told.begin(&mut page);
        let alt = "The tree that the sites learned";
        let source = data_uri("image/svg+xml", picture);
        page.html(&format!("<figure><img alt=\"{alt}\" src=\"{source}\"><figcaption>{alt}</figcaption></figure>\n"));
        page.html(&note(
            "tree.html has the tables by which each data set joined, and where cells without labels went.",
        ));
        if !self.annotated.is_empty() {
            let rows: Vec<Vec<String>> =
                self.annotated.iter().map(|(label, n)| vec![label.clone(), n.to_string()]).collect();
            let caption = "What the consortium learned of the cells without labels: how many the tree puts where";
            page.section("Annotation", &table(caption, &["node, or why there is none", "cells"], &rows));
        }
        told.finish(page)
    }
}
