//! The three files of a saved model.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use archipelago_common::{StateDict, fs, limits};
use serde_json::Value as Json;

use crate::{
    error::{Error, Result},
    formats::{
        pickle::{self, Pickle, PickleWriter},
        torch::{TorchArchive, TorchWriter, read_tensors},
    },
};

/// A saved model as values.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedFolder {
    /// Tensors by upstream's names.
    pub tensors: StateDict,
    /// The constructor's arguments and what was learnt beside tensors, by upstream's names.
    pub attributes: BTreeMap<String, Json>,
    /// Gene names, in the order of the tensors.
    pub genes: Vec<String>,
}

/// Whether a folder is one that a native model of scArches saved, told by what its attributes say.
///
/// # Errors  [`Error::Pickle`] for attributes that cannot be read
pub fn is_one(folder: &Path) -> Result<bool> {
    let file = folder.join(ATTRIBUTES);
    if !(file.is_file() && folder.join(PARAMS).is_file()) {
        return Ok(false);
    }
    let pickle = pickle_of(&file)?;
    let root = pickle.root();
    Ok(root.get(IS_TRAINED).is_some() && root.get("registry_").is_none() && root.get("scvi_setup_dict_").is_none())
}

impl SavedFolder {
    /// Reads a folder.
    ///
    /// # Errors  [`Error::Import`] saying what is missing or wrong, [`Error::Pickle`] saying what was refused and where,
    /// [`Error::Common`] if a file cannot be opened
    pub fn read(folder: &Path) -> Result<Self> {
        let mut archive = TorchArchive::open(&folder.join(PARAMS))?;
        let pickle = archive.pickle()?;
        let tensors = read_tensors(&mut archive, pickle.root())?;
        let attributes = folder.join(ATTRIBUTES);
        Ok(Self { tensors, attributes: dict_of(&attributes)?, genes: read_genes(&folder.join(VAR_NAMES))? })
    }

    /// Writes a folder, which is made where it is missing.
    ///
    /// # Errors  [`Error::Import`] for a gene name that upstream could not read; [`Error::Common`] if a file cannot be written
    pub fn write(&self, folder: &Path) -> Result<()> {
        let names = folder.join(VAR_NAMES);
        if let Some(name) = self.genes.iter().find(|name| name.contains(['#', ',', '\n', '\r']) || name.is_empty()) {
            let detail = format!("scArches cannot read back the gene name `{name}`");
            return Err(Error::Import { file: names, detail });
        }
        fs::create_dir(folder)?;
        let mut params = TorchWriter::default();
        params.tensors(self.tensors.iter());
        fs::write_atomic(&folder.join(PARAMS), &params.finish())?;
        fs::write_atomic(&folder.join(ATTRIBUTES), &pickled(&self.attributes))?;
        let lines: String = self.genes.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
        Ok(fs::write_atomic(&names, lines.as_bytes())?)
    }

    /// An error about the attributes.
    pub fn refuse(detail: impl Into<String>) -> Error {
        Error::Import { file: PathBuf::from(ATTRIBUTES), detail: detail.into() }
    }
}

fn read_genes(file: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(fs::read_bounded(file, NAMES_BYTES)?)
        .map_err(|_| Error::Import { file: file.to_owned(), detail: "the names are not UTF-8".to_owned() })?;
    Ok(text.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// A pickled dict of plain values.
pub(super) fn dict_of(file: &Path) -> Result<BTreeMap<String, Json>> {
    match pickle_of(file)?.root().to_json() {
        Some(Json::Object(entries)) => Ok(entries.into_iter().collect()),
        _ => Err(Error::Import { file: file.to_owned(), detail: "it is not a dict of attributes".to_owned() }),
    }
}

/// A dict as a pickle.
pub(super) fn pickled(entries: &BTreeMap<String, Json>) -> Vec<u8> {
    let mut pickle = PickleWriter::default();
    pickle.json(&entries.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
    pickle.finish()
}

fn pickle_of(file: &Path) -> Result<Pickle> {
    let bytes = fs::read_bounded(file, limits::PICKLE_BYTES as u64)?;
    pickle::parse(&bytes).map_err(|source| Error::Pickle { file: file.to_owned(), source })
}

/// The tensors.
const PARAMS: &str = "model_params.pt";
/// Everything else.
const ATTRIBUTES: &str = "attr.pkl";
/// The names of the genes.
const VAR_NAMES: &str = "var_names.csv";
/// An attribute that every native model has.
const IS_TRAINED: &str = "is_trained_";
/// Bytes of a file of names: a million genes of 64 bytes.
const NAMES_BYTES: u64 = 64 << 20;
