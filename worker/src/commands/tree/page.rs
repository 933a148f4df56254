//! One page about a tree: how it looks, how each data set joined it, where cells went.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use archipelago_analysis::{
    Labels,
    hierarchy::{CountTable, Tables, Tree},
    page::{Page, Stored, picture},
    plot::{Figure, Palette, Panel, Sankey, ShareTable, Theme},
};

use crate::{
    cells::labels,
    colours::{MISSING, muted},
    commands::file::{read, within},
    error::Result,
    output::Output,
};

/// What the page is about.
pub(super) struct Subject<'a> {
    pub(super) tree: &'a Tree,
    pub(super) new: &'a BTreeSet<&'a str>,
    pub(super) tables: Option<&'a Tables>,
    pub(super) data_sets: Vec<String>,
    pub(super) annotated: &'a BTreeMap<String, u64>,
}

/// Cells that were placed, with their own labels.
pub(super) struct Placed {
    own: Labels,
    placed: Labels,
}

impl Placed {
    /// Reads what `tree predict` wrote.
    ///
    /// # Errors  [`crate::Error::Cells`]
    pub(super) fn read(path: &Path, labels_key: &str, key: &str, output: &Output) -> Result<Self> {
        let adata = read(path, output)?;
        let of = |name: &str| labels(&adata.obs, name, MISSING).map_err(|error| within(path, error));
        Ok(Self { own: of(labels_key)?, placed: of(&format!("{key}_label"))? })
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let counts = self.placed.counts().into_iter().map(|n| n as u64);
        self.placed.names().iter().cloned().zip(counts).collect()
    }
}

/// Writes the page.
///
/// # Errors  [`crate::Error::Analysis`] for pictures too large to draw
pub(super) fn page(subject: &Subject<'_>, placed: Option<&Placed>) -> Result<String> {
    let lead = match subject.data_sets.len() {
        0 => "A tree of cell types.".to_owned(),
        n => format!("Cell types of {n} data sets, which joined in this order: {}.", subject.data_sets.join(", ")),
    };
    let mut page = Page::new("A tree of cell types", &lead);
    let cells = placed.map_or_else(|| subject.annotated.clone(), Placed::counts);
    let caption = match placed {
        Some(_) => "Names of one line mean the same. Numbers are cells that were placed.".to_owned(),
        None if cells.is_empty() => {
            "Names of one line mean the same; those of the data set that joined last stand out.".to_owned()
        }
        None => {
            let n_nowhere: u64 =
                cells.iter().filter(|(label, _)| subject.tree.node(label).is_none()).map(|(_, n)| n).sum();
            format!(
                "Names of one line mean the same. Numbers are cells that sites annotated; {n_nowhere} were rejected."
            )
        }
    };
    let drawn = |theme: &Theme| Ok(grid(&[super::show::panel(subject.tree, subject.new, &cells, theme)], theme));
    page.section("The tree", &picture(drawn, Stored::Shapes, &subject.tree.text(subject.new), &caption)?);
    if let Some(placed) = placed {
        page.section("Where cells went", &placed.flow()?);
    }
    let joined = subject.data_sets.iter().skip(1);
    for (name, addition) in joined.zip(subject.tables.iter().flat_map(|tables| &tables.additions)) {
        let drawn = |theme: &Theme| {
            let of_joining = shares("New cells", "own label (row) by the tree's label (column)", &addition.of_joining);
            let of_tree =
                shares("Cells of the tree", "own label (row) by the new data set's label (column)", &addition.of_tree);
            Ok(grid(&[of_joining(theme)?, of_tree(theme)?], theme))
        };
        let (alt, caption) = ("Two tables of shares", "What belongs together follows from these two tables of counts.");
        page.section(&format!("{name} joins"), &picture(drawn, Stored::Shapes, alt, caption)?);
    }
    Ok(page.finish())
}

impl Placed {
    fn flow(&self) -> Result<String> {
        let names: BTreeSet<&String> = self.own.names().iter().chain(self.placed.names()).collect();
        let palette = muted(Palette::new(names));
        let drawn = |theme: &Theme| {
            let (left, right) = (&self.own, &self.placed);
            let sankey = Sankey { title: "Labels", subtitle: "own → placed", left, right, palette: &palette };
            Ok(grid(&[sankey.panel(theme)?], theme))
        };
        let caption = "Cells flow from their own label to the node of the tree that took them.";
        Ok(picture(drawn, Stored::Shapes, "A flow from own labels to nodes of the tree", caption)?)
    }
}

fn shares<'a>(
    title: &'a str,
    subtitle: &'a str,
    table: &'a CountTable,
) -> impl Fn(&Theme) -> archipelago_analysis::Result<Panel> + 'a {
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (rows, columns) = (owned(table.rows()), owned(table.columns()));
    let count = |row: &String| columns.iter().map(|column| table.count(row, column)).collect();
    let counts: Vec<Vec<u64>> = rows.iter().map(count).collect();
    let totals: Vec<u64> = counts.iter().map(|row| row.iter().sum()).collect();
    move |theme| {
        ShareTable { title, subtitle, rows: &rows, columns: &columns, counts: &counts, totals: &totals }.panel(theme)
    }
}

fn grid(panels: &[Panel], theme: &Theme) -> Figure {
    Figure::grid(None, panels, 2, theme)
}
