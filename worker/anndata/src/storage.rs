//! Large arrays: in memory up to a budget that they share, beyond it in scratch files.
//!
//! A scratch file is read through a memory map, so that an array is a slice wherever it lies, and nobody who computes with it
//! can tell. It is written in the ordinary way before it is mapped: a full disk is an error of [`Growing::extend`] and never
//! a signal. It has no name from the moment it exists, so nothing is left of it when the process ends, however it ends, and
//! only its owner could have opened it.

use std::{
    fmt,
    fs::File,
    io::{BufWriter, Write as _},
    ops::{Deref, Range},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytemuck::Pod;
use memmap2::{Advice, Mmap};

use crate::{Error, Result};

/// How much memory large arrays may take together, and where they go beyond that.
#[derive(Clone, Debug)]
pub struct Storage(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: u64,
    folder: PathBuf,
    /// Bytes of arrays in memory.
    held: AtomicU64,
    /// Bytes that were ever written to scratch files.
    spilled: AtomicU64,
}

impl Storage {
    /// Everything in memory.
    pub fn memory() -> Self {
        Self::new(u64::MAX, PathBuf::new())
    }

    /// So many bytes in memory; what does not fit goes to files in `folder`.
    pub fn new(memory: u64, folder: impl Into<PathBuf>) -> Self {
        let (held, spilled) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Budget { limit: memory, folder: folder.into(), held, spilled }))
    }

    /// Bytes that arrays may take in memory.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Where scratch files go.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Whether so many bytes would fit into the memory that arrays may take.
    pub fn could_hold(&self, bytes: u64) -> bool {
        bytes <= self.0.limit
    }

    /// Bytes of arrays that are in memory now.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Bytes that were written to scratch files so far.
    pub fn spilled(&self) -> u64 {
        self.0.spilled.load(Ordering::Relaxed)
    }

    /// An empty array that will have at most `most` values.
    pub fn growing<T: Pod>(&self, most: usize) -> Growing<T> {
        let held = Held { storage: self.clone(), bytes: 0 };
        Growing { most: bytes::<T>(most), form: Form::Memory(Vec::new(), held) }
    }
}

/// Bytes of the budget that an array takes, given back when it goes.
#[derive(Debug)]
struct Held {
    storage: Storage,
    bytes: u64,
}

impl Held {
    /// Takes more; says whether the budget had as much.
    fn more(&mut self, bytes: u64) -> bool {
        let Budget { limit, held, .. } = &*self.storage.0;
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| sum <= limit);
        let taken = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.storage.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An array that is being made from its first value to its last.
#[derive(Debug)]
pub struct Growing<T> {
    /// Bytes that it may come to.
    most: u64,
    form: Form<T>,
}

#[derive(Debug)]
enum Form<T> {
    Memory(Vec<T>, Held),
    File { storage: Storage, file: BufWriter<File>, n_values: usize },
}

impl<T: Pod> Growing<T> {
    /// Number of values so far.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Memory(values, _) => values.len(),
            Form::File { n_values, .. } => *n_values,
        }
    }

    /// Whether there is no value yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends values.
    ///
    /// # Errors
    /// [`Error::Scratch`] when they are beyond the budget and the disk does not take them.
    pub fn extend(&mut self, more: &[T]) -> Result<()> {
        let Form::Memory(values, held) = &mut self.form else { return self.write(more) };
        if held.more(bytes::<T>(more.len())) {
            if values.capacity() - values.len() < more.len() {
                // Doubling would take twice the memory that is accounted for.
                values.reserve_exact(more.len().max(values.len() / GROWTH));
            }
            values.extend_from_slice(more);
            return Ok(());
        }
        let (values, storage) = (std::mem::take(values), held.storage.clone());
        let file = tempfile::tempfile_in(storage.folder());
        let file = file.map_err(|source| failed("create", &storage, self.most, source))?;
        self.form = Form::File { storage, file: BufWriter::with_capacity(WRITE_BYTES, file), n_values: 0 };
        self.write(&values)?;
        self.write(more)
    }

    fn write(&mut self, values: &[T]) -> Result<()> {
        let Form::File { storage, file, n_values } = &mut self.form else { return Ok(()) };
        let written = file.write_all(bytemuck::cast_slice(values));
        written.map_err(|source| failed("write", storage, self.most, source))?;
        storage.0.spilled.fetch_add(bytes::<T>(values.len()), Ordering::Relaxed);
        *n_values += values.len();
        Ok(())
    }

    /// The finished array.
    ///
    /// # Errors
    /// As [`Growing::extend`].
    pub fn finish(self) -> Result<Stored<T>> {
        let kept = match self.form {
            Form::Memory(mut values, held) => {
                values.shrink_to_fit();
                Kept::Memory { values, _held: Some(held) }
            }
            Form::File { storage, file, .. } => {
                let failed = |action, source| failed(action, &storage, self.most, source);
                let file = file.into_inner().map_err(|error| failed("write", error.into_error()))?;
                Kept::File(map(&file).map_err(|source| failed("map", source))?)
            }
        };
        Ok(Stored(Arc::new(kept)))
    }
}

#[expect(
    unsafe_code,
    reason = "a memory map is sound only while its file does not change, which the compiler cannot know"
)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the file was made by this process without a name (`tempfile::tempfile_in`), no other handle to it exists, and
    // this one is closed after the map is made; so nobody can write to it or cut it short while the map lives. All its bytes
    // were written, so reading them needs no new block of the disk.
    unsafe { Mmap::map(file) }
}

/// An array that does not change any more, in memory or in a scratch file. Clones share it.
pub struct Stored<T>(Arc<Kept<T>>);

enum Kept<T> {
    /// With its part of the budget, which goes back when the array goes.
    Memory {
        values: Vec<T>,
        _held: Option<Held>,
    },
    File(Mmap),
}

/// In what order an array will be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// From the beginning to the end.
    Sequential,
    /// Here and there: reading on would be in vain.
    Random,
}

impl<T: Pod> Stored<T> {
    /// Whether it lies in a scratch file.
    pub fn is_spilled(&self) -> bool {
        matches!(&*self.0, Kept::File(_))
    }

    /// Tells the system how the array will be read; it changes nothing but speed.
    pub fn expect(&self, access: Access) {
        if let Kept::File(map) = &*self.0 {
            // A system that does not take the advice reads as it would have.
            let _ = map.advise(match access {
                Access::Sequential => Advice::Normal,
                Access::Random => Advice::Random,
            });
        }
    }

    /// Tells the system that these values will be wanted soon; it does not wait for them.
    pub fn will_need(&self, range: Range<usize>) {
        if let Kept::File(map) = &*self.0 {
            let size = size_of::<T>();
            let _ = map.advise_range(Advice::WillNeed, range.start * size, range.len() * size);
        }
    }

    /// The values in memory, copied where they are not or somebody else has them too.
    pub fn into_vec(self) -> Vec<T> {
        match Arc::try_unwrap(self.0) {
            Ok(Kept::Memory { values, .. }) => values,
            Ok(Kept::File(map)) => bytemuck::cast_slice(&map).to_vec(),
            Err(shared) => Self(shared).to_vec(),
        }
    }
}

impl<T: Pod> Deref for Stored<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.0 {
            Kept::Memory { values, .. } => values,
            // A map begins at a page, and whole values were written.
            Kept::File(map) => bytemuck::cast_slice(map),
        }
    }
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod> From<Vec<T>> for Stored<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Arc::new(Kept::Memory { values, _held: None }))
    }
}

impl<T: Pod + PartialEq> PartialEq for Stored<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn bytes<T>(n_values: usize) -> u64 {
    n_values as u64 * size_of::<T>() as u64
}

fn failed(action: &'static str, storage: &Storage, needed: u64, source: std::io::Error) -> Error {
    let folder = storage.folder().to_owned();
    Error::Scratch { action, folder, needed, spilled: storage.spilled(), source }
}

/// An array in memory that is full gets this part of its length more.
const GROWTH: usize = 8;
/// Bytes of one write to a scratch file.
const WRITE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(storage: &Storage, n: u32) -> Result<Stored<u32>> {
        let mut growing = storage.growing(n as usize);
        for part in (0..n).collect::<Vec<_>>().chunks(100) {
            growing.extend(part)?;
        }
        growing.finish()
    }

    #[test]
    fn arrays_share_one_budget_and_give_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::new(5_000, folder.path());
        let first = grown(&storage, 1_000).unwrap();
        assert!(!first.is_spilled() && storage.held() == 4_000);
        let second = grown(&storage, 1_000).unwrap();
        assert!(second.is_spilled() && storage.spilled() == 4_000);
        assert_eq!(first, second);
        assert_eq!(storage.held(), 4_000, "what moved to a file is no longer held in memory");
        drop(first);
        assert_eq!(storage.held(), 0);
        assert!(!grown(&storage, 1_000).unwrap().is_spilled());
        assert_eq!(second.into_vec(), (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_scratch_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::new(0, folder.path());
        let mut growing = storage.growing::<f32>(10);
        growing.extend(&[1.0, 2.0]).unwrap();
        let listed = || std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(listed(), 0, "while it is written");
        let stored = growing.finish().unwrap();
        assert_eq!((listed(), &stored[..]), (0, &[1.0, 2.0][..]));
        stored.expect(Access::Random);
        stored.will_need(1..2);
        stored.expect(Access::Sequential);
    }

    #[test]
    fn an_empty_array_needs_no_folder() {
        let storage = Storage::new(0, "/nonexistent");
        let mut growing = storage.growing::<f32>(0);
        growing.extend(&[]).unwrap();
        assert!(growing.finish().unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_with_what_is_needed() {
        let error = grown(&Storage::new(100, "/nonexistent/scratch"), 1_000).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("`/nonexistent/scratch`") && told.contains("4000 bytes"), "{told}");
        assert!(error.hint().unwrap().contains("--scratch"));
    }

    #[test]
    fn a_limit_that_was_met_exactly_is_kept() {
        let storage = Storage::new(4_000, "/nonexistent");
        assert!(!grown(&storage, 1_000).unwrap().is_spilled());
    }
}
