//! What people of a consortium may do beside reading what everybody may: roles, and the sets of them that one certificate names.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What somebody may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Publishes references and tasks, ends tasks, withdraws columns.
    Publisher,
    /// Invites, approves and shuts out sites.
    Enroller,
    /// Reads everything and changes nothing.
    Auditor,
    /// Administers the members: adds and removes coordinators, keeps their disks and clock, shuts people out.
    Administrator,
}

impl Role {
    /// All of them, in the order in which a certificate names them.
    pub const ALL: [Self; 4] = [Self::Publisher, Self::Enroller, Self::Auditor, Self::Administrator];

    /// The role, in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Enroller => "enroller",
            Self::Auditor => "auditor",
            Self::Administrator => "administrator",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Roles that one certificate names together. Every set but the empty one and that of the auditor alone: an auditor has a word of their
/// own, and nobody has two names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Roles(u8);

impl Roles {
    /// All sets that a certificate may name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8).filter_map(Self::of_bits)
    }

    fn of_bits(bits: u8) -> Option<Self> {
        NAMES.get(usize::from(bits)).filter(|name| !name.is_empty()).map(|_| Self(bits))
    }

    /// Whether this role is among them.
    pub fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// The roles with a `+` between them, as a certificate names them.
    pub fn as_str(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// The set with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::all().find(|roles| roles.as_str() == name)
    }
}

// Text for people and JSON, bits for the wire and the log.
impl Serialize for Roles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { self.as_str().serialize(serializer) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let roles = match deserializer.is_human_readable() {
            true => Self::of_name(&String::deserialize(deserializer)?),
            false => Self::of_bits(u8::deserialize(deserializer)?),
        };
        roles.ok_or_else(|| D::Error::custom("expected a set of roles"))
    }
}

/// By its bits, what every set is called: in this order, which is that of [`Role::ALL`], and in no other.
const NAMES: [&str; 16] = [
    "",
    "publisher",
    "enroller",
    "publisher+enroller",
    "",
    "publisher+auditor",
    "enroller+auditor",
    "publisher+enroller+auditor",
    "administrator",
    "publisher+administrator",
    "enroller+administrator",
    "publisher+enroller+administrator",
    "auditor+administrator",
    "publisher+auditor+administrator",
    "enroller+auditor+administrator",
    "publisher+enroller+auditor+administrator",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_called_by_its_roles() {
        assert_eq!(Roles::all().count(), 14);
        for roles in Roles::all() {
            let named = Role::ALL.into_iter().filter(|role| roles.contains(*role)).map(Role::as_str);
            assert_eq!(named.collect::<Vec<_>>().join("+"), roles.as_str());
            assert_eq!(Roles::of_name(roles.as_str()), Some(roles));
        }
        for other in ["", "auditor", "operator", "enroller+publisher", "publisher+", "publisher+publisher"] {
            assert_eq!(Roles::of_name(other), None, "{other}");
        }
    }
}
