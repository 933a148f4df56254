//! What Cell Ranger and its kin write: one HDF5 file, or a folder of text files. Read whole, and shown to everybody else as the h5ad
//! file that it could be, which is in memory only.
//!
//! Genes become `X`; other features (antibodies, CRISPR guides) a data frame of `obsm`, named by their type.

mod folder;
mod hdf5_file;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use hdf5::File;

use crate::{AnnData, Column, Compression, DataFrame, Element, Error, Matrix, Result, Values, h5, names, write};

/// Opens a file for reading, as it is or as the h5ad file that it could be.
pub(crate) fn open(path: &Path) -> Result<File> {
    if path.is_dir()
        && let Some(features) = folder::read(path)?
    {
        return shown(path, features);
    }
    let file = h5::open(path)?;
    match hdf5_file::read(&file)? {
        Some(features) => shown(path, features),
        None => Ok(file),
    }
}

/// What was measured, cells × features.
struct Features {
    counts: Matrix,
    barcodes: Vec<String>,
    /// Symbols, which may repeat.
    names: Vec<String>,
    ids: Vec<String>,
    /// The type of each feature; empty where the format knows genes only.
    types: Vec<String>,
    /// The genome of each; empty where it is not said.
    genomes: Vec<String>,
}

impl Features {
    fn into_anndata(self) -> Result<AnnData> {
        let columns = [("gene_ids", &self.ids), ("feature_types", &self.types), ("genome", &self.genomes)];
        let mut var = DataFrame::new(names::unique(&self.names));
        for (name, values) in columns.into_iter().filter(|(_, values)| !values.is_empty()) {
            let column = if name == "gene_ids" { Column::text(values.clone()) } else { Column::categorical(values) };
            var.insert(name, column)?;
        }
        let all = AnnData::new(self.counts, DataFrame::new(self.barcodes), var)?;
        let mut by_type: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (feature, kind) in self.types.iter().enumerate() {
            by_type.entry(kind).or_default().push(feature);
        }
        if by_type.is_empty() {
            return Ok(all);
        }
        let genes = by_type.remove(GENES).unwrap_or_default();
        if genes.is_empty() {
            return Err(Error::NoGenes);
        }
        let mut adata = all.select_vars(&genes)?;
        for (kind, features) in by_type {
            let name = kind.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "_");
            adata.obsm.insert(name, Element::Frame(table(&all.select_vars(&features)?)?));
        }
        Ok(adata)
    }
}

/// A column for each feature: with a value for every cell, which the file need not account for.
fn table(features: &AnnData) -> Result<DataFrame> {
    let counts = features.matrix(None)?.to_csr()?;
    if counts.n_rows().saturating_mul(counts.n_cols()) > MOST_VALUES {
        let detail = format!(
            "{} features that are no genes, of {} cells: too many for a table",
            counts.n_cols(),
            counts.n_rows()
        );
        return Err(Error::Invalid { kind: "file of Cell Ranger", detail });
    }
    let mut frame = DataFrame::new(features.obs_names().to_vec());
    for (feature, name) in (0..).zip(features.var_names()) {
        let values = (0..counts.n_rows()).map(|cell| counts.value(cell, feature)).collect();
        frame.insert(name.clone(), Column::Plain(Values::F32(values)))?;
    }
    Ok(frame)
}

fn shown(path: &Path, features: Features) -> Result<File> {
    // Two files of one name would be one to HDF5.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("{} (read, {})", path.display(), NUMBER.fetch_add(1, Ordering::Relaxed));
    write::in_memory(&features.into_anndata()?, Path::new(&name), Compression::None)
}

/// Values of features that are no genes, a gibibyte of them: a thousand antibodies of a quarter of a million cells.
const MOST_VALUES: usize = 1 << 28;
/// How Cell Ranger calls genes.
const GENES: &str = "Gene Expression";
