//! The coordinators themselves: who is a member of the cluster, where it is reached, and how it stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    hash::{Digest, FieldHasher},
    id::{NodeId, shorten},
    limits,
};

/// A coordinator that is, or was, a member of the cluster. The record of a removed one stays: its id is never given
/// to another, because votes and acknowledgements of its earlier life may still be on the way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its id.
    pub node: NodeId,
    /// Where the others and the sites reach it, `host:port`.
    pub address: String,
    /// What it is to the cluster.
    pub role: MemberRole,
    /// When it was added, Unix milliseconds.
    pub added_ms: u64,
    /// When it was removed, if it was.
    pub removed_ms: Option<u64>,
}

/// What a member is to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberRole {
    /// Gets everything, counts for nothing: it is catching up.
    Learner,
    /// Counts for every majority and may lead.
    Voter,
    /// Is out for good.
    Removed,
}

/// One life of a coordinator's log, drawn when it is founded. A node whose disk was lost and that was founded again has
/// another, under whatever id it comes: it has forgotten what it promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// How a coordinator's log began, as it says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// A version began it that did not write this down.
    Unknown,
    /// Empty, to be added to a cluster that was there.
    Joined,
    /// With the founders of a new cluster, of whom this is the digest.
    Founded(Digest),
}

impl Origin {
    /// Of a founder of a cluster with these founders. Where they are counts too: other machines under the same ids are another
    /// cluster.
    pub fn founded_with(founders: &BTreeMap<NodeId, String>) -> Self {
        let mut hasher = FieldHasher::new("archipelago founders");
        for (node, address) in founders {
            hasher.field(&node.as_u64().to_le_bytes()).field(address.as_bytes());
        }
        Self::Founded(hasher.finish())
    }
}

/// A member as the leader sees it now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// What is replicated of it.
    pub member: MemberRecord,
    /// Whether Raft's configuration says the same yet.
    pub is_settled: bool,
    /// Whether it was heard of within the last election timeout.
    pub is_active: bool,
    /// Log entries that it lacks.
    pub entries_behind: u64,
}

/// All members as the leader sees them, and which of them it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MembersRecord {
    /// The leader.
    pub leader: Option<NodeId>,
    /// Every member that is or was, by id.
    pub members: Vec<MemberStatus>,
}

/// Checks an address of a coordinator: `host:port`, of a bounded length.
///
/// # Errors  [`Error::InvalidName`]
pub fn check_address(address: &str) -> Result<()> {
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    let is_sound = !host.is_empty()
        && address.len() <= limits::ADDRESS_BYTES
        && address.bytes().all(|byte| byte.is_ascii_graphic())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_sound {
        return Ok(());
    }
    Err(Error::InvalidName { what: "address", found: shorten(address), expected: "`<host>:<port>`" })
}

/// The addresses of all members that are not removed.
pub fn addresses<'a>(members: impl IntoIterator<Item = &'a MemberRecord>) -> BTreeMap<NodeId, String> {
    let present = members.into_iter().filter(|member| member.role != MemberRole::Removed);
    present.map(|member| (member.node, member.address.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["10.0.0.1:7101", "node-1.example.org:7101", "[::1]:7101"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "host", ":7101", "host:", "host:0", "host:70000", "ho st:1", &format!("{}:1", "x".repeat(300))]
        {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
