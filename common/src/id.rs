//! Identities: short checked names and numbers that cannot be confused with one another.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    error::{Error, Result},
    hash::Digest,
    limits,
};

/// A short name that is safe in a path, a URI and a log line: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// Checks `text` against the rule; `what` names the thing in the error.
    ///
    /// # Errors  [`Error::InvalidName`]
    pub fn parse(what: &'static str, text: &str) -> Result<Self> {
        let ok = (1..=limits::NAME_LENGTH).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && (text.as_bytes()[0].is_ascii_lowercase() || text.as_bytes()[0].is_ascii_digit());
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::InvalidName {
                what,
                found: shorten(text),
                expected: "1 to 63 characters of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit",
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse("name", text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An institution that owns data. Taken from its certificate, never from a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteId(Name);

impl SiteId {
    /// The site's name.
    pub fn name(&self) -> &Name {
        &self.0
    }

    /// The site's name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<Name> for SiteId {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl FromStr for SiteId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Name::parse("site name", text).map(Self)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A coordinator in the Raft group. Starts at 1 and is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// A node id, unless `id` is 0 (Raft's word for "nobody").
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// The number.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for NodeId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| Error::InvalidName {
            what: "node id",
            found: shorten(text),
            expected: "a whole number from 1",
        })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A published surgery task. Numbered by the state machine, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

impl FromStr for TaskId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| Error::InvalidName {
            what: "task id",
            found: shorten(text),
            expected: "a whole number, as `task list` shows it",
        })
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A version of a reference: the digest of its base and its columns by key. Equal content, equal id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(pub Digest);

impl FromStr for VersionId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self)
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// At most 80 characters of `text`, for errors.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_to_the_rule() {
        for good in ["a", "site-1", "10x_5p", "a.b", &"x".repeat(63)] {
            assert!(Name::parse("name", good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", ".a", "a/b", "a b", "é", &"x".repeat(64)] {
            assert!(Name::parse("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_does_not_deserialize() {
        assert!(serde_json::from_str::<SiteId>("\"../etc\"").is_err());
        assert!(serde_json::from_str::<NodeId>("0").is_err());
    }
}
