//! The three files of a saved model.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use archipelago_common::{DType, StateDict, Tensor, fs, limits};
use serde_json::{Value as Json, json};

use crate::{
    error::{Error, Result},
    formats::{
        pickle::{self, CLASS, Pickle, PickleWriter, TENSOR, Value},
        torch::{TorchArchive, TorchWriter, is_tensor, read_embedded, read_tensors},
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
    /// The keys of attributes that are dicts, in the order in which they were set: that of codes.
    pub orders: BTreeMap<String, Vec<String>>,
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
    /// A folder of these; keys of dicts are in order of their names, as they are written.
    pub fn new(tensors: StateDict, attributes: BTreeMap<String, Json>, genes: Vec<String>) -> Self {
        // What stands for an object of another kind is no dict.
        let is_dict = |keys: &Vec<String>| keys.len() != 1 || ![CLASS, TENSOR].contains(&keys[0].as_str());
        let keys = |(name, value): (&String, &Json)| {
            let keys: Vec<String> = value.as_object()?.keys().cloned().collect();
            is_dict(&keys).then(|| (name.clone(), keys))
        };
        let orders = attributes.iter().filter_map(keys).collect();
        Self { tensors, attributes, genes, orders }
    }

    /// Reads a folder.
    ///
    /// # Errors  [`Error::Import`] saying what is missing or wrong, [`Error::Pickle`] saying what was refused and where,
    /// [`Error::Common`] if a file cannot be opened
    pub fn read(folder: &Path) -> Result<Self> {
        let mut archive = TorchArchive::open(&folder.join(PARAMS))?;
        let pickle = archive.pickle()?;
        let tensors = read_tensors(&mut archive, pickle.root())?;
        let file = folder.join(ATTRIBUTES);
        let pickle = pickle_of(&file)?;
        let (mut attributes, mut orders) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in entries_of(pickle.root(), &file)? {
            let read = attribute(value);
            let refuse = || Error::Import { file: file.clone(), detail: format!("`{name}` cannot be read") };
            attributes.insert(name.clone(), read.ok_or_else(refuse)?);
            if let Some(entries) = value.entries().filter(|_| !is_tensor(value)) {
                let keys = entries.into_iter().filter_map(|(key, _)| key.as_str().map(str::to_owned));
                orders.insert(name, keys.collect());
            }
        }
        Ok(Self { tensors, attributes, genes: read_genes(&folder.join(VAR_NAMES))?, orders })
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

/// An attribute as JSON: tensors and data frames keep their kinds ([`TENSOR`], [`CLASS`]), a range is a list.
fn attribute(value: Value<'_>) -> Option<Json> {
    if let Some(call) = value.call() {
        match (call.class, call.arguments.as_slice()) {
            ("builtins.range" | "__builtin__.xrange", [start, stop, step]) => {
                return range(start.as_int()?, stop.as_int()?, step.as_int()?);
            }
            ("torch.tensor" | "torch._utils._rebuild_tensor_v2", _) => {
                return read_embedded(value)
                    .filter(|tensor| tensor.dtype() == DType::F32)
                    .map(|tensor| json_of(&tensor));
            }
            _ => {}
        }
    }
    match value.entries() {
        Some(entries) => {
            let entry = |(key, value): (Value<'_>, Value<'_>)| {
                let key =
                    key.as_str().map_or_else(|| key.scalar().map(|key| key.to_string()), |key| Some(key.to_owned()));
                Some((key?, attribute(value)?))
            };
            entries.into_iter().map(entry).collect::<Option<_>>().map(Json::Object)
        }
        None => value.to_json(),
    }
}

fn range(start: i64, stop: i64, step: i64) -> Option<Json> {
    let n = if step == 0 { return None } else { (stop.checked_sub(start)?).checked_add(step - step.signum())? / step };
    (n <= MOST_INDICES).then(|| (0..n.max(0)).map(|i| Json::from(start + i * step)).collect())
}

/// A tensor of floats as JSON keeps it: lists of lists under [`TENSOR`].
///
/// # Panics
/// If it holds other numbers than 32-bit floats.
pub fn json_of(tensor: &Tensor) -> Json {
    fn nested(shape: &[usize], values: &[f32]) -> Json {
        match shape.split_first() {
            None => json!(values[0]),
            Some((&n, rest)) => {
                let width: usize = rest.iter().product();
                (0..n).map(|i| nested(rest, &values[i * width..(i + 1) * width])).collect()
            }
        }
    }
    json!({ TENSOR: nested(tensor.shape(), &tensor.to_f32(TENSOR).expect("prototypes are 32-bit floats")) })
}

/// The tensor that [`json_of`] made JSON of.
pub fn tensor_of(value: &Json) -> Option<Tensor> {
    fn flatten(value: &Json, shape: &mut Vec<usize>, depth: usize, values: &mut Vec<f32>) -> Option<()> {
        match value {
            Json::Array(items) => {
                if shape.len() == depth {
                    shape.push(items.len());
                }
                if shape[depth] != items.len() {
                    return None;
                }
                items.iter().try_for_each(|item| flatten(item, shape, depth + 1, values))
            }
            // A number that JSON does not have is null.
            number => {
                values.push(number.as_f64().unwrap_or(f64::NAN) as f32);
                Some(())
            }
        }
    }
    let (mut shape, mut values) = (Vec::new(), Vec::new());
    flatten(value.get(TENSOR)?, &mut shape, 0, &mut values)?;
    Some(Tensor::from_f32(&shape, &values))
}

/// A pickled dict of plain values.
pub(super) fn dict_of(file: &Path) -> Result<BTreeMap<String, Json>> {
    match pickle_of(file)?.root().to_json() {
        Some(Json::Object(entries)) => Ok(entries.into_iter().collect()),
        _ => Err(no_dict(file)),
    }
}

fn entries_of<'a>(root: Value<'a>, file: &Path) -> Result<Vec<(String, Value<'a>)>> {
    let entries = root.entries().ok_or_else(|| no_dict(file))?;
    let named = |(key, value): (Value<'a>, Value<'a>)| Some((key.as_str()?.to_owned(), value));
    entries.into_iter().map(named).collect::<Option<_>>().ok_or_else(|| no_dict(file))
}

fn no_dict(file: &Path) -> Error {
    Error::Import { file: file.to_owned(), detail: "it is not a dict of attributes".to_owned() }
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

/// Indices of as many cells as no data set has.
const MOST_INDICES: i64 = 1 << 26;
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
