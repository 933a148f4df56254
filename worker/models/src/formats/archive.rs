//! A model saved as one archive of `torch.save`: a dict that holds its tensors, as `state_dict`, and values beside them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use archipelago_common::{StateDict, fs};
use serde_json::Value as Json;

use super::torch::{TorchArchive, TorchWriter, read_tensors};
use crate::error::{Error, Result};

/// A saved model as values.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SavedArchive {
    /// Tensors by upstream's names.
    pub tensors: StateDict,
    /// What else the dict has, as far as it is data.
    pub values: BTreeMap<String, Json>,
}

impl SavedArchive {
    /// The model in a file, or in the `model.pt` of a folder, if one is there that was saved in this way.
    ///
    /// # Errors  [`Error::Import`] and [`Error::Pickle`] for such a file that cannot be read
    pub fn of(path: &Path) -> Result<Option<Self>> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let Ok(mut archive) = TorchArchive::open(&file) else { return Ok(None) };
        let Ok(pickle) = archive.pickle() else { return Ok(None) };
        let root = pickle.root();
        let (Some(tensors), Some(entries)) = (root.get(TENSORS), root.entries()) else { return Ok(None) };
        let tensors = read_tensors(&mut archive, tensors)?;
        let others = entries.into_iter().filter_map(|(key, value)| Some((key.as_str()?, value)));
        let values = others.filter(|(key, _)| *key != TENSORS);
        let values = values.filter_map(|(key, value)| Some((key.to_owned(), value.to_json()?))).collect();
        Ok(Some(Self { tensors, values }))
    }

    /// Writes the file `model.pt` of a folder, which is made where it is missing; where it went.
    ///
    /// # Errors  [`Error::Common`] if it cannot be written
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir(folder)?;
        let path = folder.join(FILE);
        self.write_file(&path)?;
        Ok(path)
    }

    /// Writes one file, of any name.
    ///
    /// # Errors  [`Error::Common`] if it cannot be written
    pub fn write_file(&self, path: &Path) -> Result<()> {
        let mut file = TorchWriter::default();
        file.dict(|file| {
            file.pickle.text(TENSORS);
            file.tensors(self.tensors.iter());
            for (name, value) in &self.values {
                file.pickle.text(name);
                file.pickle.json(value);
            }
        });
        Ok(fs::write_atomic(path, &file.finish())?)
    }

    /// An error about a saved model.
    pub fn refuse(detail: impl Into<String>) -> Error {
        Error::Import { file: PathBuf::from(FILE), detail: detail.into() }
    }
}

/// The key of the tensors.
const TENSORS: &str = "state_dict";
const FILE: &str = "model.pt";
