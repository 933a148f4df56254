//! From a section, cells whose places are known, to networks that know its parts.

use std::collections::BTreeMap;

use archipelago_analysis::space::{Alphas, gene_network, spatial_graph, spatial_partitions};
use archipelago_common::progress::{Continue, EpochReport};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::{
    SagenetConfig, attribution,
    graph::GeneGraph,
    member::{SectionNetworks, Trained},
    network::Network,
    training::{ACCURACY, Lessons, train},
};
use crate::{
    device::{Engine, OneThread},
    error::{Error, Result},
    train::Seeds,
};

/// A partition of a section's cells.
#[derive(Clone, PartialEq, Debug)]
pub struct Partition {
    /// Its name: that of a column of obs.
    pub name: String,
    /// The part of each cell, from 0.
    pub parts: Vec<u32>,
}

/// Who hears of each network's epochs, by the network's name, and may stop the training.
pub type OnEpoch<'a> = &'a (dyn Fn(&str, &EpochReport) -> Continue + Sync);

/// Partitions of cells that lie in these places, one for each resolution.
///
/// # Shapes  `places`: `[n_cells, n_dimensions]`
/// # Errors  [`Error::Analysis`], [`Error::Value`] for cells without neighbours in plenty
pub fn partitions(places: ArrayView2<'_, f32>, config: &SagenetConfig) -> Result<Vec<Partition>> {
    let (n_cells, n_neighbors) = (places.nrows(), config.n_spatial_neighbors);
    if n_cells <= n_neighbors {
        return Err(Error::TooFewCells { what: "the section".to_owned(), found: n_cells, expected: n_neighbors + 1 });
    }
    let edges = spatial_graph(places, n_neighbors)?;
    let found = spatial_partitions(&edges, n_cells, &config.resolutions, config.network_seed as u64)?;
    let named = |(resolution, parts): (&f64, Vec<u32>)| Partition { name: format!("leiden_{resolution}"), parts };
    Ok(config.resolutions.iter().zip(found).map(named).collect())
}

/// Learns the network of the genes, and a network for each partition: a function of the cells, their partitions and the options, whatever
/// the section is called and whatever else is trained.
///
/// # Shapes  `x`: `[n_cells, n_genes]`, normalised as queries will be
/// # Errors  [`Error::Value`] for a partition with one part, [`Error::Analysis`], [`Error::Diverged`], [`Error::Cancelled`]
pub fn train_section(
    config: &SagenetConfig,
    x: &Array2<f32>,
    partitions: &[Partition],
    engine: Engine,
    progress: OnEpoch<'_>,
) -> Result<SectionNetworks> {
    partitions.iter().try_for_each(|partition| check(partition, x.nrows()))?;
    let (alpha, pairs) = gene_pairs(x.view(), config)?;
    let x = x.as_standard_layout();
    let learn = |partition: &Partition| -> Result<(String, Trained, Vec<Option<u32>>)> {
        // One order of every sum that libtorch computes.
        let _one_thread = OneThread::new();
        let seeds = Seeds::new(config.network_seed as u64, partition.name.clone());
        let graph = GeneGraph::new(x.ncols(), &pairs)?;
        let n_classes = partition.parts.iter().max().map_or(0, |most| *most as usize + 1);
        let network = Network::fresh(config, graph, n_classes, seeds.of("weights", 0))?;
        let lessons = Lessons { x: x.view(), parts: &partition.parts };
        let last = train(&network, lessons, &seeds, engine, &mut |report| progress(&partition.name, report))?;
        let ranks = match config.importance {
            true => attribution::ranks(&network, x.view(), &partition.parts),
            false => Vec::new(),
        };
        let accuracy = last.figures.get(ACCURACY).copied().unwrap_or_default();
        let trained = Trained { tensors: network.state(), loss: last.loss, accuracy };
        Ok((partition.name.clone(), trained, ranks))
    };
    let learnt = partitions.par_iter().map(learn).collect::<Vec<_>>();
    let (mut networks, mut importance) = (BTreeMap::new(), config.importance.then(|| vec![None; x.ncols()]));
    for one in learnt {
        let (partition, trained, ranks) = one?;
        for (best, rank) in importance.iter_mut().flatten().zip(ranks) {
            *best = (*best).into_iter().chain(rank).min();
        }
        networks.insert(partition, trained);
    }
    Ok(SectionNetworks { alpha, pairs, networks, importance })
}

/// A part is something to tell apart from another.
fn check(partition: &Partition, n_cells: usize) -> Result<()> {
    let Partition { name, parts } = partition;
    if parts.len() != n_cells {
        let (part, axis) = (name.clone(), "cells");
        return Err(Error::Shape { part, axis, found: parts.len(), expected: n_cells });
    }
    let most = parts.iter().copied().max().unwrap_or_default();
    if parts.iter().all(|part| *part == most) {
        let expected = "at least two: a network has nothing to tell apart; a higher resolution makes more".to_owned();
        return Err(Error::Value { part: name.clone(), found: "one part".to_owned(), expected });
    }
    if most as usize >= n_cells {
        let expected = format!("numbers of parts from 0, fewer than the {n_cells} cells");
        return Err(Error::Value { part: name.clone(), found: format!("part {most}"), expected });
    }
    Ok(())
}

/// Pairs of genes that go together, and the penalty that was chosen. A gene that is the same in all cells goes with none.
fn gene_pairs(x: ArrayView2<'_, f32>, config: &SagenetConfig) -> Result<(f64, Vec<(u32, u32)>)> {
    let varies = |gene: &usize| {
        let column = x.column(*gene);
        column.iter().any(|value| *value != column[0])
    };
    let genes: Vec<usize> = (0..x.ncols()).filter(varies).collect();
    let alphas = match config.n_alphas {
        Some(n) => Alphas::Grid(n),
        None => Alphas::Given(config.alphas.clone()),
    };
    let found = gene_network(x.select(Axis(1), &genes).mapv(f64::from).view(), &alphas)?;
    let pair = |(a, b): (usize, usize)| (genes[a] as u32, genes[b] as u32);
    Ok((found.alpha, found.edges().into_iter().map(pair).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> (Array2<f32>, Array2<f32>) {
        // Two fields side by side; genes 0 and 1 tell them apart, gene 2 is the same everywhere.
        let places = Array2::from_shape_fn((120, 2), |(cell, axis)| match axis {
            0 => (cell / 10) as f32 + if cell >= 60 { 20.0 } else { 0.0 },
            _ => (cell % 10) as f32,
        });
        let x = Array2::from_shape_fn((120, 4), |(cell, gene)| {
            let draw = ((cell * 31 + gene * 17) % 13) as f32 / 13.0;
            match gene {
                0 | 1 => draw + if (cell >= 60) == (gene == 0) { 2.0 } else { 0.0 },
                2 => 1.0,
                _ => draw,
            }
        });
        (places, x)
    }

    fn config() -> SagenetConfig {
        SagenetConfig { resolutions: vec![0.05], alphas: vec![0.1], ..SagenetConfig::default() }
    }

    #[test]
    fn a_section_becomes_networks_whatever_the_threads() {
        let (places, x) = section();
        let config = SagenetConfig { resolutions: vec![0.05, 0.3], ..config() };
        let parts = partitions(places.view(), &config).unwrap();
        assert_eq!(parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["leiden_0.05", "leiden_0.3"]);
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| train_section(&config, &x, &parts, Engine::Fast, &|_, _| Continue::Yes).unwrap())
        };
        let found = run(1);
        assert_eq!(found, run(3));
        assert_eq!(found.networks.len(), 2);
        assert!(found.pairs.contains(&(0, 1)) && found.pairs.iter().all(|(a, b)| *a != 2 && *b != 2));
        let importance = found.importance.unwrap();
        assert_eq!(importance[2], None);
        assert_eq!(importance[0].min(importance[1]), Some(0));
    }

    #[test]
    fn a_partition_with_one_part_is_refused_and_so_are_too_few_cells() {
        let (places, x) = section();
        let one = Partition { name: "region".to_owned(), parts: vec![0; 120] };
        let refused = train_section(&config(), &x, &[one], Engine::Fast, &|_, _| Continue::Yes).unwrap_err();
        assert!(refused.to_string().starts_with("`region` holds one part, expected at least two"), "{refused}");
        // Communities at a resolution so low that there is one.
        let coarse = SagenetConfig { resolutions: vec![1e-4], ..config() };
        let whole = partitions(places.slice(ndarray::s![..60, ..]), &coarse).unwrap();
        assert!(whole[0].parts.iter().all(|part| *part == 0), "one field is one part");
        let of_field = x.slice(ndarray::s![..60, ..]).to_owned();
        let refused =
            train_section(&coarse, &of_field, &whole, Engine::Fast, &|_, _| Continue::Yes).unwrap_err().to_string();
        assert!(
            refused.starts_with("`leiden_0.0001` holds one part") && refused.contains("higher resolution"),
            "{refused}"
        );
        let few = partitions(places.slice(ndarray::s![..5, ..]), &config()).unwrap_err();
        assert_eq!(few.to_string(), "the section has 5 cells, at least 7 are needed");
    }
}
