//! `tree`: cell types of several labelled data sets in one tree, one file per verb.

mod cells;
mod edit;
mod import;
mod learn;
mod page;
mod predict;
mod share;
mod show;
mod update;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use archipelago_analysis::hierarchy::{Names, Step};

use crate::{error::Result, output::Output};

/// Match the cell types of labelled data sets in one tree, and place new cells in it (treeArches, scHPL).
///
/// Data sets join the tree one after another: classifiers of both sides predict the other side's cells, and what belongs
/// together follows from the two tables of counts. Cells that fit nowhere are rejected. A tree is a directory; trees are
/// also read from and written to files in Newick form (`.nwk`) and JSON.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker tree learn latent.h5ad --batch-key batch --labels-key cell_type --order a,b --append-batch --out tree\n  \
    archipelago-worker tree predict tree query.h5ad --out placed.h5ad\n  \
    archipelago-worker tree update tree both.h5ad --order c --out larger\n  \
    archipelago-worker tree show larger --page tree.html")]
pub struct TreeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Learn(learn::LearnArgs),
    Update(update::UpdateArgs),
    Predict(predict::PredictArgs),
    Show(show::ShowArgs),
    Edit(edit::EditArgs),
    Import(import::ImportArgs),
    Share(share::ShareArgs),
}

/// Runs the command.
///
/// # Errors  what the verb failed with
pub fn run(args: &TreeArgs, output: &Output) -> Result<()> {
    match &args.verb {
        Verb::Learn(args) => learn::run(args, output),
        Verb::Update(args) => update::run(args, output),
        Verb::Predict(args) => predict::run(args, output),
        Verb::Show(args) => show::run(args, output),
        Verb::Edit(args) => edit::run(args, output),
        Verb::Import(args) => import::run(args, output),
        Verb::Share(args) => share::run(args, output),
    }
}

/// Where a tree goes.
#[derive(Args, Debug)]
struct OutArgs {
    /// The directory to write, or a `.nwk` or `.json` file for a tree without classifiers.
    #[arg(long, value_name = "TREE")]
    out: PathBuf,
}

/// A tree with classifiers goes to a directory, one without to a file.
fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "nwk" || extension == "json")
}

/// What became of a data set's labels.
#[derive(Serialize)]
struct JoinedSet {
    name: String,
    n_cells: u64,
    /// Labels that mean the same as a node of the tree, with its name.
    matched: Vec<(String, String)>,
    /// Labels that are nodes of their own.
    added: Vec<String>,
    /// Labels that found no place.
    missing: Vec<String>,
}

impl JoinedSet {
    fn of(step: &Step) -> Self {
        let (mut matched, mut added) = (Vec::new(), Vec::new());
        for (label, status) in &step.joined.statuses {
            match (&status.matched, status.has_joined) {
                (Some(known), _) => matched.push((label.clone(), known.clone())),
                (None, true) => added.push(label.clone()),
                (None, false) => {}
            }
        }
        let missing = step.joined.missing().into_iter().map(str::to_owned).collect();
        Self { name: step.name.clone(), n_cells: step.addition.of_joining.n_cells(), matched, added, missing }
    }

    /// One line for people.
    fn line(&self) -> String {
        let matched = self.matched.iter().map(|(label, known)| format!("{label} = {known}"));
        let (matched, new) = (matched.collect::<Vec<_>>().join(", "), self.added.join(", "));
        let mut parts = vec![format!("{:<11} {} cells", self.name, self.n_cells)];
        for (what, names) in [("matched", matched), ("new", new), ("missing", self.missing.join(", "))] {
            if !names.is_empty() {
                parts.push(format!("{what}: {names}"));
            }
        }
        parts.join("; ")
    }
}

/// A tree in the forms in which it is told.
#[derive(Serialize)]
struct ToldTree {
    newick: String,
    #[serde(skip)]
    text: String,
}

impl ToldTree {
    fn of(tree: &archipelago_analysis::hierarchy::Tree, new: &[&str]) -> Self {
        Self { newick: tree.newick(Names::All), text: tree.text(&new.iter().copied().collect()) }
    }
}
