//! The one HTML page of the results: self-contained, readable offline, light or dark as the reader likes.

use std::fmt::Write as _;

use archipelago_analysis::metrics::MappingQuality;
use archipelago_common::record::{Cause, Event};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::summary::Summary;

/// A picture for the page.
pub struct Picture {
    /// What it shows.
    pub caption: &'static str,
    /// The PNG file's bytes.
    pub png: Vec<u8>,
}

/// Writes the page.
pub fn page(summary: &Summary, pictures: &[Picture]) -> String {
    let sections = [
        proofs(summary),
        sites(summary),
        quality(summary),
        pictures.iter().map(picture).collect(),
        lineage(&summary.lineage),
        phases(summary),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Archipelago: the main job</title>\n<style>{STYLE}</style></head><body><main>\n\
         <h1>The main job, end to end</h1>\n<p class=\"lead\">{}</p>\n{}</main></body></html>\n",
        lead(summary),
        sections.concat()
    )
}

fn lead(summary: &Summary) -> String {
    let n_cells: usize = summary.sites.iter().map(|site| site.n_cells).sum();
    format!(
        "{} sites mapped {} cells onto one reference ({}) without any cell leaving its site. Three coordinators kept the \
         reference; their leader was killed {} in the middle of the work. It took {:.0} seconds.",
        summary.sites.len(),
        thousands(n_cells as u64),
        escape(&summary.data),
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
    let mut html = "<section class=\"claims\">".to_owned();
    for (holds, claim, detail) in claims {
        let (class, mark) = if holds { ("holds", "✓") } else { ("fails", "✗") };
        let _ = write!(html, "<div class=\"claim {class}\"><b>{mark} {claim}</b><span>{detail}</span></div>");
    }
    html + "</section>\n"
}

fn sites(summary: &Summary) -> String {
    let mut html = "<h2>What left each site, and what stayed</h2>\n<div class=\"scroll\"><table><tr><th>site<th>batch\
                    <th class=\"n\">cells<th class=\"n\">columns out<th class=\"n\">embeddings out<th class=\"n\">metrics \
                    out<th class=\"n\">data kept<th class=\"n\">kept : out</tr>\n"
        .to_owned();
    for site in &summary.sites {
        let out = site.bytes_out.columns + site.bytes_out.embeddings + site.bytes_out.metrics;
        let _ = writeln!(
            html,
            "<tr><td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td \
             class=\"n\">{:.0} : 1</tr>",
            escape(&site.site),
            escape(&site.batch),
            thousands(site.n_cells as u64),
            bytes(site.bytes_out.columns),
            bytes(site.bytes_out.embeddings),
            bytes(site.bytes_out.metrics),
            bytes(site.bytes_kept),
            site.bytes_kept as f64 / out.max(1) as f64
        );
    }
    html + "</table></div>\n<p class=\"note\">Bytes are taken from each site's own audit log, written before anything \
            was sent. Data kept is the size of the site's compressed file.</p>\n"
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
    let mut html =
        "<h2>Quality of the mapping</h2>\n<div class=\"scroll\"><table><tr><th>figure (higher is better)<th \
                    class=\"n\">after surgery<th class=\"n\">columns untrained<th class=\"n\">plain PCA</tr>\n"
            .to_owned();
    for (name, figure) in FIGURES {
        let _ = write!(html, "<tr><td>{name}");
        for space in [&quality.surgery.mapping, &quality.untrained, &quality.pca] {
            let _ = match figure(space) {
                Some(value) => write!(html, "<td class=\"n\">{value:.3}"),
                None => write!(html, "<td class=\"n\">—"),
            };
        }
        html.push_str("</tr>\n");
    }
    let _ = write!(
        html,
        "</table></div>\n<p class=\"note\">15 Euclidean neighbours. Transfer: uniform vote of reference cells over query \
         cells. Other figures: reference and query together. k-means with as many clusters as cell types, ten starts. \
         The model itself: ELBO {:.2} per reference cell, {:.2} per query cell; reconstruction error {:.2} per query \
         cell (nats).</p>\n",
        quality.surgery.elbo_reference, quality.surgery.elbo_query, quality.surgery.reconstruction_query
    );
    html
}

fn picture(picture: &Picture) -> String {
    format!(
        "<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption>{0}</figcaption></figure>\n",
        picture.caption,
        BASE64_STANDARD.encode(&picture.png)
    )
}

fn lineage(events: &[Event]) -> String {
    let mut html = "<h2>Lineage of the reference</h2>\n<ol class=\"lineage\">\n".to_owned();
    for event in events {
        let keys = |keys: &[archipelago_common::ConditionKey]| {
            keys.iter().map(|key| format!("<code>{}</code>", escape(&key.to_string()))).collect::<Vec<_>>().join(", ")
        };
        let cause = match &event.cause {
            Cause::Published => "published".to_owned(),
            Cause::Merged { task, keys: added } => format!("task {task}: merged {}", keys(added)),
            Cause::Withdrawn { by, keys: removed } => format!("{by} withdrew {}", keys(removed)),
        };
        let _ = writeln!(html, "<li><code class=\"id\">{}</code> {cause}", event.version.0.short());
    }
    html + "</ol>\n"
}

fn phases(summary: &Summary) -> String {
    let mut html = "<h2>Where the time went</h2>\n<table>\n".to_owned();
    for phase in &summary.phases {
        let _ = writeln!(html, "<tr><td>{}<td class=\"n\">{:.1} s</tr>", escape(&phase.name), phase.seconds);
    }
    html + "</table>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

fn bytes(n: u64) -> String {
    const KIB: f64 = 1024.0;
    match n {
        0 => "none".to_owned(),
        1..1_024 => format!("{n} B"),
        1_024..1_048_576 => format!("{:.1} KiB", n as f64 / KIB),
        _ => format!("{:.1} MiB", n as f64 / KIB / KIB),
    }
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5b6675;--paper:#fbfbf9;--card:#fff;--line:#dfe3e8;--good:#1b7f5c;--bad:#b3341f}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#9aa5b4;--paper:#14181e;--card:#1c222a;--line:#313a46;--good:#4cc79a;--bad:#ff7a63}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:2rem;margin:0 0 .5rem}h2{font-size:1.2rem;margin:2.5rem 0 .75rem}
.lead{font-size:1.1rem;color:var(--dim);margin:0 0 1.5rem}.note{color:var(--dim);font-size:.875rem}
.claims{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.75rem}
.claim{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--good);border-radius:6px;padding:.75rem 1rem}
.claim b{display:block;color:var(--good)}.claim span{font-size:.9rem}
.claim.fails{border-left-color:var(--bad)}.claim.fails b{color:var(--bad)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;background:var(--card);font-size:.925rem}
th,td{border-bottom:1px solid var(--line);padding:.45rem .7rem;text-align:left}th{color:var(--dim);font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums}
figure{margin:2rem 0 0}img{width:100%;height:auto;border-radius:6px;background:#fff}
figcaption{color:var(--dim);font-size:.9rem;margin-top:.4rem}
.lineage li{margin:.3rem 0}code{font-size:.9em}.id{color:var(--good)}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 12, 1_234, 1_234_567].map(thousands), ["0", "12", "1 234", "1 234 567"]);
        assert_eq!([0, 12, 1_536, 3 << 20].map(bytes), ["none", "12 B", "1.5 KiB", "3.0 MiB"]);
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
