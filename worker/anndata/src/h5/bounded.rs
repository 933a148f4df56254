//! Reading values of which HDF5 itself allocates a part: texts and lists of variable length.
//!
//! The file says how long each of them is, and nothing keeps a thousand of them from being the same twelve megabytes. HDF5
//! asks an allocator for every one; this one counts, and refuses what is beyond the [ledger](super::ledger).

use std::ffi::{CStr, c_void};

use hdf5::{Container, Dataspace, Datatype};
use hdf5_sys::{
    h5d::{H5Dread, H5Dwrite},
    h5i::hid_t,
    h5p::{H5P_CLS_DATASET_XFER, H5P_DEFAULT, H5Pclose, H5Pcreate, H5Pset_vlen_mem_manager},
    h5s::H5S_ALL,
};

use super::{failed, ledger, malformed};
use crate::Result;

/// Values in memory as HDF5 lays them out, with what it allocated for them.
pub(crate) struct Raw {
    bytes: Vec<u8>,
    // What pointers among the bytes point to; not moved and not changed for as long as this lives.
    _arena: Box<Arena>,
}

/// Everything that was allocated in one reading.
struct Arena {
    left: u64,
    is_exceeded: bool,
    /// Aligned for whatever HDF5 puts there.
    pieces: Vec<Box<[u128]>>,
}

/// Reads `n` values of a dataset in a memory type: all of them, or those of a selection in memory and in the file.
///
/// # Errors
/// [`crate::Error::Malformed`] when they come to more than the file has, [`crate::Error::Hdf5`] when it cannot be read.
pub(crate) fn read(
    dataset: &Container,
    dtype: &Datatype,
    n: usize,
    selection: Option<(&Dataspace, &Dataspace)>,
) -> Result<Raw> {
    let mut bytes = super::zeroed(dataset, n, dtype.size())?;
    let before = ledger::texts_left(dataset)?;
    let mut arena = Box::new(Arena { left: before, is_exceeded: false, pieces: Vec::new() });
    let (memory, file) = selection.map_or((H5S_ALL, H5S_ALL), |(memory, file)| (memory.id(), file.id()));
    let is_read = read_into(dataset.id(), dtype.id(), (memory, file), &mut bytes, &mut arena);
    ledger::enter_texts(dataset, before - arena.left)?;
    match is_read {
        true => Ok(Raw { bytes, _arena: arena }),
        false if arena.is_exceeded => {
            let detail = "its values of variable length come to more bytes than the file has: many are the same ones";
            Err(malformed(dataset, detail))
        }
        false => Err(failed("read", dataset, "the library could not read its values".into())),
    }
}

/// Writes all values of a dataset from bytes laid out by a memory type.
///
/// # Errors
/// [`crate::Error::Hdf5`]
pub(crate) fn write(dataset: &Container, dtype: &Datatype, bytes: &[u8]) -> Result<()> {
    assert_eq!(dataset.size() * dtype.size(), bytes.len(), "as many values as there is room for");
    #[expect(unsafe_code, reason = "the HDF5 crate writes values of types known at compile time only")]
    // SAFETY: the identifiers are open, and the buffer holds as many values as the dataset, each of the size of the type.
    let status = hdf5::sync::sync(|| unsafe {
        H5Dwrite(dataset.id(), dtype.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.as_ptr().cast())
    });
    match status >= 0 {
        true => Ok(()),
        false => Err(failed("write", dataset, "the library could not write its values".into())),
    }
}

fn read_into(
    dataset: hid_t,
    dtype: hid_t,
    (memory, file): (hid_t, hid_t),
    bytes: &mut [u8],
    arena: &mut Box<Arena>,
) -> bool {
    #[expect(unsafe_code, reason = "the HDF5 crate allocates without a bound")]
    hdf5::sync::sync(|| {
        // SAFETY: the identifiers are open, and the buffer holds as many values as are selected, each of the size of the type.
        // The arena outlives the call and stays where it is (it is boxed); HDF5 calls `take` and `keep` on this thread only.
        unsafe {
            let transfer = H5Pcreate(*H5P_CLS_DATASET_XFER);
            if transfer < 0 {
                return false;
            }
            let arena: *mut c_void = std::ptr::from_mut::<Arena>(arena).cast();
            let is_read = H5Pset_vlen_mem_manager(transfer, Some(take), arena, Some(keep), arena) >= 0
                && H5Dread(dataset, dtype, memory, file, transfer, bytes.as_mut_ptr().cast()) >= 0;
            H5Pclose(transfer);
            is_read
        }
    })
}

#[expect(unsafe_code, reason = "called by HDF5")]
/// # Safety
/// `arena` is the arena of the reading under way.
unsafe extern "C" fn take(size: usize, arena: *mut c_void) -> *mut c_void {
    // SAFETY: as promised; nothing else refers to the arena during the call.
    let arena = unsafe { &mut *arena.cast::<Arena>() };
    let Some(left) = arena.left.checked_sub(size as u64) else {
        arena.is_exceeded = true;
        return std::ptr::null_mut();
    };
    let n_words = size.div_ceil(size_of::<u128>());
    let mut words = Vec::new();
    if words.try_reserve_exact(n_words).is_err() {
        return std::ptr::null_mut();
    }
    words.resize(n_words, 0_u128);
    arena.left = left;
    arena.pieces.push(words.into_boxed_slice());
    arena.pieces.last_mut().map_or(std::ptr::null_mut(), |piece| piece.as_mut_ptr().cast())
}

#[expect(unsafe_code, reason = "called by HDF5")]
/// Everything is given back with the arena, so that nothing is left behind by a reading that failed half way.
unsafe extern "C" fn keep(_: *mut c_void, _: *mut c_void) {}

impl Raw {
    /// The values, as HDF5 laid them out.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The text of variable length whose pointer stands at a byte of the values.
    pub(crate) fn text(&self, at: usize) -> &[u8] {
        let Some(pointer) = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()) else { return &[] };
        let pointer = usize::from_ne_bytes(*pointer) as *const std::ffi::c_char;
        if pointer.is_null() {
            return &[];
        }
        #[expect(unsafe_code, reason = "the pointer was written by HDF5")]
        // SAFETY: the memory type says that a text of variable length stands here, so HDF5 wrote a pointer into the arena, to
        // bytes that it ended with a zero. The arena lives as long as this.
        unsafe {
            CStr::from_ptr(pointer).to_bytes()
        }
    }
}
