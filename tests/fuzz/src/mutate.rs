//! What is done to an input: what disks, networks and people who mean harm do to bytes.

use rand_chacha::rand_core::RngCore;

/// Some mutations of an entry, one after another; parts of another entry may come in.
pub fn mutated(mut bytes: Vec<u8>, other: &[u8], rng: &mut impl RngCore) -> Vec<u8> {
    for _ in 0..=below(rng, MOST_MUTATIONS) {
        mutate(&mut bytes, other, rng);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut impl RngCore) {
    match below(rng, 12) {
        0 => with_byte(bytes, rng, |byte, rng| *byte ^= 1 << below(rng, 8)),
        1 => with_byte(bytes, rng, |byte, rng| *byte = BYTES[below(rng, BYTES.len())]),
        2 => with_byte(bytes, rng, |byte, rng| *byte = rng.next_u32() as u8),
        3 | 4 => overwrite(bytes, rng),
        5 => bytes.truncate(below(rng, bytes.len() + 1)),
        6 => {
            let (start, end) = span(bytes.len(), rng);
            bytes.drain(start..end);
        }
        7 => {
            // A piece again and again: what is small in the input and large in memory.
            let (start, end) = span(bytes.len(), rng);
            let piece = bytes[start..end].to_vec();
            let n_times = 1 << below(rng, 8);
            let room = LONGEST_REPEAT / piece.len().max(1);
            insert(bytes, end, &piece.repeat(n_times.min(room)));
        }
        8 => {
            let (start, end) = span(other.len(), rng);
            let at = below(rng, bytes.len() + 1);
            insert(bytes, at, &other[start..end]);
        }
        9 => {
            // The beginning of one and the end of the other.
            let at = below(rng, bytes.len().min(other.len()) + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[at..]);
        }
        10 => number(bytes, rng),
        _ => {
            let at = below(rng, bytes.len() + 1);
            let random: Vec<u8> = (0..=below(rng, 16)).map(|_| rng.next_u32() as u8).collect();
            insert(bytes, at, &random);
        }
    }
}

/// Puts a number of one, two, four or eight bytes somewhere, one at which lengths and indices go wrong.
fn overwrite(bytes: &mut [u8], rng: &mut impl RngCore) {
    let width = 1 << below(rng, 4);
    if bytes.len() < width {
        return;
    }
    let at = below(rng, bytes.len() - width + 1);
    let length = bytes.len() as u64;
    let numbers =
        [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX];
    let value = match below(rng, numbers.len() + 3) {
        0 => length,
        1 => length + 1,
        2 => length.wrapping_sub(1),
        i => numbers[i - 3],
    };
    match below(rng, 2) {
        0 => bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]),
        _ => bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]),
    }
}

/// Puts another number in place of one that is written with digits.
fn number(bytes: &mut Vec<u8>, rng: &mut impl RngCore) {
    let n_bytes = bytes.len();
    let from = below(rng, n_bytes + 1);
    let Some(start) = (from..n_bytes).find(|&at| bytes[at].is_ascii_digit()) else { return };
    let end = (start..n_bytes).find(|&at| !bytes[at].is_ascii_digit()).unwrap_or(n_bytes);
    bytes.splice(start..end, NUMBERS[below(rng, NUMBERS.len())].bytes());
}

fn with_byte<R: RngCore>(bytes: &mut [u8], rng: &mut R, change: impl FnOnce(&mut u8, &mut R)) {
    if !bytes.is_empty() {
        let at = below(rng, bytes.len());
        change(&mut bytes[at], rng);
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

/// A part of so many bytes, more often a short one.
fn span(length: usize, rng: &mut impl RngCore) -> (usize, usize) {
    let start = below(rng, length + 1);
    let longest = if below(rng, 4) == 0 { length - start } else { (length - start).min(16) };
    (start, start + below(rng, longest + 1))
}

/// A number below `n`, which is not 0.
fn below(rng: &mut impl RngCore, n: usize) -> usize {
    (rng.next_u64() % n as u64) as usize
}

/// Mutations of one input.
const MOST_MUTATIONS: usize = 6;
/// Bytes of a piece that is repeated, all together.
const LONGEST_REPEAT: usize = 64 << 10;
/// Bytes at which something changes.
const BYTES: [u8; 12] = [0, 1, 0x1f, b' ', b'"', b'/', b'\\', b'\n', 0x7f, 0x80, 0xc0, 0xff];
/// Numbers in text.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e999",
    "NaN",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "0.1",
];
