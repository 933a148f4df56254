//! What can go wrong with a packed reference, in words a person can act on.

use std::path::PathBuf;

/// The result of an operation on a pack.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on a pack that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference, or a file of the pack.
    #[error(transparent)]
    Common(#[from] archipelago_common::Error),
    /// The file is no pack, or not a whole one.
    #[error("`{}` is no packed reference: {detail}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is missing or malformed.
        detail: String,
    },
    /// The file cannot be read or written.
    #[error("failed to {action} `{}`", path.display())]
    File {
        /// `read`, `write`…
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's word on it.
        #[source]
        source: std::io::Error,
    },
    /// Nobody vouches for the pack, and somebody was to.
    #[error("`{}` is not signed", path.display())]
    Unsigned {
        /// The file.
        path: PathBuf,
    },
    /// The signature is not what it has to be.
    #[error("`{}` is not what its publisher signed", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        #[source]
        source: archipelago_transport::Error,
    },
    /// Two signatures of two people, or one of somebody who publishes nothing.
    #[error("`{}` is signed by `{found}`, expected one publisher of a consortium", path.display())]
    Signer {
        /// The file.
        path: PathBuf,
        /// Who signed.
        found: String,
    },
    /// A card for people that says something else.
    #[error("`{}` is no card: {detail}", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// What it is, and where.
        detail: String,
    },
    /// What is to be written is there already.
    #[error("`{}` is there already; name another, or remove it", path.display())]
    Exists {
        /// The file or directory.
        path: PathBuf,
    },
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unsigned { .. } => "leave `--ca` out if you know from elsewhere whose it is",
            Self::Signature { .. } => "ask the publisher for the file and for the certificate of the authority",
            Self::Card { .. } => "`archipelago-coordinator reference pack --help` shows one",
            Self::Format { .. } => {
                "`archipelago-coordinator reference pack` writes one; a download may have broken off"
            }
            _ => return None,
        })
    }
}
