//! How well the model fits: the figures that it reports, and the marginal likelihood.

use std::{fmt, path::PathBuf};

use archipelago_common::id::VersionId;
use clap::Args;
use serde::Serialize;

use super::Asked;
use crate::{error::Result, fit::Fit, output::Output, table::CsvTable};

/// The model's figures (ELBO and reconstruction loss, mostly) and the marginal likelihood.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker results fit reference cells.h5ad --marginal-samples 1000 --out marginal.csv")]
pub(super) struct FitArgs {
    #[command(flatten)]
    asked: Asked,
    /// Draws per cell for the marginal likelihood; 0 leaves it out. The field takes 1000.
    #[arg(long, default_value_t = 0)]
    marginal_samples: usize,
    /// A csv file for the marginal likelihood of each cell.
    #[arg(long, value_name = "FILE", requires = "marginal_samples")]
    out: Option<PathBuf>,
}

/// Means over the cells.
#[derive(Serialize)]
struct Summary {
    version: VersionId,
    n_cells: usize,
    #[serde(flatten)]
    fit: Fit,
    /// Log of the probability of a cell; higher is better.
    marginal_log_likelihood: Option<f64>,
    out: Option<PathBuf>,
}

pub(super) fn run(args: &FitArgs, output: &Output) -> Result<()> {
    let known = args.asked.known.open(output)?;
    let fit = known.reference().evaluate(&known.cells()?, &known.conditions, args.asked.seed, known.device)?;
    let marginal = match args.marginal_samples {
        0 => None,
        n => Some(known.count_results(args.asked.seed)?.marginal_log_likelihood(n)?),
    };
    if let (Some(out), Some(marginal)) = (&args.out, &marginal) {
        let mut table = CsvTable::new(["cell", "marginal_log_likelihood"]);
        known.data.cell_names().zip(marginal).for_each(|(cell, value)| table.row(cell, [value]));
        table.write(out)?;
    }
    let mean = |values: Vec<f32>| values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64;
    output.show(&Summary {
        version: known.open.dir.version().id(),
        n_cells: known.data.n_cells(),
        fit: Fit::new(&known.reference().base.card, &fit),
        marginal_log_likelihood: marginal.map(mean),
        out: args.out.clone(),
    });
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "cells       {}", self.n_cells)?;
        self.fit.fmt(f)?;
        match self.marginal_log_likelihood {
            Some(marginal) => write!(f, "\nmarginal    {marginal:.3} per cell (log-likelihood)"),
            None => Ok(()),
        }
    }
}
