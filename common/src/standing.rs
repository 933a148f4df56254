//! How somebody stands in a consortium: until when they are certified, and whether anybody has shut them out.

use serde::{Deserialize, Serialize};

use crate::{
    enrolment::{CertifiedKey, Fingerprint},
    id::Name,
    principal::Principal,
};

/// That a name or a key counts no more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revocation {
    /// The operator who said so; not known of sites and coordinators that were shut out before edition 7.
    pub by: Option<Name>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// In words; may be empty.
    pub reason: String,
}

/// How somebody stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Who.
    pub who: Principal,
    /// Of the keys that they have come with and that count, the one that is certified longest.
    pub certified: Option<CertifiedKey>,
    /// Whether the name is shut out for good.
    pub revoked: Option<Revocation>,
    /// Keys of this name that are shut out, while the name goes on with another.
    pub revoked_keys: Vec<(Fingerprint, Revocation)>,
}
