//! Both sides, alternately, each in processes of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    cases::{self, Case, ModelArg, Source},
    growth, machine,
    measure::{Kinds, Measured},
    report::{Row, Spread, Summary, median, note, say},
};

/// What the suite is told.
#[derive(Args, Debug)]
pub(crate) struct SuiteArgs {
    /// The Python that has scvi-tools.
    #[arg(long, value_name = "FILE")]
    peer: PathBuf,
    /// The Python that has scArches 0.6.1 and mvTCR; without it native models are not measured.
    #[arg(long, value_name = "FILE")]
    native_peer: Option<PathBuf>,
    /// The Python that has Multigrate 1.0.1; without it Multigrate is not measured.
    #[arg(long, value_name = "FILE")]
    multigrate_peer: Option<PathBuf>,
    /// The folder to write data and results to.
    #[arg(long, value_name = "DIR", default_value = "bench-out")]
    out: PathBuf,
    /// Threads of both sides.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Both sides on the first CUDA device.
    #[arg(long)]
    cuda: bool,
    /// Only the case that the goals speak of, once.
    #[arg(long)]
    quick: bool,
    /// Only cases with this in their name, and no growth.
    #[arg(long, value_name = "TEXT", conflicts_with = "quick")]
    only: Option<String>,
}

/// Runs all cases.
pub(crate) fn run(args: &SuiteArgs) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let load_before = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let gemm = machine::gemm_rate(args.threads)?;
    note(&format!("dense products: {:.1} GFLOP/s on {} threads", gemm / 1e9, args.threads));
    let mut rows = Vec::new();
    let has_peer = |case: &Case| args.peer_of(case).is_some();
    let is_named = |case: &Case| args.only.as_ref().is_none_or(|only| case.name.contains(only));
    let is_wanted = |case: &Case| has_peer(case) && is_named(case);
    for case in cases::all(args.quick).into_iter().filter(is_wanted) {
        rows.extend(compare(&case, args, gemm)?);
    }
    let growth = if args.quick || args.only.is_some() { Vec::new() } else { growth::run()? };
    let load_before = load_before.split(' ').next().unwrap_or_default().to_owned();
    let summary = Summary { threads: args.threads, gemm_gflops: gemm / 1e9, load_before, cases: rows, growth };
    std::fs::write(args.out.join("summary.json"), serde_json::to_string_pretty(&summary)?)?;
    say(&summary.table())
}

impl SuiteArgs {
    /// The Python of a case's peer, and its script.
    fn peer_of(&self, case: &Case) -> Option<(&Path, &'static str)> {
        match case.model {
            ModelArg::Multigrate => Some((self.multigrate_peer.as_deref()?, "peers/speed_multigrate.py")),
            ModelArg::Mvtcr => Some((self.native_peer.as_deref()?, "peers/speed_mvtcr.py")),
            ModelArg::Sagenet => Some((self.native_peer.as_deref()?, "peers/speed_space.py")),
            ModelArg::Treearches => Some((self.native_peer.as_deref()?, "peers/speed_trees.py")),
            model if model.is_native() => Some((self.native_peer.as_deref()?, "peers/speed_native.py")),
            _ => Some((&self.peer, "peers/speed.py")),
        }
    }
}

fn compare(case: &Case, args: &SuiteArgs, gemm: f64) -> Result<Vec<Row>> {
    let folder = args.out.join("data").join(&case.name);
    note(&format!("{}: making the data", case.name));
    case.write(&folder)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=case.rounds {
        note(&format!("{}: round {round} of {}, ours", case.name, case.rounds));
        // Each round starts elsewhere, and both sides say how far that moves the ELBO.
        let seed = round as u64 - 1;
        ours.push(run_ours(&folder, case, args, seed)?);
        if !case.is_alone() {
            note(&format!("{}: round {round} of {}, the peer", case.name, case.rounds));
            theirs.push(run_peer(&folder, case, args, seed)?);
        }
    }
    std::fs::remove_dir_all(&folder)?;
    let kinds = case.model.kinds().iter();
    kinds.map(|kind| row(case, kind, &collect(&ours, kind)?, &collect(&theirs, kind)?, gemm)).collect()
}

fn run_ours(folder: &Path, case: &Case, args: &SuiteArgs, seed: u64) -> Result<Kinds> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["measure", "--model", case.model.name()]).arg(folder);
    output(command, case, args, seed)
}

fn run_peer(folder: &Path, case: &Case, args: &SuiteArgs, seed: u64) -> Result<Kinds> {
    let (python, script) = args.peer_of(case).context("the case has no peer here")?;
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).args(["--model", case.model.name()]).arg(folder);
    output(command, case, args, seed)
}

fn output(mut command: Command, case: &Case, args: &SuiteArgs, seed: u64) -> Result<Kinds> {
    let [epochs, threads, seed] = [case.epochs.to_string(), args.threads.to_string(), seed.to_string()];
    command.args(["--epochs", &epochs, "--threads", &threads, "--seed", &seed]);
    if args.cuda {
        command.arg("--cuda");
    }
    command.env("OMP_NUM_THREADS", args.threads.to_string());
    let output = command.stderr(std::process::Stdio::inherit()).output().context("failed to start one side")?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    let line = String::from_utf8_lossy(&output.stdout);
    let all: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(line.lines().last().unwrap_or_default()).context("one side printed no JSON")?;
    let measured = all.into_iter().filter(|(_, value)| value.is_object());
    measured.map(|(kind, value)| Ok((kind, serde_json::from_value(value)?))).collect()
}

fn collect(rounds: &[Kinds], kind: &str) -> Result<Vec<Measured>> {
    rounds.iter().map(|kinds| kinds.get(kind).cloned().with_context(|| format!("`{kind}` was not measured"))).collect()
}

fn row(case: &Case, kind: &str, ours: &[Measured], theirs: &[Measured], gemm: f64) -> Result<Row> {
    let seconds = |side: &[Measured]| median(&side.iter().flat_map(|m| m.epochs_s.iter().copied()).collect::<Vec<_>>());
    let elbo = |side: &[Measured]| Spread::of(&side.iter().filter_map(|measured| measured.elbo).collect::<Vec<_>>());
    let peak = |side: &[Measured]| side.iter().map(|measured| measured.peak_mib).fold(0.0, f64::max);
    let n_products = match kind {
        "surgery" => Some(2.0),
        "train" => Some(3.0),
        _ => None,
    };
    let bound = |n_products: f64| match case.source {
        Source::Synthetic(cells, genes, _) => Some(n_products * 2.0 * (cells * genes * N_HIDDEN) as f64 / gemm),
        Source::Pbmc(_) | Source::Latent(..) | Source::Section(_) => None,
    };
    let (ours_s, peer_s) = (seconds(ours), (!theirs.is_empty()).then(|| seconds(theirs)));
    Ok(Row {
        name: format!("{kind}-{}", case.name),
        ours_s,
        peer_s,
        ratio: peer_s.map(|peer_s| peer_s / ours_s),
        bound_s: n_products.and_then(bound),
        ours_elbo: elbo(ours),
        peer_elbo: elbo(theirs),
        ours_peak_mib: peak(ours),
        peer_peak_mib: (!theirs.is_empty()).then(|| peak(theirs)),
    })
}

/// Units of hidden layers, upstream's default.
const N_HIDDEN: usize = 128;
