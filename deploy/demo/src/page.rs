//! The one HTML page of the results: self-contained, readable offline, light or dark as the reader likes.

use std::fmt::Write as _;

use archipelago_analysis::{
    metrics::MappingQuality,
    page::{Page, bytes, escape, note, table, thousands},
};
use archipelago_common::record::{Cause, Event};

use crate::summary::{Phase, Site, Summary};

/// Writes the page; pictures are HTML.
pub fn page(summary: &Summary, pictures: &[String]) -> String {
    let mut page = Page::new("The main job, end to end", &lead(summary));
    page.html(&proofs(summary));
    page.section("What left each site, and what stayed", &sites(summary));
    page.section("What surgery changed", &(pictures.concat() + &quality(summary)));
    page.html(&lineage(&summary.lineage));
    page.section("Where the time went", &phases(summary));
    page.finish()
}

fn lead(summary: &Summary) -> String {
    let n_cells: usize = summary.sites.iter().map(|site| site.n_cells).sum();
    format!(
        "{} sites mapped {} cells onto one reference ({}) without any cell leaving its site. Three coordinators kept the \
         reference; their leader was killed {} in the middle of the work. It took {:.0} seconds.",
        summary.sites.len(),
        thousands(n_cells as u64),
        summary.data,
        if summary.leader_kills == 1 { "once".to_owned() } else { format!("{} times", summary.leader_kills) },
        summary.seconds
    )
}

fn proofs(summary: &Summary) -> String {
    let exact = &summary.exact;
    let claims = [
        (
            exact.order_free,
            "Order does not matter",
            format!("{} orders of merging the sites' columns all give the coordinators' version", exact.orders_tried),
        ),
        (
            exact.earlier_bit_identical,
            "Earlier work does not move",
            format!(
                "the embeddings of {} earlier cells have the same bits after the merge",
                thousands(exact.cells_compared as u64)
            ),
        ),
        (
            exact.withdraw_restores,
            "A site can take its part back",
            "withdrawing the last site gives the earlier version's digest again".to_owned(),
        ),
        (
            exact.repeatable,
            "The same work gives the same bits",
            "each site's surgery, repeated in another process, gives the columns that the site sent".to_owned(),
        ),
        (
            summary.lost == 0,
            "Nothing acknowledged is lost",
            format!("{} acknowledged submissions are missing after the leader was killed", summary.lost),
        ),
    ];
    told(&claims)
}

/// What was claimed, and whether it holds.
pub(crate) fn told(claims: &[(bool, &str, String)]) -> String {
    let mut html = "<section class=\"claims\">".to_owned();
    for (holds, claim, detail) in claims {
        let (class, mark) = if *holds { ("holds", "✓") } else { ("fails", "✗") };
        let _ = write!(html, "<div class=\"claim {class}\"><b>{mark} {claim}</b><span>{detail}</span></div>");
    }
    html + "</section>\n"
}

fn sites(summary: &Summary) -> String {
    let head = ["site", "batch", "cells", "columns out", "embeddings out", "metrics out", "data kept", "kept : out"];
    let row = |site: &Site| {
        let out = site.bytes_out.columns + site.bytes_out.embeddings + site.bytes_out.metrics;
        let kept_to_out = format!("{:.0} : 1", site.bytes_kept as f64 / out.max(1) as f64);
        let of_kinds = [site.bytes_out.columns, site.bytes_out.embeddings, site.bytes_out.metrics, site.bytes_kept];
        let names = [site.site.clone(), site.batch.clone(), thousands(site.n_cells as u64)];
        names.into_iter().chain(of_kinds.map(bytes)).chain([kept_to_out]).collect()
    };
    let rows: Vec<Vec<String>> = summary.sites.iter().map(row).collect();
    table("Bytes by site", &head, &rows)
        + &note(
            "Bytes are taken from each site's own audit log, written before anything was sent. Data kept is the size of the site's \
             compressed file.",
        )
}

fn quality(summary: &Summary) -> String {
    type Figure = (&'static str, fn(&MappingQuality) -> Option<f64>);
    const FIGURES: &[Figure] = &[
        ("kNN label transfer, accuracy", |q| q.knn_accuracy),
        ("kNN label transfer, macro F1", |q| q.macro_f1),
        ("kNN purity", |q| q.knn_purity),
        ("share of neighbours from another batch", |q| q.other_batch_share),
        ("graph connectivity", |q| q.graph_connectivity),
        ("NMI with k-means", |q| Some(q.nmi_kmeans)),
        ("ARI with k-means", |q| Some(q.ari_kmeans)),
    ];
    let quality = &summary.quality;
    let spaces = [&quality.pca, &quality.untrained, &quality.surgery.mapping];
    let shown = |value: Option<f64>| value.map_or("—".to_owned(), |value| format!("{value:.3}"));
    let row = |(name, figure): &Figure| {
        std::iter::once((*name).to_owned()).chain(spaces.map(|space| shown(figure(space)))).collect()
    };
    let rows: Vec<Vec<String>> = FIGURES.iter().map(row).collect();
    let head = ["figure (higher is better)", "plain PCA", "before: columns untrained", "after surgery"];
    table("Quality of the mapping", &head, &rows)
        + &note(&format!(
            "15 Euclidean neighbours. Transfer: uniform vote of reference cells over query cells. Other figures: reference and query \
             together. k-means with as many clusters as cell types, ten starts. The model itself: ELBO {:.2} per reference cell, {:.2} \
             per query cell; reconstruction error {:.2} per query cell (nats).",
            quality.surgery.elbo_reference, quality.surgery.elbo_query, quality.surgery.reconstruction_query
        ))
}

/// How a reference came to what it is.
pub(crate) fn lineage(events: &[Event]) -> String {
    let mut html = "<h2>Lineage of the reference</h2>\n<ol class=\"lineage\">\n".to_owned();
    for event in events {
        let keys = |keys: &[archipelago_common::ConditionKey]| {
            keys.iter().map(|key| format!("<code>{}</code>", escape(&key.to_string()))).collect::<Vec<_>>().join(", ")
        };
        let cause = match &event.cause {
            Cause::Published => "published".to_owned(),
            Cause::Merged { task, keys: added } => format!("task {task}: merged {}", keys(added)),
            Cause::Withdrawn { by, keys: removed } => format!("{by} withdrew {}", keys(removed)),
            Cause::Derived { by, value, function, .. } => format!("{by} derived {value} by {function}"),
        };
        let _ = writeln!(html, "<li><code class=\"id\">{}</code> {cause}", event.version.0.short());
    }
    html + "</ol>\n"
}

fn phases(summary: &Summary) -> String {
    let row = |phase: &Phase| vec![phase.name.clone(), format!("{:.1} s", phase.seconds)];
    table("Parts of the run", &["part", "time"], &summary.phases.iter().map(row).collect::<Vec<_>>())
}
