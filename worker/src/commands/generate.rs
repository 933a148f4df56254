//! `generate`: synthetic counts for trying things out.

use std::{fmt, path::PathBuf, str::FromStr};

use archipelago_anndata::{AnnData, Compression};
use archipelago_common::fs;
use clap::Args;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    generate::{GenerateSpec, add_places, add_proteins, gene_sets, generate},
    lists,
    output::Output,
};

/// Make synthetic counts of several batches: cell types, batch effects, library sizes, dropout.
///
/// The h5ad file has counts in X, and `batch`, `cell_type` and `donor` in obs. The same seed gives the same file.
#[derive(Args, Debug)]
#[command(after_help = "Example, three sites and a reference batch:\n  \
    archipelago-worker generate --batches atlas,north,south,west --n-cells 500 --n-genes 1000 --out cells.h5ad")]
pub struct GenerateArgs {
    /// The h5ad file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write gene sets of these cells to this GMT file: what each type expresses more or less, and sets by chance.
    #[arg(long, value_name = "FILE")]
    write_gene_sets: Option<PathBuf>,
    /// Names of the batches, separated by commas.
    #[arg(long, default_value = "reference-1,reference-2,north,south,west")]
    batches: Vec<String>,
    /// Cells in each batch.
    #[arg(long, default_value_t = 500)]
    n_cells: usize,
    /// Genes.
    #[arg(long, default_value_t = 1000)]
    n_genes: usize,
    /// Cell types.
    #[arg(long, default_value_t = 6)]
    n_types: usize,
    /// Donors in each batch.
    #[arg(long, default_value_t = 3)]
    n_donors: usize,
    /// Groups of related types, which share most of what tells them from other groups; 0 where no types are related.
    #[arg(long, value_name = "GROUPS", default_value_t = 0)]
    related: usize,
    /// A type that a batch lacks; several times for several.
    #[arg(long, value_name = "BATCH=TYPE", value_parser = of_batch::<String>)]
    without: Vec<(String, String)>,
    /// Standard deviation of the logarithm of a type's share in a batch [default: shares from 0.3 to 1 of one another]
    #[arg(long, value_name = "STD")]
    uneven: Option<f64>,
    /// Standard deviation of a batch's shift of each gene, in natural logarithms.
    #[arg(long, default_value_t = 0.4)]
    batch_effect: f64,
    /// The same of one batch; several times for several.
    #[arg(long, value_name = "BATCH=STD", value_parser = of_batch::<f64>)]
    batch_effect_of: Vec<(String, f64)>,
    /// Median counts of a cell.
    #[arg(long, default_value_t = 2500.0)]
    library_size: f64,
    /// Chance that a small count is lost.
    #[arg(long, default_value_t = 0.2)]
    dropout: f64,
    /// Also give the cells places, in obsm `spatial`: every batch is a section in which types lie in layers.
    #[arg(long)]
    spatial: bool,
    /// Also give the cells so many surface proteins: counts in obsm `protein_expression`.
    #[arg(long, value_name = "N", default_value_t = 0)]
    n_proteins: usize,
    /// Seed of everything.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What was written.
#[derive(Serialize)]
struct Generated {
    path: PathBuf,
    n_cells: usize,
    n_genes: usize,
    batches: Vec<String>,
    density: f64,
}

/// Runs the command.
///
/// # Errors  [`Error::Setting`], [`Error::Cells`] where the file cannot be written
pub fn run(args: &GenerateArgs, output: &Output) -> Result<()> {
    let batches = lists::split(&args.batches);
    let spec = GenerateSpec {
        batches: batches.clone(),
        n_cells: args.n_cells,
        n_genes: args.n_genes,
        n_types: args.n_types,
        n_donors: args.n_donors,
        n_groups: args.related,
        lacking: args.without.clone(),
        unevenness: args.uneven,
        batch_effect: args.batch_effect,
        batch_effects: args.batch_effect_of.clone(),
        library_size: args.library_size,
        dropout: args.dropout,
        seed: args.seed,
    };
    let mut adata = generate(&spec)?;
    if args.spatial {
        add_places(&spec, &mut adata)?;
    }
    if args.n_proteins > 0 {
        add_proteins(&spec, args.n_proteins, &mut adata)?;
    }
    if let Some(path) = &args.write_gene_sets {
        fs::write_atomic(path, gene_sets(&spec)?.as_bytes())?;
    }
    adata.write(&args.out, Compression::Gzip(4)).map_err(|source| Error::Cells { path: args.out.clone(), source })?;
    output.show(&Generated {
        path: args.out.clone(),
        n_cells: adata.n_obs(),
        n_genes: adata.n_vars(),
        batches,
        density: density(&adata)?,
    });
    Ok(())
}

/// Reads `BATCH=VALUE`.
fn of_batch<T: FromStr<Err: fmt::Display>>(text: &str) -> std::result::Result<(String, T), String> {
    let (batch, value) = text.split_once('=').ok_or("expected `BATCH=VALUE`")?;
    Ok((batch.to_owned(), value.parse().map_err(|error: T::Err| format!("`{value}`: {error}"))?))
}

fn density(adata: &AnnData) -> Result<f64> {
    let nnz = adata.matrix(None)?.to_csr()?.nnz();
    Ok(nnz as f64 / (adata.n_obs() * adata.n_vars()) as f64)
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.display())?;
        let percent = 100.0 * self.density;
        writeln!(f, "{} cells × {} genes, {percent:.1} % non-zero", self.n_cells, self.n_genes)?;
        write!(f, "batches {}", self.batches.join(", "))
    }
}
