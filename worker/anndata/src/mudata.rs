//! Several modalities of the same cells in one file, as Python's `MuData`.

use std::{collections::BTreeMap, path::Path};

use crate::{AnnData, Compression, DataFrame, H5adFile, Result, names, write};

/// Modalities by name, such as `rna` and `prot`: each a data set with its own cells, in its own order.
///
/// What Python's `MuData` keeps beside its modalities (joint annotations, embeddings) is left out: models look at modalities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MuData {
    /// The modalities.
    pub modalities: BTreeMap<String, AnnData>,
}

impl MuData {
    /// Reads all modalities of an h5mu file.
    ///
    /// # Errors
    /// As [`AnnData::read`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let names = H5adFile::open(path)?.modalities().to_vec();
        let read = |name: String| H5adFile::open_modality(path, &name)?.read_all().map(|adata| (name, adata));
        Ok(Self { modalities: names.into_iter().map(read).collect::<Result<_>>()? })
    }

    /// Writes an h5mu file; it appears whole or not at all.
    ///
    /// # Errors
    /// As [`AnnData::write`]; [`Error::DuplicateCells`](crate::Error::DuplicateCells) where a modality names a cell twice.
    pub fn write(&self, path: impl AsRef<Path>, compression: Compression) -> Result<()> {
        for adata in self.modalities.values() {
            adata.check()?;
            // Cells are found by name in the other modalities.
            names::check_unique_cells(adata.obs_names())?;
        }
        write::write_modalities(self, path.as_ref(), compression)
    }

    /// Names of all cells: those of the first modality, then those that only later ones have. What all modalities say alike of the
    /// same cells is said of them here too.
    pub(crate) fn obs(&self) -> DataFrame {
        let mut frames = self.modalities.values().map(|adata| &adata.obs);
        if let Some(first) = frames.next().filter(|_| self.modalities.len() > 1)
            && frames.all(|frame| frame == first)
        {
            return first.clone();
        }
        joint(self.modalities.values().map(AnnData::obs_names))
    }

    /// Names of all variables, modality after modality.
    pub(crate) fn var(&self) -> DataFrame {
        joint(self.modalities.values().map(AnnData::var_names))
    }
}

fn joint<'a>(lists: impl Iterator<Item = &'a [String]>) -> DataFrame {
    let mut seen = std::collections::BTreeSet::new();
    DataFrame::new(lists.flatten().filter(|name| seen.insert(*name)).cloned())
}
