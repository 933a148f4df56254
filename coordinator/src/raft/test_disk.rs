//! A disk in memory whose crashes are values: it remembers every write, and which of them were fsynced.

use std::{
    io,
    sync::{Arc, Mutex},
};

use redb::StorageBackend;

/// Clones are the same disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct Disk(Arc<Mutex<Content>>);

#[derive(Default, Debug)]
struct Content {
    bytes: Vec<u8>,
    history: Vec<Operation>,
    is_full: bool,
}

impl Content {
    fn require_space(&self) -> io::Result<()> {
        if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    Resize(u64),
    Sync,
}

impl Disk {
    /// A disk with this content, all of it durable.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Content { bytes, ..Content::default() })))
    }

    /// What is on the disk now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// From now on nothing can be written.
    pub(crate) fn fill(&self) {
        self.0.lock().unwrap().is_full = true;
    }

    /// There is space again.
    pub(crate) fn empty(&self) {
        self.0.lock().unwrap().is_full = false;
    }

    /// Number of operations since the disk was made.
    pub(crate) fn n_operations(&self) -> usize {
        self.0.lock().unwrap().history.len()
    }

    /// What the disk may hold if the power fails during operation `crash_at` (or after the last one, for their number),
    /// for a disk that began empty: all that was fsynced, an arbitrary half of what was not, and half of the last write.
    pub(crate) fn after_crash(&self, crash_at: usize) -> Vec<u8> {
        let history = &self.0.lock().unwrap().history;
        let synced = history[..crash_at].iter().rposition(|op| matches!(op, Operation::Sync)).unwrap_or(0);
        let mut bytes = Vec::new();
        for (i, operation) in history.iter().enumerate().take(crash_at + 1) {
            match operation {
                Operation::Resize(len) => bytes.resize(*len as usize, 0),
                Operation::Write(..) if i > synced && i % 2 == 1 && i != crash_at => {}
                Operation::Write(at, data) => {
                    let kept = if i == crash_at { data.len() / 2 } else { data.len() };
                    bytes[*at as usize..][..kept].copy_from_slice(&data[..kept]);
                }
                Operation::Sync => {}
            }
        }
        bytes
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.0.lock().unwrap();
        let end = offset as usize + out.len();
        out.copy_from_slice(content.bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        content.require_space()?;
        content.bytes.resize(len as usize, 0);
        content.history.push(Operation::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        content.require_space()?;
        content.history.push(Operation::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        content.require_space()?;
        content.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        content.history.push(Operation::Write(offset, data.to_vec()));
        Ok(())
    }
}
