//! Named tensors as bytes, and the safetensors files they travel in.
//!
//! The file written for a given state dict and metadata text is always the same, byte for byte, so a file's digest
//! names its content.

use std::{borrow::Cow, collections::BTreeMap, fmt, io::Read};

use safetensors::tensor::{Dtype as FileType, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    hash::{Digest, FieldHasher},
    limits,
};

/// Element type of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum DType {
    /// 32-bit float: weights.
    F32,
    /// 64-bit float: double-precision fixtures.
    F64,
    /// 64-bit integer: counters and codes.
    I64,
    /// 32-bit integer.
    I32,
    /// Byte.
    U8,
    /// One byte per truth value.
    Bool,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::U8 | Self::Bool => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One tensor: little-endian, row-major bytes whose number fits shape and type.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor from its parts; `name` is for the error.
    ///
    /// # Errors  [`Error::TensorSize`] if the bytes do not fit shape and type
    pub fn new(name: &str, dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        let expected = shape.iter().try_fold(dtype.size(), |size, &n| size.checked_mul(n));
        if expected == Some(bytes.len()) {
            return Ok(Self { dtype, shape, bytes });
        }
        let expected = expected.map_or(u64::MAX, |size| size as u64);
        Err(Error::TensorSize { name: name.to_owned(), shape, dtype, expected, found: bytes.len() as u64 })
    }

    /// A 32-bit float tensor. Panics if `values` do not fit `shape`: that is the caller's bug.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values fit the shape");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: DType::F32, shape: shape.to_vec(), bytes }
    }

    /// A 64-bit integer tensor. Panics if `values` do not fit `shape`: that is the caller's bug.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values fit the shape");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: DType::I64, shape: shape.to_vec(), bytes }
    }

    /// A 64-bit float tensor. Panics if `values` do not fit `shape`: that is the caller's bug.
    pub fn from_f64(shape: &[usize], values: &[f64]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values fit the shape");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: DType::F64, shape: shape.to_vec(), bytes }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Little-endian, row-major bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Type and shape.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec { dtype: self.dtype, shape: self.shape.clone() }
    }

    /// The values of a 32-bit float tensor; `name` is for the error.
    ///
    /// # Errors  [`Error::TensorType`]
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.expect(name, DType::F32)?;
        Ok(self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The values of a 64-bit integer tensor; `name` is for the error.
    ///
    /// # Errors  [`Error::TensorType`]
    pub fn to_i64(&self, name: &str) -> Result<Vec<i64>> {
        self.expect(name, DType::I64)?;
        let le = |b: &[u8]| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        Ok(self.bytes.chunks_exact(8).map(le).collect())
    }

    /// The values of a tensor of any type, as numbers: what a bound is checked on. Integers beyond 2⁵³ round.
    pub fn numbers(&self) -> Box<dyn Iterator<Item = f64> + '_> {
        fn each<const N: usize>(bytes: &[u8], number: fn([u8; N]) -> f64) -> impl Iterator<Item = f64> {
            bytes.as_chunks::<N>().0.iter().map(move |&bytes| number(bytes))
        }
        match self.dtype {
            DType::F32 => Box::new(each(&self.bytes, |b| f64::from(f32::from_le_bytes(b)))),
            DType::F64 => Box::new(each(&self.bytes, f64::from_le_bytes)),
            DType::I64 => Box::new(each(&self.bytes, |b| i64::from_le_bytes(b) as f64)),
            DType::I32 => Box::new(each(&self.bytes, |b| f64::from(i32::from_le_bytes(b)))),
            DType::U8 | DType::Bool => Box::new(each(&self.bytes, |[b]| f64::from(b))),
        }
    }

    fn expect(&self, name: &str, expected: DType) -> Result<()> {
        if self.dtype == expected {
            Ok(())
        } else {
            Err(Error::TensorType { name: name.to_owned(), found: self.dtype, expected })
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// What a tensor must look like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Tensors by name, in name order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StateDict(BTreeMap<String, Tensor>);

impl StateDict {
    /// An empty state dict.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a tensor and returns the one it replaces.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) -> Option<Tensor> {
        self.0.insert(name.into(), tensor)
    }

    /// Removes a tensor.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    /// The tensor of this name, if present.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// The tensor of this name; `what` names the state dict in the error.
    ///
    /// # Errors  [`Error::MissingTensor`]
    pub fn require(&self, what: &str, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| Error::MissingTensor { what: what.to_owned(), name: name.to_owned() })
    }

    /// Names and tensors in name order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Digest of names, types, shapes and bytes; independent of any file format.
    pub fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new("archipelago/state-dict/1");
        for (name, tensor) in &self.0 {
            hasher.field(name.as_bytes()).field(tensor.spec().to_string().as_bytes()).field(&tensor.bytes);
        }
        hasher.finish()
    }

    /// The safetensors file of these tensors, with one text under the metadata key `archipelago`.
    pub fn to_safetensors(&self, metadata: Option<&str>) -> Vec<u8> {
        // One key only: the order of several would depend on a hash map.
        let metadata = metadata.map(|text| [(METADATA_KEY.to_owned(), text.to_owned())].into_iter().collect());
        safetensors::serialize(&self.0, metadata).expect("tensors whose sizes were checked serialize")
    }

    /// Reads a safetensors file and the text under its metadata key `archipelago`; `what` names it in errors.
    ///
    /// # Errors  [`Error::Decode`], [`Error::TooLarge`]
    pub fn from_safetensors(what: &'static str, bytes: &[u8]) -> Result<(Self, Option<String>)> {
        let decode = |e: safetensors::SafeTensorError| Error::Decode { what, detail: e.to_string() };
        check_header_size(what, bytes)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(decode)?;
        let metadata = header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).cloned();
        let file = SafeTensors::deserialize(bytes).map_err(decode)?;
        if file.len() > limits::TENSORS {
            let (found, limit) = (file.len() as u64, limits::TENSORS as u64);
            return Err(Error::TooLarge { what: what.to_owned(), found, limit, unit: "tensors" });
        }
        let mut tensors = Self::new();
        for (name, view) in file.tensors() {
            let dtype = from_file_type(what, &name, view.dtype())?;
            let tensor = Tensor::new(&name, dtype, view.shape().to_vec(), view.data().to_vec())?;
            tensors.insert(name, tensor);
        }
        Ok((tensors, metadata))
    }
}

impl FromIterator<(String, Tensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl fmt::Debug for StateDict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl View for &Tensor {
    fn dtype(&self) -> FileType {
        match self.dtype {
            DType::F32 => FileType::F32,
            DType::F64 => FileType::F64,
            DType::I64 => FileType::I64,
            DType::I32 => FileType::I32,
            DType::U8 => FileType::U8,
            DType::Bool => FileType::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Reads the text under the metadata key `archipelago` from the start of a safetensors file, and nothing after its header.
///
/// # Errors  [`Error::Decode`], [`Error::TooLarge`]
pub(crate) fn read_metadata(what: &'static str, file: &mut impl Read) -> Result<Option<String>> {
    let decode = |detail: String| Error::Decode { what, detail };
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| decode(e.to_string()))?;
    check_header_size(what, &length)?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length)).read_to_end(&mut header).map_err(|e| decode(e.to_string()))?;
    // The library's own reader wants the tensors' bytes as well; the header alone is a JSON object.
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__", default)]
        metadata: BTreeMap<String, String>,
    }
    let header: Header = serde_json::from_slice(&header).map_err(|e| decode(e.to_string()))?;
    Ok(header.metadata.get(METADATA_KEY).cloned())
}

/// The one metadata key this project uses in safetensors files.
const METADATA_KEY: &str = "archipelago";

// The library would allocate for a header of any announced length.
fn check_header_size(what: &'static str, bytes: &[u8]) -> Result<()> {
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(Error::Decode {
            what,
            detail: format!("{} bytes are too few for a safetensors file", bytes.len()),
        });
    };
    let found = u64::from_le_bytes(*length);
    let limit = limits::TENSOR_HEADER_BYTES as u64;
    if found > limit {
        return Err(Error::TooLarge { what: format!("header of {what}"), found, limit, unit: "bytes" });
    }
    Ok(())
}

fn from_file_type(what: &'static str, name: &str, found: FileType) -> Result<DType> {
    Ok(match found {
        FileType::F32 => DType::F32,
        FileType::F64 => DType::F64,
        FileType::I64 => DType::I64,
        FileType::I32 => DType::I32,
        FileType::U8 => DType::U8,
        FileType::BOOL => DType::Bool,
        other => return Err(Error::Decode { what, detail: format!("tensor `{name}` has unsupported type {other:?}") }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StateDict {
        let mut dict = StateDict::new();
        dict.insert("b", Tensor::from_f32(&[2, 1], &[1.0, f32::NAN]));
        dict.insert("a", Tensor::from_i64(&[], &[7]));
        dict
    }

    #[test]
    fn a_file_round_trips_and_is_always_the_same_bytes() {
        let bytes = sample().to_safetensors(Some("{\"x\":1}"));
        assert_eq!(bytes, sample().to_safetensors(Some("{\"x\":1}")));
        let (dict, metadata) = StateDict::from_safetensors("file", &bytes).unwrap();
        assert_eq!(dict.digest(), sample().digest());
        assert_eq!(metadata.as_deref(), Some("{\"x\":1}"));
    }

    #[test]
    fn damaged_files_are_errors() {
        let bytes = sample().to_safetensors(None);
        for end in 0..bytes.len() {
            assert!(StateDict::from_safetensors("file", &bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(StateDict::from_safetensors("file", &[0xff; 64]).is_err());
    }

    #[test]
    fn sizes_that_contradict_each_other_are_refused() {
        assert!(Tensor::new("t", DType::F32, vec![2], vec![0; 7]).is_err());
        assert!(Tensor::new("t", DType::F32, vec![usize::MAX, 2], vec![0; 8]).is_err());
    }

    #[test]
    fn the_digest_sees_names_types_shapes_and_values() {
        let digest = |name: &str, tensor: Tensor| StateDict::from_iter([(name.to_owned(), tensor)]).digest();
        let base = digest("a", Tensor::from_f32(&[2], &[0.0, 0.0]));
        assert_ne!(base, digest("b", Tensor::from_f32(&[2], &[0.0, 0.0])));
        assert_ne!(base, digest("a", Tensor::from_i64(&[1], &[0])));
        assert_ne!(base, digest("a", Tensor::from_f32(&[1, 2], &[0.0, 0.0])));
        assert_ne!(base, digest("a", Tensor::from_f32(&[2], &[0.0, -0.0])));
    }
}
