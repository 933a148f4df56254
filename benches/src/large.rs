//! Cells beyond memory: the worker's own `map`, as a user runs it, on a file whose counts are larger than what it may hold.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::{
    cases,
    report::{note, say},
};

/// What is mapped, within what.
#[derive(Args, Debug)]
pub(crate) struct LargeArgs {
    /// The worker [default: `archipelago-worker` beside this program]
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// The folder to write data and results to; it takes about five times the counts.
    #[arg(long, value_name = "DIR", default_value = "bench-out")]
    out: PathBuf,
    /// Cells of each case.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    cells: Vec<usize>,
    /// Genes.
    #[arg(long, default_value_t = 2_000)]
    genes: usize,
    /// Mean total count of a cell over 2,000 genes: 210 makes 8 % non-zeros.
    #[arg(long, default_value_t = 210.0)]
    library: f64,
    /// Memory that counts may take, each in a run of its own.
    #[arg(long, value_delimiter = ',', default_value = "1GiB")]
    memory: Vec<String>,
    /// Passes over the cells.
    #[arg(long, default_value_t = 2)]
    epochs: u32,
}

/// One mapping.
#[derive(Serialize, Debug)]
pub(crate) struct LargeRow {
    /// `map-1000000x2000-1GiB`
    pub(crate) name: String,
    pub(crate) cells: usize,
    /// What counts may take, as it was told.
    memory: String,
    /// Counts and their columns in memory would take so much, MiB.
    counts_mib: f64,
    reading_s: f64,
    /// Setting up included.
    training_s: f64,
    epochs: u32,
    /// Positions of all cells included.
    writing_s: f64,
    seconds: f64,
    /// Largest memory that is the process's own, MiB: what a limit would be set to.
    peak_anonymous_mib: f64,
    /// The largest of everything mapped, pages of scratch files in the system's cache included, MiB.
    peak_rss_mib: f64,
}

impl LargeRow {
    fn line(&self) -> String {
        format!(
            "{:<24} counts {:>6.0} MiB: reading {:>5.1} s, training {:>6.1} s ({} epochs), writing {:>5.1} s; own memory {:>5.0} MiB, with scratch pages {:>5.0} MiB",
            self.name,
            self.counts_mib,
            self.reading_s,
            self.training_s,
            self.epochs,
            self.writing_s,
            self.peak_anonymous_mib,
            self.peak_rss_mib,
        )
    }
}

/// Runs all cases, prints them, and puts them into `summary.json` beside what is there.
pub(crate) fn run(args: &LargeArgs) -> Result<()> {
    let rows = measure(args)?;
    let path = args.out.join("summary.json");
    let mut summary: BTreeMap<String, Value> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is no summary", path.display()))?,
        Err(_) => BTreeMap::new(),
    };
    summary.insert("large".to_owned(), serde_json::to_value(&rows)?);
    std::fs::write(&path, serde_json::to_string_pretty(&summary)?)?;
    rows.iter().try_for_each(|row| say(&row.line()))
}

fn measure(args: &LargeArgs) -> Result<Vec<LargeRow>> {
    let folder = args.out.join("large");
    let worker = match &args.worker {
        Some(worker) => worker.clone(),
        None => std::env::current_exe()?.with_file_name("archipelago-worker"),
    };
    std::fs::create_dir_all(&folder)?;
    note("making a reference of 10,000 cells");
    cases::write_streamed(&folder.join("small.h5ad"), (10_000, args.genes), args.library, &["b0", "b1", "b2"], 1)?;
    let reference = ["train", "small.h5ad", "--epochs", "2", "--device", "cpu", "--overwrite", "--out", "reference"];
    let trained = Command::new(&worker).args(reference).current_dir(&folder).stdout(Stdio::null()).status();
    let trained = trained.with_context(|| format!("failed to start {}", worker.display()))?;
    ensure!(trained.success(), "the reference could not be trained");
    let mut rows = Vec::new();
    for &cells in &args.cells {
        note(&format!("making {cells} cells"));
        let n_stored =
            cases::write_streamed(&folder.join("query.h5ad"), (cells, args.genes), args.library, &["q0"], 3)?;
        for memory in &args.memory {
            let row = map(args, &worker, &folder, (cells, memory), n_stored)?;
            note(&row.line());
            rows.push(row);
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(rows)
}

fn map(
    args: &LargeArgs,
    worker: &Path,
    folder: &Path,
    (cells, memory): (usize, &str),
    n_stored: usize,
) -> Result<LargeRow> {
    let mut command = Command::new(worker);
    command.args([
        "map",
        "reference",
        "query.h5ad",
        "--out",
        "mapped",
        "--overwrite",
        "--device",
        "cpu",
        "--format",
        "json",
    ]);
    command.args(["--epochs", &args.epochs.to_string(), "--memory", memory, "--scratch", "."]);
    let mut child = command.current_dir(folder).stdout(Stdio::piped()).spawn().context("failed to start the worker")?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let (mut anonymous, mut rss) = (0.0_f64, 0.0_f64);
    while child.try_wait()?.is_none() {
        // The file goes with the process.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        anonymous = anonymous.max(mib(&text, "RssAnon:"));
        rss = rss.max(mib(&text, "VmHWM:"));
        std::thread::sleep(BETWEEN_LOOKS);
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    std::fs::remove_dir_all(folder.join("mapped"))?;
    let summary: Value = serde_json::from_slice(&output.stdout)?;
    let seconds = |name: &str| summary[name].as_f64().with_context(|| format!("the summary has no `{name}`"));
    Ok(LargeRow {
        name: format!("map-{cells}x{}-{memory}", args.genes),
        cells,
        memory: memory.to_owned(),
        counts_mib: (n_stored * 8) as f64 / MIB,
        reading_s: seconds("reading_seconds")?,
        training_s: seconds("training_seconds")?,
        epochs: args.epochs,
        writing_s: seconds("writing_seconds")?,
        seconds: seconds("seconds")?,
        peak_anonymous_mib: anonymous,
        peak_rss_mib: rss,
    })
}

/// A number of the status of a process, MiB; 0 where it is missing.
fn mib(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(0.0, |kib| kib * 1024.0 / MIB)
}

const MIB: f64 = (1 << 20) as f64;
/// Between two looks at the memory in use.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
