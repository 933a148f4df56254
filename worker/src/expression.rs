//! Expression as pictures and components take it: log-normalised, of some genes.

use archipelago_analysis::preprocess::{CP10K, log1p, normalize_total};
use archipelago_anndata::{AnnData, Csr, counts::is_count};

use crate::{cells::view, error::Result, output::Output};

/// Log-normalised values of `X` or a layer. What holds counts is normalised to 10,000 per cell and log1p, and that is said.
///
/// # Errors  [`crate::Error::Anndata`] for a layer that is missing
pub fn log_normalised(adata: &AnnData, layer: Option<&str>, output: &Output) -> Result<Csr> {
    let matrix = adata.matrix(layer)?.to_csr()?;
    if !matrix.data().iter().copied().all(is_count) {
        return Ok(matrix);
    }
    let name = layer.unwrap_or("X");
    output.note(format_args!("note: `{name}` holds counts; they are normalised to 10,000 per cell and log1p"));
    normalised(&matrix)
}

/// Counts normalised to 10,000 per cell and log1p.
///
/// # Errors  none for a matrix that exists
pub fn normalised(counts: &Csr) -> Result<Csr> {
    let mut values = normalize_total(view(counts)?, CP10K);
    log1p(&mut values);
    Ok(Csr::new(counts.n_rows(), counts.n_cols(), counts.indptr().to_vec(), counts.indices().to_vec(), values)?)
}

/// The genes that are marked as highly variable, if some are.
pub fn variable_genes(adata: &AnnData) -> Option<Vec<usize>> {
    let marked = adata.var.column("highly_variable").ok()?.to_f64()?;
    let genes: Vec<usize> = (0..marked.len()).filter(|&gene| marked[gene] > 0.0).collect();
    (!genes.is_empty()).then_some(genes)
}
