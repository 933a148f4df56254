//! Medians, the table, `summary.json`.

use std::io::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::growth::Point;

/// One row of the table.
#[derive(Serialize, Debug)]
pub(crate) struct Row {
    /// `surgery-10000x2000-d12`
    pub(crate) name: String,
    /// Seconds per epoch, or of the whole for embeddings; medians.
    pub(crate) ours_s: f64,
    pub(crate) peer_s: f64,
    /// How many times faster ours is.
    pub(crate) ratio: f64,
    /// What the dense products alone take at the machine's rate.
    pub(crate) bound_s: Option<f64>,
    /// Mean ELBO per validation cell, nats; higher is better.
    pub(crate) ours_elbo: Option<f64>,
    pub(crate) peer_elbo: Option<f64>,
    pub(crate) ours_peak_mib: f64,
    pub(crate) peer_peak_mib: f64,
}

/// Everything.
#[derive(Serialize, Debug)]
pub(crate) struct Summary {
    pub(crate) threads: usize,
    /// Rate of libtorch's dense products, GFLOP/s.
    pub(crate) gemm_gflops: f64,
    /// Load of the machine before the first case: figures of a busy machine mean little.
    pub(crate) load_before: String,
    pub(crate) cases: Vec<Row>,
    pub(crate) growth: Vec<Point>,
}

impl Summary {
    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            format!(
                "{} threads, dense products {:.0} GFLOP/s, load before {}",
                self.threads, self.gemm_gflops, self.load_before
            ),
            format!(
                "{:<28} {:>9} {:>9} {:>7} {:>9} {:>11} {:>11} {:>9} {:>9}",
                "case", "ours s", "peer s", "ratio", "bound s", "ours ELBO", "peer ELBO", "ours MiB", "peer MiB"
            ),
        ];
        let optional = |value: Option<f64>, digits: usize| value.map_or("".to_owned(), |v| format!("{v:.digits$}"));
        for row in &self.cases {
            lines.push(format!(
                "{:<28} {:>9.4} {:>9.3} {:>6.1}× {:>9} {:>11} {:>11} {:>9.0} {:>9.0}",
                row.name,
                row.ours_s,
                row.peer_s,
                row.ratio,
                optional(row.bound_s, 4),
                optional(row.ours_elbo, 2),
                optional(row.peer_elbo, 2),
                row.ours_peak_mib,
                row.peer_peak_mib
            ));
        }
        for point in &self.growth {
            lines.push(format!("surgery, {} {}: {:.4} s per epoch", point.n, point.by, point.seconds));
        }
        lines.join("\n")
    }
}

/// The median; NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Writes a line to stdout.
pub(crate) fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Writes a line to stderr.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
