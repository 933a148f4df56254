//! Tensors: a storage, an offset, sizes and strides.

use std::io::{Read, Seek};

use archipelago_common::{DType, StateDict, state_dict::Tensor};

use super::TorchArchive;
use crate::{
    error::Result,
    formats::pickle::{Call, Value},
};

/// Whether an object is a tensor or a parameter.
pub fn is_tensor(value: Value<'_>) -> bool {
    value.call().is_some_and(|call| [TENSOR, PARAMETER].contains(&call.class))
}

/// Reads a tensor or parameter; `name` is for errors.
///
/// # Errors  [`crate::Error::Import`] if it is none, of an unsupported type, or reaches beyond its storage
pub fn read_tensor<R: Read + Seek>(archive: &mut TorchArchive<R>, name: &str, value: Value<'_>) -> Result<Tensor> {
    let Some(view) = View::of(value) else {
        return Err(archive.refuse(format!("`{name}` is {}, expected a tensor", value.kind())));
    };
    let Some(dtype) = dtype(view.storage_class) else {
        return Err(
            archive.refuse(format!("tensor `{name}` has storage `{}`, which is not supported", view.storage_class))
        );
    };
    if !view.fits() {
        return Err(archive.refuse(format!(
            "tensor `{name}` of shape {:?}, strides {:?} and offset {} does not fit its storage of {} elements",
            view.shape, view.strides, view.offset, view.n_stored
        )));
    }
    let storage = archive.storage(view.key, (view.n_stored as u64).saturating_mul(dtype.size() as u64))?;
    Ok(Tensor::new(name, dtype, view.shape.clone(), view.gather(&storage, dtype.size()))?)
}

/// Reads a dict of tensors.
///
/// # Errors  [`crate::Error::Import`] if it is none, and those of [`read_tensor`]
pub fn read_tensors<R: Read + Seek>(archive: &mut TorchArchive<R>, dict: Value<'_>) -> Result<StateDict> {
    let entries = dict.entries().ok_or_else(|| archive.refuse("the state dict is not a dict"))?;
    let mut out = StateDict::new();
    for (name, value) in entries {
        let name = name.as_str().ok_or_else(|| archive.refuse("a tensor's name is not text"))?;
        // Pyro's own state, empty in the models we know, and no tensor.
        if name == "pyro_param_store" && !is_tensor(value) {
            continue;
        }
        let tensor = read_tensor(archive, name, value)?;
        out.insert(name, tensor);
    }
    Ok(out)
}

/// Which elements of a storage a tensor shows.
pub(super) struct View<'a> {
    storage_class: &'a str,
    /// Name of the member under `data/`.
    key: &'a str,
    n_stored: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> View<'a> {
    fn of(value: Value<'a>) -> Option<Self> {
        let Call { class, arguments, .. } = value.call()?;
        match (class, arguments.as_slice()) {
            // One level: the tensor of a parameter is a plain one.
            (PARAMETER, [tensor, ..]) => Self::of_call(tensor.call()?),
            _ => Self::of_call(value.call()?),
        }
    }

    fn of_call(Call { class, arguments, .. }: Call<'a>) -> Option<Self> {
        let [storage, offset, shape, strides, ..] = arguments[..] else { return None };
        if class != TENSOR {
            return None;
        }
        let [tag, storage_class, key, _device, n_stored] = storage.persistent()?.items()?[..] else { return None };
        if tag.as_str() != Some("storage") {
            return None;
        }
        Some(Self {
            storage_class: storage_class.class()?,
            key: key.as_str()?,
            n_stored: count(n_stored)?,
            offset: count(offset)?,
            shape: counts(shape)?,
            strides: counts(strides)?,
        })
    }

    /// A view of a storage of so many elements.
    pub(super) fn of_parts(n_stored: usize, offset: Value<'_>, shape: Value<'_>, strides: Value<'_>) -> Option<Self> {
        let (storage_class, key) = ("", "");
        let (offset, shape, strides) = (count(offset)?, counts(shape)?, counts(strides)?);
        Some(Self { storage_class, key, n_stored, offset, shape, strides })
    }

    /// The sizes.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether every element lies in the storage, and there are no more of them than it holds: a tensor that repeats
    /// elements would let a few bytes announce any size, and no state dict has one.
    pub(super) fn fits(&self) -> bool {
        if self.shape.len() != self.strides.len() {
            return false;
        }
        let Some(n_elements) = self.shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size)) else {
            return false;
        };
        if n_elements == 0 {
            return true;
        }
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |at, (size, stride)| at.checked_add((size - 1).checked_mul(*stride)?));
        n_elements <= self.n_stored && last.is_some_and(|last| last < self.n_stored)
    }

    /// The elements in row-major order.
    pub(super) fn gather(&self, storage: &[u8], size: usize) -> Vec<u8> {
        let n_elements: usize = self.shape.iter().product();
        if self.is_contiguous() {
            // An empty tensor may have any offset.
            return storage.get(self.offset * size..).map_or(vec![], |rest| rest[..n_elements * size].to_vec());
        }
        let mut bytes = Vec::with_capacity(n_elements * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..n_elements {
            let at = index.iter().zip(&self.strides).fold(self.offset, |at, (i, stride)| at + i * stride) * size;
            bytes.extend(&storage[at..at + size]);
            for (i, &n) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < n {
                    break;
                }
                *i = 0;
            }
        }
        bytes
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
    }
}

fn count(value: Value<'_>) -> Option<usize> {
    usize::try_from(value.as_int()?).ok()
}

fn counts(value: Value<'_>) -> Option<Vec<usize>> {
    value.items()?.into_iter().map(count).collect()
}

fn dtype(storage_class: &str) -> Option<DType> {
    STORAGES.iter().find(|(class, _)| *class == storage_class).map(|(_, dtype)| *dtype)
}

/// The call that makes a tensor.
const TENSOR: &str = "torch._utils._rebuild_tensor_v2";
/// The call that makes a parameter of a tensor.
const PARAMETER: &str = "torch._utils._rebuild_parameter";
/// Storage classes and their element types.
pub(super) const STORAGES: [(&str, DType); 6] = [
    ("torch.FloatStorage", DType::F32),
    ("torch.DoubleStorage", DType::F64),
    ("torch.LongStorage", DType::I64),
    ("torch.IntStorage", DType::I32),
    ("torch.ByteStorage", DType::U8),
    ("torch.BoolStorage", DType::Bool),
];

#[cfg(test)]
mod tests {
    use std::{
        io::{Cursor, Write as _},
        path::Path,
    };

    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;
    use crate::{Error, formats::pickle::PickleWriter};

    /// An archive of one tensor on a storage of six floats, 0 to 5.
    fn archive(class: &str, n_stored: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
        let mut pickle = PickleWriter::default();
        pickle.call("torch._utils", "_rebuild_tensor_v2", |arguments| {
            arguments.persistent(|storage| {
                storage.text("storage");
                storage.class("torch", class);
                storage.text("0");
                storage.text("cuda:0");
                storage.int(n_stored);
            });
            arguments.int(offset);
            arguments.tuple(|sizes| shape.iter().for_each(|&size| sizes.int(size)));
            arguments.tuple(|out| strides.iter().for_each(|&stride| out.int(stride)));
            arguments.bool(false);
        });
        let data: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let mut zip = ZipWriter::new(Cursor::new(vec![]));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in [("any name/data.pkl", &pickle.finish()), ("any name/data/0", &data)] {
            zip.start_file(name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn read(bytes: Vec<u8>) -> Result<Tensor> {
        let mut archive = TorchArchive::new(Cursor::new(bytes), Path::new("model.pt"))?;
        let pickle = archive.pickle()?;
        read_tensor(&mut archive, "w", pickle.root())
    }

    #[test]
    fn offsets_and_strides_are_honoured() {
        for (offset, shape, strides, expected) in [
            (0, &[2, 3][..], &[3, 1][..], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]),
            (0, &[3, 2], &[1, 3], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
            (1, &[2], &[2], &[1.0, 3.0]),
            (4, &[2, 1], &[1, 7], &[4.0, 5.0]),
            (5, &[], &[], &[5.0]),
            (9, &[0, 3], &[3, 1], &[]),
        ] {
            let tensor = read(archive("FloatStorage", 6, offset, shape, strides)).unwrap();
            assert_eq!(tensor.to_f32("w").unwrap(), expected, "{offset} {shape:?} {strides:?}");
        }
    }

    #[test]
    fn tensors_beyond_their_storage_are_refused() {
        for (n_stored, offset, shape, strides, words) in [
            (6, 1, &[6][..], &[1][..], "does not fit its storage"),
            (6, 0, &[2, 3], &[4, 1], "does not fit its storage"),
            (6, 0, &[1 << 40, 1 << 40], &[0, 0], "does not fit its storage"),
            (6, 0, &[1_000_000], &[0], "does not fit its storage"),
            (6, 0, &[2, 3], &[3], "does not fit its storage"),
            (6, -1, &[2], &[1], "expected a tensor"),
            (7, 0, &[2], &[1], "has 24 bytes, expected 28"),
            (i64::MAX, 0, &[i64::MAX], &[1], "has 24 bytes"),
        ] {
            match read(archive("FloatStorage", n_stored, offset, shape, strides)).unwrap_err() {
                Error::Import { detail, .. } => assert!(detail.contains(words), "{shape:?}: {detail}"),
                other => panic!("{shape:?}: {other}"),
            }
        }
    }

    #[test]
    fn storages_of_other_types_are_refused_by_name() {
        let error = read(archive("HalfStorage", 12, 0, &[2], &[1])).unwrap_err().to_string();
        assert!(error.contains("`torch.HalfStorage`, which is not supported"), "{error}");
    }
}
