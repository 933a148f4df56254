//! `space show`: what an ensemble holds, and pictures of sections and of mapped cells.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use archipelago_common::id::VersionId;
use archipelago_models::{
    Reference,
    zoo::space::{SectionNetworks, ensemble::members_of, member::Trained},
};
use clap::Args;
use serde::Serialize;

use super::{CONFIDENCE, SECTIONS, open, picture, told};
use crate::{
    commands::file::{read, within},
    error::{Error, Result},
    output::Output,
};

/// Show an ensemble, or draw cells that it mapped.
///
/// For the directory of an ensemble: its sections, their networks, the genes that say most of where a cell lies; the picture is of its
/// sections by partition, where `space train` wrote them. For a file of mapped cells: how sure the networks are; the picture is of the
/// cells by part and by confidence, at their own places where they have some, else by UMAP. Places keep their shape.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker space show ensemble\n  \
    archipelago-worker space show ensemble --picture sections.png\n  \
    archipelago-worker space show mapped.h5ad --basis X_umap --picture mapped.png")]
pub(super) struct ShowArgs {
    /// The directory of an ensemble, or an h5ad file that `space map` wrote.
    #[arg(value_name = "ENSEMBLE|FILE")]
    what: PathBuf,
    /// Draw the cells: .png or .svg.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// The element of obsm where mapped cells are drawn [default: spatial, else X_umap, X_tsne or X_dist_map_pca]
    #[arg(long, value_name = "OBSM", requires = "picture")]
    basis: Option<String>,
}

/// What is shown of an ensemble.
#[derive(Serialize)]
struct Ensemble {
    version: VersionId,
    n_genes: usize,
    sections: Vec<Section>,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<PathBuf>,
}

/// A section of an ensemble.
#[derive(Serialize)]
struct Section {
    tag: String,
    n_edges: usize,
    alpha: f64,
    networks: Vec<Network>,
    /// Genes that come first in one of the parts.
    informative: Vec<String>,
}

/// A network of a section.
#[derive(Serialize)]
struct Network {
    partition: String,
    n_parts: usize,
    loss: f64,
    accuracy: f64,
}

/// What is shown of mapped cells.
#[derive(Serialize)]
struct Mapped {
    n_cells: usize,
    confidence: f64,
    /// The lower quarter of the cells has less, the upper quarter more.
    quartiles: [f64; 3],
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors  [`Error::Reference`], [`Error::NotEnsemble`], [`Error::Cells`], [`Error::NotMapped`], [`Error::NoSections`]
pub(super) fn run(args: &ShowArgs, output: &Output) -> Result<()> {
    if let Some(path) = &args.picture {
        picture::is_png(path)?;
    }
    if args.what.is_dir() { args.ensemble(output) } else { args.mapped(output) }
}

impl ShowArgs {
    fn ensemble(&self, output: &Output) -> Result<()> {
        let (open, _) = open(&self.what)?;
        let members = members_of(&open.reference)?;
        if let Some(path) = &self.picture {
            let cells = self.what.join(SECTIONS);
            if !cells.is_file() {
                return Err(Error::NoSections { path: self.what.clone() });
            }
            let partitions: BTreeSet<&String> = members.iter().flat_map(|(_, one)| one.networks.keys()).collect();
            let partitions: Vec<String> = partitions.into_iter().cloned().collect();
            let panels = picture::sections(&read(&cells, output)?, &open.reference.base.card.batch_key, &partitions);
            picture::write(path, &panels.map_err(|error| within(&cells, error))?)?;
        }
        output.show(&Ensemble {
            version: open.dir.version().id(),
            n_genes: open.reference.base.card.genes.len(),
            sections: members.iter().map(|one| Section::of(&open.reference, one)).collect::<Result<_>>()?,
            picture: self.picture.clone(),
        });
        Ok(())
    }

    fn mapped(&self, output: &Output) -> Result<()> {
        let adata = read(&self.what, output)?;
        let confidence = adata.obs.column(CONFIDENCE).ok().and_then(|column| column.to_f64());
        let mut values = confidence.ok_or_else(|| Error::NotMapped { path: self.what.clone() })?;
        if let Some(path) = &self.picture {
            let panels = picture::mapped(&adata, &self.what, self.basis.as_deref());
            picture::write(path, &panels.map_err(|error| within(&self.what, error))?)?;
        }
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values.get((share * values.len() as f64) as usize).copied().unwrap_or(f64::NAN);
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let quartiles = [at(0.25), at(0.5), at(0.75)];
        output.show(&Mapped { n_cells: values.len(), confidence: mean, quartiles, picture: self.picture.clone() });
        Ok(())
    }
}

impl Section {
    fn of(reference: &Reference, (tag, section): &(String, SectionNetworks)) -> Result<Self> {
        let genes = &reference.base.card.genes;
        let ranks = section.importance.iter().flatten();
        let first = genes.iter().zip(ranks).filter(|(_, rank)| **rank == Some(0)).map(|(gene, _)| gene.clone());
        let network = |(partition, one): (&String, &Trained)| {
            let (partition, n_parts) = (partition.clone(), one.n_classes()?);
            Ok(Network { partition, n_parts, loss: one.loss, accuracy: one.accuracy })
        };
        Ok(Self {
            tag: tag.clone(),
            n_edges: section.pairs.len(),
            alpha: section.alpha,
            informative: first.collect(),
            networks: section.networks.iter().map(network).collect::<Result<_>>()?,
        })
    }
}

fn tell_picture(f: &mut fmt::Formatter<'_>, picture: Option<&Path>) -> fmt::Result {
    picture.map_or(Ok(()), |path| write!(f, "\npicture     {}", path.display()))
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version     {}", self.version)?;
        write!(f, "genes       {}", self.n_genes)?;
        for Section { tag, n_edges, alpha, networks, informative } in &self.sections {
            write!(f, "\n\n{tag}: {n_edges} pairs of genes (alpha {})", told(*alpha))?;
            for Network { partition, n_parts, loss, accuracy } in networks {
                let (loss, accuracy) = (told(*loss), told(*accuracy));
                write!(f, "\n  {partition:<16} {n_parts:>3} parts, loss {loss}, accuracy {accuracy}")?;
            }
            if !informative.is_empty() {
                write!(f, "\n  genes that say most: {}", informative.join(", "))?;
            }
        }
        tell_picture(f, self.picture.as_deref())
    }
}

impl fmt::Display for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, middle, high] = self.quartiles;
        writeln!(f, "cells       {}", self.n_cells)?;
        write!(f, "confidence  {:.3}; quartiles {low:.3}, {middle:.3}, {high:.3}", self.confidence)?;
        tell_picture(f, self.picture.as_deref())
    }
}
