//! `tree update`: further data sets join a tree.

use std::path::PathBuf;

use archipelago_analysis::hierarchy::{LabelledCells, update};
use clap::Args;

use super::{JoinedSet, OutArgs, ToldTree, cells::TreeCells, learn::Summary};
use crate::{
    error::{Error, Result},
    network,
    output::Output,
    tree_dir::TreeDir,
};

/// Let further data sets join a tree, by the settings that it was learned with.
///
/// The file must hold the cells of the tree's data sets too, in the same latent space: a new data set predicts them, and in
/// the end the tree is trained on all.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker tree update tree both.h5ad --order c,d --out larger")]
pub(super) struct UpdateArgs {
    /// The directory of the tree.
    tree: PathBuf,
    /// The h5ad file of the cells of all data sets.
    cells: PathBuf,
    #[command(flatten)]
    out: OutArgs,
    /// New data sets in the order in which they join, separated by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    order: Vec<String>,
    /// Leave out cell types with fewer cells in their data set.
    #[arg(long, default_value_t = 0)]
    min_cells: usize,
    /// Train the tree anew before the first data set joins, because its cells or the tree have changed.
    #[arg(long)]
    retrain: bool,
}

/// Runs the command.
///
/// # Errors  [`Error::Tree`], [`Error::Cells`], [`Error::OtherSpace`], [`Error::OtherNetwork`],
/// [`Error::UnknownBatch`], [`Error::Analysis`]
pub(super) fn run(args: &UpdateArgs, output: &Output) -> Result<()> {
    let mut dir = TreeDir::read(&args.tree)?;
    let mut cells = TreeCells::read(&args.cells, &dir.source, output)?;
    let rep = dir.source.use_rep.clone();
    if cells.x.ncols() != dir.trained.n_dims {
        let (found, expected) = (cells.x.ncols(), dir.trained.n_dims);
        return Err(Error::OtherSpace { path: args.cells.clone(), rep, found, expected });
    }
    network::check_known(&rep, dir.source.network.as_ref(), (&args.cells, &cells.adata), output)?;
    let n_left_out = cells.leave_out_rare(args.min_cells);
    let added = cells.sets(&args.cells, &dir.source.batch_key, &dir.source.data_sets)?;
    let order = cells.sets(&args.cells, &dir.source.batch_key, &args.order)?;
    if let Some(known) = args.order.iter().find(|name| dir.source.data_sets.contains(name)) {
        let found = format!("`{known}`, which the tree has already");
        return Err(Error::Setting { what: "--order", found, expected: "new data sets" });
    }
    let n_cells = added.iter().chain(&order).map(|set| set.rows.len()).sum();
    let labelled = LabelledCells { x: cells.x.view(), labels: &cells.labels };
    let work = output.waiting("updating the tree");
    let learned = update(dir.trained, labelled, &added, &order, args.retrain, &dir.options, &mut |_| {})?;
    drop(work);
    let last = order.last().map(|set| cells.labels.select(&set.rows));
    let new: Vec<&str> = last.iter().flat_map(|labels| labels.carried()).map(|(name, ..)| name).collect();
    let told = ToldTree::of(&learned.trained.tree, &new);
    if let Some(tables) = &mut dir.tables {
        tables.additions.extend(learned.steps.iter().map(|step| step.addition.clone()));
    }
    dir.source.data_sets.extend(args.order.iter().cloned());
    let data_sets = learned.steps.iter().map(JoinedSet::of).collect();
    TreeDir { trained: learned.trained, ..dir }.write(&args.out.out)?;
    output.show(&Summary { out: args.out.out.clone(), n_cells, n_left_out, data_sets, tree: told });
    Ok(())
}
