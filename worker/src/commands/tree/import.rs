//! `tree import`: a tree that scHPL pickled.

use std::path::PathBuf;

use clap::Args;

use super::{OutArgs, ToldTree, learn::Summary};
use crate::{
    error::Result,
    output::Output,
    tree_dir::{Source, TreeDir},
    tree_pickle,
};

/// Read a published tree of scHPL, a Python pickle, as data.
///
/// Nearest cells are read with or without the FAISS index, support vector machines as scikit-learn keeps them. Nothing in the
/// file is executed. The tree predicts by scHPL's rules; `tree update` needs the cells of its data sets.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker tree import tree_HLCA.pickle --use-rep X_scANVI --batch-key dataset --labels-key cell_type --out tree")]
pub(super) struct ImportArgs {
    /// The pickle.
    file: PathBuf,
    #[command(flatten)]
    out: OutArgs,
    /// The element of obsm in which cells are placed, or X.
    #[arg(long, value_name = "OBSM")]
    use_rep: String,
    /// The obs column of data sets, for updates.
    #[arg(long, default_value = "batch")]
    batch_key: String,
    /// The obs column of cell types, for updates.
    #[arg(long, default_value = "cell_type")]
    labels_key: String,
    /// The data sets that the tree was learned from, in order, separated by commas, for updates.
    #[arg(long, value_delimiter = ',')]
    data_sets: Vec<String>,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Tree`], [`crate::Error::Common`]
pub(super) fn run(args: &ImportArgs, output: &Output) -> Result<()> {
    let (trained, options) = tree_pickle::read(&args.file)?;
    let source = Source {
        use_rep: args.use_rep.clone(),
        batch_key: args.batch_key.clone(),
        labels_key: args.labels_key.clone(),
        append_batch: false,
        data_sets: args.data_sets.clone(),
        network: None,
    };
    let told = ToldTree::of(&trained.tree, &[]);
    let n_cells = match &trained.classifiers {
        archipelago_analysis::hierarchy::Classifiers::Nearest { x, .. } => x.nrows(),
        _ => 0,
    };
    TreeDir { trained, options, source, tables: None }.write(&args.out.out)?;
    output.show(&Summary { out: args.out.out.clone(), n_cells, n_left_out: 0, data_sets: Vec::new(), tree: told });
    Ok(())
}
