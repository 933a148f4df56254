//! Commands that read a whole file of cells and write it with something added.

use std::path::{Path, PathBuf};

use archipelago_anndata::{AnnData, Compression};
use clap::Args;

use crate::{
    error::{Error, Result},
    output::Output,
};

/// A file of cells, and where it goes.
#[derive(Args, Debug)]
pub struct FileArgs {
    /// The h5ad file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The h5ad file to write.
    #[arg(long, value_name = "FILE", required_unless_present = "in_place", conflicts_with = "in_place")]
    pub out: Option<PathBuf>,
    /// Write the file anew with the result in it; the old one is replaced when the new one is whole.
    #[arg(long)]
    pub in_place: bool,
}

impl FileArgs {
    /// Reads the file.
    ///
    /// # Errors  [`Error::Cells`]
    pub fn read(&self, output: &Output) -> Result<AnnData> {
        read(&self.file, output)
    }

    /// Writes the cells; where they went.
    ///
    /// # Errors  [`Error::Cells`]
    pub fn write(&self, adata: &AnnData, output: &Output) -> Result<PathBuf> {
        let path = self.out.as_ref().unwrap_or(&self.file);
        write(path, adata, output)?;
        Ok(path.clone())
    }

    /// What went wrong, with the file it went wrong with.
    pub fn within(&self, error: Error) -> Error {
        within(&self.file, error)
    }
}

/// Reads a whole file.
///
/// # Errors  [`Error::Cells`]
pub fn read(path: &Path, output: &Output) -> Result<AnnData> {
    let _work = output.waiting(format!("reading {}", path.display()));
    AnnData::read(path).map_err(|source| Error::Cells { path: path.into(), source })
}

/// Writes a whole file.
///
/// # Errors  [`Error::Cells`]
pub fn write(path: &Path, adata: &AnnData, output: &Output) -> Result<()> {
    let _work = output.waiting(format!("writing {}", path.display()));
    adata.write(path, Compression::Gzip(GZIP_LEVEL)).map_err(|source| Error::Cells { path: path.into(), source })
}

/// An error about what a file holds, with the path of the file.
pub fn within(path: &Path, error: Error) -> Error {
    match error {
        Error::Anndata(source) => Error::Cells { path: path.into(), source },
        Error::Unnamed { column, n_missing, n_cells } => {
            Error::MissingValues { path: path.into(), column, n_missing, n_cells }
        }
        other => other,
    }
}

const GZIP_LEVEL: u8 = 4;
