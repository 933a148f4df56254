//! The one place that writes to the terminal.

use archipelago_analysis::metrics::MappingQuality;

use crate::summary::Summary;

/// Tells what is going on.
#[expect(clippy::print_stderr, reason = "this is the printer")]
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// Tells what went wrong, with its causes.
pub fn report_error(error: &anyhow::Error) {
    say(&format!("error: {error}"));
    for cause in error.chain().skip(1) {
        say(&format!("  caused by: {cause}"));
    }
}

/// Writes a result.
#[expect(clippy::print_stdout, reason = "this is the printer")]
pub fn print(text: &str) {
    println!("{text}");
}

/// Tells what came of it.
#[expect(clippy::print_stdout, reason = "this is the printer")]
pub fn report(summary: &Summary, out: &std::path::Path) {
    let mark = |holds: bool| if holds { "yes" } else { "NO" };
    let exact = &summary.exact;
    println!();
    println!("every order of merging gives one version   {} ({} orders)", mark(exact.order_free), exact.orders_tried);
    println!(
        "earlier embeddings bit-identical           {} ({} cells)",
        mark(exact.earlier_bit_identical),
        exact.cells_compared
    );
    println!("withdrawing a site restores the digest     {}", mark(exact.withdraw_restores));
    println!("repeated surgery gives the same columns     {}", mark(exact.repeatable));
    println!("leader killed, acknowledged work lost      {} times, {}", summary.leader_kills, summary.lost);
    for site in &summary.sites {
        let sent = &site.bytes_out;
        println!(
            "{:<28} {} cells; out: {} B columns, {} B embeddings, {} B metrics; kept: {} B",
            site.site, site.n_cells, sent.columns, sent.embeddings, sent.metrics, site.bytes_kept
        );
    }
    println!(
        "{:<28} {:>9} {:>10} {:>13} {:>8} {:>8}",
        "latent space", "accuracy", "kNN purity", "other batches", "NMI", "ARI"
    );
    let quality = &summary.quality;
    for (name, q) in [
        ("after surgery", &quality.surgery.mapping),
        ("columns untrained", &quality.untrained),
        ("plain PCA", &quality.pca),
    ] {
        print_quality(name, q);
    }
    println!();
    println!("{:.0} s; open {}", summary.seconds, out.join("index.html").display());
}

#[expect(clippy::print_stdout, reason = "this is the printer")]
fn print_quality(name: &str, q: &MappingQuality) {
    let number = |value: Option<f64>| value.map_or("—".to_owned(), |value| format!("{value:.3}"));
    println!(
        "{name:<28} {:>9} {:>10} {:>13} {:>8.3} {:>8.3}",
        number(q.knn_accuracy),
        number(q.knn_purity),
        number(q.other_batch_share),
        q.nmi_kmeans,
        q.ari_kmeans
    );
}
