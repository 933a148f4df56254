//! `archipelago-simulate`: runs many seeds on all cores and tells what happened.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use archipelago_histories::History;
use archipelago_simulation::{Settings, campaign::Campaign, run};
use clap::{Parser, Subcommand};

/// Whole consortia in virtual time, under one seed each, with everything going wrong.
#[derive(Parser, Debug)]
#[command(after_help = "Example:\n  archipelago-simulate seeds --n-seeds 2000\n  archipelago-simulate replay 17")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run seeds one after another, and show how often each fault came and each rule was checked.
    Seeds {
        /// How many.
        #[arg(long, default_value_t = 100)]
        n_seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        first_seed: u64,
        /// Where the event logs of seeds that fail are written.
        #[arg(long, default_value = "simulation-out")]
        out: PathBuf,
    },
    /// Run one seed, and write its event log and its history.
    Replay {
        /// The seed.
        seed: u64,
        /// Where to.
        #[arg(long, default_value = "simulation-out")]
        out: PathBuf,
    },
    /// Break rules of the coordinator on purpose, one at a time, and show that a run notices each.
    #[cfg(feature = "mutations")]
    Mutations {
        /// Seeds after which a rule counts as not noticed.
        #[arg(long, default_value_t = 300)]
        most_seeds: u64,
        /// Names of the rules to break, separated by commas [default: all]
        #[arg(long, value_delimiter = ',')]
        rules: Vec<String>,
    },
    /// Check a history, one operation in JSON a line, for linearizability.
    Check {
        /// The file.
        history: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    // A panic is a broken rule and is told as one; its seed can be replayed.
    std::panic::set_hook(Box::new(|_| {}));
    match Cli::parse().command {
        Command::Seeds { n_seeds, first_seed, out } => seeds(first_seed, n_seeds, &out),
        Command::Replay { seed, out } => replay(seed, &out),
        #[cfg(feature = "mutations")]
        Command::Mutations { most_seeds, rules } => mutations(most_seeds, &rules),
        Command::Check { history } => check(&history),
    }
}

fn seeds(first_seed: u64, n_seeds: u64, out: &PathBuf) -> Result<ExitCode> {
    let is_terminal = std::io::stderr().is_terminal();
    let campaign = Campaign::run(first_seed..first_seed + n_seeds, &Settings::default(), |line| {
        let mut stderr = std::io::stderr();
        // Progress that nobody can read is not worth an error.
        let _ = if is_terminal { write!(stderr, "\r{line}\x1b[K") } else { writeln!(stderr, "{line}") };
    });
    let mut stdout = std::io::stdout();
    if is_terminal {
        writeln!(std::io::stderr())?;
    }
    write!(stdout, "{campaign}")?;
    for (seed, _) in campaign.failures.iter().take(LOGS) {
        let path = write_log(*seed, out)?;
        writeln!(stdout, "event log of seed {seed}: {}", path.display())?;
    }
    Ok(if campaign.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(feature = "mutations")]
fn mutations(most_seeds: u64, rules: &[String]) -> Result<ExitCode> {
    use archipelago_simulation::mutations;
    let say = |row: &mutations::Caught| {
        // Progress that nobody can read is not worth an error.
        let _ = writeln!(std::io::stderr(), "{:?}: {:?} seeds", row.rule, row.n_seeds);
    };
    let chosen = mutations::named(rules).map_err(|unknown| anyhow::anyhow!("no rule is called `{unknown}`"))?;
    let table = mutations::check(&chosen, most_seeds, &Settings::default(), say);
    let mut stdout = std::io::stdout();
    writeln!(stdout, "| broken rule        | seeds | noticed as |\n|---|---|---|")?;
    table.iter().try_for_each(|row| writeln!(stdout, "{row}"))?;
    let all = table.iter().all(|row| row.n_seeds.is_some());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(seed: u64, out: &PathBuf) -> Result<ExitCode> {
    let path = write_log(seed, out)?;
    let report = run(seed, &Settings::default());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "seed {seed}: log {}, digest {}", path.display(), report.digest)?;
    match report.failure {
        None => Ok(ExitCode::SUCCESS),
        Some(failure) => {
            writeln!(stdout, "{failure}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn check(path: &PathBuf) -> Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    let history = History::parse(&text).with_context(|| format!("`{}` is no history", path.display()))?;
    let mut stdout = std::io::stdout();
    match archipelago_histories::check(&history) {
        Ok(checked) => {
            writeln!(stdout, "linearizable: {} operations on {} objects", checked.operations, checked.objects)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(violation) => {
            writeln!(stdout, "not linearizable: {violation}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs a seed again and keeps what it says.
fn write_log(seed: u64, out: &PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| format!("failed to create `{}`", out.display()))?;
    let report = run(seed, &Settings { keeps_log: true, ..Settings::default() });
    let path = out.join(format!("seed-{seed}.log"));
    std::fs::write(&path, report.log.unwrap_or_default())?;
    std::fs::write(out.join(format!("seed-{seed}.history.jsonl")), report.history.unwrap_or_default())?;
    Ok(path)
}

/// Failing seeds whose logs are written.
const LOGS: usize = 3;
