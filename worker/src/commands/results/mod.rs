//! `results`: what a trained model says about cells beyond their positions, one file per question.

mod correlation;
mod differential;
mod expression;
mod features;
mod fit;
mod frame;
mod library;
mod minified;
mod own;
mod predictive;
mod questions;

use std::{fmt, path::PathBuf};

use archipelago_common::id::VersionId;
use archipelago_models::results::{self, CountResults};
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use serde::Serialize;

use self::own::OwnQuestion;
use super::known::{KnownCellArgs, KnownCells};
use crate::{error::Result, lists, output::Output};

/// Ask a trained model about cells: expression, fit, draws, differences, and what only some models know.
///
/// `results questions` lists what a reference answers. The batches of the cells are conditions of the reference, found by
/// name; `--owner` and `--dataset` choose where several have it. Positions are `archipelago-worker latent`, labels `archipelago-worker predict`. One seed, one result.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker results expression reference cells.h5ad --transform-batch 10x_3pv1 --out expression.h5ad\n  \
    archipelago-worker results fit reference cells.h5ad --marginal-samples 1000\n  \
    archipelago-worker results differential reference cells.h5ad --groupby cell_type --out de.csv")]
pub struct ResultsArgs {
    #[command(subcommand)]
    asking: Asking,
}

/// A question that every model answers which can, or one of a model's own.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one of it is made in a run of the program")]
enum Asking {
    Generic(What),
    Own(OwnQuestion),
}

#[derive(Subcommand, Debug)]
enum What {
    Expression(expression::ExpressionArgs),
    Fit(fit::FitArgs),
    Predictive(predictive::PredictiveArgs),
    Library(library::LibraryArgs),
    Correlation(correlation::CorrelationArgs),
    Differential(Box<differential::DifferentialArgs>),
    Minified(minified::MinifiedArgs),
    Questions(questions::QuestionsArgs),
}

impl What {
    /// Names of the questions and what they ask for, in order.
    fn generic() -> impl Iterator<Item = (String, String)> {
        let all = Self::augment_subcommands(Command::new("results"));
        let line = |command: &Command| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            (command.get_name().to_owned(), about)
        };
        let lines: Vec<_> = all.get_subcommands().map(line).filter(|(name, _)| name != "questions").collect();
        lines.into_iter()
    }
}

impl FromArgMatches for Asking {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some((name, matches)) if OwnQuestion::is_one(name) => {
                OwnQuestion::from_matches(name, matches).map(Self::Own)
            }
            _ => What::from_arg_matches(matches).map(Self::Generic),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Asking {
    fn augment_subcommands(command: Command) -> Command {
        OwnQuestion::augment(What::augment_subcommands(command))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        OwnQuestion::is_one(name) || What::has_subcommand(name)
    }
}

/// Runs the command.
///
/// # Errors  what the question failed with
pub fn run(args: &ResultsArgs, output: &Output) -> Result<()> {
    let what = match &args.asking {
        Asking::Own(question) => return question.run(output),
        Asking::Generic(what) => what,
    };
    match what {
        What::Expression(args) => expression::run(args, output),
        What::Fit(args) => fit::run(args, output),
        What::Predictive(args) => predictive::run(args, output),
        What::Library(args) => library::run(args, output),
        What::Correlation(args) => correlation::run(args, output),
        What::Differential(args) => differential::run(args, output),
        What::Minified(args) => minified::run(args, output),
        What::Questions(args) => questions::run(args, output),
    }
}

/// What every question is asked with.
#[derive(Args, Debug)]
struct Asked {
    #[command(flatten)]
    known: KnownCellArgs,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl KnownCells {
    /// The model, ready to be asked about these cells.
    fn count_results(&self, seed: u64) -> Result<CountResults<'_>> {
        Ok(CountResults::of(self.asked(seed)?)?)
    }

    /// The module and these cells, ready for any question.
    fn asked(&self, seed: u64) -> Result<results::Asked<'_>> {
        Ok(results::Asked::new(self.reference(), &self.cells()?, &self.conditions, seed, self.device)?)
    }

    /// The codes of conditions named as batches of the reference.
    fn codes(&self, asked: &Asked, results: &CountResults<'_>, batches: &[String]) -> Result<Vec<i64>> {
        let key_of = |batch: &str| asked.known.among.key_of(batch, self.reference());
        let batches = lists::among(batches, |batch| key_of(batch).is_ok().then(|| batch.to_owned()));
        batches.iter().map(|batch| Ok(results.asked().code(&key_of(batch)?)?)).collect()
    }
}

/// A file that was written, with its size in rows and columns.
#[derive(Serialize)]
struct Written {
    out: PathBuf,
    version: VersionId,
    what: &'static str,
    n_rows: usize,
    n_columns: usize,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<11} {}", self.what, self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        write!(f, "size        {} × {}", self.n_rows, self.n_columns)
    }
}
