//! Bayes factors of terms by rank.

use std::path::PathBuf;

use archipelago_analysis::plot::{Panel, Ranks};
use clap::Args;

use super::PictureArgs;
use crate::{
    commands::file::{read, within},
    error::{Error, Result},
    lists,
    output::Output,
};

/// Terms by the size of their Bayes factors, a panel for each group.
///
/// The line is at 2.3: there one of the two is ten times as probable as the other.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker results enrich reference cells.h5ad --groups cell_type --out factors.h5ad\n  \
    archipelago-worker plot factors factors.h5ad --n-points 20 --out factors.png")]
pub(super) struct FactorsArgs {
    /// The h5ad file that `results enrich` wrote.
    file: PathBuf,
    /// Of the groups only these, separated by commas [default: all]
    #[arg(long)]
    groups: Vec<String>,
    /// Terms drawn of each group, the largest first.
    #[arg(long, default_value_t = 30)]
    n_points: usize,
    /// Where the line is.
    #[arg(long, default_value_t = 2.3)]
    limit: f64,
    #[command(flatten)]
    picture: PictureArgs,
}

pub(super) fn factors(args: &FactorsArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let adata = read(&args.file, output)?;
    let draw = || -> Result<Vec<Panel>> {
        let values = adata.matrix(None)?.to_csr()?;
        let of_column = |name: &String| name.strip_suffix(FACTOR).map(str::to_owned);
        let known: Vec<(String, usize)> =
            adata.var_names().iter().zip(0..).filter_map(|(name, at)| Some((of_column(name)?, at))).collect();
        let is_known = |name: &str| known.iter().any(|(group, _)| group == name);
        let asked = lists::among(&args.groups, |name| is_known(name).then(|| name.to_owned()));
        if let Some(name) = asked.iter().find(|name| !is_known(name)).cloned().or(known.is_empty().then(String::new)) {
            let columns = known.iter().map(|(group, _)| group.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::NothingToShow { name, columns });
        }
        let chosen = known.iter().filter(|(group, _)| asked.is_empty() || asked.contains(group));
        let panel = |(group, column): &(String, usize)| {
            let value = |term: usize| f64::from(values.value(term, *column as u32));
            let values: Vec<(String, f64)> =
                adata.obs_names().iter().enumerate().map(|(term, name)| (name.clone(), value(term))).collect();
            let ranks = Ranks {
                title: group,
                y_label: "absolute log Bayes factor, by rank",
                values: &values,
                n_points: args.n_points,
                limit: args.limit,
                signs: ["higher", "lower"],
            };
            Ok(ranks.panel(&args.picture.theme())?)
        };
        chosen.map(panel).collect()
    };
    let panels = draw().map_err(|error| within(&args.file, error))?;
    args.picture.write(&panels, output)
}

/// How the columns of Bayes factors end.
const FACTOR: &str = " bf";
