//! Members of the archive, read within bounds.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use archipelago_common::{Error as CommonError, limits};
use zip::ZipArchive;

use crate::{
    error::{Error, Result},
    formats::pickle::{self, Pickle},
};

/// An open file of `torch.save`.
#[derive(Debug)]
pub struct TorchArchive<R> {
    file: PathBuf,
    zip: ZipArchive<R>,
    /// Folder that all members lie in.
    top: String,
    /// Bytes that may still be read. Members of a hostile archive can overlap and storages be read again and again,
    /// so that a small file would fill the memory.
    budget: u64,
}

impl TorchArchive<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors  those of [`Self::new`]; [`CommonError::File`]
    pub fn open(file: &Path) -> Result<Self> {
        let reader =
            File::open(file).map_err(|source| CommonError::File { action: "open", path: file.to_owned(), source })?;
        Self::new(BufReader::new(reader), file)
    }
}

impl<R: Read + Seek> TorchArchive<R> {
    /// Reads the archive's directory; `file` is for errors.
    ///
    /// # Errors  [`Error::Import`] if this is no archive, a truncated one, or one of another byte order
    pub fn new(mut reader: R, file: &Path) -> Result<Self> {
        let refuse = |detail: String| Error::Import { file: file.to_owned(), detail };
        let io = |e: std::io::Error| refuse(e.to_string());
        let mut start = Vec::new();
        reader.by_ref().take(OLD_STREAM.len() as u64).read_to_end(&mut start).map_err(io)?;
        if start == OLD_STREAM {
            let detail = "this is a stream of PyTorch before 1.6; load and save it again with a later PyTorch";
            return Err(refuse(detail.to_owned()));
        }
        let length = reader.seek(SeekFrom::End(0)).map_err(io)?;
        reader.rewind().map_err(io)?;
        let zip = ZipArchive::new(reader)
            .map_err(|e| refuse(format!("this is not a PyTorch archive, or a truncated one: {e}")))?;
        let top = zip
            .file_names()
            .filter_map(|name| name.ok()?.strip_suffix(PICKLE_MEMBER).map(str::to_owned))
            .next()
            .ok_or_else(|| refuse(format!("the archive has no member `…{PICKLE_MEMBER}`")))?;
        let mut archive = Self { file: file.to_owned(), zip, top, budget: length.saturating_mul(READS_PER_BYTE) };
        archive.check_byte_order()?;
        Ok(archive)
    }

    /// The file, for errors.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Parses the pickle.
    ///
    /// # Errors  [`Error::Import`] if the member cannot be read, [`Error::Pickle`]
    pub fn pickle(&mut self) -> Result<Pickle> {
        let bytes = self.member(PICKLE_MEMBER, Some(limits::PICKLE_BYTES as u64))?;
        pickle::parse(&bytes).map_err(|source| Error::Pickle { file: self.file.clone(), source })
    }

    /// The bytes of a storage, exactly as many as the pickle says it has.
    ///
    /// # Errors  [`Error::Import`]
    pub(super) fn storage(&mut self, key: &str, n_bytes: u64) -> Result<Vec<u8>> {
        let bytes = self.member(&format!("/data/{key}"), None)?;
        if bytes.len() as u64 != n_bytes {
            return Err(self.refuse(format!("storage `{key}` has {} bytes, expected {n_bytes}", bytes.len())));
        }
        Ok(bytes)
    }

    /// An error about this file.
    pub(crate) fn refuse(&self, detail: impl Into<String>) -> Error {
        Error::Import { file: self.file.clone(), detail: detail.into() }
    }

    fn check_byte_order(&mut self) -> Result<()> {
        // Absent in files of older versions, which were little-endian on every machine that mattered.
        if self.zip.index_for_name(&format!("{}/byteorder", self.top)).is_none() {
            return Ok(());
        }
        let order = self.member("/byteorder", Some(16))?;
        if order == b"little" {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&order).into_owned();
        Err(self.refuse(format!("byte order is `{found}`, expected `little`")))
    }

    fn member(&mut self, name: &str, limit: Option<u64>) -> Result<Vec<u8>> {
        let (file, budget) = (self.file.clone(), self.budget);
        let refuse = |detail: String| Error::Import { file: file.clone(), detail };
        let mut member = self
            .zip
            .by_name(&format!("{}{name}", self.top))
            .map_err(|e| refuse(format!("member `…{name}` cannot be read: {e}")))?;
        let size = member.size();
        let limit = limit.unwrap_or(u64::MAX).min(budget);
        if size > limit {
            return Err(refuse(format!("member `…{name}` has {size} bytes, expected at most {limit}")));
        }
        // The size is the archive's word. Reading stops at the bytes that are there, and allocates as it goes.
        let mut bytes = Vec::new();
        member
            .by_ref()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|e| refuse(format!("member `…{name}` is damaged or truncated: {e}")))?;
        drop(member);
        self.budget -= bytes.len() as u64;
        Ok(bytes)
    }
}

/// The pickle's name after the top folder.
const PICKLE_MEMBER: &str = "/data.pkl";
/// How often each byte of the file may be read on average; tensors that share a storage read it once each.
const READS_PER_BYTE: u64 = 4;
/// What PyTorch before 1.6 wrote first: a pickled magic number.
const OLD_STREAM: [u8; 14] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
