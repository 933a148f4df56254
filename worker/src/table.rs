//! Tables that commands write: cells (or genes) × something, as h5ad or CSV, whichever the file's name asks for.

use std::{
    fmt::{Display, Write as _},
    path::{Path, PathBuf},
};

use archipelago_anndata::{AnnData, DataFrame, Element};
use archipelago_common::fs;

use crate::{
    data::{COMPRESSION, SiteData},
    error::{Error, Result},
    results::csv_field,
};

/// What kind of file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableFormat {
    /// For scanpy and its kin.
    H5ad,
    /// For everything else.
    Csv,
}

impl TableFormat {
    /// The format that a file's name asks for.
    ///
    /// # Errors  [`Error::Setting`] for any other name
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("h5ad") => Ok(Self::H5ad),
            Some("csv") => Ok(Self::Csv),
            _ => {
                let (found, expected) = (format!("`{}`", path.display()), "a file name that ends in `.h5ad` or `.csv`");
                Err(Error::Setting { what: "--out", found, expected })
            }
        }
    }
}

/// A CSV text that grows row by row.
#[derive(Debug)]
pub struct CsvTable {
    text: String,
}

impl CsvTable {
    /// A table with this head.
    pub fn new<S: AsRef<str>>(columns: impl IntoIterator<Item = S>) -> Self {
        let head: Vec<String> = columns.into_iter().map(|column| csv_field(column.as_ref())).collect();
        Self { text: head.join(",") + "\n" }
    }

    /// Adds a row: its name, then its values.
    pub fn row<V: Display>(&mut self, name: &str, values: impl IntoIterator<Item = V>) {
        self.text += &csv_field(name);
        for value in values {
            write!(self.text, ",{value}").expect("text takes text");
        }
        self.text.push('\n');
    }

    /// Writes the file.
    ///
    /// # Errors  [`Error::Common`]
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write_atomic(path, self.text.as_bytes())?)
    }
}

/// A matrix with names for its rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct NamedMatrix<'a> {
    /// Head of the column of row names in a CSV.
    pub rows_are: &'a str,
    /// Names of the rows, with what else is known of them.
    pub rows: &'a DataFrame,
    /// Names of the columns.
    pub columns: &'a [String],
    /// Values, row by row.
    pub values: &'a [f32],
}

impl NamedMatrix<'_> {
    /// Writes it as `X` of an h5ad, or as a CSV.
    ///
    /// # Errors  [`Error::Setting`] for a name of another kind, [`Error::Cells`], [`Error::Common`]
    pub fn write(&self, path: &Path) -> Result<()> {
        match TableFormat::of(path)? {
            TableFormat::Csv => {
                let head = std::iter::once(self.rows_are).chain(self.columns.iter().map(String::as_str));
                let mut table = CsvTable::new(head);
                for (name, row) in self.rows.index().iter().zip(self.values.chunks_exact(self.columns.len().max(1))) {
                    table.row(name, row);
                }
                table.write(path)
            }
            TableFormat::H5ad => write_h5ad(path, &self.to_anndata(path)?),
        }
    }

    /// Writes the cells used as h5ad, with the matrix as a table in `obsm`.
    ///
    /// # Errors  [`Error::Setting`] for a name of another kind, [`Error::Cells`]
    pub fn write_beside(&self, data: &SiteData, key: &str, path: &Path) -> Result<()> {
        if TableFormat::of(path)? == TableFormat::Csv {
            let (found, expected) =
                (format!("`{}`", path.display()), "a file name that ends in `.h5ad`, for cells with a table");
            return Err(Error::Setting { what: "--out", found, expected });
        }
        data.write_all(path, |cells| {
            let mut frame = DataFrame::new(cells.obs_names().to_vec());
            for (at, name) in self.columns.iter().enumerate() {
                let column: Vec<f32> = self.values.chunks_exact(self.columns.len()).map(|row| row[at]).collect();
                frame.insert(name.as_str(), column)?;
            }
            cells.obsm.insert(key.to_owned(), Element::Frame(frame));
            Ok(())
        })
    }

    fn to_anndata(self, path: &Path) -> Result<AnnData> {
        let failed = |source| Error::Cells { path: PathBuf::from(path), source };
        let array = archipelago_anndata::Array::matrix(self.rows.n_rows(), self.columns.len(), self.values.to_vec());
        let matrix = archipelago_anndata::Matrix::dense(array.map_err(failed)?).map_err(failed)?;
        AnnData::new(matrix, self.rows.clone(), DataFrame::new(self.columns.iter().cloned())).map_err(failed)
    }
}

/// Writes an h5ad file.
///
/// # Errors  [`Error::Cells`]
pub fn write_h5ad(path: &Path, adata: &AnnData) -> Result<()> {
    adata.write(path, COMPRESSION).map_err(|source| Error::Cells { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::{Column, Compression, Csr};

    use super::*;
    use crate::data::DataSpec;

    #[test]
    fn a_matrix_is_the_same_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let rows = DataFrame::new(["c0", "c,1"]);
        let columns = ["g0".to_owned(), "g1".to_owned()];
        let matrix = NamedMatrix { rows_are: "cell", rows: &rows, columns: &columns, values: &[0.5, 2.0, 0.0, 1e-9] };
        let (csv, h5ad) = (dir.path().join("x.csv"), dir.path().join("x.h5ad"));
        matrix.write(&csv).unwrap();
        matrix.write(&h5ad).unwrap();
        assert_eq!(std::fs::read_to_string(csv).unwrap(), "cell,g0,g1\nc0,0.5,2\n\"c,1\",0,0.000000001\n");
        let read = AnnData::read(h5ad).unwrap();
        assert_eq!(read.matrix(None).unwrap().to_csr().unwrap().to_dense(), matrix.values);
        assert_eq!((read.obs_names()[1].as_str(), read.var_names()), ("c,1", &columns[..]));
    }

    #[test]
    fn a_matrix_beside_cells_is_a_table_in_obsm() {
        let dir = tempfile::tempdir().unwrap();
        let mut obs = DataFrame::new(["c0", "c1"]);
        obs.insert("batch", Column::categorical(&["a", "a"])).unwrap();
        let file = dir.path().join("cells.h5ad");
        let x = Csr::from_dense(2, 1, &[1.0, 2.0]).unwrap();
        AnnData::new(x, obs, DataFrame::new(["g"])).unwrap().write(&file, Compression::None).unwrap();
        let data = SiteData::open(DataSpec::new(&file, "batch")).unwrap();
        let cells = AnnData::read(&file).unwrap();
        let columns = ["CD3".to_owned(), "CD4".to_owned()];
        let matrix =
            NamedMatrix { rows_are: "cell", rows: &cells.obs, columns: &columns, values: &[1.0, 2.0, 3.0, 4.0] };
        let path = dir.path().join("x.h5ad");
        matrix.write_beside(&data, "imputed", &path).unwrap();
        let table = AnnData::read(&path).unwrap().obsm("imputed").unwrap().to_table("imputed").unwrap();
        assert_eq!((table.columns.as_deref(), &table.values[..]), (Some(&columns[..]), matrix.values));
        let error = matrix.write_beside(&data, "imputed", Path::new("x.csv")).unwrap_err().to_string();
        assert!(error.contains("`x.csv`") && error.contains("ends in `.h5ad`"), "{error}");
    }

    #[test]
    fn another_ending_is_refused() {
        let error = TableFormat::of(Path::new("x.xlsx")).unwrap_err().to_string();
        assert!(error.contains("`x.xlsx`") && error.contains("`.h5ad` or `.csv`"), "{error}");
    }
}
