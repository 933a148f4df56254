//! The cells of the demonstration: one file for the reference, one for each site that holds its own batch and no other.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_analysis::Labels;
use archipelago_anndata::{AnnData, Compression};
use archipelago_common::ConditionKey;
use ndarray::Array2;

use crate::consortium::DATASET;

/// Where the cells lie and which batches they are from.
#[derive(Clone, Debug)]
pub struct Cells {
    /// Cells that the reference is trained on.
    pub reference: PathBuf,
    /// One query batch per site.
    pub sites: Vec<SiteCells>,
    /// Column of obs with the batch.
    pub batch_key: String,
    /// Column of obs with the cell type.
    pub labels_key: String,
    /// Layer with raw counts, if not X.
    pub layer: Option<String>,
    /// What `train` is told beside that.
    pub train: Vec<String>,
}

/// The cells of one site.
#[derive(Clone, Debug)]
pub struct SiteCells {
    /// The site's name in the consortium.
    pub site: String,
    /// The batch it holds.
    pub batch: String,
    /// Its file; nobody else reads it, except the demonstration itself to judge the mapping.
    pub file: PathBuf,
    /// Number of cells.
    pub n_cells: usize,
    /// Size of the file: the bytes that stay at the site.
    pub bytes: u64,
    /// Fields that are elsewhere than in the reference's cells, by their names, with their places.
    pub fields: Vec<(String, String)>,
}

/// Splits a data set into a reference file and one file per query batch, under `dir`.
pub fn split(
    source: &Path,
    dir: &Path,
    batch_key: &str,
    labels_key: &str,
    layer: Option<&str>,
    query: &[String],
) -> Result<Cells> {
    let all = AnnData::read(source)?;
    let batches = column(&all, batch_key)?;
    column(&all, labels_key)?;
    for batch in query {
        ensure!(
            batches.contains(batch),
            "`{}` has no batch `{batch}` in obs column `{batch_key}`; it has {}",
            source.display(),
            distinct(&batches).join(", ")
        );
    }
    let reference_batches: Vec<String> = distinct(&batches).into_iter().filter(|b| !query.contains(b)).collect();
    ensure!(!reference_batches.is_empty(), "every batch is a query batch, so none is left for the reference");
    let write = |name: &str, keep: &dyn Fn(&str) -> bool| -> Result<(PathBuf, usize)> {
        let rows: Vec<usize> = (0..batches.len()).filter(|&row| keep(&batches[row])).collect();
        let file = dir.join(name).join("cells.h5ad");
        std::fs::create_dir_all(dir.join(name))?;
        all.select_obs(&rows)?.write(&file, Compression::Gzip(4))?;
        Ok((file, rows.len()))
    };
    let (reference, _) = write("reference", &|batch| reference_batches.iter().any(|b| b == batch))?;
    let mut sites = Vec::new();
    for batch in query {
        let site = site_name(batch, sites.len());
        let (file, n_cells) = write(&site, &|b| b == batch)?;
        let bytes = std::fs::metadata(&file)?.len();
        sites.push(SiteCells { site, batch: batch.clone(), file, n_cells, bytes, fields: vec![] });
    }
    Ok(Cells {
        reference,
        sites,
        batch_key: batch_key.to_owned(),
        labels_key: labels_key.to_owned(),
        layer: layer.map(str::to_owned),
        train: vec![],
    })
}

/// Names for sites: the batch made into a host-like name, with a number where that would be ambiguous or empty.
fn site_name(batch: &str, n_before: usize) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = batch.chars().take(40).map(clean).collect();
    format!("site-{}-{}", n_before + 1, name.trim_matches('-')).trim_end_matches('-').to_owned()
}

/// The distinct values of a column, sorted.
pub fn distinct(values: &[String]) -> Vec<String> {
    let mut names = values.to_vec();
    names.sort();
    names.dedup();
    names
}

/// A column of obs as text; a cell without a value is refused, because every figure would silently leave it out.
pub fn column(adata: &AnnData, key: &str) -> Result<Vec<String>> {
    let values = adata.obs.column(key)?.to_strings();
    let missing = values.iter().filter(|v| v.is_none()).count();
    if missing > 0 {
        bail!("obs column `{key}` has no value for {missing} cells");
    }
    Ok(values.into_iter().flatten().collect())
}

/// An embedding with what is known about its cells.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[n_cells, n_latent]`.
    pub latent: Array2<f32>,
    /// Cell types.
    pub labels: Vec<String>,
    /// Batches.
    pub batches: Vec<String>,
}

impl SiteCells {
    /// The places of its own fields, as flags of a command.
    pub(crate) fn field_flags(&self) -> Vec<String> {
        self.fields.iter().flat_map(|(name, place)| ["--field".to_owned(), format!("{name}={place}")]).collect()
    }

    /// The same as lines of its configuration.
    pub(crate) fn field_lines(&self) -> String {
        self.fields.iter().map(|(name, place)| format!("{name} = {place:?}\n")).collect()
    }

    /// The key of the one condition that the site contributes.
    pub fn condition(&self) -> Result<ConditionKey> {
        Ok(ConditionKey::new(self.site.parse()?, DATASET.parse()?, self.batch.clone())?)
    }
}

impl Embedding {
    /// Reads obsm `key` of a file.
    pub fn read(file: &Path, key: &str, batch_key: &str, labels_key: &str) -> Result<Self> {
        let adata = AnnData::read(file)?;
        let table = adata.obsm(key)?.to_table(key)?;
        let latent = Array2::from_shape_vec((table.n_rows, table.n_cols), table.values)
            .with_context(|| format!("obsm `{key}` of `{}`", file.display()))?;
        let labels = if labels_key.is_empty() {
            vec![UNLABELLED.to_owned(); latent.nrows()]
        } else {
            column(&adata, labels_key)?
        };
        Ok(Self { latent, labels, batches: column(&adata, batch_key)? })
    }

    /// This embedding with the cells of another after its own.
    pub fn followed_by(mut self, other: Self) -> Result<Self> {
        self.latent.append(ndarray::Axis(0), other.latent.view())?;
        self.labels.extend(other.labels);
        self.batches.extend(other.batches);
        Ok(self)
    }

    /// Whether both hold the same bits.
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |e: &Self| e.latent.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        self.latent.dim() == other.latent.dim() && bits(self) == bits(other)
    }

    /// Cell types as codes and names.
    pub fn label_codes(&self) -> Labels {
        Labels::from_names(&self.labels)
    }

    /// Batches as codes and names.
    pub fn batch_codes(&self) -> Labels {
        Labels::from_names(&self.batches)
    }
}

/// The label of cells whose file names none.
const UNLABELLED: &str = "cell";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn site_names_are_valid_and_distinct() {
        let names: Vec<_> = ["10x_5p", "10X 5'", "é", ""].iter().enumerate().map(|(i, b)| site_name(b, i)).collect();
        assert_eq!(names, ["site-1-10x-5p", "site-2-10x-5", "site-3", "site-4"]);
        for name in names {
            name.parse::<archipelago_common::SiteId>().unwrap();
        }
    }
}
