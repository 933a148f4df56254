//! What two persons may have to do together, as a value that can wait: the part of [`Body`] that is proposed and approved.

use archipelago_common::{
    BlobRef, Fingerprint, Layout, Name, NodeId, Principal, Role, SiteId, Version,
    proposal::{Act, Demand},
    record::BaseSummary,
    signature::Signature,
};
use serde::{Deserialize, Serialize};

use crate::{Body, Selection};

/// Something that is done to the consortium. New variants go to the end, as those of [`Body`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Deed {
    /// Publish a reference.
    Publish {
        /// Its name.
        name: Name,
        /// Its first version.
        version: Version,
        /// What the leader read from the base blob.
        summary: Box<BaseSummary>,
        /// The rest of it.
        layout: Box<Layout>,
        /// The publisher's signature, where there is one.
        signature: Option<Box<Signature>>,
    },
    /// Take conditions out of a reference.
    Withdraw {
        /// The reference.
        reference: Name,
        /// Which conditions.
        selection: Selection,
    },
    /// Shut a site out.
    RevokeSite {
        /// Its name.
        site: SiteId,
    },
    /// Shut somebody out, or one key of theirs.
    Revoke {
        /// Who.
        who: Principal,
        /// The key that counts no more; without one, the name.
        key: Option<Fingerprint>,
        /// In words.
        reason: String,
    },
    /// Add a coordinator.
    AddMember {
        /// Its id.
        node: NodeId,
        /// Where it is reached.
        address: String,
    },
    /// Make a learner a voter.
    PromoteMember {
        /// Its id.
        node: NodeId,
    },
    /// Take a coordinator out for good.
    RemoveMember {
        /// Its id.
        node: NodeId,
    },
    /// Demand something from here on, or no more.
    Demand {
        /// What.
        demand: Demand,
        /// Whether it is demanded.
        holds: bool,
    },
    /// Take conditions out of a reference, and delete what they hold.
    Erase {
        /// The reference.
        reference: Name,
        /// Which conditions.
        selection: Selection,
    },
}

impl Deed {
    /// What a command does, if it is of the kind that two persons may have to do.
    pub fn of(body: &Body) -> Option<Self> {
        Some(match body {
            Body::PublishReference { name, version, summary } => Self::Publish {
                name: name.clone(),
                version: version.clone(),
                layout: Box::new(summary.layout()),
                summary: summary.clone(),
                signature: None,
            },
            Body::PublishLaidOutReference { name, version, summary, layout } => Self::Publish {
                name: name.clone(),
                version: version.clone(),
                layout: layout.clone(),
                summary: summary.clone(),
                signature: None,
            },
            Body::PublishSignedReference { name, version, summary, layout, signature } => Self::Publish {
                name: name.clone(),
                version: version.clone(),
                layout: layout.clone(),
                summary: summary.clone(),
                signature: Some(signature.clone()),
            },
            Body::Withdraw { reference, selection } => {
                Self::Withdraw { reference: reference.clone(), selection: selection.clone() }
            }
            Body::Erase { reference, selection } => {
                Self::Erase { reference: reference.clone(), selection: selection.clone() }
            }
            Body::RevokeSite { site } => Self::RevokeSite { site: site.clone() },
            Body::Revoke { who, key, reason } => Self::Revoke { who: who.clone(), key: *key, reason: reason.clone() },
            Body::AddMember { node, address } => Self::AddMember { node: *node, address: address.clone() },
            Body::PromoteMember { node } => Self::PromoteMember { node: *node },
            Body::RemoveMember { node } => Self::RemoveMember { node: *node },
            Body::Demand { demand, holds } => Self::Demand { demand: *demand, holds: *holds },
            _ => return None,
        })
    }

    /// Of which kind it is.
    pub fn act(&self) -> Act {
        match self {
            Self::Publish { .. } => Act::Publish,
            Self::Withdraw { .. } | Self::Erase { .. } => Act::Withdraw,
            Self::RevokeSite { .. } | Self::Revoke { .. } => Act::Revoke,
            Self::AddMember { .. } | Self::PromoteMember { .. } | Self::RemoveMember { .. } => Act::ChangeMembers,
            Self::Demand { .. } => Act::ChangeDemands,
        }
    }

    /// The role of whoever does it.
    pub fn role(&self) -> Role {
        match self {
            Self::Publish { .. } | Self::Withdraw { .. } | Self::Erase { .. } => Role::Publisher,
            Self::RevokeSite { .. } | Self::Revoke { who: Principal::Site(_), .. } => Role::Enroller,
            Self::Revoke { .. }
            | Self::AddMember { .. }
            | Self::PromoteMember { .. }
            | Self::RemoveMember { .. }
            | Self::Demand { .. } => Role::Administrator,
        }
    }

    /// The blobs that are to stay until it is done.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let version = if let Self::Publish { version, .. } = self { Some(version) } else { None };
        version.into_iter().flat_map(Version::blobs)
    }
}

/// For people, in the words of the commands.
impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Publish { name, version, summary, signature, .. } => {
                let signed = if signature.is_some() { "signed" } else { "not signed" };
                let (model, n_genes, id) = (&summary.model, summary.n_genes, version.id());
                write!(f, "publish reference `{name}`: {model} of {n_genes} genes, version {id}, {signed}")
            }
            Self::Withdraw { reference, selection: Selection::Site(site) } => {
                write!(f, "withdraw all conditions of `{site}` from reference `{reference}`")
            }
            Self::Erase { reference, selection } => {
                let withdrawal = Self::Withdraw { reference: reference.clone(), selection: selection.clone() };
                write!(f, "{withdrawal}, and delete what they hold")
            }
            Self::Withdraw { reference, selection: Selection::Keys(keys) } => {
                let shown = keys.iter().take(SHOWN_KEYS).map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
                let more = keys.len().saturating_sub(SHOWN_KEYS);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(f, "withdraw {shown}{more} from reference `{reference}`")
            }
            Self::RevokeSite { site } => write!(f, "shut out `site/{site}`"),
            Self::Revoke { who, key, reason } => {
                let key = key.map_or(String::new(), |key| format!("key {key} of "));
                write!(f, "shut out {key}`{who}`")?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
            }
            Self::AddMember { node, address } => write!(f, "add coordinator {node} at `{address}`"),
            Self::PromoteMember { node } => write!(f, "make coordinator {node} a voter"),
            Self::RemoveMember { node } => write!(f, "remove coordinator {node}"),
            Self::Demand { demand, holds: true } => write!(f, "demand `{demand}`"),
            Self::Demand { demand, holds: false } => write!(f, "demand `{demand}` no more"),
        }
    }
}

/// Keys that are named of a withdrawal.
const SHOWN_KEYS: usize = 8;
