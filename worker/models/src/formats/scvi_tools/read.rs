//! Reads a saved model in any of the layouts there were.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Seek},
    path::{Path, PathBuf},
};

use archipelago_common::{StateDict, fs, limits};

use super::{Arguments, Indices, SavedModel, SavedRegistry, ToolsVersion, Understood, VarNames, legacy, state};
use crate::{
    error::{Error, Result},
    formats::{
        pickle::{self, Scalar, Value},
        torch::{TorchArchive, read_tensors},
    },
};

/// Reads a saved model: its folder, or its `model.pt` (before 0.15: its `model_params.pt`). `prefix` is what the files'
/// names begin with, as given when it was saved; usually nothing.
///
/// # Errors  [`Error::Import`] saying what is missing or wrong, [`Error::Pickle`] saying what was refused and where,
/// [`Error::Common`] if a file cannot be opened
pub fn read(path: &Path, prefix: &str) -> Result<SavedModel> {
    let (folder, prefix) = locate(path, prefix)?;
    let file = |name: &str| folder.join(format!("{prefix}{name}"));
    if file(MODEL).is_file() {
        read_model(&mut TorchArchive::open(&file(MODEL))?)
    } else if file(PARAMS).is_file() {
        read_three_files(&file(PARAMS), &file(VAR_NAMES), &file(ATTRIBUTES))
    } else {
        let detail = format!("there is neither `{prefix}{MODEL}` nor `{prefix}{PARAMS}`");
        Err(Error::Import { file: folder, detail })
    }
}

/// Reads the bytes of a `model.pt`.
///
/// # Errors  as [`read`]
pub fn from_bytes(bytes: &[u8]) -> Result<SavedModel> {
    read_model(&mut TorchArchive::new(Cursor::new(bytes), Path::new(MODEL))?)
}

/// The folder of a saved model and what its files' names begin with.
fn locate(path: &Path, prefix: &str) -> Result<(PathBuf, String)> {
    if !path.is_file() {
        return Ok((path.to_owned(), prefix.to_owned()));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let found = [PARAMS, MODEL].iter().find_map(|end| name.strip_suffix(end));
    let Some(found) = found else {
        let detail = format!("expected a folder, or a file whose name ends in `{MODEL}` or `{PARAMS}`");
        return Err(Error::Import { file: path.to_owned(), detail });
    };
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), found.to_owned()))
}

/// One archive: `{model_state_dict, var_names, attr_dict}`.
fn read_model<R: Read + Seek>(archive: &mut TorchArchive<R>) -> Result<SavedModel> {
    let pickle = archive.pickle()?;
    let (tensors, var_names, attributes) = parts(pickle.root()).map_err(|detail| archive.refuse(detail))?;
    let state_dict = read_tensors(archive, tensors)?;
    Ok(attributes.into_model(state_dict, var_names))
}

/// The parts of the saved dict: tensors, which the archive has, names and attributes.
fn parts(root: Value<'_>) -> Understood<(Value<'_>, VarNames, Attributes)> {
    let get = |key: &str| root.get(key).ok_or_else(|| format!("the saved dict has no `{key}`"));
    let (tensors, names) = (get("model_state_dict")?, var_names(get("var_names")?)?);
    Ok((tensors, names, Attributes::read(get("attr_dict")?)?))
}

/// Whether a saved dict, or the attributes of one before 0.15, is understood but for its tensors.
#[cfg(test)]
pub(in crate::formats) fn understood(root: Value<'_>) -> bool {
    parts(root).is_ok() || Attributes::read(root).is_ok()
}

/// The layout before 0.15: tensors, names and attributes in files of their own.
fn read_three_files(params: &Path, names: &Path, attributes: &Path) -> Result<SavedModel> {
    let mut archive = TorchArchive::open(params)?;
    let tensors = archive.pickle()?;
    let state_dict = read_tensors(&mut archive, tensors.root())?;

    let bytes = fs::read_bounded(attributes, limits::PICKLE_BYTES as u64)?;
    let pickle = pickle::parse(&bytes).map_err(|source| Error::Pickle { file: attributes.to_owned(), source })?;
    let read = Attributes::read(pickle.root());
    let read = read.map_err(|detail| Error::Import { file: attributes.to_owned(), detail })?;

    let text = fs::read_bounded(names, NAMES_BYTES)?;
    let text = String::from_utf8(text)
        .map_err(|_| Error::Import { file: names.to_owned(), detail: "the names are not UTF-8".to_owned() })?;
    let names = text.lines().map(|line| line.trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect();
    Ok(read.into_model(state_dict, VarNames::Flat(names)))
}

fn var_names(value: Value<'_>) -> Understood<VarNames> {
    let Some(lists) = value.entries() else {
        return state::texts("var_names", value).map(VarNames::Flat);
    };
    let list = |(modality, names): (Value<'_>, Value<'_>)| {
        let modality = modality.as_str().ok_or("a modality's name is not text")?;
        Ok((modality.to_owned(), state::texts("var_names", names)?))
    };
    lists.into_iter().map(list).collect::<Understood<_>>().map(VarNames::ByModality)
}

/// What `attr_dict` says.
struct Attributes {
    version: ToolsVersion,
    model_name: Option<String>,
    init_params: Arguments,
    registry: SavedRegistry,
    unlabeled_category: Option<Scalar>,
    is_trained: bool,
    indices: Indices,
}

impl Attributes {
    fn read(value: Value<'_>) -> Understood<Self> {
        let get = |key: &str| value.get(key).filter(|value| !value.is_none());
        let (registry, saved) = match (get("registry_"), get("scvi_setup_dict_")) {
            (Some(saved), _) => (state::read(saved)?, saved),
            (None, Some(saved)) => (legacy::read(saved)?, saved),
            (None, None) => return Err("the attributes have neither `registry_` nor `scvi_setup_dict_`".to_owned()),
        };
        let version = saved.get("scvi_version").and_then(Value::as_str).ok_or("no `scvi_version` was saved")?;
        let unlabeled =
            || saved.get("field_registries")?.get("labels")?.get("state_registry")?.get("unlabeled_category");
        Ok(Self {
            version: version.parse()?,
            model_name: saved.get("model_name").and_then(Value::as_str).map(str::to_owned),
            init_params: Arguments::read(get("init_params_").ok_or("no `init_params_` were saved")?)?,
            registry,
            unlabeled_category: get("unlabeled_category_").or_else(unlabeled).and_then(Value::scalar),
            is_trained: get("is_trained_").and_then(Value::as_bool).unwrap_or(false),
            indices: Indices {
                train: state::indices("train_indices_", get("train_indices_"))?,
                validation: state::indices("validation_indices_", get("validation_indices_"))?,
                test: state::indices("test_indices_", get("test_indices_"))?,
            },
        })
    }

    fn into_model(self, state_dict: StateDict, var_names: VarNames) -> SavedModel {
        SavedModel {
            version: self.version,
            model_name: self.model_name,
            state_dict,
            var_names,
            init_params: self.init_params,
            chosen: BTreeMap::new(),
            registry: self.registry,
            unlabeled_category: self.unlabeled_category,
            is_trained: self.is_trained,
            indices: self.indices,
        }
    }
}

/// Everything in one archive, from 0.15.
pub(super) const MODEL: &str = "model.pt";
/// The tensors, before 0.15.
const PARAMS: &str = "model_params.pt";
/// The names of the variables, before 0.15.
const VAR_NAMES: &str = "var_names.csv";
/// Everything else, before 0.15.
const ATTRIBUTES: &str = "attr.pkl";
/// Bytes of a file of names: a million genes of 64 bytes.
const NAMES_BYTES: u64 = 64 << 20;
