//! Protein counts beside RNA: in `obsm` of the same file, or in a modality of their own.

use std::collections::BTreeMap;

use archipelago_anndata::{Element, H5adFile};
use archipelago_models::data::Proteins;
use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::{
    data::DataSpec,
    error::{Error, Result},
};

/// Where a file holds protein counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProteinSource {
    /// A matrix or data frame of `obsm`.
    Obsm {
        /// Its key.
        key: String,
        /// The key of `uns` that holds the proteins' names; a data frame has them itself.
        #[serde(default)]
        names: Option<String>,
    },
    /// A modality of an h5mu file.
    Modality(String),
}

impl ProteinSource {
    /// The source that a reference remembers.
    pub fn remembered(key: &str) -> Self {
        match key.strip_prefix(MODALITY) {
            Some(name) => Self::Modality(name.to_owned()),
            None => Self::Obsm { key: key.to_owned(), names: None },
        }
    }

    /// What a reference remembers of the source.
    fn key(&self) -> String {
        match self {
            Self::Obsm { key, .. } => key.clone(),
            Self::Modality(name) => format!("{MODALITY}{name}"),
        }
    }
}

/// Reads the proteins of the cells at these rows of the file that holds their RNA.
///
/// # Errors  [`Error::Cells`] naming what is missing, [`Error::Models`] for values that are no counts
pub fn read(spec: &DataSpec, file: &H5adFile, source: &ProteinSource, rows: &[usize]) -> Result<Proteins> {
    let (names, counts) = match source {
        ProteinSource::Obsm { key, names } => from_obsm(spec, file, key, names.as_deref(), rows)?,
        ProteinSource::Modality(name) => from_modality(spec, file, name, rows)?,
    };
    Ok(Proteins::new(names, counts)?.found_under(source.key()))
}

fn from_obsm(
    spec: &DataSpec,
    file: &H5adFile,
    key: &str,
    names_key: Option<&str>,
    rows: &[usize],
) -> Result<(Vec<String>, Array2<f32>)> {
    let cells = |source| Error::Cells { path: spec.path.clone(), source };
    let table = file.obsm(key).and_then(|element| element.to_table(&format!("obsm/{key}"))).map_err(cells)?;
    let names = match (names_key, table.columns) {
        (Some(names_key), _) => names_in_uns(spec, file, names_key)?,
        (None, Some(columns)) => columns,
        (None, None) => return Err(Error::NoProteinNames { path: spec.path.clone(), key: key.to_owned() }),
    };
    let all = Array2::from_shape_vec((table.n_rows, table.n_cols), table.values);
    Ok((names, all.expect("a table has a value per row and column").select(Axis(0), rows)))
}

fn names_in_uns(spec: &DataSpec, file: &H5adFile, key: &str) -> Result<Vec<String>> {
    let cells = |source| Error::Cells { path: spec.path.clone(), source };
    match file.uns(key).map_err(cells)? {
        Element::Array(array) => Ok(array.values().to_strings()),
        Element::Column(column) => Ok(column.to_strings().into_iter().flatten().collect()),
        other => {
            let (name, found) = (format!("uns/{key}"), other.kind().to_owned());
            Err(cells(archipelago_anndata::Error::Kind { name, found, expected: "a list of names" }))
        }
    }
}

/// Cells are found by name: each modality has its own order.
fn from_modality(spec: &DataSpec, file: &H5adFile, name: &str, rows: &[usize]) -> Result<(Vec<String>, Array2<f32>)> {
    let cells = |source| Error::Cells { path: spec.path.clone(), source };
    let modality = H5adFile::open_modality(&spec.path, name).map_err(cells)?;
    let position: BTreeMap<&String, usize> = modality.obs().index().iter().zip(0..).collect();
    let here: Vec<Option<usize>> = rows.iter().map(|&row| position.get(&file.obs().index()[row]).copied()).collect();
    let found: Vec<usize> = here.iter().flatten().copied().collect();
    if found.len() < rows.len() {
        let (n_missing, n_cells) = (rows.len() - found.len(), rows.len());
        return Err(Error::CellsWithoutProteins { path: spec.path.clone(), name: name.to_owned(), n_missing, n_cells });
    }
    let counts = modality.rows(None).and_then(|reader| reader.read_all()).map_err(cells)?;
    let dense = counts.select_rows(&found).to_dense();
    let counts = Array2::from_shape_vec((found.len(), modality.n_vars()), dense);
    Ok((modality.var().index().to_vec(), counts.expect("a dense matrix has a value per row and column")))
}

/// What a reference's key of proteins begins with if it is a modality's.
const MODALITY: &str = "mod/";

#[cfg(test)]
mod tests {
    use archipelago_anndata::{AnnData, Array, Column, Compression, Csr, DataFrame, MuData};

    use super::*;
    use crate::data::SiteData;

    fn frame(cells: &[&str]) -> DataFrame {
        let mut obs = DataFrame::new(cells.iter().copied());
        obs.insert("batch", Column::categorical(&vec!["a"; cells.len()])).unwrap();
        obs
    }

    fn rna(cells: &[&str]) -> AnnData {
        let counts = Csr::from_dense(cells.len(), 1, &vec![1.0; cells.len()]).unwrap();
        AnnData::new(counts, frame(cells), DataFrame::new(["g"])).unwrap()
    }

    fn check(adata: &AnnData, source: ProteinSource) -> Result<Proteins> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.h5ad");
        adata.write(&path, Compression::None).unwrap();
        let data = SiteData::open(DataSpec { proteins: Some(source), ..DataSpec::new(path, "batch") })?;
        Ok(data.annotations().proteins().cloned().unwrap())
    }

    fn obsm(names: Option<&str>) -> ProteinSource {
        ProteinSource::Obsm { key: "protein".to_owned(), names: names.map(str::to_owned) }
    }

    #[test]
    fn names_come_from_the_frame_or_from_uns() {
        let mut adata = rna(&["c1", "c2"]);
        let mut proteins = DataFrame::new(["c1", "c2"]);
        proteins.insert("CD3", vec![3.0_f32, 4.0]).unwrap();
        adata.obsm.insert("protein".to_owned(), proteins.into());
        let found = check(&adata, obsm(None)).unwrap();
        assert_eq!((found.names(), found.key()), (&["CD3".to_owned()][..], Some("protein")));

        adata.obsm.insert("protein".to_owned(), Array::matrix(2, 1, vec![3.0_f32, 4.0]).unwrap().into());
        let refused = check(&adata, obsm(None)).unwrap_err().to_string();
        assert!(refused.contains("obsm['protein']") && refused.contains("no names"), "{refused}");
        adata.uns.insert("names".to_owned(), Array::vector(vec!["CD4"]).into());
        assert_eq!(check(&adata, obsm(Some("names"))).unwrap().names(), ["CD4"]);
        assert!(check(&adata, obsm(Some("other"))).is_err());
        assert!(check(&rna(&["c1"]), obsm(None)).unwrap_err().to_string().contains("cells.h5ad"));
    }

    #[test]
    fn values_that_are_no_counts_are_refused() {
        let mut adata = rna(&["c1"]);
        let mut proteins = DataFrame::new(["c1"]);
        proteins.insert("CD3", vec![-1.0_f32]).unwrap();
        adata.obsm.insert("protein".to_owned(), proteins.into());
        let refused = check(&adata, obsm(None)).unwrap_err().to_string();
        assert!(refused.contains("protein `CD3` of cell 0"), "{refused}");
    }

    #[test]
    fn a_modality_is_read_cell_by_cell_whatever_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.h5mu");
        let write = |cells: &[&str]| {
            let counts = Csr::from_dense(cells.len(), 2, &(0..2 * cells.len()).map(|i| i as f32).collect::<Vec<_>>());
            let proteins = AnnData::new(counts.unwrap(), frame(cells), DataFrame::new(["CD3", "CD4"])).unwrap();
            let modalities = [("rna".to_owned(), rna(&["c1", "c2"])), ("prot".to_owned(), proteins)];
            MuData { modalities: modalities.into() }.write(&path, Compression::None).unwrap();
        };
        let open = || {
            let proteins = Some(ProteinSource::Modality("prot".to_owned()));
            SiteData::open(DataSpec { proteins, ..DataSpec::new(path.clone(), "batch") })
        };
        write(&["c2", "c1"]);
        let data = open().unwrap();
        let found = data.annotations().proteins().unwrap();
        assert_eq!(found.counts(), &ndarray::array![[2.0, 3.0], [0.0, 1.0]]);
        assert_eq!(ProteinSource::remembered(found.key().unwrap()), ProteinSource::Modality("prot".to_owned()));
        write(&["c2"]);
        let refused = open().err().unwrap().to_string();
        assert!(refused.contains("1 of 2 cells"), "{refused}");
    }
}
