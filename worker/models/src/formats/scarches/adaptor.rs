//! Adaptors: the columns of one condition, as two files that scArches' users hand each other.

use std::{collections::BTreeMap, path::Path};

use archipelago_common::{StateDict, fs};
use serde_json::{Value as Json, json};

use super::folder::{dict_of, pickled};
use crate::{
    error::{Error, Result},
    formats::torch::{TorchArchive, TorchWriter, read_tensors},
};

/// One condition's columns under upstream's names, and what they fit.
#[derive(Clone, PartialEq, Debug)]
pub struct Adaptor {
    /// The condition's name.
    pub condition: String,
    /// Columns by the name of the tensor they belong to, `[rows, 1]`.
    pub columns: StateDict,
    /// What must be equal in the model they are attached to, and the gene names under [`Self::GENES`].
    pub model: BTreeMap<String, Json>,
}

impl Adaptor {
    /// Where the gene names stand among what an adaptor says of its model.
    pub const GENES: &str = "varnames";

    /// Whether a folder holds one.
    pub fn is_one(folder: &Path) -> bool {
        folder.join(COLUMNS).is_file() && folder.join(MODEL).is_file()
    }

    /// Reads a folder.
    ///
    /// # Errors  [`Error::Import`] saying what is missing or wrong, [`Error::Pickle`] saying what was refused and where,
    /// [`Error::Common`] if a file cannot be opened
    pub fn read(folder: &Path) -> Result<Self> {
        let mut archive = TorchArchive::open(&folder.join(COLUMNS))?;
        let pickle = archive.pickle()?;
        let columns = read_tensors(&mut archive, pickle.root())?;
        let file = folder.join(MODEL);
        let mut entries = dict_of(&file)?;
        let refuse = |what| Error::Import { file: file.clone(), detail: format!("there is no `{what}`") };
        let condition = entries.remove("condition").and_then(|name| name.as_str().map(str::to_owned));
        let condition = condition.ok_or_else(|| refuse("condition"))?;
        match entries.remove("model_params") {
            Some(Json::Object(model)) => Ok(Self { condition, columns, model: model.into_iter().collect() }),
            _ => Err(refuse("model_params")),
        }
    }

    /// Writes a folder, which is made where it is missing.
    ///
    /// # Errors  [`Error::Common`] if a file cannot be written
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir(folder)?;
        let mut file = TorchWriter::default();
        file.dict(|file| {
            for (name, column) in self.columns.iter() {
                file.pickle.text(name);
                file.tensor(column);
            }
        });
        fs::write_atomic(&folder.join(COLUMNS), &file.finish())?;
        let entries = [("condition".to_owned(), json!(self.condition)), ("model_params".to_owned(), json!(self.model))];
        Ok(fs::write_atomic(&folder.join(MODEL), &pickled(&entries.into()))?)
    }
}

/// The columns.
const COLUMNS: &str = "cond_params.pt";
/// The condition and what its columns fit.
const MODEL: &str = "adapt_params.pkl";
