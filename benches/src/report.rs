//! Medians, the table, `summary.json`.

use std::{fmt, io::Write as _};

use anyhow::Result;
use serde::Serialize;

use crate::growth::Point;

/// One row of the table.
#[derive(Serialize, Debug)]
pub(crate) struct Row {
    /// `surgery-10000x2000-d12`
    pub(crate) name: String,
    /// Seconds per epoch, or of the whole for embeddings; medians. Of trees and sections the processor's seconds.
    pub(crate) ours_s: f64,
    /// None where the peer was not run.
    pub(crate) peer_s: Option<f64>,
    /// How many times faster ours is.
    pub(crate) ratio: Option<f64>,
    /// What the dense products alone take at the machine's rate.
    pub(crate) bound_s: Option<f64>,
    /// ELBO per validation cell over the rounds, nats; higher is better.
    pub(crate) ours_elbo: Option<Spread>,
    pub(crate) peer_elbo: Option<Spread>,
    pub(crate) ours_peak_mib: f64,
    pub(crate) peer_peak_mib: Option<f64>,
}

/// A figure over rounds that start elsewhere.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    /// Sample standard deviation; none of a single round.
    pub(crate) std: Option<f64>,
    pub(crate) n_seeds: usize,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let std = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        (!values.is_empty()).then_some(Self { mean, std, n_seeds: values.len() })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = self.std.map_or_else(String::new, |std| format!(" ± {std:.2}"));
        f.pad(&format!("{:.2}{spread}", self.mean))
    }
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
                "{:<34} {:>9} {:>9} {:>7} {:>9} {:>17} {:>17} {:>9} {:>9}",
                "case", "ours s", "peer s", "ratio", "bound s", "ours ELBO", "peer ELBO", "ours MiB", "peer MiB"
            ),
        ];
        let optional =
            |value: Option<f64>, n_digits: usize| value.map_or_else(String::new, |value| format!("{value:.n_digits$}"));
        let elbo = |spread: &Option<Spread>| spread.map_or_else(String::new, |spread| spread.to_string());
        for row in &self.cases {
            lines.push(format!(
                "{:<34} {:>9.4} {:>9} {:>7} {:>9} {:>17} {:>17} {:>9.0} {:>9}",
                row.name,
                row.ours_s,
                optional(row.peer_s, 3),
                row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}×")),
                optional(row.bound_s, 4),
                elbo(&row.ours_elbo),
                elbo(&row.peer_elbo),
                row.ours_peak_mib,
                optional(row.peer_peak_mib, 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_start_elsewhere_have_a_mean_and_a_deviation() {
        let spread = Spread::of(&[-2.0, -4.0]).unwrap();
        assert_eq!((spread.mean, spread.n_seeds, spread.to_string().as_str()), (-3.0, 2, "-3.00 ± 1.41"));
        assert_eq!(Spread::of(&[-2.0]).unwrap().to_string(), "-2.00");
        assert_eq!(Spread::of(&[]), None);
    }
}
