//! The rows that were measured, each beside its goal; and the one place that writes to the terminal.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What a row should be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Goal {
    /// None; it is there to be known.
    None,
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    part: String,
    what: String,
    value: f64,
    unit: String,
    goal: Goal,
}

/// All rows of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    machine: String,
    scale_down: u64,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(scale_down: u64) -> Self {
        Self { machine: machine(), scale_down, rows: Vec::new() }
    }

    /// Adds a row and tells it at once.
    pub(crate) fn row(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Goal,
    ) {
        let row = Row { part: part.to_owned(), what: what.into(), value, unit: unit.to_owned(), goal };
        say(&row.line());
        self.rows.push(row);
    }

    /// Adds the rows of another run, which has told them.
    pub(crate) fn take_over(&mut self, path: &Path) -> Result<()> {
        let other: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        self.rows.extend(other.rows);
        Ok(())
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(std::fs::write(path, serde_json::to_vec_pretty(self)?)?)
    }

    #[expect(clippy::print_stdout, reason = "this is the printer")]
    pub(crate) fn print(&self) {
        println!("{}", self.machine);
        if self.scale_down > 1 {
            println!("sizes and numbers divided by {}: not for comparison", self.scale_down);
        }
        for row in &self.rows {
            println!("{}", row.line());
        }
    }
}

impl Row {
    fn line(&self) -> String {
        let goal = match self.goal {
            Goal::None => String::new(),
            Goal::AtLeast(goal) => format!("goal ≥ {goal}  {}", mark(self.value >= goal)),
            Goal::AtMost(goal) => format!("goal ≤ {goal}  {}", mark(self.value <= goal)),
        };
        format!("{:<12} {:<58} {:>10.2} {:<10} {goal}", self.part, self.what, self.value, self.unit)
    }
}

fn mark(is_met: bool) -> &'static str {
    if is_met { "met" } else { "NOT MET" }
}

/// Tells what is going on.
#[expect(clippy::print_stderr, reason = "this is the printer")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

pub(crate) fn report_error(error: &anyhow::Error) {
    say(&format!("error: {error}"));
    for cause in error.chain().skip(1) {
        say(&format!("  caused by: {cause}"));
    }
}

/// Processor, cores and load: a figure from a busy machine says so.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, m)| m);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{model}, {cores} cores, load {load} at the start")
}

/// The sample below which this share of the samples is, by nearest rank.
pub(crate) fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let rank = (share * samples.len() as f64).ceil() as usize;
    samples.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
