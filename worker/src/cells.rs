//! Whole files of cells in memory, as analysis takes them: columns as labels, matrices as views, embeddings.

use archipelago_analysis::{CsrView, Labels};
use archipelago_anndata::{AnnData, Array, Csr, DataFrame, Element};
use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result};

/// A matrix as analysis borrows it.
///
/// # Errors  none for a matrix that exists; the two crates check the same rules
pub fn view(csr: &Csr) -> Result<CsrView<'_>> {
    Ok(CsrView::new(csr.n_cols(), csr.indptr(), csr.indices(), csr.data())?)
}

/// One text per row of a column in which no row may be empty.
///
/// # Errors  [`Error::Anndata`] when the column is missing, [`Error::Unnamed`]
pub fn column(obs: &DataFrame, name: &str) -> Result<Vec<String>> {
    let values = obs.column(name)?.to_strings();
    let (n_missing, n_cells) = (values.iter().filter(|value| value.is_none()).count(), values.len());
    if n_missing > 0 {
        return Err(Error::Unnamed { column: name.to_owned(), n_missing, n_cells });
    }
    Ok(values.into_iter().flatten().collect())
}

/// One label per row of a column; rows without a value are called `name_of_missing`.
///
/// # Errors  [`Error::Anndata`] when the column is missing
pub fn labels(obs: &DataFrame, name: &str, name_of_missing: &str) -> Result<Labels> {
    let values = obs.column(name)?.to_strings();
    let names: Vec<&str> = values.iter().map(|value| value.as_deref().unwrap_or(name_of_missing)).collect();
    Ok(Labels::from_names(&names))
}

/// An embedding of the cells: an element of `obsm`, or `X`.
///
/// # Errors  [`Error::Anndata`] when it is missing or holds no numbers
pub fn embedding(adata: &AnnData, name: &str) -> Result<Array2<f32>> {
    if name == "X" {
        let csr = adata.matrix(None)?.to_csr()?;
        let shape = (csr.n_rows(), csr.n_cols());
        return Ok(Array2::from_shape_vec(shape, csr.to_dense()).expect("a value per cell and gene"));
    }
    let table = adata.obsm(name)?.to_table(name)?;
    Ok(Array2::from_shape_vec((table.n_rows, table.n_cols), table.values).expect("a value per row and column"))
}

/// Where a gene stands, if there is one of the name.
///
/// # Errors  [`Error::Anndata`] when several genes have it
pub fn gene_position(adata: &AnnData, name: &str) -> Result<Option<usize>> {
    let mut found = (0..adata.n_vars()).filter(|&gene| adata.var_names()[gene] == name);
    match (found.next(), found.next()) {
        (_, Some(_)) => {
            let (of, examples) = ("the file", vec![name.to_owned()]);
            Err(archipelago_anndata::Error::DuplicateGenes { of, n_duplicated: 1, examples }.into())
        }
        (first, None) => Ok(first),
    }
}

/// A dense matrix as an element of `obsm` or `varm`.
///
/// # Errors  none for a matrix that exists
pub fn dense(matrix: ArrayView2<'_, f32>) -> Result<Element> {
    let values: Vec<f32> = matrix.iter().copied().collect();
    Ok(Element::Array(Array::matrix(matrix.nrows(), matrix.ncols(), values)?))
}
