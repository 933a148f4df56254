//! What can go wrong with a value, in words a person can act on.

use std::path::PathBuf;

use crate::{condition::ConditionKey, hash::Digest, state_dict::DType};

/// The result of an operation on common values.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on a common value that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name breaks the rule `[a-z0-9][a-z0-9._-]{0,62}`.
    #[error("`{found}` is not a valid {what}: expected {expected}")]
    InvalidName {
        /// What the name was meant to be.
        what: &'static str,
        /// The text as given, cut to a readable length.
        found: String,
        /// The rule, in words.
        expected: &'static str,
    },
    /// A number or a word that a setting does not take.
    #[error("`{found}` is not a valid {what}: expected {expected}")]
    InvalidValue {
        /// What it is a value of.
        what: &'static str,
        /// The value as given, cut to a readable length.
        found: String,
        /// What is taken, in words.
        expected: &'static str,
    },
    /// Text that should be a digest is not 64 hexadecimal digits.
    #[error("`{found}` is not a digest: expected 64 hexadecimal digits")]
    InvalidDigest {
        /// The text as given, cut to a readable length.
        found: String,
    },
    /// Bytes do not hash to the digest they were announced under.
    #[error("{what} does not match its digest: expected {expected}, found {found}")]
    DigestMismatch {
        /// What was verified.
        what: String,
        /// The announced digest.
        expected: Digest,
        /// The digest of the bytes at hand.
        found: Digest,
    },
    /// A value was encoded by a later or unknown version of the format.
    #[error("{what} has format version {found}, expected {expected}")]
    UnknownVersion {
        /// What was decoded.
        what: &'static str,
        /// The version byte found.
        found: u32,
        /// The version this build writes.
        expected: u32,
    },
    /// Bytes that do not decode as the expected value.
    #[error("failed to decode {what}: {detail}")]
    Decode {
        /// What was decoded.
        what: &'static str,
        /// Why it failed.
        detail: String,
    },
    /// A value larger than its bound.
    #[error("{what} has {found} {unit}, more than the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: String,
        /// The size found.
        found: u64,
        /// The bound, from [`crate::limits`].
        limit: u64,
        /// `bytes`, `tensors`, `genes`…
        unit: &'static str,
    },
    /// A tensor whose shape, type or byte count contradict each other.
    #[error("tensor `{name}` of shape {shape:?} and type {dtype} needs {expected} bytes but has {found}")]
    TensorSize {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its element type.
        dtype: DType,
        /// Bytes that shape and type ask for.
        expected: u64,
        /// Bytes present.
        found: u64,
    },
    /// A tensor is missing.
    #[error("{what} has no tensor `{name}`")]
    MissingTensor {
        /// Where it was looked for.
        what: String,
        /// Its name.
        name: String,
    },
    /// A tensor is of another type than the operation needs.
    #[error("tensor `{name}` has type {found}, expected {expected}")]
    TensorType {
        /// Name of the tensor.
        name: String,
        /// The type found.
        found: DType,
        /// The type needed.
        expected: DType,
    },
    /// Two versions or submissions hold the same condition key.
    #[error("condition `{key}` is present on both sides with different columns")]
    KeyCollision {
        /// The key in question.
        key: Box<ConditionKey>,
    },
    /// A condition key was named that the version does not hold.
    #[error("the version has no condition `{key}`")]
    UnknownKey {
        /// The key in question.
        key: Box<ConditionKey>,
    },
    /// Columns break a rule of the task they were made for.
    #[error("columns of condition `{key}` are refused: {reason}")]
    RefusedColumns {
        /// The condition.
        key: Box<ConditionKey>,
        /// Which rule, with found and expected.
        reason: String,
    },
    /// A file operation failed.
    #[error("failed to {action} `{}`", path.display())]
    File {
        /// `read`, `write`, `create`…
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's word on it.
        #[source]
        source: std::io::Error,
    },
}
