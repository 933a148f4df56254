//! `plot`: pictures of cells, labels, genes and training, as PNG or SVG.

mod cells;
mod factors;
mod genes;
mod labels;
mod means;
mod training;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use archipelago_analysis::plot::{Figure, Panel, Theme};
use archipelago_common::fs;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    output::Output,
};

pub(crate) use training::{panel as loss_panel, terms as loss_terms};

/// Draw a picture, as PNG or SVG by the name of the file.
///
/// A category has one colour in all pictures of a file and of its parts: the one in `uns['<column>_colors']` where scanpy left
/// one, else one by its rank among all categories. The colours are told apart under the common colour-vision
/// deficiencies.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker plot embedding cells.h5ad --color cell_type,batch,CD3D --out umap.png\n  \
    archipelago-worker plot loss reference mapped --out loss.svg\n  \
    archipelago-worker plot confusion mapped.h5ad --observed cell_type --predicted cell_type_transferred_label --out confusion.png")]
pub struct PlotArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand, Debug)]
enum Kind {
    Embedding(cells::EmbeddingArgs),
    Violin(cells::ViolinArgs),
    Dots(genes::DotsArgs),
    Confusion(labels::ConfusionArgs),
    Sankey(labels::SankeyArgs),
    Loss(training::LossArgs),
    Means(means::MeansArgs),
    Factors(factors::FactorsArgs),
}

/// How a picture is drawn, and where it goes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Picture")]
struct PictureArgs {
    /// The file to write: .png or .svg.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Title over the whole picture.
    #[arg(long)]
    title: Option<String>,
    /// Light or dark background.
    #[arg(long, value_enum, default_value_t = ThemeArg::Light)]
    theme: ThemeArg,
    /// Panels in a row [default: 3]
    #[arg(long, value_name = "N")]
    n_cols: Option<usize>,
    /// Pixels of a PNG per unit of the drawing: 2 is sharp on screens and in print.
    #[arg(long, default_value_t = 2.0)]
    scale: f64,
}

/// Background of a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ThemeArg {
    /// Dark ink on white.
    Light,
    /// Light ink on near black.
    Dark,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_panels: usize,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::Analysis`], [`Error::Setting`] for a file that is neither PNG nor SVG
pub fn run(args: &PlotArgs, output: &Output) -> Result<()> {
    match &args.kind {
        Kind::Embedding(args) => cells::embedding(args, output),
        Kind::Violin(args) => cells::violin(args, output),
        Kind::Dots(args) => genes::dots(args, output),
        Kind::Confusion(args) => labels::confusion(args, output),
        Kind::Sankey(args) => labels::sankey(args, output),
        Kind::Loss(args) => training::loss(args, output),
        Kind::Means(args) => means::means(args, output),
        Kind::Factors(args) => factors::factors(args, output),
    }
}

impl PictureArgs {
    fn theme(&self) -> Theme {
        match self.theme {
            ThemeArg::Light => Theme::LIGHT,
            ThemeArg::Dark => Theme::DARK,
        }
    }

    /// Before the data is read: a misspelt name should not cost a minute.
    fn check(&self) -> Result<()> {
        format_of(&self.out).map(|_| ())
    }

    fn write(&self, panels: &[Panel], output: &Output) -> Result<()> {
        self.draw(panels, output)?;
        output.show(&Summary { out: self.out.clone(), n_panels: panels.len() });
        Ok(())
    }

    /// The same without a word on it.
    fn draw(&self, panels: &[Panel], output: &Output) -> Result<()> {
        let figure = Figure::grid(self.title.as_deref(), panels, self.n_cols.unwrap_or(N_COLS), &self.theme());
        let bytes = match format_of(&self.out)? {
            Format::Png => {
                if figure.has_boxes() {
                    output.note("note: letters that the bundled font lacks are boxes with their code points; an SVG has them as text");
                }
                figure.png(self.scale)?
            }
            Format::Svg => figure.svg().as_bytes().to_vec(),
        };
        Ok(fs::write_atomic(&self.out, &bytes)?)
    }
}

enum Format {
    Png,
    Svg,
}

fn format_of(path: &Path) -> Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("png") => Ok(Format::Png),
        Some("svg") => Ok(Format::Svg),
        _ => {
            let (found, expected) = (format!("`{}`", path.display()), "a name that ends in .png or .svg");
            Err(Error::Setting { what: "--out", found, expected })
        }
    }
}

const N_COLS: usize = 3;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "picture     {}", self.out.display())
    }
}
