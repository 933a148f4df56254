//! The whole state as bytes: for Raft snapshots, and for comparing replicas.
//!
//! An envelope names the format of the state and its digest, so that an older build says "version 2" and a damaged
//! file is refused before any of it is believed.

use archipelago_common::{Digest, Error, Result, codec, limits};
use serde::{Deserialize, Serialize};

use crate::{Cluster, Edition, earlier_formats, invariants};

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// [`STATE_FORMAT`] of the build that wrote it.
    format: u32,
    /// Digest of `state`.
    digest: Digest,
    /// The encoded [`Cluster`].
    state: Vec<u8>,
}

impl Cluster {
    /// The state as bytes.
    ///
    /// # Errors  [`Error::TooLarge`] over [`limits::SNAPSHOT_BYTES`]
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        let state = self.encode()?;
        let envelope = Envelope { format: STATE_FORMAT, digest: Digest::of(&state), state };
        codec::encode(WHAT, &envelope, limits::SNAPSHOT_BYTES)
    }

    /// The state that [`Self::snapshot`] wrote.
    ///
    /// # Errors  [`Error::UnknownVersion`], [`Error::DigestMismatch`], [`Error::Decode`], [`Error::TooLarge`]; a state
    /// that breaks an invariant is [`Error::Decode`]
    pub fn restore(bytes: &[u8]) -> Result<Self> {
        let envelope: Envelope = codec::decode(WHAT, bytes, limits::SNAPSHOT_BYTES)?;
        if !(1..=STATE_FORMAT).contains(&envelope.format) {
            return Err(Error::UnknownVersion { what: WHAT, found: envelope.format, expected: STATE_FORMAT });
        }
        let found = Digest::of(&envelope.state);
        if found != envelope.digest {
            return Err(Error::DigestMismatch { what: WHAT.to_owned(), expected: envelope.digest, found });
        }
        let mut cluster: Self = match envelope.format {
            STATE_FORMAT => codec::decode(WHAT, &envelope.state, limits::SNAPSHOT_BYTES)?,
            earlier => earlier_formats::read(earlier, envelope.state)?,
        };
        cluster.index();
        invariants::check_restored(&cluster).map_err(|detail| Error::Decode { what: WHAT, detail })?;
        Ok(cluster)
    }

    /// Digest of the whole state: equal on two coordinators that have applied the same log.
    ///
    /// # Errors  [`Error::TooLarge`], as [`Self::snapshot`]
    pub fn digest(&self) -> Result<Digest> {
        self.encode().map(|state| Digest::of(&state))
    }

    /// Digest of the state as builds encode it that know no edition after its own: a rule of that edition must give the same on
    /// theirs and on this one.
    pub(crate) fn digest_of_edition(&self) -> Result<Digest> {
        let mut state = self.encode()?;
        // What came with format 7 is empty, and that is six zeros at the end; so is what came with format 6, four more; and invitations,
        // keys of sites and signatures, three more.
        let n_later = match self.edition {
            Edition::Eighth => 0,
            Edition::Seventh => 6,
            Edition::Sixth => 10,
            _ => 13,
        };
        state.truncate(state.len().saturating_sub(n_later));
        Ok(Digest::of(&state))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(WHAT, self, limits::SNAPSHOT_BYTES)
    }
}

const WHAT: &str = "snapshot of the cluster state";

/// Format of the encoded state. A change of it is a new number here and a way to read the old one in `earlier_formats`.
const STATE_FORMAT: u32 = 7;
