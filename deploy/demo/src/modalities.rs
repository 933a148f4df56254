//! Cells of several modalities for a model that takes some: real ones where they lie beside the checkout, else generated ones. The second
//! site has gene expression only.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use archipelago_anndata::{AnnData, Column, Compression, DataFrame, Element};
use archipelago_common::hash::Digest;

use crate::cells::Cells;

/// What a card calls the option of further modalities.
pub(crate) const OPTION: &str = "modalities";
/// What the proteins are called in the reference.
const FIELD: &str = "adt";
/// Proteins of generated cells.
pub(crate) const N_GENERATED: &str = "20";

/// Real cells of which the demonstration draws some: a row of DATA.md.
pub(crate) struct Real {
    file: PathBuf,
}

impl Real {
    /// Those beside the checkout, or where `ARCHIPELAGO_SHARED` says.
    pub(crate) fn find() -> Option<Self> {
        let shared = env::var_os("ARCHIPELAGO_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
        let file = shared.join("data/cite_cbmc_clr.h5ad");
        file.is_file().then_some(Self { file })
    }

    /// Writes a part of them as samples: two for the reference and one for each site, drawn by chance, which nothing tells apart but their
    /// names. Proteins, which are centred logarithms, begin at 0: a cell whose proteins add up to less would count as one without.
    pub(crate) fn write(&self, to: &Path, sites: &[String], seed: u64) -> Result<()> {
        let all = AnnData::read(&self.file)?;
        let mut order: Vec<(Digest, usize)> =
            (0..all.n_obs()).map(|row| (Digest::of(format!("{seed}/{row}").as_bytes()), row)).collect();
        order.sort_unstable();
        let mut rows: Vec<usize> = order.into_iter().map(|(_, row)| row).take(N_REAL).collect();
        let mut sample_of: Vec<(usize, &str)> = Vec::with_capacity(rows.len());
        let n_sites = rows.len() * 9 / 20 / sites.len().max(1);
        for site in sites {
            sample_of.extend(rows.drain(..n_sites).map(|row| (row, site.as_str())));
        }
        let second = rows.split_off(rows.len() * 7 / 11);
        sample_of.extend(rows.into_iter().map(|row| (row, "atlas-1")));
        sample_of.extend(second.into_iter().map(|row| (row, "atlas-2")));
        sample_of.sort_unstable();
        let (rows, samples): (Vec<usize>, Vec<&str>) = sample_of.into_iter().unzip();
        let mut some = all.select_obs(&rows)?;
        some.obs.insert("sample", Column::categorical(&samples))?;
        let shifted = shifted(some.obsm("protein_clr")?).context("the proteins of the real cells")?;
        some.obsm.insert("protein_clr".to_owned(), shifted);
        Ok(some.write(to, Compression::Gzip(4))?)
    }
}

/// A table whose columns begin at 0.
fn shifted(element: &Element) -> Result<Element> {
    let Element::Frame(frame) = element else { anyhow::bail!("they are {}, expected a table", element.kind()) };
    let mut out = DataFrame::new(frame.index().to_vec());
    for (name, column) in frame.columns() {
        let values = column.to_f64().with_context(|| format!("column `{name}` holds no numbers"))?;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        out.insert(name.as_str(), values.iter().map(|value| (value - least) as f32).collect::<Vec<f32>>())?;
    }
    Ok(Element::Frame(out))
}

/// Says where the proteins are, and that the second site has none.
pub(crate) fn place(cells: &mut Cells, is_real: bool) {
    let (key, losses) = if is_real { ("protein_clr", "nb,mse") } else { ("protein_expression", "nb,nb") };
    let place = format!("{FIELD}=obsm/{key}");
    cells.train = ["--modalities", FIELD, "--losses", losses, "--field", &place].map(str::to_owned).to_vec();
    if let Some(site) = cells.sites.get_mut(1) {
        site.fields = vec![(FIELD.to_owned(), "none".to_owned())];
    }
}

/// Cells drawn of the real ones.
const N_REAL: usize = 3_000;
