//! Proteins: denoised, told apart from background, imputed.

use std::path::PathBuf;

use archipelago_models::results::{CountResults, ExpressionAsk, ProteinAsk};
use clap::{Args, ValueEnum};
use ndarray::Array2;

use super::{Asked, Written, features::Features};
use crate::{
    commands::known::KnownCells,
    error::{Error, Result},
    lists,
    output::Output,
    table::NamedMatrix,
};

/// Proteins of each cell: normalised, their probability of being foreground, or imputed where they were not measured.
///
/// Imputed proteins are those of the cell as if it had been measured in conditions that were stained: `--impute` takes those
/// with the most proteins, `--transform-batch` the ones that it names.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker results proteins reference cite.h5ad --scale-protein --out proteins.h5ad\n  \
    archipelago-worker results proteins reference cite.h5ad --what foreground --out foreground.csv\n  \
    archipelago-worker results proteins mapped query.h5ad --without-proteins --impute --n-samples 25 --out imputed.csv\n  \
    archipelago-worker results proteins mapped mapped/mapped.h5ad --without-proteins --impute --obsm-key imputed --out imputed.h5ad")]
pub(super) struct ProteinsArgs {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (cells × proteins as `X`, or as `--obsm-key` says) or csv.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the cells of the file with all that it holds, and the proteins as this table in obsm.
    #[arg(long, value_name = "OBSM")]
    obsm_key: Option<String>,
    /// What of the proteins.
    #[arg(long, value_enum, default_value_t = What::Expression)]
    what: What,
    /// Decode every cell as if it came from these batches of the reference, and average over them [default: its own]
    #[arg(long)]
    transform_batch: Vec<String>,
    /// Decode every cell as if it came from the batches that were stained for the most proteins.
    #[arg(long, conflicts_with = "transform_batch")]
    impute: bool,
    /// Draws per cell that are averaged.
    #[arg(long, default_value_t = 1)]
    n_samples: usize,
    /// Add the background to the foreground.
    #[arg(long)]
    include_protein_background: bool,
    /// Draw whether a count is background, where the expectation would be taken otherwise.
    #[arg(long)]
    sample_protein_mixing: bool,
    /// Divide the proteins of a cell by their sum.
    #[arg(long)]
    scale_protein: bool,
    /// Write these proteins only, separated by commas [default: all of the panel]
    #[arg(long)]
    proteins: Vec<String>,
}

/// What of the proteins is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    /// Expected counts of the foreground.
    Expression,
    /// Probability of being foreground.
    Foreground,
    /// Expected counts of the background.
    Background,
}

pub(super) fn run(args: &ProteinsArgs, output: &Output) -> Result<()> {
    args.check()?;
    let known = args.asked.known.open(output)?;
    if args.obsm_key.is_some() {
        known.data.check_writable()?;
    }
    let panel = Features::of(&known)?.proteins;
    let results = known.count_results(args.asked.seed)?;
    let values = args.values(&known, &results)?;
    let chosen = args.chosen(&panel)?;
    let values: Vec<f32> =
        values.rows().into_iter().flat_map(|row| chosen.iter().map(|&at| row[at]).collect::<Vec<_>>()).collect();
    let columns: Vec<String> = chosen.iter().map(|&at| panel[at].clone()).collect();
    let rows = known.data.obs();
    let proteins = NamedMatrix { rows_are: "cell", rows: &rows, columns: &columns, values: &values };
    match &args.obsm_key {
        None => proteins.write(&args.out)?,
        Some(key) => proteins.write_beside(&known.data, key, &args.out)?,
    }
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "proteins",
        n_rows: rows.n_rows(),
        n_columns: columns.len(),
    });
    Ok(())
}

impl ProteinsArgs {
    /// Refuses what is asked for in vain.
    fn check(&self) -> Result<()> {
        let of_expression = [
            ("--include-protein-background", self.include_protein_background),
            ("--sample-protein-mixing", self.sample_protein_mixing),
            ("--scale-protein", self.scale_protein),
        ];
        match of_expression.into_iter().find(|(_, given)| *given && self.what != What::Expression) {
            None => Ok(()),
            Some((what, _)) => {
                let expected = "nothing unless `--what expression`";
                Err(Error::Setting { what, found: "given".to_owned(), expected })
            }
        }
    }

    fn values(&self, known: &KnownCells, results: &CountResults<'_>) -> Result<Array2<f32>> {
        let transform = match self.impute {
            true => results.best_stained()?,
            false => known.codes(&self.asked, results, &self.transform_batch)?,
        };
        let expression = ExpressionAsk { transform, n_samples: self.n_samples, ..ExpressionAsk::default() };
        Ok(match self.what {
            What::Foreground => results.foreground_probability(&expression)?,
            What::Background => results.background_mean(&expression)?,
            What::Expression => {
                let ask = ProteinAsk {
                    expression,
                    include_background: self.include_protein_background,
                    sample_mixing: self.sample_protein_mixing,
                    scale: self.scale_protein,
                };
                results.joint_expression(&ask)?.proteins
            }
        })
    }

    /// Positions in the panel of the proteins asked for.
    fn chosen(&self, panel: &[String]) -> Result<Vec<usize>> {
        if self.proteins.is_empty() {
            return Ok((0..panel.len()).collect());
        }
        let position = |protein: &String| {
            let unknown = || Error::UnknownProtein { protein: protein.clone(), known: panel.join(", ") };
            panel.iter().position(|known| known == protein).ok_or_else(unknown)
        };
        let asked = lists::among(&self.proteins, |name| panel.iter().find(|known| *known == name).cloned());
        asked.iter().map(position).collect()
    }
}
