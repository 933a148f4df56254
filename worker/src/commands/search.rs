//! `search`: a reference with the best of several options, drawn at random.

use std::{fmt, time::Instant};

use archipelago_common::{
    fs,
    progress::{Continue, EpochReport},
};
use archipelago_models::{
    Config, Error as ModelError, NoCheckpoints, Trained,
    model::{Model, Trial},
    options::text_of,
    train::Watched,
    zoo::ZOO,
};
use clap::Args;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::train::{self, Prepared, TrainArgs};
use crate::{
    error::{Error, Result},
    existing,
    output::Output,
    table::CsvTable,
};

/// Train a reference with options drawn at random, several times, and keep the best.
///
/// Points are drawn independently from the space that the model's authors search (they use an estimator, tree-structured Parzen; random
/// search needs some more trials and nothing else). Options that are given on the command line are not searched. Runs are compared by
/// what the model chooses its state by (`--selected-by`), over their epochs, of the cells that validate. The directory has the best
/// reference, as `train` writes it, and every trial in `trials.csv`. One seed, one table. A search that was killed begins anew.
#[derive(Args, Debug)]
#[command(after_help = examples())]
pub struct SearchArgs {
    #[command(flatten)]
    train: TrainArgs,
    /// Points that are tried.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
}

/// One run.
#[derive(Serialize)]
struct Run {
    trial: u32,
    /// What it is compared by; none where its loss was no number.
    value: Option<f64>,
    /// The epoch that this was reached in.
    epoch: Option<u32>,
    epochs: usize,
    learning_rate: f64,
    options: Config,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    compared_by: &'static str,
    higher_is_better: bool,
    best: u32,
    runs: Vec<Run>,
    #[serde(flatten)]
    reference: train::Summary,
}

/// Runs the command.
///
/// # Errors  those of `train`, [`Error::Setting`] for a model that has no space to search
pub fn run(args: &SearchArgs, output: &Output) -> Result<()> {
    let started = Instant::now();
    let mut prepared = train::prepare(&args.train, output)?;
    let watched = prepared.model.configure(&prepared.options)?.chosen_by();
    let given = prepared.options.clone();
    let mut rng = ChaCha8Rng::seed_from_u64(args.train.seed());
    fs::create_dir(args.train.out())?;
    let mut runs: Vec<Run> = Vec::new();
    let mut best: Option<(f64, u32, Config, Trained)> = None;
    for trial in 0..args.trials {
        let Some(Trial { mut options, rate }) = prepared.model.trial(&mut rng) else {
            let found = prepared.model.card().name.to_owned();
            return Err(Error::Setting { what: "--model", found, expected: "a model whose options can be searched" });
        };
        options.extend(given.clone());
        prepared.options = options.clone();
        output.note(format_args!("trial {trial} of {}", args.trials));
        let (run, trained) = tried(args, &prepared, (trial, rate), watched, output)?;
        if let (Some(value), Some(trained)) = (run.value, trained) {
            let cost = value * f64::from(watched.sign);
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, trial, options, trained));
            }
        }
        runs.push(run);
    }
    let Some((_, best, options, trained)) = best else {
        return Err(Error::Models(ModelError::Diverged { epoch: 1, loss: f64::NAN }));
    };
    prepared.options = options;
    write_table(&args.train.out().join(TABLE), &runs)?;
    let reference = train::write(&args.train, &prepared, trained, started)?;
    let (compared_by, higher_is_better) = (watched.figure, watched.sign < 0);
    let summary = Summary { compared_by, higher_is_better, best, runs, reference };
    crate::results::write_json(&args.train.out().join(existing::SUMMARY), &summary)?;
    existing::end(args.train.out());
    output.show(&summary);
    Ok(())
}

/// One run and what it has trained; nothing where the loss was no number.
fn tried(
    args: &SearchArgs,
    prepared: &Prepared,
    (trial, rate): (u32, f64),
    watched: Watched,
    output: &Output,
) -> Result<(Run, Option<Trained>)> {
    let mut spec = args.train.spec();
    let learning_rate = *spec.learning_rate.get_or_insert(rate);
    let mut history: Vec<EpochReport> = Vec::new();
    let mut progress = |report: &EpochReport| {
        history.push(report.clone());
        Continue::Yes
    };
    let trained = match train::train(&args.train, prepared, &spec, &mut progress, &mut NoCheckpoints) {
        Ok(trained) => Some(trained),
        Err(Error::Models(ModelError::Diverged { .. })) => None,
        Err(other) => return Err(other),
    };
    let of = |report: &EpochReport| match watched.figure {
        "loss" => report.validation_loss,
        figure => report.validation_figures.get(figure).copied(),
    };
    let reached = history.iter().filter_map(|report| Some((of(report)?, report.epoch)));
    let cost = |value: f64| value * f64::from(watched.sign);
    let reached = reached.min_by(|(one, _), (other, _)| cost(*one).total_cmp(&cost(*other)));
    let (value, epoch) = (reached.map(|(value, _)| value), reached.map(|(_, epoch)| epoch));
    if let Some(value) = value {
        output.note(format_args!("{} {value:.4} in epoch {}", watched.figure, epoch.unwrap_or_default()));
    }
    let value = value.filter(|_| trained.is_some());
    let run = Run { trial, value, epoch, epochs: history.len(), learning_rate, options: prepared.options.clone() };
    Ok((run, trained))
}

fn write_table(path: &std::path::Path, runs: &[Run]) -> Result<()> {
    let names: Vec<&String> = runs.first().map(|run| run.options.keys().collect()).unwrap_or_default();
    let heads = ["trial", "value", "epoch", "epochs", "learning_rate"];
    let mut table = CsvTable::new(heads.into_iter().chain(names.iter().map(|name| name.as_str())));
    for run in runs {
        let number = |value: Option<String>| value.unwrap_or_default();
        let own = [
            number(run.value.map(|value| value.to_string())),
            number(run.epoch.map(|epoch| epoch.to_string())),
            run.epochs.to_string(),
            run.learning_rate.to_string(),
        ];
        // A list has commas of its own.
        let options = names.iter().map(|name| crate::results::csv_field(&text_of(&run.options[*name])));
        table.row(&run.trial.to_string(), own.into_iter().chain(options));
    }
    table.write(path)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let better = if self.higher_is_better { "more is better" } else { "less is better" };
        writeln!(f, "trial  {} ({better})  epochs", self.compared_by)?;
        for Run { trial, value, epochs, .. } in &self.runs {
            let mark = if *trial == self.best { " best" } else { "" };
            let value = value.map_or("no number".to_owned(), |value| format!("{value:.4}"));
            writeln!(f, "{trial:>5}  {value}  {epochs}{mark}")?;
        }
        self.reference.fmt(f)
    }
}

/// A command for each model whose options can be searched.
fn examples() -> String {
    let is_searched = |model: &&&dyn Model| model.trial(&mut ChaCha8Rng::seed_from_u64(0)).is_some();
    let commands = ZOO.iter().filter(is_searched).map(|model| {
        let example = model.card().example;
        format!("\n  archipelago-worker search {example} --trials 20 --seed 1")
    });
    format!("Examples:{}", commands.collect::<String>())
}

/// The table of trials.
const TABLE: &str = "trials.csv";
