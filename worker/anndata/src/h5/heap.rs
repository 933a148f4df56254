//! A look at the global heaps of a file before HDF5 reads them.
//!
//! Text of variable length stands in global heaps, lists of objects that each give their own length. HDF5 (2.2 and
//! before) steps from object to object by that length and never ends where it is zero, so one flipped byte can hang the
//! process in C, where nothing can stop it. Heaps are found by their signature; lengths that are merely wrong are left
//! to HDF5, which refuses them.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use crate::{Error, Result};

/// Signature, version 1 and three reserved bytes of a heap.
const SIGNATURE: [u8; 8] = *b"GCOL\x01\0\0\0";

/// Signature and size of a heap.
const HEADER: usize = 16;

/// Index, reference count, reserved bytes and length of an object.
const OBJECT_HEADER: usize = 16;

/// Files beyond this size are not searched: the search reads the whole file, and must cost less than a second.
const MAX_SEARCHED: u64 = 1 << 30;

/// Largest heap that is looked into; HDF5 makes them of 4 KiB and more only for a text that long.
const MAX_HEAP: u64 = 1 << 26;

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

/// Refuses heaps that HDF5 would never finish reading.
pub(crate) fn check(path: &Path) -> Result<()> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() > MAX_SEARCHED {
        return Ok(());
    }
    for start in find(&mut file).map_err(io)? {
        let heap = read(&mut file, start).map_err(io)?;
        if has_endless_object(&heap) {
            let detail = "an object without length in a list of texts".to_owned();
            return Err(Error::Malformed {
                path: path.to_owned(),
                object: format!("global heap at byte {start}"),
                detail,
            });
        }
    }
    Ok(())
}

/// Where the signature stands.
fn find(file: &mut File) -> std::io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    let mut block = Vec::new();
    let mut offset = 0;
    loop {
        let kept = block.len();
        let n = file.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        let found = block.windows(SIGNATURE.len()).enumerate().filter(|(_, bytes)| *bytes == SIGNATURE);
        starts.extend(found.map(|(at, _)| offset + at as u64));
        if n == 0 {
            return Ok(starts);
        }
        // A signature may straddle two blocks.
        let consumed = kept + n - (SIGNATURE.len() - 1).min(kept + n);
        block.drain(..consumed);
        offset += consumed as u64;
    }
}

fn read(file: &mut File, start: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut heap = Vec::new();
    file.take(HEADER as u64).read_to_end(&mut heap)?;
    let size = number(&heap, 8).unwrap_or(0).min(MAX_HEAP);
    file.take(size.saturating_sub(HEADER as u64)).read_to_end(&mut heap)?;
    Ok(heap)
}

fn has_endless_object(heap: &[u8]) -> bool {
    let mut at = HEADER;
    while at + OBJECT_HEADER <= heap.len() {
        let (Some(length), is_free) = (number(heap, at + 8), heap[at..at + 2] == [0, 0]) else { return false };
        // The free space at the end counts its own header; other objects are padded to eight bytes.
        let step = if is_free { length } else { (length.wrapping_add(7) & !7).wrapping_add(OBJECT_HEADER as u64) };
        match usize::try_from(step) {
            Ok(0) => return true,
            Ok(step) if step <= heap.len() - at => at += step,
            _ => return false,
        }
    }
    false
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(objects: &[(u16, u64)]) -> Vec<u8> {
        let mut heap = SIGNATURE.to_vec();
        heap.extend(4096_u64.to_le_bytes());
        for &(index, length) in objects {
            heap.extend(index.to_le_bytes());
            heap.extend([0; 6]);
            heap.extend(length.to_le_bytes());
            if index > 0 {
                heap.extend(vec![0; (length.min(64) as usize).next_multiple_of(8)]);
            }
        }
        heap
    }

    #[test]
    fn an_object_without_length_is_endless() {
        assert!(!has_endless_object(&heap(&[(1, 5), (2, 8), (0, 16)])));
        assert!(has_endless_object(&heap(&[(1, 5), (0, 0)])));
        assert!(has_endless_object(&heap(&[(1, u64::MAX - 15)])));
        assert!(!has_endless_object(&heap(&[(1, 1 << 40)])));
    }
}
