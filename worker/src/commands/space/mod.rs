//! `space`: cells without places mapped onto sections, one file per verb.

mod export;
mod import;
mod map;
mod picture;
mod show;
mod train;

use std::path::Path;

use archipelago_models::{Reference, zoo::space};
use clap::{Args, Subcommand};

use super::OpenReference;
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Map dissociated cells onto spatial sections, by graph networks over genes.
///
/// A section gives a network of genes and partitions of its cells; for each partition a graph network learns to tell from a cell's
/// expression in which part it lies. The networks of several sections are an ensemble. It puts cells without places into the parts
/// of each section, and says how sure it is and how far apart cells are. An ensemble is a reference directory: it can be published, and
/// sites can add the networks of their own sections to it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker preprocess sections.h5ad --target-sum 1e4 --out normalised.h5ad\n  \
    archipelago-worker space train normalised.h5ad --batch-key section --out ensemble\n  \
    archipelago-worker space show ensemble --picture sections.png\n  \
    archipelago-worker space map ensemble query.h5ad --out mapped.h5ad\n  \
    archipelago-worker space show mapped.h5ad --picture mapped.png")]
pub struct SpaceArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Train(Box<train::TrainArgs>),
    Map(Box<map::MapArgs>),
    Show(show::ShowArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
}

/// Runs the command.
///
/// # Errors  what the verb failed with
pub fn run(args: &SpaceArgs, output: &Output) -> Result<()> {
    match &args.verb {
        Verb::Train(args) => train::run(args, output),
        Verb::Map(args) => map::run(args, output),
        Verb::Show(args) => show::run(args, output),
        Verb::Import(args) => import::run(args, output),
        Verb::Export(args) => export::run(args, output),
    }
}

/// Opens an ensemble.
fn open(path: &Path) -> Result<(OpenReference, space::SagenetConfig)> {
    let open = OpenReference::open(path)?;
    let config = space::ensemble::config_of(&open.reference).map_err(|source| match source {
        archipelago_models::Error::Config { .. } => {
            Error::NotEnsemble { path: path.into(), model: open.reference.base.card.model.clone() }
        }
        other => other.into(),
    })?;
    Ok((open, config))
}

/// Refuses cells that lack a gene of the networks: what a network says of a cell depends on all of them.
fn check_genes(path: &Path, alignment: &archipelago_anndata::align::Alignment) -> Result<()> {
    match alignment.missing.first() {
        None => Ok(()),
        Some(gene) => Err(Error::LacksGenes {
            path: path.into(),
            n_missing: alignment.missing.len(),
            n_panel: alignment.n_panel,
            gene: gene.clone(),
        }),
    }
}

/// A rank of each gene as a column of var holds it: NaN for a gene without one.
fn importance_column(reference: &Reference, genes: &[String], ranks: &[Option<u32>]) -> Vec<f64> {
    let panel = &reference.base.card.genes;
    let rank = |gene: &String| {
        let at = panel.iter().position(|known| known == gene);
        at.and_then(|at| ranks[at]).map_or(f64::NAN, f64::from)
    };
    genes.iter().map(rank).collect()
}

/// What a network is called in names of files and columns, which cannot have a slash.
fn network_name(tag: &str, partition: &str) -> String {
    format!("{tag}_{partition}").replace('/', ".")
}

/// A number that is not known of networks that were trained elsewhere.
fn told(number: f64) -> String {
    if number.is_nan() { "not known".to_owned() } else { format!("{number:.3}") }
}

/// The file of an ensemble's directory with the sections that it was trained on, and their partitions.
const SECTIONS: &str = "sections.h5ad";
/// Where sections have their places, unless something else is said.
const SPATIAL: &str = "spatial";
/// The column of obs that says how sure all networks are of a cell.
const CONFIDENCE: &str = "confidence";
/// What the columns of the most probable parts begin with.
const PREDICTED: &str = "pred_";
/// What the columns of entropies begin with.
const ENTROPY: &str = "ent_";
/// What the columns of genes' ranks end in.
const IMPORTANCE: &str = "_importance";
