//! `tree edit`: changes by hand.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use archipelago_analysis::{
    AnalysisError,
    hierarchy::{HierarchyError, Names, Tree},
};
use archipelago_common::fs;
use clap::{ArgGroup, Args};
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
#[command(
    group = ArgGroup::new("change").required(true).args(["add", "rename", "remove"]),
    after_help = "Examples:\n  \
    archipelago-worker tree edit tree --add Lymphoid --below root --above T,B --out edited.json\n  \
    archipelago-worker tree edit edited.json --rename Mono --to Myeloid --out edited2.json\n  \
    archipelago-worker tree edit edited2.json --remove T --keep-children --out edited3.json")]
pub(super) struct EditArgs {
    /// The tree: a directory, or a `.nwk` or `.json` file.
    tree: PathBuf,
    #[command(flatten)]
    out: OutArgs,
    /// Add a node of this name as the last child of another.
    #[arg(long, value_name = "NAME")]
    add: Option<String>,
    /// The parent of the node that is added.
    #[arg(long, value_name = "NODE", default_value = "root")]
    below: String,
    /// Children of that parent which become children of the node that is added, separated by commas.
    #[arg(long, value_name = "NODES", value_delimiter = ',', requires = "add")]
    above: Vec<String>,
    /// Give the node that has this name one new name instead of all that it has.
    #[arg(long, value_name = "NAME", requires = "to")]
    rename: Option<String>,
    /// The new name.
    #[arg(long, value_name = "NAME", requires = "rename")]
    to: Option<String>,
    /// Remove the node that has this name, with all below it.
    #[arg(long, value_name = "NAME")]
    remove: Option<String>,
    /// Give the children of the node that is removed to its parent.
    #[arg(long, requires = "remove")]
    keep_children: bool,
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
/// # Errors  [`Error::Tree`], [`Error::Analysis`] for a change that cannot be made
pub(super) fn run(args: &EditArgs, output: &Output) -> Result<()> {
    check_file(&args.out.out)?;
    let mut tree = read_tree(&args.tree)?;
    args.change(&mut tree).map_err(AnalysisError::from)?;
    write_tree(&args.out.out, &tree)?;
    output.show(&Summary { out: args.out.out.clone(), tree: ToldTree::of(&tree, &[]) });
    Ok(())
}

impl EditArgs {
    fn change(&self, tree: &mut Tree) -> std::result::Result<(), HierarchyError> {
        if let Some(name) = &self.add {
            tree.add_node(name, &self.below, &self.above)?;
        }
        if let (Some(name), Some(new)) = (&self.rename, &self.to) {
            tree.rename_node(name, new)?;
        }
        match &self.remove {
            None => Ok(()),
            Some(name) if self.keep_children => tree.remove_node_only(name),
            Some(name) => tree.remove_node(name),
        }
    }
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
