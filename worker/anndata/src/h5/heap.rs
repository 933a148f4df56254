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

/// Files beyond this size are not searched for what refers to long objects, which takes a second a gibibyte: texts that are the same
/// long one again and again are then held when they are read ([`super::bounded`]).
const MAX_COUNTED: u64 = 1 << 30;

/// Longest text that is believed, and left to HDF5 to read.
const MAX_TEXT: u64 = 1 << 30;

/// HDF5 makes no heap smaller than this.
const MIN_HEAP: u64 = 4096;

/// Bytes of a heap that are read at a time: many objects, or the beginning of a long one.
const PIECE: usize = 4096;

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

/// Objects below this size are not counted: what refers to one takes sixteen bytes itself.
const LONG: u64 = 4096;

/// Refuses heaps that HDF5 would never finish reading, texts beyond the limit, and texts that are the same long one again and
/// again. Addresses in the file count from `base`.
pub(crate) fn check(path: &Path, base: u64) -> Result<()> {
    check_within(path, base, MAX_COUNTED)
}

fn check_within(path: &Path, base: u64, max_counted: u64) -> Result<()> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let malformed = |object: String, detail: String| Error::Malformed { path: path.to_owned(), object, detail };
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let overlap = || malformed("/".to_owned(), "its lists of texts overlap".to_owned());
    let starts = find(&mut file, size).map_err(io)?.ok_or_else(overlap)?;
    let (mut long, mut reader) =
        (Long::new(), Reader { file, size, left: size.saturating_mul(2).saturating_add(SLACK) });
    for start in starts {
        let heap = || format!("global heap at byte {start}");
        match reader.objects(start).map_err(io)? {
            Objects::Endless => {
                return Err(malformed(heap(), "an object without length in a list of texts".to_owned()));
            }
            Objects::TooMany => return Err(overlap()),
            Objects::Long(objects) => {
                if let Some((_, length)) = objects.iter().find(|(_, length)| *length > MAX_TEXT) {
                    let detail = format!("a text of {length} bytes, more than the limit of {MAX_TEXT}");
                    return Err(malformed(heap(), detail));
                }
                // One that stands before the start of the addresses is no heap; one longer than the file lies, and HDF5 says so.
                if let Some(address) = start.checked_sub(base) {
                    let objects = objects.into_iter().filter(|(_, length)| *length <= size);
                    long.extend(objects.map(|(index, length)| ((address, index), length)));
                }
            }
        }
    }
    if long.is_empty() || size > max_counted {
        return Ok(());
    }
    let referred = referred_to(&mut reader.file, &long).map_err(io)?;
    // What was deleted or written anew may still stand in the file.
    match referred <= size.saturating_mul(2) {
        true => Ok(()),
        false => {
            let detail = format!("its texts come to {referred} bytes, because many are the same one");
            Err(malformed("/".to_owned(), detail))
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

/// Where the signature stands; none if in more places than there can be heaps, old ones included.
fn find(file: &mut File, size: u64) -> std::io::Result<Option<Vec<u64>>> {
    let most = usize::try_from(2 * size / MIN_HEAP).unwrap_or(usize::MAX).saturating_add(SMALL);
    let mut starts = Vec::new();
    each_block(file, SIGNATURE.len(), |offset, block| {
        let found = block.windows(SIGNATURE.len()).enumerate().filter(|(_, bytes)| *bytes == SIGNATURE);
        let room = (most + 1).saturating_sub(starts.len());
        starts.extend(found.map(|(at, _)| offset + at as u64).take(room));
    })?;
    Ok((starts.len() <= most).then_some(starts))
}

/// Bytes that may be read in heaps of any file, beside twice its own: of a small one every reading is all.
const SLACK: u64 = 1 << 20;

/// Signatures that any file may hold.
const SMALL: usize = 64;

/// Reads the headers of objects in heaps. What lies between them is skipped, and all that is read is bounded: heaps that overlap
/// would be read again and again.
struct Reader {
    file: File,
    size: u64,
    /// Bytes that may still be read.
    left: u64,
}

/// What a heap holds.
#[derive(PartialEq, Debug)]
enum Objects {
    /// HDF5 would never end.
    Endless,
    /// More was read than a file of its size can hold.
    TooMany,
    /// Index and length of its long objects, as far as its bytes make sense.
    Long(Vec<(u32, u64)>),
}

impl Reader {
    fn objects(&mut self, start: u64) -> std::io::Result<Objects> {
        let mut piece = Piece { start, bytes: Vec::new() };
        let Some(header) = self.at(&mut piece, start)? else { return Ok(Objects::TooMany) };
        let declared = number(&header, 8).unwrap_or(0);
        let end = start.saturating_add(declared).min(self.size);
        let (mut at, mut long) = (start + HEADER as u64, Vec::new());
        while at + OBJECT_HEADER as u64 <= end {
            let Some(header) = self.at(&mut piece, at)? else { return Ok(Objects::TooMany) };
            let (index, length) = (u16::from_le_bytes([header[0], header[1]]), number(&header, 8).unwrap_or(0));
            // The free space at the end counts its own header; other objects are padded to eight bytes.
            let step = match index {
                0 => length,
                _ => (length.wrapping_add(7) & !7).wrapping_add(OBJECT_HEADER as u64),
            };
            if step == 0 {
                return Ok(Objects::Endless);
            }
            if index > 0 && length >= LONG {
                long.push((u32::from(index), length));
            }
            // HDF5 refuses one that leads out of its heap.
            match at.checked_add(step).filter(|next| *next <= end) {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(Objects::Long(long))
    }

    /// The sixteen bytes at this place of the file, of which there are as many; none if no more may be read.
    fn at(&mut self, piece: &mut Piece, at: u64) -> std::io::Result<Option<[u8; 16]>> {
        if let Some(header) = piece.header(at) {
            return Ok(Some(header));
        }
        self.file.seek(SeekFrom::Start(at))?;
        piece.start = at;
        piece.bytes.clear();
        let n = self.file.by_ref().take(PIECE as u64).read_to_end(&mut piece.bytes)?;
        let Some(left) = self.left.checked_sub(n as u64) else { return Ok(None) };
        self.left = left;
        // A file that ends here has a heap without a first object.
        Ok(Some(piece.header(at).unwrap_or_default()))
    }
}

/// Bytes of a file that were read at once.
struct Piece {
    start: u64,
    bytes: Vec<u8>,
}

impl Piece {
    fn header(&self, at: u64) -> Option<[u8; 16]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..)?.first_chunk().copied()
    }
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

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn checked(bytes: &[u8], max_counted: u64) -> String {
        let file = file_of(bytes);
        check_within(file.path(), 0, max_counted).err().map_or("sound".to_owned(), |error| error.to_string())
    }

    #[test]
    fn an_object_without_length_is_endless() {
        let found = |given: &[(u16, u64)]| {
            let file = file_of(&[&[7; 100], &heap(given)[..]].concat());
            let size = file.as_file().metadata().unwrap().len();
            Reader { file: File::open(file.path()).unwrap(), size, left: 2 * size }.objects(100).unwrap()
        };
        assert_eq!(found(&[(1, 5), (2, 8), (0, 16)]), Objects::Long(vec![]));
        assert_eq!(found(&[(1, 5), (0, 0)]), Objects::Endless);
        assert_eq!(found(&[(1, u64::MAX - 15)]), Objects::Endless);
        assert_eq!(found(&[(1, 5), (2, 1 << 40)]), Objects::Long(vec![(2, 1 << 40)]));
    }

    #[test]
    fn files_of_any_size_are_searched_for_endless_heaps_and_texts_beyond_the_limit() {
        // As if it were larger than what is counted: then only that is left out.
        for max_counted in [0, u64::MAX] {
            assert!(checked(&heap(&[(1, 5), (0, 0)]), max_counted).contains("an object without length"));
            let said = checked(&heap(&[(1, MAX_TEXT + 1)]), max_counted);
            assert!(said.contains("a text of 1073741825 bytes, more than the limit of 1073741824"), "{said}");
            assert_eq!(checked(&heap(&[(1, 5), (0, 16)]), max_counted), "sound");
        }
        // The endless one stands behind a long text that is skipped.
        let mut behind = heap(&[]);
        behind[8..16].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        behind.extend([1, 0, 1, 0, 0, 0, 0, 0]);
        behind.extend((1_u64 << 19).to_le_bytes());
        behind.resize(behind.len() + (1 << 19), b'x');
        behind.resize(1 << 20, 0);
        assert!(checked(&behind, 0).contains("an object without length"));
    }

    #[test]
    fn heaps_in_heaps_cost_no_more_than_the_file_is_long() {
        // Every sixteen bytes a heap that reaches to the end of the file.
        let of = |n: usize| [&SIGNATURE[..], &(16 * n as u64).to_le_bytes()].concat().repeat(n);
        assert!(checked(&of(1 << 16), u64::MAX).contains("its lists of texts overlap"));
        // Fewer of them, but each goes on with the same hundred thousand objects behind the last.
        let object = |length: u64| [&[1, 0, 0, 0, 0, 0, 0, 0], &length.to_le_bytes()[..], &[0; 8]].concat();
        let (n, each) = (60, 16 + object(8).len() as u64);
        let heap = |i: u64| [&SIGNATURE[..], &(1_u64 << 40).to_le_bytes(), &object(8 + each * (n - 1 - i))].concat();
        let mut file: Vec<u8> = (0..n).flat_map(heap).collect();
        assert_eq!(checked(&file, u64::MAX), "sound");
        file.extend(object(8).repeat(100_000));
        assert!(checked(&file, u64::MAX).contains("its lists of texts overlap"));
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
