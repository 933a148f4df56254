//! `results`: what a trained model says about cells beyond their positions, one file per question.

mod correlation;
mod differential;
mod expression;
mod features;
mod fit;
mod library;
mod minified;
mod predictive;
mod proteins;

use std::{fmt, path::PathBuf};

use archipelago_common::id::VersionId;
use archipelago_models::results::CountResults;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::known::{KnownCellArgs, KnownCells};
use crate::{error::Result, lists, output::Output};

/// Ask a trained model about cells: expression, proteins, fit, draws, differences.
///
/// The batches of the cells are conditions of the reference, found by name; `--owner` and `--dataset` choose where several
/// have it. Positions are `archipelago-worker latent`, labels `archipelago-worker predict`. One seed, one result.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker results expression reference cells.h5ad --transform-batch 10x_3pv1 --out expression.h5ad\n  \
    archipelago-worker results fit reference cells.h5ad --marginal-samples 1000\n  \
    archipelago-worker results differential reference cells.h5ad --groupby cell_type --out de.csv")]
pub struct ResultsArgs {
    #[command(subcommand)]
    what: What,
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
    Proteins(Box<proteins::ProteinsArgs>),
}

/// Runs the command.
///
/// # Errors  what the question failed with
pub fn run(args: &ResultsArgs, output: &Output) -> Result<()> {
    match &args.what {
        What::Expression(args) => expression::run(args, output),
        What::Fit(args) => fit::run(args, output),
        What::Predictive(args) => predictive::run(args, output),
        What::Library(args) => library::run(args, output),
        What::Correlation(args) => correlation::run(args, output),
        What::Differential(args) => differential::run(args, output),
        What::Minified(args) => minified::run(args, output),
        What::Proteins(args) => proteins::run(args, output),
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
        Ok(CountResults::new(self.reference(), &self.cells()?, &self.conditions, seed, self.device)?)
    }

    /// The codes of conditions named as batches of the reference.
    fn codes(&self, asked: &Asked, results: &CountResults<'_>, batches: &[String]) -> Result<Vec<i64>> {
        let key_of = |batch: &str| asked.known.among.key_of(batch, self.reference());
        let batches = lists::among(batches, |batch| key_of(batch).is_ok().then(|| batch.to_owned()));
        batches.iter().map(|batch| Ok(results.code(&key_of(batch)?)?)).collect()
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
