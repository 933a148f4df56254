//! `pca`: principal components of normalised expression.

use std::{fmt, path::PathBuf};

use archipelago_analysis::pca::Pca;
use archipelago_anndata::{AnnData, Array, Dict, Element};
use clap::Args;
use serde::Serialize;

use super::file::FileArgs;
use crate::{
    cells::{dense, view},
    error::Result,
    expression,
    output::Output,
};

/// Compute principal components of log-normalised expression, as `scanpy.pp.pca` does.
///
/// Takes the genes that `preprocess` marked as highly variable, else all. Raw counts are normalised to 10,000 per cell and
/// log1p first. Writes `obsm['X_pca']`, `varm['PCs']` and `uns['pca']`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker pca clean.h5ad --n-comps 50 --in-place")]
pub struct PcaArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Components.
    #[arg(long, default_value_t = 50)]
    n_comps: usize,
    /// The layer that holds expression [default: X]
    #[arg(long)]
    layer: Option<String>,
    /// Take all genes, also where some are marked as highly variable.
    #[arg(long)]
    all_genes: bool,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_cells: usize,
    n_genes: usize,
    n_comps: usize,
    variance_ratio: Vec<f64>,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Cells`], [`crate::Error::Analysis`]
pub fn run(args: &PcaArgs, output: &Output) -> Result<()> {
    let mut adata = args.file.read(output)?;
    let (n_genes, pca) = args.fit(&mut adata, output).map_err(|error| args.file.within(error))?;
    let out = args.file.write(&adata, output)?;
    let variance_ratio = pca.explained_variance_ratio;
    output.show(&Summary { out, n_cells: adata.n_obs(), n_genes, n_comps: variance_ratio.len(), variance_ratio });
    Ok(())
}

impl PcaArgs {
    fn fit(&self, adata: &mut AnnData, output: &Output) -> Result<(usize, Pca)> {
        let expression = expression::log_normalised(adata, self.layer.as_deref(), output)?;
        let all: Vec<usize> = (0..adata.n_vars()).collect();
        let genes = if self.all_genes { all } else { expression::variable_genes(adata).unwrap_or(all) };
        let chosen = expression.select_cols(&genes)?;
        let n_comps = self.n_comps.min(chosen.n_rows().min(chosen.n_cols()).saturating_sub(1));
        let work = output.work("computing components");
        let pca = Pca::fit_csr_telling(view(&chosen)?, n_comps.max(1), &|share| work.share(share))?;
        drop(work);
        adata.obsm.insert("X_pca".to_owned(), dense(pca.project_csr(view(&chosen)?)?.view())?);
        let mut loadings = vec![0.0f32; adata.n_vars() * pca.components.nrows()];
        let n_comps = pca.components.nrows();
        for (at, &gene) in genes.iter().enumerate() {
            for component in 0..n_comps {
                loadings[gene * n_comps + component] = pca.components[[component, at]] as f32;
            }
        }
        let loadings = Array::matrix(adata.n_vars(), n_comps, loadings)?;
        adata.varm.insert("PCs".to_owned(), Element::Array(loadings));
        let params = Dict::from([
            ("zero_center".to_owned(), Element::Array(Array::new(vec![], vec![true])?)),
            ("use_highly_variable".to_owned(), Element::Array(Array::new(vec![], vec![genes.len() < adata.n_vars()])?)),
        ]);
        let vector = |values: &[f64]| Element::Array(Array::vector(values.to_vec()));
        let entry = Dict::from([
            ("variance".to_owned(), vector(&pca.explained_variance)),
            ("variance_ratio".to_owned(), vector(&pca.explained_variance_ratio)),
            ("params".to_owned(), Element::Dict(params)),
        ]);
        adata.uns.insert("pca".to_owned(), Element::Dict(entry));
        Ok((genes.len(), pca))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        writeln!(f, "components  {} of {} cells × {} genes", self.n_comps, self.n_cells, self.n_genes)?;
        let explained: f64 = self.variance_ratio.iter().sum();
        write!(f, "variance    {:.1} % explained", 100.0 * explained)
    }
}
