//! What `umap` and `tsne` share: cells are placed in the plane, and the file says where.

use std::{fmt, path::PathBuf};

use archipelago_anndata::AnnData;
use ndarray::Array2;
use serde::Serialize;

use super::file::FileArgs;
use crate::{cells::dense, error::Result, output::Output};

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_cells: usize,
    use_rep: String,
    #[serde(skip)]
    basis: &'static str,
}

/// Reads the file, writes the places that `place` finds to `obsm[basis]`, and says so. `place` also tells which embedding it
/// went by.
///
/// # Errors  [`crate::Error::Cells`], what `place` fails with
pub fn place(
    file: &FileArgs,
    basis: &'static str,
    place: impl FnOnce(&mut AnnData) -> Result<(Array2<f32>, String)>,
    output: &Output,
) -> Result<()> {
    let mut adata = file.read(output)?;
    let (placed, use_rep) = place(&mut adata).map_err(|error| file.within(error))?;
    adata.obsm.insert(basis.to_owned(), dense(placed.view())?);
    let out = file.write(&adata, output)?;
    output.show(&Summary { out, n_cells: adata.n_obs(), use_rep, basis });
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        write!(f, "placed      {} cells by {} in {}", self.n_cells, self.use_rep, self.basis)
    }
}
