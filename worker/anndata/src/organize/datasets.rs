//! An h5mu file whose modalities have different cells, as data sets: cells with the same modalities are one.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use super::Modality;
use crate::{AnnData, DataFrame, H5adFile, MuData, Result, names};

impl Modality {
    /// The modalities of an h5mu file, the one called `first` before the others. Data sets are in the order of their first cells.
    /// What the file says of the cells of all modalities together is added to the first modality of each.
    ///
    /// # Errors
    /// As [`MuData::read`]; [`Error::DuplicateCells`](crate::Error::DuplicateCells).
    pub fn all_of(path: impl AsRef<Path>, first: &str) -> Result<Vec<Self>> {
        let path = path.as_ref();
        let joint = H5adFile::open(path)?.obs().clone();
        let mut modalities: Vec<(String, AnnData)> = MuData::read(path)?.modalities.into_iter().collect();
        modalities.sort_by_key(|(name, _)| name != first);
        let mut has: HashMap<&String, Vec<bool>> = HashMap::new();
        let mut order: Vec<&String> = Vec::new();
        for (m, (_, adata)) in modalities.iter().enumerate() {
            names::check_unique_cells(adata.obs_names())?;
            for cell in adata.obs_names() {
                let known = has.entry(cell).or_insert_with(|| {
                    order.push(cell);
                    vec![false; modalities.len()]
                });
                known[m] = true;
            }
        }
        let mut datasets: Vec<&Vec<bool>> = Vec::new();
        order.iter().map(|cell| &has[cell]).for_each(|pattern| {
            if !datasets.contains(&pattern) {
                datasets.push(pattern);
            }
        });
        let of_modality = |(m, (name, adata)): (usize, &(String, AnnData))| {
            let of_dataset = |pattern: &&Vec<bool>| {
                if !pattern[m] {
                    return Ok(None);
                }
                let cells = adata.obs_names().iter().enumerate().filter(|(_, cell)| has[*cell] == **pattern);
                let mut part = adata.select_obs(&cells.map(|(row, _)| row).collect::<Vec<_>>())?;
                add_joint(&mut part.obs, &joint)?;
                Ok(Some(part))
            };
            let of_datasets = datasets.iter().map(of_dataset).collect::<Result<_>>()?;
            Ok(Self { name: name.clone(), of_datasets })
        };
        modalities.iter().enumerate().map(of_modality).collect()
    }
}

/// Adds columns of the joint annotations that are no copies of a modality's, which Python calls `MODALITY:COLUMN`.
fn add_joint(obs: &mut DataFrame, joint: &DataFrame) -> Result<()> {
    let position: BTreeMap<&String, usize> = joint.index().iter().zip(0..).collect();
    let rows: Option<Vec<usize>> = obs.index().iter().map(|cell| position.get(cell).copied()).collect();
    let Some(rows) = rows else { return Ok(()) };
    for (name, column) in joint.columns() {
        if !name.contains(':') && !obs.columns().iter().any(|(known, _)| known == name) {
            obs.insert(name.as_str(), column.select_rows(&rows))?;
        }
    }
    Ok(())
}
