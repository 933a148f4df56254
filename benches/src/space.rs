//! Networks of one section: its network of genes, an epoch of its networks, importances, mapping.

use std::path::Path;

use anyhow::{Context as _, Result};
use archipelago_analysis::space::{Alphas, gene_network};
use archipelago_anndata::{AnnData, Column, Compression, Csr};
use archipelago_common::{progress::Continue, task::TrainSpec};
use archipelago_models::{
    Engine,
    zoo::space::{
        GeneGraph, Network, Partition, SagenetConfig, SectionNetworks, attribution, mapping::map_query, partitions,
        train_section,
    },
};
use ndarray::Array2;

use crate::measure::{Kinds, log_normalised, timed};

/// What is measured, in the table's order.
pub(crate) const KINDS: [&str; 4] = ["genes", "train", "importance", "map"];

/// The first section of a file, without cells that have no count: normalised, with its partitions.
pub(crate) fn write(folder: &Path, file: &Path) -> Result<()> {
    let adata = AnnData::read(file)?;
    let sections = adata.obs.column("section")?.to_strings();
    let counts = adata.matrix(None)?.to_csr()?;
    let is_used = |&cell: &usize| sections[cell].as_deref() == Some("section0") && !counts.row(cell).0.is_empty();
    let mut section = adata.select_obs(&(0..counts.n_rows()).filter(is_used).collect::<Vec<_>>())?;
    let places = section.obsm("spatial")?.to_table("spatial")?;
    let places = Array2::from_shape_vec((places.n_rows, places.n_cols), places.values)?;
    for Partition { name, parts } in partitions(places.view(), &SagenetConfig::default())? {
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        section.obs.insert(name, Column::categorical(&parts))?;
    }
    section.x = Some(log_normalised(&section.matrix(None)?.to_csr()?)?.into());
    std::fs::create_dir_all(folder)?;
    Ok(section.write(folder.join(FILE), Compression::None)?)
}

/// Measures our side in this process.
pub(crate) fn measure(folder: &Path, spec: &TrainSpec) -> Result<Kinds> {
    let section = AnnData::read(folder.join(FILE))?;
    let csr: Csr = section.matrix(None)?.to_csr()?;
    let x = Array2::from_shape_vec((csr.n_rows(), csr.n_cols()), csr.to_dense())?;
    let names = section.obs.column_names().into_iter().filter(|name| name.starts_with("leiden_"));
    let partitions = names.map(|name| {
        let numbers = section.obs.column(&name)?.to_strings().into_iter().map(|number| number?.parse().ok());
        let parts = numbers.collect::<Option<Vec<u32>>>().context("a cell is in no part")?;
        Ok(Partition { name, parts })
    });
    let partitions = partitions.collect::<Result<Vec<_>>>()?;
    let n_epochs = spec.epochs.unwrap_or(1) as usize;
    let network_seed = spec.seed as usize;
    let config =
        SagenetConfig { network_epochs: n_epochs, network_seed, importance: false, ..SagenetConfig::default() };
    let mut kinds = Kinds::new();
    let alphas = Alphas::Given(config.alphas.clone());
    let genes = timed(&mut kinds, "genes", || gene_network(x.mapv(f64::from).view(), &alphas))??;
    let learn = || train_section(&config, &x, &partitions, Engine::Fast, &|_, _| Continue::Yes);
    let networks: SectionNetworks = timed(&mut kinds, "train", learn)??;
    // It made the network of genes anew.
    let of_genes = kinds["genes"].epochs_s[0];
    let train = kinds.get_mut("train").context("it was measured")?;
    train.epochs_s.iter_mut().for_each(|seconds| *seconds = (*seconds - of_genes) / n_epochs as f64);
    let pairs: Vec<(u32, u32)> = genes.edges().into_iter().map(|(a, b)| (a as u32, b as u32)).collect();
    let first = &partitions[0];
    let network =
        Network::stored(&config, GeneGraph::new(x.ncols(), &pairs)?, &networks.networks[&first.name].tensors)?;
    timed(&mut kinds, "importance", || attribution::ranks(&network, x.view(), &first.parts))?;
    let ensemble = [("s".to_owned(), networks)];
    let map = || map_query(&config, &ensemble, &x, 0).and_then(|mapping| mapping.distances());
    let distances = timed(&mut kinds, "map", map)??;
    anyhow::ensure!(distances.distances().nrows() == x.nrows(), "not every cell was mapped");
    Ok(kinds)
}

const FILE: &str = "section.h5ad";
