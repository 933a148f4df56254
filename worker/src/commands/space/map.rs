//! `space map`: cells without places, mapped by an ensemble.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Instant};

use archipelago_analysis::{graph, neighbours::Neighbours, pca::Pca};
use archipelago_anndata::{AnnData, Array, Column, Element, Matrix, Values};
use archipelago_common::id::VersionId;
use archipelago_models::{
    Reference,
    data::{Field, Values as FieldValues},
    zoo::space::{
        SectionNetworks,
        ensemble::members_of,
        mapping::{Mapping, Placed, map_query},
    },
};
use clap::Args;
use ndarray::{Array2, ArrayView2};
use serde::Serialize;

use super::{
    CONFIDENCE, ENTROPY, IMPORTANCE, PREDICTED, check_genes, importance_column, network_name, open, train::numbered,
};
use crate::{
    cells::dense,
    commands::CellArgs,
    data::{DataSpec, SiteData},
    error::{Error, Result},
    graph_file::{self, GraphOptions},
    memory::MemoryArgs,
    output::Output,
    recipe::Stored,
};

/// Put cells into the parts of each section, and say how sure that is and how far apart they are.
///
/// The cells need all genes of the ensemble, with values that were normalised as those of the sections. For each network the obs columns
/// `pred_<section>_<partition>` (most probable part) and `ent_…` (its entropy, 0 is sure) are written, `confidence` over all of them,
/// `<section>_importance` in var (rank of a gene, 0 says most), and the distances of the cells in obsp `dist_map` with the neighbour graph by
/// them and (of up to 5,000 cells) the principal components of their rows in obsm
/// `X_dist_map_pca`, from which `umap`, `leiden` and `tsne` go on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker space map ensemble dissociated.h5ad --out mapped.h5ad\n  \
    archipelago-worker space map ensemble dissociated.h5ad --no-distances --out mapped.h5ad\n  \
    archipelago-worker tsne mapped.h5ad --use-rep X_dist_map_pca --in-place")]
pub(super) struct MapArgs {
    /// The directory of the ensemble.
    ensemble: PathBuf,
    /// The h5ad file.
    file: PathBuf,
    /// The h5ad file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The obs column that names the batch [default: as in the ensemble]
    #[arg(long)]
    batch_key: Option<String>,
    #[command(flatten)]
    cells: CellArgs,
    /// Leave out the distances, whose memory grows with the square of the cells.
    #[arg(long)]
    no_distances: bool,
    /// Size of a neighbourhood in the graph, the cell itself included.
    #[arg(long, default_value_t = 50)]
    n_neighbors: usize,
    /// Seed of the parts that are drawn for the distances of unsure cells.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    n_cells: usize,
    n_networks: usize,
    /// Mean over cells of one minus the mean entropy.
    confidence: f64,
    networks: Vec<OfNetwork>,
    seconds: f64,
}

/// What one network said.
#[derive(Serialize)]
struct OfNetwork {
    name: String,
    /// Cells that it put into each part.
    parts: BTreeMap<u32, usize>,
    entropy: f64,
}

/// Runs the command.
///
/// # Errors  [`Error::Reference`], [`Error::NotEnsemble`], [`Error::Cells`], [`Error::LacksGenes`], [`Error::TooManyCells`]
pub(super) fn run(args: &MapArgs, output: &Output) -> Result<()> {
    let started = Instant::now();
    let (open, config) = open(&args.ensemble)?;
    let reference = &open.reference;
    let members = members_of(reference)?;
    let data = SiteData::open(args.spec(reference)?)?.handled(args.memory.handling(output));
    data.check_writable()?;
    args.check_size(data.n_cells())?;
    let aligned = data.counts(&reference.base.card.genes)?;
    check_genes(&args.file, &aligned.alignment)?;
    let shape = (aligned.counts.n_rows(), aligned.counts.n_cols());
    let x = Array2::from_shape_vec(shape, aligned.counts.to_dense()).expect("a value per cell and gene");
    let work = output.waiting("mapping cells");
    let mapping = map_query(&config, &members, &x, args.seed)?;
    let distances = (!args.no_distances).then(|| Distances::of(&mapping, args.n_neighbors)).transpose()?;
    drop(work);
    let version = open.dir.version().id();
    data.write_all(&args.out, |adata| {
        write_columns(adata, &mapping)?;
        write_importance(adata, reference, &members)?;
        adata.uns.insert("archipelago_ensemble".to_owned(), Element::Array(Array::text(version.to_string())));
        match &distances {
            Some(distances) => distances.write(adata, args),
            None => Ok(()),
        }
    })?;
    output.show(&Summary {
        out: args.out.clone(),
        version,
        n_cells: mapping.confidence.len(),
        n_networks: mapping.placed.len(),
        confidence: mean(&mapping.confidence),
        networks: mapping.placed.iter().map(OfNetwork::of).collect(),
        seconds: started.elapsed().as_secs_f64(),
    });
    Ok(())
}

impl MapArgs {
    /// The cells as networks take them: expression alone, prepared as the sections were.
    fn spec(&self, reference: &Reference) -> Result<DataSpec> {
        let card = &reference.base.card;
        let spec = self.cells.spec(&self.file, self.batch_key.as_deref().unwrap_or(&card.batch_key));
        let takes = vec![Field::rna(FieldValues::LogNormalised)];
        Ok(DataSpec { takes, recipe: Stored::in_card(card)?, ..spec })
    }

    fn check_size(&self, n_cells: usize) -> Result<()> {
        let enough = if self.no_distances { 1 } else { 2 };
        if n_cells < enough {
            return Err(archipelago_models::Error::TooFewCells {
                what: "the query".into(),
                found: n_cells,
                expected: enough,
            }
            .into());
        }
        if n_cells > MOST_WITH_DISTANCES && !self.no_distances {
            return Err(Error::TooManyCells { n_cells, most: MOST_WITH_DISTANCES });
        }
        Ok(())
    }
}

fn write_columns(adata: &mut AnnData, mapping: &Mapping) -> archipelago_anndata::Result<()> {
    for one in &mapping.placed {
        let parts: Vec<Option<u32>> = one.parts.iter().copied().map(Some).collect();
        adata.obs.insert(format!("{PREDICTED}{}", column_name(one)), numbered(&parts)?)?;
        let entropy = Column::Plain(Values::F64(one.entropy.clone()));
        adata.obs.insert(format!("{ENTROPY}{}", column_name(one)), entropy)?;
    }
    adata.obs.insert(CONFIDENCE, Column::Plain(Values::F64(mapping.confidence.clone())))
}

fn column_name(placed: &Placed) -> String {
    network_name(&placed.tag, &placed.partition)
}

fn write_importance(
    adata: &mut AnnData,
    reference: &Reference,
    members: &[(String, SectionNetworks)],
) -> archipelago_anndata::Result<()> {
    let genes = adata.var_names().to_vec();
    for (tag, section) in members {
        let Some(ranks) = &section.importance else { continue };
        let ranks = Column::Plain(Values::F64(importance_column(reference, &genes, ranks)));
        adata.var.insert(format!("{tag}{IMPORTANCE}"), ranks)?;
    }
    Ok(())
}

/// Distances between cells, and what follows from them.
struct Distances {
    all: Array2<f32>,
    nearest: Neighbours,
    /// Of few enough cells to be worth the time.
    components: Option<Array2<f32>>,
}

impl Distances {
    fn of(mapping: &Mapping, n_neighbors: usize) -> Result<Self> {
        let all = mapping.distances()?.distances().mapv(|distance| distance as f32);
        let n_cells = all.nrows();
        let nearest = nearest(all.view(), n_neighbors.clamp(2, n_cells))?;
        let components = match n_cells <= MOST_WITH_COMPONENTS {
            true => Some(Pca::fit(all.view(), N_COMPONENTS.min(n_cells - 1))?.project(all.view())?),
            false => None,
        };
        Ok(Self { all, nearest, components })
    }

    fn write(&self, adata: &mut AnnData, args: &MapArgs) -> archipelago_anndata::Result<()> {
        let n = self.all.nrows();
        let values: Vec<f32> = self.all.iter().copied().collect();
        adata.obsp.insert(DISTANCES.to_owned(), Matrix::Dense(Array::matrix(n, n, values)?));
        let as_file = |error| match error {
            Error::Anndata(error) => error,
            other => archipelago_anndata::Error::Kind {
                name: "obsp".to_owned(),
                found: other.to_string(),
                expected: "a graph of the cells",
            },
        };
        if let Some(components) = &self.components {
            adata.obsm.insert(COMPONENTS.to_owned(), dense(components.view()).map_err(as_file)?);
        }
        // Pictures start from positions, where there are some.
        let use_rep = if self.components.is_some() { COMPONENTS } else { DISTANCES }.to_owned();
        let options = GraphOptions { n_neighbors: self.nearest.k(), use_rep, seed: args.seed };
        let edges = graph::connectivities(&self.nearest);
        graph_file::write(adata, &self.nearest, &edges, &options).map_err(as_file)
    }
}

/// The nearest cells of each by these distances, itself first.
fn nearest(distances: ArrayView2<'_, f32>, k: usize) -> Result<Neighbours> {
    let lowest = distances.iter().copied().fold(0.0, f32::min);
    let (mut indices, mut found) = (Vec::new(), Vec::new());
    for (cell, row) in distances.rows().into_iter().enumerate() {
        let mut others: Vec<u32> = (0..row.len() as u32).filter(|other| *other as usize != cell).collect();
        others.sort_by(|&a, &b| row[a as usize].total_cmp(&row[b as usize]).then(a.cmp(&b)));
        indices.push(cell as u32);
        found.push(0.0);
        for other in others.into_iter().take(k - 1) {
            indices.push(other);
            // Divergences that a part without mass lets off can be below zero; a graph takes none.
            found.push(f64::from(row[other as usize] - lowest));
        }
    }
    Ok(Neighbours::from_parts(k, indices, found)?)
}

impl OfNetwork {
    fn of(placed: &Placed) -> Self {
        let mut parts = BTreeMap::new();
        placed.parts.iter().for_each(|part| *parts.entry(*part).or_default() += 1);
        Self { name: placed.name(), parts, entropy: mean(&placed.entropy) }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mapped      {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "cells       {} by {} networks, {:.1} s", self.n_cells, self.n_networks, self.seconds)?;
        write!(f, "confidence  {:.3}", self.confidence)?;
        for OfNetwork { name, parts, entropy } in &self.networks {
            let counts: Vec<String> = parts.iter().map(|(part, n)| format!("{part}: {n}")).collect();
            write!(f, "\n  {name}: entropy {entropy:.3}; cells in parts {}", counts.join(", "))?;
        }
        Ok(())
    }
}

/// The element of obsp with the distances.
const DISTANCES: &str = "dist_map";
/// Components of more cells take longer than anybody waits.
const MOST_WITH_COMPONENTS: usize = 5_000;
/// The element of obsm with principal components of the rows of distances.
const COMPONENTS: &str = "X_dist_map_pca";
/// As many as scanpy takes.
const N_COMPONENTS: usize = 50;
/// Distances between more cells than these take 6 GB, and three times as much while they are made.
const MOST_WITH_DISTANCES: usize = 40_000;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_nearest_cells_are_those_of_the_smallest_distances() {
        let distances = array![[0.0, 2.0, -1.0], [2.0, 0.0, 3.0], [-1.0, 3.0, 0.0]];
        let found = nearest(distances.view(), 2).unwrap();
        assert_eq!(found.of(0), (&[0, 2][..], &[0.0, 0.0][..]));
        assert_eq!(found.of(1), (&[1, 0][..], &[0.0, 3.0][..]));
    }
}
