//! `tree show`: a tree as text, picture or page.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use archipelago_analysis::{
    hierarchy::{Names, Tree},
    plot::{Figure, Palette, Panel, Theme, TreePicture},
};
use archipelago_common::fs;
use clap::Args;
use serde::Serialize;

use super::page;
use crate::{error::Result, output::Output, tree_dir::KnownTree};

/// Show a tree: as text, in Newick form, as a picture, or on a page.
///
/// Names that a node was matched to stand behind its own; those of the data set that joined last stand out. Of a version of a
/// reference that was fetched, the tree that its sites learned together is shown, with the number of cells that they annotated by it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker tree show tree\n  \
    archipelago-worker tree show tree --picture tree.png\n  \
    archipelago-worker tree show tree --page tree.html --cells placed.h5ad --labels-key cell_type")]
pub(super) struct ShowArgs {
    /// The tree: a directory (also a reference's), or a `.nwk` or `.json` file.
    tree: PathBuf,
    /// Draw the tree: .png or .svg.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Write one self-contained page: the tree, how each data set joined, and where cells went.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Cells that `tree predict` placed, for the page.
    #[arg(long, value_name = "FILE", requires = "page")]
    cells: Option<PathBuf>,
    /// The obs column of those cells' own labels.
    #[arg(long, value_name = "COLUMN", default_value = "cell_type")]
    labels_key: String,
    /// What the columns of `tree predict` begin with.
    #[arg(long, default_value = "tree")]
    key: String,
}

/// What is shown.
#[derive(Serialize)]
struct Summary {
    newick: String,
    tree: Tree,
    n_nodes: usize,
    n_labels: usize,
    /// Cells of sites by node, or by why they have none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotated: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    written: Vec<PathBuf>,
    #[serde(skip)]
    text: String,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Tree`], [`crate::Error::Cells`], [`crate::Error::Analysis`]
pub(super) fn run(args: &ShowArgs, output: &Output) -> Result<()> {
    let written: Vec<PathBuf> = args.picture.iter().chain(&args.page).cloned().collect();
    let KnownTree { tree, data_sets, tables, annotated } = KnownTree::read(&args.tree)?;
    let tables = tables.as_ref();
    let new: BTreeSet<&str> = tables
        .and_then(|tables| tables.additions.last())
        .map(|addition| addition.of_joining.rows().into_iter().collect())
        .unwrap_or_default();
    if let Some(path) = &args.picture {
        let is_png = path.extension().is_some_and(|extension| extension == "png");
        let figure = Figure::grid(None, &[panel(&tree, &new, &annotated, &Theme::LIGHT)], 1, &Theme::LIGHT);
        let bytes = if is_png { figure.png(2.0)? } else { figure.svg().as_bytes().to_vec() };
        fs::write_atomic(path, &bytes)?;
    }
    if let Some(path) = &args.page {
        let subject = page::Subject { tree: &tree, new: &new, tables, data_sets, annotated: &annotated };
        let placed = args.cells.as_ref().map(|cells| page::Placed::read(cells, &args.labels_key, &args.key, output));
        let html = page::page(&subject, placed.transpose()?.as_ref())?;
        fs::write_atomic(path, html.as_bytes())?;
    }
    let (n_nodes, n_labels) = (tree.root().preorder().count() - 1, tree.labels().len());
    let (newick, text) = (tree.newick(Names::All), tree.text(&new));
    output.show(&Summary { newick, tree, n_nodes, n_labels, annotated, written, text });
    Ok(())
}

/// The tree drawn with cells counted by node.
pub(super) fn panel(tree: &Tree, new: &BTreeSet<&str>, cells: &BTreeMap<String, u64>, theme: &Theme) -> Panel {
    let palette = Palette::new(tree.root().preorder().skip(1).map(|node| node.name().to_owned()));
    let (n_nodes, n_labels) = (tree.root().preorder().count() - 1, tree.labels().len());
    let subtitle = format!("{n_labels} labels on {n_nodes} nodes");
    TreePicture { title: "Cell types", subtitle: &subtitle, tree, new, cells, palette: &palette }.panel(theme)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if !self.annotated.is_empty() {
            write!(f, "\nannotated   {} cells of sites", self.annotated.values().sum::<u64>())?;
            let width = self.annotated.keys().map(|label| label.chars().count()).max().unwrap_or(0);
            self.annotated.iter().try_for_each(|(label, n)| write!(f, "\n  {label:<width$}  {n}"))?;
        }
        self.written.iter().try_for_each(|path| write!(f, "\nwritten     {}", path.display()))
    }
}
