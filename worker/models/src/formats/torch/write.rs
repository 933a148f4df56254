//! Writes files that `torch.load` takes, also with `weights_only=True`.

use std::io::{Cursor, Write as _};

use archipelago_common::state_dict::Tensor;
use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::SimpleFileOptions};

use super::tensor::STORAGES;
use crate::formats::pickle::PickleWriter;

/// A file of `torch.save` in the making: the pickle, and the tensors it refers to.
#[derive(Debug, Default)]
pub struct TorchWriter<'a> {
    /// Everything but tensors is written here directly.
    pub pickle: PickleWriter,
    storages: Vec<&'a Tensor>,
}

impl<'a> TorchWriter<'a> {
    /// Writes a tensor at this place of the pickle.
    pub fn tensor(&mut self, tensor: &'a Tensor) {
        let key = self.storages.len().to_string();
        self.storages.push(tensor);
        let (class, _) = STORAGES.iter().find(|(_, dtype)| *dtype == tensor.dtype()).expect("every type has a storage");
        let class = class.strip_prefix("torch.").expect("storages are torch's");
        let n_elements: usize = tensor.shape().iter().product();
        self.pickle.call("torch._utils", "_rebuild_tensor_v2", |arguments| {
            arguments.persistent(|storage| {
                storage.text("storage");
                storage.class("torch", class);
                storage.text(&key);
                storage.text("cpu");
                storage.int(n_elements as i64);
            });
            arguments.int(0);
            arguments.tuple(|sizes| tensor.shape().iter().for_each(|&size| sizes.int(size as i64)));
            arguments.tuple(|strides| row_major_strides(tensor.shape()).for_each(|stride| strides.int(stride as i64)));
            arguments.bool(false);
            arguments.open_ordered_dict();
            arguments.close_dict();
        });
    }

    /// A dict at this place of the pickle; `entries` writes keys and values in turn.
    pub fn dict(&mut self, entries: impl FnOnce(&mut Self)) {
        self.pickle.open_dict();
        entries(self);
        self.pickle.close_dict();
    }

    /// An ordered dict of tensors by name.
    pub fn tensors(&mut self, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) {
        self.pickle.open_ordered_dict();
        for (name, tensor) in tensors {
            self.pickle.text(name);
            self.tensor(tensor);
        }
        self.pickle.close_dict();
    }

    /// The finished file. The same calls give the same bytes.
    pub fn finish(self) -> Vec<u8> {
        self.try_finish().expect("writing to memory succeeds")
    }

    fn try_finish(self) -> Result<Vec<u8>, ZipError> {
        // The epoch of the format, as PyTorch: a file says what it holds, not when it was written.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .with_alignment(ALIGNMENT);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let mut add = |name: &str, bytes: &[u8]| -> Result<(), ZipError> {
            zip.start_file(format!("{TOP}/{name}"), options.large_file(bytes.len() as u64 >= u64::from(u32::MAX)))?;
            Ok(zip.write_all(bytes)?)
        };
        add("data.pkl", &self.pickle.finish())?;
        add("byteorder", b"little")?;
        for (position, tensor) in self.storages.iter().enumerate() {
            add(&format!("data/{position}"), tensor.bytes())?;
        }
        add("version", b"3\n")?;
        Ok(zip.finish()?.into_inner())
    }
}

/// Strides of a tensor whose last dimension is dense.
fn row_major_strides(shape: &[usize]) -> impl Iterator<Item = usize> + '_ {
    (0..shape.len()).map(|i| shape[i + 1..].iter().map(|&size| size.max(1)).product())
}

/// The folder that members lie in.
const TOP: &str = "model";
/// Alignment of members in bytes, so that storages can be mapped into memory.
const ALIGNMENT: u16 = 64;
