//! `tree edit`: changes by hand.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use archipelago_analysis::{
    AnalysisError,
    hierarchy::{Names, Tree},
};
use archipelago_common::fs;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{OutArgs, ToldTree, is_file};
use crate::{
    error::{Error, Result},
    output::Output,
    tree_dir::{read_tree, write_json},
};

/// Change a tree by hand: add, rename or remove a node.
///
/// What is written is a tree without classifiers, in Newick form (`.nwk`, first names only) or JSON (all names); `tree learn
/// --tree` trains it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker tree edit tree --out edited.json add Lymphoid --below root --above T,B\n  \
    archipelago-worker tree edit edited.json --out edited2.json rename Mono Myeloid\n  \
    archipelago-worker tree edit edited2.json --out edited3.json remove T --keep-children")]
pub(super) struct EditArgs {
    /// The tree: a directory, or a `.nwk` or `.json` file.
    tree: PathBuf,
    #[command(flatten)]
    out: OutArgs,
    #[command(subcommand)]
    change: Change,
}

#[derive(Subcommand, Debug)]
enum Change {
    /// Add a node as the last child of another.
    #[command(after_help = "Example:\n  \
        archipelago-worker tree edit tree --out edited.json add Lymphoid --below root --above T,B")]
    Add {
        /// Name of the node.
        name: String,
        /// Its parent.
        #[arg(long, value_name = "NODE", default_value = "root")]
        below: String,
        /// Children of that parent which become children of the node, separated by commas.
        #[arg(long, value_name = "NODES", value_delimiter = ',')]
        above: Vec<String>,
    },
    /// Give a node one new name instead of all that it has.
    #[command(after_help = "Example:\n  archipelago-worker tree edit tree --out edited.json rename Mono Myeloid")]
    Rename {
        /// A name of the node.
        name: String,
        /// The new name.
        new: String,
    },
    /// Remove a node with all below it.
    #[command(after_help = "Example:\n  \
        archipelago-worker tree edit tree --out edited.json remove T --keep-children")]
    Remove {
        /// A name of the node.
        name: String,
        /// Give its children to its parent instead.
        #[arg(long)]
        keep_children: bool,
    },
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    #[serde(flatten)]
    tree: ToldTree,
}

/// Runs the command.
///
/// # Errors  [`Error::Exists`], [`Error::Tree`], [`Error::Analysis`] for a change that cannot be made
pub(super) fn run(args: &EditArgs, output: &Output) -> Result<()> {
    output.existing.check_file(&args.out.out)?;
    check_file(&args.out.out)?;
    let mut tree = read_tree(&args.tree)?;
    let changed = match &args.change {
        Change::Add { name, below, above } => tree.add_node(name, below, above),
        Change::Rename { name, new } => tree.rename_node(name, new),
        Change::Remove { name, keep_children: true } => tree.remove_node_only(name),
        Change::Remove { name, keep_children: false } => tree.remove_node(name),
    };
    changed.map_err(AnalysisError::from)?;
    write_tree(&args.out.out, &tree)?;
    output.show(&Summary { out: args.out.out.clone(), tree: ToldTree::of(&tree, &[]) });
    Ok(())
}

/// Writes a tree without classifiers.
///
/// # Errors  [`Error::Setting`] for another kind of file, [`Error::Common`]
pub(super) fn write_tree(path: &Path, tree: &Tree) -> Result<()> {
    check_file(path)?;
    match path.extension().is_some_and(|extension| extension == "json") {
        true => write_json(path, tree),
        false => Ok(fs::write_atomic(path, format!("{};\n", tree.newick(Names::First)).as_bytes())?),
    }
}

fn check_file(path: &Path) -> Result<()> {
    if is_file(path) {
        return Ok(());
    }
    let (found, expected) = (format!("`{}`", path.display()), "a file name that ends in `.nwk` or `.json`");
    Err(Error::Setting { what: "--out", found, expected })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "written     {}\n\n{}", self.out.display(), self.tree.text)
    }
}
