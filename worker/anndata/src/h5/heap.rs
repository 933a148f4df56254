//! A look at the global heaps of a file before HDF5 reads them.
//!
//! Text of variable length stands in global heaps, lists of objects that each give their own length. HDF5 (2.2 and
//! before) steps from object to object by that length and never ends where it is zero, so one flipped byte can hang the
//! process in C, where nothing can stop it. Heaps are found by their signature; lengths that are merely wrong are left
//! to HDF5, which refuses them.
//!
//! Values refer to an object by the address of its heap and its index there. Nothing keeps fifty thousand of them from referring
//! to the same twelve megabytes, and HDF5 makes fifty thousand copies. What refers to long objects is counted, wherever it
//! stands in the file: in an honest one that is once each. References that are compressed are not found so; they are held
//! when they are read ([`super::bounded`]).

use std::{
    collections::HashMap,
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

/// Objects below this size are not counted: what refers to one takes sixteen bytes itself.
const LONG: u64 = 4096;

/// Refuses heaps that HDF5 would never finish reading, and texts that are the same long one again and again. Addresses in the
/// file count from `base`.
pub(crate) fn check(path: &Path, base: u64) -> Result<()> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > MAX_SEARCHED {
        return Ok(());
    }
    let malformed = |object, detail| Err(Error::Malformed { path: path.to_owned(), object, detail });
    let mut long = Long::new();
    for start in find(&mut file).map_err(io)? {
        let heap = read(&mut file, start).map_err(io)?;
        let Some(objects) = objects(&heap) else {
            let detail = "an object without length in a list of texts".to_owned();
            return malformed(format!("global heap at byte {start}"), detail);
        };
        // One that stands before the start of the addresses is no heap.
        if let Some(address) = start.checked_sub(base) {
            long.extend(
                objects
                    .filter(|object| (LONG..=size).contains(&object.1))
                    .map(|(index, length)| ((address, index), length)),
            );
        }
    }
    if long.is_empty() {
        return Ok(());
    }
    let referred = referred_to(&mut file, &long).map_err(io)?;
    // What was deleted or written anew may still stand in the file.
    match referred <= size.saturating_mul(2) {
        true => Ok(()),
        false => {
            malformed("/".to_owned(), format!("its texts come to {referred} bytes, because many are the same one"))
        }
    }
}

/// Lengths of long objects by the address of their heap and their index there.
type Long = HashMap<(u64, u32), u64>;

/// Bytes of the long objects, each as often as something refers to it.
fn referred_to(file: &mut File, long: &Long) -> std::io::Result<u64> {
    let addresses = || long.keys().map(|(address, _)| *address);
    let (first, last) = (addresses().min().unwrap_or(0), addresses().max().unwrap_or(0));
    let mut sum = 0_u64;
    each_block(file, REFERENCE, |_, block| {
        for bytes in block.windows(REFERENCE) {
            let Some(address) = number(bytes, 0).filter(|address| (first..=last).contains(address)) else { continue };
            let index = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            sum = sum.saturating_add(long.get(&(address, index)).copied().unwrap_or(0));
        }
    })?;
    Ok(sum)
}

/// Bytes of a reference to an object: the heap's address and the index.
const REFERENCE: usize = 12;

/// Reads a file block by block; what is `width` bytes long is whole in exactly one of them.
fn each_block(file: &mut File, width: usize, mut look: impl FnMut(u64, &[u8])) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let (mut block, mut offset) = (Vec::new(), 0);
    loop {
        let n = file.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        look(offset, &block);
        if n == 0 {
            return Ok(());
        }
        // Its beginning may stand at the end of this block.
        let consumed = block.len() - (width - 1).min(block.len());
        block.drain(..consumed);
        offset += consumed as u64;
    }
}

/// Where the signature stands.
fn find(file: &mut File) -> std::io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    each_block(file, SIGNATURE.len(), |offset, block| {
        let found = block.windows(SIGNATURE.len()).enumerate().filter(|(_, bytes)| *bytes == SIGNATURE);
        starts.extend(found.map(|(at, _)| offset + at as u64));
    })?;
    Ok(starts)
}

fn read(file: &mut File, start: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut heap = Vec::new();
    file.take(HEADER as u64).read_to_end(&mut heap)?;
    let size = number(&heap, 8).unwrap_or(0).min(MAX_HEAP);
    file.take(size.saturating_sub(HEADER as u64)).read_to_end(&mut heap)?;
    Ok(heap)
}

/// Index and length of each object of a heap, as far as its bytes make sense; `None` where HDF5 would never end.
fn objects(heap: &[u8]) -> Option<impl Iterator<Item = (u32, u64)>> {
    let mut objects = Vec::new();
    let mut at = HEADER;
    while at + OBJECT_HEADER <= heap.len() {
        let index = u16::from_le_bytes([heap[at], heap[at + 1]]);
        let length = number(heap, at + 8)?;
        // The free space at the end counts its own header; other objects are padded to eight bytes.
        let step = match index {
            0 => length,
            _ => (length.wrapping_add(7) & !7).wrapping_add(OBJECT_HEADER as u64),
        };
        match usize::try_from(step) {
            Ok(0) => return None,
            Ok(step) if step <= heap.len() - at => at += step,
            // One that is longer than what is looked into of its heap counts too; HDF5 refuses one that lies.
            _ => {
                objects.extend((index > 0).then_some((u32::from(index), length)));
                break;
            }
        }
        objects.extend((index > 0).then_some((u32::from(index), length)));
    }
    Some(objects.into_iter())
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
        let found = |given: &[(u16, u64)]| objects(&heap(given)).map(Iterator::collect::<Vec<_>>);
        assert_eq!(found(&[(1, 5), (2, 8), (0, 16)]), Some(vec![(1, 5), (2, 8)]));
        assert_eq!(found(&[(1, 5), (0, 0)]), None);
        assert_eq!(found(&[(1, u64::MAX - 15)]), None);
        assert_eq!(found(&[(1, 1 << 40)]), Some(vec![(1, 1 << 40)]));
    }

    #[test]
    fn what_refers_to_a_long_text_is_counted_across_blocks() {
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0xff; 3 * BLOCK];
        // At the start, across the end of a block, and at the end.
        for at in [0, BLOCK - 5, 2 * BLOCK + 7, 3 * BLOCK - REFERENCE] {
            bytes[at..at + 8].copy_from_slice(&4096_u64.to_le_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&1_u32.to_le_bytes());
        }
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let long = |index| Long::from([((4096, index), 1 << 20)]);
        assert_eq!(referred_to(&mut file, &long(1)).unwrap(), 4 << 20);
        assert_eq!(referred_to(&mut file, &long(2)).unwrap(), 0);
    }
}
