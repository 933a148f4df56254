//! What is measured: synthetic counts of several sizes, and one real data set.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use archipelago_anndata::{AnnData, Column, Compression, Csr, CsrBuilder, DataFrame, Storage};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Gamma, LogNormal, Poisson};
use rayon::prelude::*;

use crate::{space, trees};

/// One data set, with which everything is measured.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Part of the names in the summary: `10000x2000-d12`.
    pub(crate) name: String,
    pub(crate) model: ModelArg,
    pub(crate) source: Source,
    pub(crate) epochs: u32,
    /// How often both sides run, each time from another seed.
    pub(crate) rounds: usize,
}

/// The model that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum ModelArg {
    /// scVI.
    Scvi,
    /// scANVI: labels in the reference, none in the query.
    Scanvi,
    /// trVAE: conditions of the reference pulled together.
    Trvae,
    /// expiMap: 200 gene sets and a group lasso.
    Expimap,
    /// scGen, on log-normalised values: mapping is arithmetic, without an epoch.
    Scgen,
    /// scPoli: conditions embedded, no labels.
    Scpoli,
    /// Multigrate: counts of genes, and the logarithms of some as a second modality.
    Multigrate,
    /// mvTCR: log-normalised expression and receptors.
    Mvtcr,
    /// SageNet: networks of one section.
    Sagenet,
    /// treeArches: trees of cell types in a latent space.
    Treearches,
}

impl ModelArg {
    /// Its name in the zoo and on the command lines of both sides.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scvi => "scvi",
            Self::Scanvi => "scanvi",
            Self::Trvae => "trvae",
            Self::Scgen => "scgen",
            Self::Expimap => "expimap",
            Self::Scpoli => "scpoli",
            Self::Multigrate => "multigrate",
            Self::Mvtcr => "mvtcr",
            Self::Sagenet => "sagenet",
            Self::Treearches => "treearches",
        }
    }

    /// What is measured of it, in the table's order.
    pub(crate) fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Sagenet => &space::KINDS,
            Self::Treearches => &trees::KINDS,
            _ => &["train", "surgery", "latent"],
        }
    }

    /// Whether our kernels compute it.
    pub(crate) fn has_kernels(self) -> bool {
        !matches!(self, Self::Multigrate | Self::Mvtcr)
    }

    /// Whether its peer is a native model of scArches.
    pub(crate) fn is_native(self) -> bool {
        matches!(self, Self::Trvae | Self::Expimap | Self::Scgen | Self::Scpoli)
    }

    /// Whether it takes log-normalised expression.
    pub(crate) fn takes_logarithms(self) -> bool {
        matches!(self, Self::Scgen | Self::Mvtcr)
    }

    /// Whether cells come with their types.
    pub(crate) fn takes_labels(self) -> bool {
        matches!(self, Self::Scanvi | Self::Scgen)
    }
}

/// Where the cells come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Cells, genes, mean total count over 2,000 genes.
    Synthetic(usize, usize, f64),
    /// The PBMC of five batches; three make the reference, one is the query.
    Pbmc(PathBuf),
    /// Cells, dimensions and types of a latent space.
    Latent(usize, usize, usize),
    /// A file whose first section is learnt.
    Section(PathBuf),
}

/// All cases, or those that the goals speak of.
pub(crate) fn all(quick: bool) -> Vec<Case> {
    let synthetic = |name: &str, cells, genes, library, epochs, rounds| Case {
        name: name.to_owned(),
        model: ModelArg::Scvi,
        source: Source::Synthetic(cells, genes, library),
        epochs,
        rounds,
    };
    // What is set up before the first epoch is part of it: with six, the median is that of an epoch.
    let mut cases = vec![synthetic("10000x2000-d12", 10_000, 2_000, 350.0, 6, if quick { 1 } else { 3 })];
    if quick {
        return cases;
    }
    let scanvi = synthetic("scanvi-10000x2000-d12", 10_000, 2_000, 350.0, 2, 1);
    cases.push(Case { model: ModelArg::Scanvi, ..scanvi });
    let trvae = synthetic("trvae-10000x2000-d12", 10_000, 2_000, 350.0, 3, NATIVE_ROUNDS);
    cases.push(Case { model: ModelArg::Trvae, ..trvae });
    let expimap = synthetic("expimap-10000x2000-d12", 10_000, 2_000, 350.0, 3, NATIVE_ROUNDS);
    cases.push(Case { model: ModelArg::Expimap, ..expimap });
    let scgen = synthetic("scgen-10000x2000-d12", 10_000, 2_000, 350.0, 3, NATIVE_ROUNDS);
    cases.push(Case { model: ModelArg::Scgen, ..scgen });
    let scpoli = synthetic("scpoli-10000x2000-d12", 10_000, 2_000, 350.0, 3, NATIVE_ROUNDS);
    cases.push(Case { model: ModelArg::Scpoli, ..scpoli });
    let multigrate = synthetic("multigrate-10000x2000-d12", 10_000, 2_000, 350.0, 3, 2);
    cases.push(Case { model: ModelArg::Multigrate, ..multigrate });
    let mvtcr = synthetic("mvtcr-3000x2000-d12", 3_000, 2_000, 350.0, 3, 2);
    cases.push(Case { model: ModelArg::Mvtcr, ..mvtcr });
    cases.push(synthetic("10000x1000-d12", 10_000, 1_000, 350.0, 3, 2));
    cases.push(synthetic("10000x2000-d32", 10_000, 2_000, 2_000.0, 3, 1));
    cases.push(synthetic("100000x2000-d8", 100_000, 2_000, 210.0, 2, 1));
    if let Some(file) = shared_file("pbmc_5batch.h5ad") {
        let (name, model, source) = ("pbmc_5batch".to_owned(), ModelArg::Scvi, Source::Pbmc(file));
        cases.push(Case { name, model, source, epochs: 5, rounds: 2 });
    }
    let trees = |cells, types| {
        let (name, source) = (format!("treearches-{cells}x10-{types}"), Source::Latent(cells, 10, types));
        Case { name, model: ModelArg::Treearches, source, epochs: 1, rounds: 1 }
    };
    cases.extend([trees(MOST_OF_SCHPL, 10), trees(100_000, 30)]);
    if let Some(file) = shared_file("spatial_starmap.h5ad") {
        let (name, model, source) = ("sagenet-starmap".to_owned(), ModelArg::Sagenet, Source::Section(file));
        cases.push(Case { name, model, source, epochs: 3, rounds: 2 });
    }
    cases
}

/// A file of the shared data: at `ARCHIPELAGO_SHARED`, or beside the checkout.
fn shared_file(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("ARCHIPELAGO_SHARED").map_or(beside, PathBuf::from);
    Some(root.join("data").join(name)).filter(|path| path.is_file())
}

impl Case {
    /// Whether its peer would take longer than anybody waits.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.source, Source::Latent(cells, ..) if cells > MOST_OF_SCHPL)
    }

    /// Writes `reference.h5ad`, `query.h5ad` and what both are validated on.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        match &self.source {
            Source::Synthetic(cells, genes, library) => write_synthetic(folder, *cells, *genes, *library),
            Source::Pbmc(file) => write_pbmc(folder, file),
            Source::Latent(cells, dims, types) => trees::write(folder, *cells, *dims, *types),
            Source::Section(file) => space::write(folder, file),
        }
    }
}

/// Synthetic counts as in the comparison's own script: over-dispersed, genes of very different means, no batch effect.
pub(crate) fn write_synthetic(folder: &Path, n_cells: usize, n_genes: usize, library: f64) -> Result<()> {
    let library = library * n_genes as f64 / 2_000.0;
    let shares = shares(n_genes);
    let sets: [(&str, usize, &[&str], u64); 4] = [
        ("reference", n_cells, &["b0", "b1", "b2"], 1),
        ("reference_validation", VALIDATION_CELLS, &["b0", "b1", "b2"], 2),
        ("query", n_cells, &["q0"], 3),
        ("query_validation", VALIDATION_CELLS, &["q0"], 4),
    ];
    for (name, n_cells, batches, seed) in sets {
        let counts = counts(n_cells, &shares, library, seed)?;
        write(folder, name, counts, batches)?;
    }
    Ok(())
}

/// Writes one file of cells like these, of any size: its counts are never in memory together. Gives the number of stored values.
pub(crate) fn write_streamed(
    path: &Path,
    (n_cells, n_genes): (usize, usize),
    library: f64,
    batches: &[&str],
    seed: u64,
) -> Result<usize> {
    let (library, shares) = (library * n_genes as f64 / 2_000.0, shares(n_genes));
    let storage = Storage::new(STREAM_MEMORY, path.parent().context("a file stands in a folder")?);
    let mut counts = CsrBuilder::new(n_genes, &storage, n_cells * n_genes / 8);
    let chunks: Vec<usize> = (0..n_cells.div_ceil(CHUNK)).collect();
    for some in chunks.chunks(CHUNKS_AT_ONCE) {
        let drawn = some.par_iter().map(|&chunk| counts_of_chunk(chunk, n_cells, &shares, library, seed));
        for rows in drawn.collect::<Vec<_>>() {
            counts.push(&rows?)?;
        }
    }
    let counts = counts.finish()?;
    let (obs, var) = frames(n_cells, n_genes, batches)?;
    AnnData { obs, var, ..AnnData::default() }.write_with_x(&counts, path, Compression::None)?;
    Ok(counts.nnz())
}

/// Counts of one condition, for measurements without a file.
pub(crate) fn counts_of(n_cells: usize, n_genes: usize, seed: u64) -> Result<Csr> {
    counts(n_cells, &shares(n_genes), 350.0 * n_genes as f64 / 2_000.0, seed)
}

fn shares(n_genes: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let gamma = Gamma::new(0.35, 1.0).expect("shape and scale are above 0");
    let drawn: Vec<f64> = (0..n_genes).map(|_| gamma.sample(&mut rng)).collect();
    let sum: f64 = drawn.iter().sum();
    drawn.into_iter().map(|share| share / sum).collect()
}

fn counts(n_cells: usize, shares: &[f64], library: f64, seed: u64) -> Result<Csr> {
    let rows: Vec<Result<Csr>> = (0..n_cells.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| counts_of_chunk(chunk, n_cells, shares, library, seed))
        .collect();
    Ok(Csr::vstack(shares.len(), rows.into_iter().collect::<Result<Vec<_>>>()?)?)
}

fn counts_of_chunk(chunk: usize, n_cells: usize, shares: &[f64], library: f64, seed: u64) -> Result<Csr> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed << 32 | chunk as u64);
    let libraries = LogNormal::new(library.ln(), 0.4)?;
    let gamma = Gamma::new(1.2, 1.0)?;
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    let cells = CHUNK.min(n_cells - chunk * CHUNK);
    for _ in 0..cells {
        let total = libraries.sample(&mut rng);
        for (gene, share) in (0_u32..).zip(shares) {
            let rate = total * share * gamma.sample(&mut rng) / 1.2;
            // Most rates are far below 1: whether there is a count at all is one comparison.
            if rng.random::<f64>() >= -(-rate).exp_m1() {
                continue;
            }
            let poisson = Poisson::new(rate.max(f64::MIN_POSITIVE))?;
            let count = std::iter::repeat_with(|| poisson.sample(&mut rng)).take(64).find(|&count| count > 0.0);
            indices.push(gene);
            data.push(count.unwrap_or(1.0) as f32);
        }
        indptr.push(data.len());
    }
    Ok(Csr::new(cells, shares.len(), indptr, indices, data)?)
}

fn write_pbmc(folder: &Path, file: &Path) -> Result<()> {
    let adata = AnnData::read(file)?;
    let batches = adata.obs.column("batch")?.to_strings();
    for (name, wanted) in [("reference", &["10x_3pv1", "10x_3pv2", "facs_sorted"][..]), ("query", &["10x_5p"][..])] {
        let of_batches = |cell: &usize| batches[*cell].as_deref().is_some_and(|batch| wanted.contains(&batch));
        let cells: Vec<usize> = (0..batches.len()).filter(of_batches).collect();
        let (held_out, train): (Vec<usize>, Vec<usize>) = cells.into_iter().partition(|cell| cell % 5 == 0);
        for (name, cells) in [(name.to_owned(), train), (format!("{name}_validation"), held_out)] {
            std::fs::create_dir_all(folder)?;
            adata.select_obs(&cells)?.write(folder.join(format!("{name}.h5ad")), Compression::None)?;
        }
    }
    Ok(())
}

fn write(folder: &Path, name: &str, counts: Csr, batches: &[&str]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let (mut obs, var) = frames(counts.n_rows(), counts.n_cols(), batches)?;
    let of_type = |cell| format!("t{}", cell % N_LABELS);
    let label = |cell| if name.starts_with("query") { UNLABELLED.to_owned() } else { of_type(cell) };
    obs.insert(LABELS, Column::categorical(&(0..counts.n_rows()).map(label).collect::<Vec<_>>()))?;
    obs.insert(TYPES, Column::categorical(&(0..counts.n_rows()).map(of_type).collect::<Vec<_>>()))?;
    for (chain, start, every) in [(ALPHA, "CAV", 3), (BETA, "CASS", 2)] {
        let receptors = (0..counts.n_rows()).map(|cell| sequence(start, cell / every));
        obs.insert(chain, Column::categorical(&receptors.collect::<Vec<_>>()))?;
    }
    AnnData::new(counts, obs, var)?.write(folder.join(format!("{name}.h5ad")), Compression::None)?;
    Ok(())
}

/// The amino acids of a chain, others for each number; 12 to 15 of them, as most receptors have.
fn sequence(start: &str, number: usize) -> String {
    const LETTERS: [char; 8] = ['A', 'D', 'G', 'L', 'N', 'Q', 'S', 'T'];
    let letters = (0..8 + number % 3).map(|place| LETTERS[((number >> (3 * (place % 5))) % 8) ^ (place % 8)]);
    start.chars().chain(letters).chain(['F']).collect()
}

/// The obs columns of receptors.
pub(crate) const ALPHA: &str = "alpha";
pub(crate) const BETA: &str = "beta";

/// The obs column of labels, which have nothing to do with the counts.
pub(crate) const LABELS: &str = "cell_type";
/// The obs column with the label of every cell, for a model that maps by labels.
pub(crate) const TYPES: &str = "every_cell_type";
/// What stands there for no label.
const UNLABELLED: &str = "Unknown";
const N_LABELS: usize = 8;

/// Names of cells and genes, and batches in turn.
fn frames(n_cells: usize, n_genes: usize, batches: &[&str]) -> Result<(DataFrame, DataFrame)> {
    let batches: Vec<&str> = (0..n_cells).map(|cell| batches[cell % batches.len()]).collect();
    let mut obs = DataFrame::new((0..n_cells).map(|cell| format!("c{cell}")));
    obs.insert("batch", Column::categorical(&batches))?;
    Ok((obs, DataFrame::new((0..n_genes).map(|gene| format!("g{gene}")))))
}

/// scHPL's time grows with the square of the cells: ten times as many would take half an hour.
const MOST_OF_SCHPL: usize = 10_000;
/// Seeds from which the native models start: enough to tell a difference in ELBO from the start's.
const NATIVE_ROUNDS: usize = 4;
/// Memory that the counts of a streamed file take while it is made.
const STREAM_MEMORY: u64 = 256 << 20;
/// Random streams that are drawn side by side.
const CHUNKS_AT_ONCE: usize = 32;
/// Cells that both sides report an ELBO on.
const VALIDATION_CELLS: usize = 2_000;
/// Cells of one random stream.
const CHUNK: usize = 500;
