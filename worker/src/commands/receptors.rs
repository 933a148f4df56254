//! `receptors`: which cells have one, and which of them are of one clone.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use archipelago_analysis::preprocess::SetOptions;
use archipelago_anndata::{AnnData, Categorical, Column, H5adFile};
use archipelago_models::data::{Chain, Receptors};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::file::FileArgs;
use crate::{
    error::{Error, Result},
    fields::{Reading, Source},
    output::Output,
};

/// Keep the T cells whose receptor was seen, and number their clonotypes.
///
/// A clonotype is the amino acids of every chain asked for: cells that agree in all of them are of one clone. The file that is written has
/// the sequences in `receptor_alpha` and `receptor_beta`, and `clonotype` and `clone_size`; models that take receptors find them with
/// `--field receptor=obs/receptor_alpha --field receptor=obs/receptor_beta`. Receptors identify people: this file is as confidential as
/// the one it was made of.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker receptors tcells.h5ad --out complete.h5ad\n  \
    archipelago-worker receptors tcells.h5ad --receptor obs/TRA_cdr3 --receptor obs/TRB_cdr3 --out complete.h5ad\n  \
    archipelago-worker receptors tcells.h5ad --receptor obs/IR_VDJ_1_junction_aa --chains beta --out complete.h5ad")]
pub struct ReceptorsArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Where receptors are: AIRR records as scirpy keeps them, or a column of obs for each chain, alpha first.
    #[arg(long = "receptor", value_name = "PLACE", default_value = "obsm/airr")]
    places: Vec<Source>,
    /// The chains that a cell must have, and that make its clonotype.
    #[arg(long, value_enum, default_value_t = ChainsArg::Both)]
    chains: ChainsArg,
    /// Keep cells without a receptor too, with empty texts and no clonotype.
    #[arg(long)]
    keep_all: bool,
}

/// Chains of a receptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ChainsArg {
    /// Alpha and beta.
    Both,
    /// Beta.
    Beta,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    /// Before and after.
    n_cells: [usize; 2],
    n_with_receptor: usize,
    n_clonotypes: usize,
    /// Clonotypes of two cells or more.
    n_expanded: usize,
    largest_clone: usize,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::WrongPlace`], [`Error::NothingLeft`]
pub fn run(args: &ReceptorsArgs, output: &Output) -> Result<()> {
    let adata = args.file.read(output)?;
    let n_cells = adata.n_obs();
    let (adata, clones) = args.numbered(adata)?;
    let out = args.file.write(&adata, output)?;
    output.show(&Summary {
        out,
        n_cells: [n_cells, adata.n_obs()],
        n_with_receptor: clones.values().sum(),
        n_clonotypes: clones.len(),
        n_expanded: clones.values().filter(|&&size| size > 1).count(),
        largest_clone: clones.values().copied().max().unwrap_or_default(),
    });
    Ok(())
}

impl ReceptorsArgs {
    /// The cells with their clonotypes, and the size of each clone.
    fn numbered(&self, adata: AnnData) -> Result<(AnnData, BTreeMap<Vec<String>, usize>)> {
        let chains = self.chains.list();
        let receptors = self.receptors(&adata, &chains)?;
        let is_complete = |cell: &usize| receptors.has_all(&chains, *cell);
        let kept: Vec<usize> = (0..adata.n_obs()).filter(|cell| self.keep_all || is_complete(cell)).collect();
        if !kept.iter().any(is_complete) {
            return Err(Error::NothingLeft { what: "cell", n: adata.n_obs(), step: "a whole receptor" });
        }
        let sequence =
            |chain: Chain, cell: usize| receptors.chain(chain).map(|all| all[cell].clone()).unwrap_or_default();
        let key = |cell: usize| chains.iter().map(|&chain| sequence(chain, cell)).collect::<Vec<_>>();
        let mut clones: BTreeMap<Vec<String>, usize> = BTreeMap::new();
        kept.iter().filter(|cell| is_complete(cell)).for_each(|&cell| *clones.entry(key(cell)).or_default() += 1);
        // The largest clone is the first one, as 10x numbers them.
        let mut by_size: Vec<(&Vec<String>, usize)> = clones.iter().map(|(key, &size)| (key, size)).collect();
        by_size.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        let numbers: BTreeMap<&Vec<String>, usize> = by_size.iter().map(|(key, _)| *key).zip(1..).collect();
        // No code where there is no receptor.
        let codes: Vec<i32> =
            kept.iter().map(|&cell| numbers.get(&key(cell)).map_or(-1, |&number| number as i32 - 1)).collect();
        let names: Vec<String> = (1..=clones.len()).map(|number| format!("clonotype{number}")).collect();
        let clonotypes = Categorical::new(codes, names, false)?;
        let sizes: Vec<i64> =
            kept.iter().map(|&cell| clones.get(&key(cell)).copied().unwrap_or_default() as i64).collect();
        let mut adata = if kept.len() < adata.n_obs() { adata.select_obs(&kept)? } else { adata };
        for &chain in &chains {
            let texts: Vec<String> = kept.iter().map(|&cell| sequence(chain, cell)).collect();
            adata.obs.insert(format!("receptor_{}", chain.name()), texts)?;
        }
        adata.obs.insert("clonotype", Column::Categorical(clonotypes))?;
        adata.obs.insert("clone_size", sizes)?;
        Ok((adata, clones))
    }

    fn receptors(&self, adata: &AnnData, chains: &[Chain]) -> Result<Receptors> {
        let path = &self.file.file;
        let file = H5adFile::open(path).map_err(|source| Error::Cells { path: path.clone(), source })?;
        let rows: Vec<usize> = (0..adata.n_obs()).collect();
        let reading = Reading { path, file: &file, rows: &rows, genes: adata.var_names(), sets: SetOptions::default() };
        reading.receptors("receptor", chains, &self.places)
    }
}

impl ChainsArg {
    fn list(self) -> Vec<Chain> {
        match self {
            Self::Both => vec![Chain::Alpha, Chain::Beta],
            Self::Beta => vec![Chain::Beta],
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { out, n_cells: [before, after], n_with_receptor, n_clonotypes, n_expanded, largest_clone } = self;
        writeln!(
            f,
            "{n_with_receptor} of {before} cells have a whole receptor, {after} cells are in {}",
            out.display()
        )?;
        write!(f, "{n_clonotypes} clonotypes, {n_expanded} of two cells or more, {largest_clone} cells in the largest")
    }
}
