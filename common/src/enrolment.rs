//! How a site comes in: an invitation, its request to have a key certified, and what an operator says to it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::{Error, Result},
    hash::Digest,
    id::{Name, SiteId, shorten},
    signature::Signature,
};

/// The fingerprint of a public key: half of the BLAKE3 digest of its X.509 form (`SubjectPublicKeyInfo`, DER). Two people can read it
/// to one another, and nobody makes a second key with the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Of a public key's `SubjectPublicKeyInfo`, DER.
    pub fn of(public_key: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Digest::of(public_key).as_bytes()[..16]);
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, pair) in self.0.chunks(2).enumerate() {
            write!(f, "{}{:02x}{:02x}", if i == 0 { "" } else { "-" }, pair[0], pair[1])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::InvalidName {
            what: "fingerprint",
            found: shorten(text),
            expected: "32 hexadecimal digits, such as `0b4c-…`, with or without dashes",
        };
        let digits: Vec<u32> = text.chars().filter(|c| *c != '-').filter_map(|c| c.to_digit(16)).collect();
        if digits.len() != 32 || text.chars().any(|c| c != '-' && !c.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = (pair[0] << 4 | pair[1]) as u8;
        }
        Ok(Self(bytes))
    }
}

// Text for people and JSON, bytes for the wire and the log.
impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

/// An invitation, or a site's request to have another key certified, and what has come of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EnrolmentRecord {
    /// The site that is invited.
    pub site: SiteId,
    /// The key that comes with the invitation: whoever has it may ask, once. Of a site's own request, the key that is to be certified.
    pub invitation: Fingerprint,
    /// The operator who invites; the site where it asks by itself.
    pub invited_by: Name,
    /// When, Unix milliseconds.
    pub invited_ms: u64,
    /// The last moment at which anything comes of it, Unix milliseconds.
    pub expires_ms: u64,
    /// How it stands.
    pub state: EnrolmentState,
}

/// How an invitation stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrolmentState {
    /// Nobody has come with it.
    Invited,
    /// Somebody has, and waits for an operator. From here on the invitation is used.
    Asked {
        /// The site's own key.
        key: Fingerprint,
        /// The signing request, PEM.
        request: String,
        /// When it came, Unix milliseconds.
        at_ms: u64,
    },
    /// An operator has said yes: the site is enrolled.
    Approved {
        /// The site's own key.
        key: Fingerprint,
        /// Its certificate, PEM.
        certificate: String,
        /// Who said it.
        by: Name,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// An operator has said no, or has taken the invitation back.
    Refused {
        /// The key that had asked, if one had.
        key: Option<Fingerprint>,
        /// In words.
        reason: String,
        /// Who said it.
        by: Name,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// The site itself asks, over its session, to have another key of its own certified. Since edition 7.
    Renewing {
        /// The new key.
        key: Fingerprint,
        /// The signing request of it, PEM.
        request: String,
        /// The site's signature of that, with the key that it has.
        signature: Box<Signature>,
        /// When it came, Unix milliseconds.
        at_ms: u64,
    },
}

/// The key that counts for a site since an operator has approved it: another one under its name is not the site.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertifiedKey {
    /// The key.
    pub key: Fingerprint,
    /// When its certificate ends, Unix milliseconds.
    pub expires_ms: u64,
}

impl EnrolmentRecord {
    /// Whether an operator has something to say to it at this time.
    pub fn waits(&self, now_ms: u64) -> bool {
        matches!(self.state, EnrolmentState::Asked { .. } | EnrolmentState::Renewing { .. }) && !self.is_over(now_ms)
    }

    /// Whether nothing comes of it any more at this time.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms > self.expires_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_shown_and_without_dashes() {
        let fingerprint = Fingerprint::of(b"a key");
        let shown = fingerprint.to_string();
        assert_eq!(shown.len(), 39);
        assert_eq!(shown.parse::<Fingerprint>().unwrap(), fingerprint);
        assert_eq!(shown.replace('-', "").to_uppercase().parse::<Fingerprint>().unwrap(), fingerprint);
        let (short, odd) = (&shown[1..], shown.replacen(&shown[..1], "g", 1));
        for bad in ["", short, odd.as_str(), &format!("{shown}0")] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
