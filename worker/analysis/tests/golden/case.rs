//! One case: options and expectations, and its tensors.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A case as its two files hold it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) facts: Value,
    tensors: Vec<u8>,
    /// Relative and absolute, of [`Self::check`].
    tolerance: (f64, f64),
}

impl Case {
    /// All cases of a folder whose name starts with `prefix`.
    pub(crate) fn all(folder: &str, prefix: &str, tolerance: (f64, f64)) -> Vec<Self> {
        let folder = root().join(folder);
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("no golden folder {}: {e}", folder.display()));
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
        paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
        paths.sort();
        assert!(!paths.is_empty(), "no case {prefix}* in {}", folder.display());
        paths.iter().map(|path| Self::at(path, tolerance)).collect()
    }

    /// The case of this name.
    pub(crate) fn read(folder: &str, name: &str) -> Self {
        Self::at(&root().join(folder).join(format!("{name}.json")), (0.0, 0.0))
    }

    fn at(path: &Path, tolerance: (f64, f64)) -> Self {
        let read = |path: &Path| {
            std::fs::read(path).unwrap_or_else(|error| panic!("no golden file {}: {error}", path.display()))
        };
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            facts: serde_json::from_slice(&read(path)).unwrap(),
            tensors: read(&path.with_extension("safetensors")),
            tolerance,
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.tensors).unwrap().tensor(name).is_ok()
    }

    /// A tensor's values in row-major order, and its shape.
    pub(crate) fn tensor(&self, name: &str) -> (Vec<f64>, Vec<usize>) {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|_| panic!("{}: no tensor {name}", self.name));
        let bytes = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => panic!("{}: {name} is {other:?}", self.name),
        };
        (values, tensor.shape().to_vec())
    }

    /// A tensor's values.
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.tensor(name).0
    }

    /// A matrix; a vector is one column.
    pub(crate) fn matrix(&self, name: &str) -> Array2<f64> {
        let (values, shape) = self.tensor(name);
        Array2::from_shape_vec((shape[0], shape.get(1).copied().unwrap_or(1)), values).unwrap()
    }

    /// A matrix as cells have it.
    pub(crate) fn cells(&self, name: &str) -> Array2<f32> {
        self.matrix(name).mapv(|value| value as f32)
    }

    /// Fails unless a number is the one that is expected.
    pub(crate) fn check(&self, what: &str, found: f64, expected: f64) {
        self.close(what, &[found], &[expected], self.tolerance);
    }

    /// Fails unless numbers are those of a tensor.
    pub(crate) fn check_all(&self, what: &str, found: &[f64], tensor: &str) {
        self.close(what, found, &self.values(tensor), self.tolerance);
    }

    /// Fails unless all numbers are those that are expected, within these tolerances.
    pub(crate) fn close(&self, what: &str, found: &[f64], expected: &[f64], (rtol, atol): (f64, f64)) {
        assert_eq!(found.len(), expected.len(), "{}: {what}", self.name);
        for (found, expected) in found.iter().zip(expected) {
            let allowed = atol + rtol * expected.abs();
            assert!((found - expected).abs() <= allowed, "{}: {what} is {found}, not {expected}", self.name);
        }
    }
}

fn root() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    std::env::var_os("ARCHIPELAGO_GOLDEN").map_or(repository, PathBuf::from)
}

/// The texts of a list.
pub(crate) fn strings(facts: &Value) -> Vec<&str> {
    facts.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}
