//! Values to bytes and back for wire and log. The only file that names bincode.
//!
//! Encoding: one format version byte, then bincode with variable-length integers. Decoding never allocates more than
//! the input's own length suggests, refuses trailing bytes, and is bounded by the caller's limit.

use bincode::Options as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The format version that this build writes and reads.
pub const FORMAT: u8 = 1;

/// Encodes a value, refusing one of more than `limit` bytes.
///
/// # Errors  [`Error::TooLarge`]
pub fn encode<T: Serialize>(what: &'static str, value: &T, limit: usize) -> Result<Vec<u8>> {
    let size = options(limit).serialized_size(value).map_err(|_| too_large(what, limit))?;
    let mut bytes = Vec::with_capacity(size as usize + 1);
    bytes.push(FORMAT);
    options(limit).serialize_into(&mut bytes, value).map_err(|_| too_large(what, limit))?;
    if bytes.len() > limit { Err(too_large(what, limit)) } else { Ok(bytes) }
}

/// Bytes that [`encode`] would write, whatever the limit.
pub fn size<T: Serialize>(value: &T) -> u64 {
    bincode::DefaultOptions::new().serialized_size(value).map_or(u64::MAX, |size| size.saturating_add(1))
}

/// Decodes a value that [`encode`] wrote. What it holds may be borrowed from the bytes.
///
/// # Errors  [`Error::UnknownVersion`], [`Error::TooLarge`], [`Error::Decode`]
pub fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8], limit: usize) -> Result<T> {
    if bytes.len() > limit {
        return Err(too_large(what, limit));
    }
    match bytes.split_first() {
        None => Err(Error::Decode { what, detail: "no bytes".to_owned() }),
        Some((&FORMAT, rest)) => {
            options(limit).deserialize(rest).map_err(|e| Error::Decode { what, detail: e.to_string() })
        }
        Some((&found, _)) => Err(Error::UnknownVersion { what, found: found.into(), expected: FORMAT.into() }),
    }
}

fn options(limit: usize) -> impl bincode::Options {
    bincode::DefaultOptions::new().with_limit(limit as u64).reject_trailing_bytes()
}

fn too_large(what: &'static str, limit: usize) -> Error {
    Error::TooLarge { what: what.to_owned(), found: limit as u64 + 1, limit: limit as u64, unit: "bytes" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_round_trips() {
        let value = (7_u64, "text".to_owned(), vec![1.5_f32]);
        let bytes = encode("value", &value, 100).unwrap();
        assert_eq!(decode::<(u64, String, Vec<f32>)>("value", &bytes, 100).unwrap(), value);
    }

    #[test]
    fn malformed_bytes_are_errors() {
        let bytes = encode("value", &vec![1_u8; 10], 100).unwrap();
        let decode = |bytes: &[u8]| decode::<Vec<u8>>("value", bytes, 100);
        assert!(matches!(decode(&[]), Err(Error::Decode { .. })));
        assert!(matches!(decode(&bytes[..5]), Err(Error::Decode { .. })));
        assert!(matches!(decode(&[&bytes[..], &[0]].concat()), Err(Error::Decode { .. })));
        assert!(matches!(decode(&[9, 0]), Err(Error::UnknownVersion { found: 9, .. })));
        assert!(matches!(decode(&[0; 101]), Err(Error::TooLarge { .. })));
        // A length of 2^60 elements must not be believed.
        assert!(decode(&[1, 253, 0, 0, 0, 0, 0, 0, 0, 16]).is_err());
    }

    #[test]
    fn a_value_over_the_limit_is_not_encoded() {
        assert!(matches!(encode("value", &vec![0_u8; 100], 50), Err(Error::TooLarge { .. })));
    }
}
