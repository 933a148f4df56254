//! Networks of sections on real cells, judged as upstream was: `space_quality <sections.h5ad> [<dissociated.h5ad>] [--seeds 0,1,2]`.
//!
//! The file of sections has raw counts, places in `obsm['spatial']`, and where it holds several sections `section` and `split` in
//! obs (`reference` or `query`). A fifth of the cells of every reference is kept out and mapped, because their places are known; then the
//! query is mapped by all references. Prints a table of means and standard deviations over the seeds. Run it with
//! `RAYON_NUM_THREADS=1` on a quiet machine where its times are to be compared.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    path::{Path, PathBuf},
    time::Instant,
};

use archipelago_analysis::{
    metrics::{NmiAverage, nmi},
    pca::Pca,
};
use archipelago_anndata::AnnData;
use archipelago_common::progress::Continue;
use archipelago_models::{
    Engine,
    zoo::space::{
        Partition, SagenetConfig, SectionNetworks,
        mapping::{Mapping, map_query},
        partitions, train_section,
    },
};
use ndarray::{Array2, ArrayView2, Axis};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Cells with their expression, log-normalised, and where they lie.
struct Cells {
    x: Array2<f32>,
    places: Option<Array2<f32>>,
}

/// Figures of all seeds, by name.
type Figures = BTreeMap<String, Vec<f64>>;

fn main() -> Outcome<()> {
    let mut files = Vec::new();
    let mut seeds: Vec<u64> = vec![0, 1, 2];
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => {
                let list = arguments.next().ok_or("--seeds wants numbers, separated by commas")?;
                seeds = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            file => files.push(PathBuf::from(file)),
        }
    }
    let [sections, ..] = files.as_slice() else {
        return Err("usage: space_quality <sections.h5ad> [<dissociated.h5ad>] [--seeds 0,1,2]".into());
    };
    let (references, own_query) = read_sections(sections)?;
    let query = match files.get(1) {
        Some(file) => Some(read(&AnnData::read(file)?, None)?),
        None => own_query,
    };
    let mut figures = Figures::new();
    for &seed in &seeds {
        run(&references, query.as_ref(), seed, &mut figures)?;
    }
    print(&figures);
    Ok(())
}

fn run(references: &BTreeMap<String, Cells>, query: Option<&Cells>, seed: u64, figures: &mut Figures) -> Outcome<()> {
    let config = SagenetConfig { network_seed: seed as usize, importance: false, ..SagenetConfig::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut ensemble = Vec::new();
    for (at, (name, section)) in references.iter().enumerate() {
        let places = section.places.as_ref().ok_or("a reference without places")?;
        // The same partitions for every seed, as upstream's.
        let of_all = partitions(places.view(), &SagenetConfig { network_seed: 0, ..config.clone() })?;
        let mut order: Vec<usize> = (0..section.x.nrows()).collect();
        order.shuffle(&mut rng);
        let (train, held) = order.split_at(order.len() * 4 / 5);
        let learn = |config: &SagenetConfig| -> Outcome<(SectionNetworks, f64)> {
            let started = Instant::now();
            let known: Vec<Partition> = of_all.iter().map(|one| some(one, train)).collect();
            let x = section.x.select(Axis(0), train);
            let networks = train_section(config, &x, &known, Engine::Fast, &|_, _| Continue::Yes)?;
            Ok((networks, started.elapsed().as_secs_f64()))
        };
        let (networks, seconds) = learn(&config)?;
        let mut tell = |what: &str, value: f64| figures.entry(format!("{name}: {what}")).or_default().push(value);
        tell("edges of the gene network", networks.pairs.len() as f64);
        tell("seconds, gene network and networks", seconds);
        if at == 0 {
            let (networks, seconds) = learn(&SagenetConfig { importance: true, ..config.clone() })?;
            tell("seconds, with importance", seconds);
            let ranks = networks.importance.as_ref().ok_or("importance was asked for")?;
            tell("informative genes", ranks.iter().filter(|rank| **rank == Some(0)).count() as f64);
        }
        let member = [(name.clone(), networks)];
        let x = section.x.select(Axis(0), held);
        let started = Instant::now();
        let mapping = map_query(&config, &member, &x, seed)?;
        let per_cell = started.elapsed().as_secs_f64() * 1e3 / held.len() as f64 / of_all.len() as f64;
        tell("ms per cell and network, mapping", per_cell);
        for (placed, truth) in mapping.placed.iter().zip(&of_all) {
            let truth = some(truth, held).parts;
            let right = placed.parts.iter().zip(&truth).filter(|(found, truth)| found == truth).count();
            tell(&format!("{} parts", placed.partition), placed.probabilities.ncols() as f64);
            tell(&format!("{} accuracy", placed.partition), right as f64 / held.len() as f64);
            let of_part = |(row, part): (ndarray::ArrayView1<'_, f64>, &u32)| -row[*part as usize].max(1e-300).ln();
            let loss: f64 = placed.probabilities.rows().into_iter().zip(&truth).map(of_part).sum();
            tell(&format!("{} cross entropy", placed.partition), loss / held.len() as f64);
            tell(&format!("{} confidence", placed.partition), 1.0 - mean(&placed.entropy));
        }
        distances(&mapping, places.select(Axis(0), held).view(), &mut tell)?;
        ensemble.extend(member);
    }
    let Some(query) = query else { return Ok(()) };
    let mapping = map_query(&config, &ensemble, &query.x, seed)?;
    let mut tell = |what: &str, value: f64| figures.entry(format!("query: {what}")).or_default().push(value);
    tell("confidence", mean(&mapping.confidence));
    let Some(places) = &query.places else { return Ok(()) };
    distances(&mapping, places.view(), &mut tell)?;
    let components = Pca::fit(query.x.view(), 30)?.project(query.x.view())?;
    let of_components = pairwise(components.view());
    tell("30 PCs, Spearman", spearman(&upper(&of_components), &upper(&pairwise(places.view()))));
    let own = partitions(places.view(), &SagenetConfig { network_seed: 0, ..config.clone() })?;
    for (name, networks) in &ensemble {
        let alone = map_query(&config, &[(name.clone(), networks.clone())], &query.x, seed)?;
        let of_alone = alone.distances()?.distances().to_owned();
        tell(&format!("{name} alone, Spearman"), spearman(&upper(&of_alone), &upper(&pairwise(places.view()))));
        let pairs = alone.placed.iter().zip(&own);
        let shared = pairs.map(|(placed, own)| nmi(&own.parts, &placed.parts, NmiAverage::Arithmetic));
        let shared: Vec<f64> = shared.collect::<Result<_, _>>()?;
        tell(&format!("{name}, NMI with the query's own partitions"), mean(&shared));
    }
    Ok(())
}

fn some(partition: &Partition, cells: &[usize]) -> Partition {
    Partition { name: partition.name.clone(), parts: cells.iter().map(|&cell| partition.parts[cell]).collect() }
}

/// How distances of the ensemble go with true ones, over all pairs, and among the fifty nearest.
fn distances(mapping: &Mapping, places: ArrayView2<'_, f32>, tell: &mut impl FnMut(&str, f64)) -> Outcome<()> {
    let map = mapping.distances()?;
    let (found, truth) = (map.distances().to_owned(), pairwise(places));
    tell("distances, Spearman", spearman(&upper(&found), &upper(&truth)));
    tell("distances, Pearson", pearson(&upper(&found), &upper(&truth)));
    tell("true rank of the 50 nearest", neighbour_rank(&found, &truth));
    Ok(())
}

fn read_sections(path: &Path) -> Outcome<(BTreeMap<String, Cells>, Option<Cells>)> {
    let adata = AnnData::read(path)?;
    let texts = |name: &str| adata.obs.column(name).ok().map(|column| column.to_strings());
    let (sections, splits) = (texts("section"), texts("split"));
    let mut rows: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut of_query = Vec::new();
    for cell in 0..adata.n_obs() {
        let text = |of: &Option<Vec<Option<String>>>| of.as_ref().and_then(|values| values[cell].clone());
        match text(&splits).as_deref() {
            Some("query") => of_query.push(cell),
            _ => rows.entry(text(&sections).unwrap_or_else(|| "section0".to_owned())).or_default().push(cell),
        }
    }
    let references =
        rows.into_iter().map(|(name, rows)| Ok((name, read(&adata, Some(&rows))?))).collect::<Outcome<_>>()?;
    let query = if of_query.is_empty() { None } else { Some(read(&adata, Some(&of_query))?) };
    Ok((references, query))
}

/// Cells with a count in these genes, scaled to 10,000 and log1p.
fn read(adata: &AnnData, rows: Option<&[usize]>) -> Outcome<Cells> {
    let counts = adata.matrix(None)?.to_csr()?;
    let totals = counts.row_sums();
    let all: Vec<usize> = (0..counts.n_rows()).collect();
    let rows: Vec<usize> = rows.unwrap_or(&all).iter().copied().filter(|&row| totals[row] > 0.0).collect();
    let mut x = Array2::zeros((rows.len(), counts.n_cols()));
    for (mut to, &row) in x.rows_mut().into_iter().zip(&rows) {
        let (genes, values) = counts.row(row);
        for (&gene, &value) in genes.iter().zip(values) {
            to[gene as usize] = (f64::from(value) / totals[row] * 1e4).ln_1p() as f32;
        }
    }
    let places = match adata.obsm.contains_key("spatial") {
        true => {
            let table = adata.obsm("spatial")?.to_table("spatial")?;
            Some(Array2::from_shape_vec((table.n_rows, table.n_cols), table.values)?.select(Axis(0), &rows))
        }
        false => None,
    };
    Ok(Cells { x, places })
}

fn pairwise(x: ArrayView2<'_, f32>) -> Array2<f64> {
    Array2::from_shape_fn((x.nrows(), x.nrows()), |(i, j)| {
        let squares = x.row(i).iter().zip(x.row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        squares.sqrt()
    })
}

fn upper(matrix: &Array2<f64>) -> Vec<f64> {
    matrix.indexed_iter().filter(|((i, j), _)| i < j).map(|(_, value)| *value).collect()
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranked(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        order[start..end].iter().for_each(|&at| ranks[at] = (start + end + 1) as f64 / 2.0);
        start = end;
    }
    ranks
}

fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranked(a), &ranked(b))
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |of: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| of(a - mean_a, b - mean_b)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// Mean true rank, from 0 to 1, of the fifty cells that are nearest by `found`.
fn neighbour_rank(found: &Array2<f64>, truth: &Array2<f64>) -> f64 {
    let n = found.nrows();
    let k = 50.min(n / 5);
    let of_cell = |cell: usize| {
        let others: Vec<usize> = (0..n).filter(|&other| other != cell).collect();
        let ranks = ranked(&others.iter().map(|&other| truth[[cell, other]]).collect::<Vec<_>>());
        let mut nearest: Vec<usize> = (0..others.len()).collect();
        nearest.sort_by(|&a, &b| found[[cell, others[a]]].total_cmp(&found[[cell, others[b]]]));
        nearest[..k].iter().map(|&at| (ranks[at] - 1.0) / (n - 2) as f64).sum::<f64>() / k as f64
    };
    (0..n).map(of_cell).sum::<f64>() / n as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn print(figures: &Figures) {
    println!("| figure | mean ± sd |\n|---|---|");
    for (name, values) in figures {
        let mean = mean(values);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if values.len() > 1 { (squares / (values.len() - 1) as f64).sqrt() } else { 0.0 };
        println!("| {name} | {mean:.4} ± {deviation:.4} |");
    }
}
