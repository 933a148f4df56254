//! What comes of a command.

use archipelago_common::{Fingerprint, Name, Principal, TaskId, VersionId, record::SiteRecord};
use serde::{Deserialize, Serialize};

use crate::effect::Effect;

/// What applying one command gave.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// The answer to whoever asked.
    pub outcome: Result<Outcome, Refusal>,
    /// What is to be done now; see [`Effect`].
    pub effects: Vec<Effect>,
}

/// The answer to a command that was not refused. Small, because it is remembered: where the caller wants a whole
/// record, it reads it from the state by the name given here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// To `Tick`, `AgreeOnTime`, `SetClock`, `Grant`, `NoteCertificate`, `Anchor`.
    Ticked,
    /// To `AddSite` and `RevokeSite`.
    Site(SiteRecord),
    /// To `PublishReference`, `Withdraw` and `Erase`: see [`crate::Cluster::reference`].
    Reference {
        /// The reference.
        name: Name,
        /// Its current version after the command.
        version: VersionId,
    },
    /// To `PublishTask`, `PublishGatedTask`, `CloseTask`, `CancelTask`: see [`crate::Cluster::task`].
    Task(TaskId),
    /// To `Claim` and `Renew`.
    Assigned {
        /// The assignment's epoch; goes into every later command about it.
        epoch: u64,
        /// The last moment of the lease unless renewed, Unix milliseconds of the leader's clock.
        lease_until_ms: u64,
    },
    /// To `GiveUp`.
    Released,
    /// To `Submit`.
    Accepted {
        /// The version that holds it, once there is one (`publish = each`: at once).
        version: Option<VersionId>,
    },
    /// To `RaiseEdition`, `Introduce`, `AdoptMembers`, `AddMember`, `PromoteMember`, `RemoveMember`: see [`crate::Cluster::members`].
    Members,
    /// To `Invite`, `RequestCertificate`, `RenewCertificate`, `ApproveSite`, `RefuseSite`: see [`crate::Cluster::enrolment`].
    Enrolment(Fingerprint),
    /// To `Revoke`: see [`crate::Cluster::standing`].
    Standing(Principal),
    /// To `Propose`, `ApproveProposal`, `DeclineProposal`: see [`crate::Cluster::proposal`].
    Proposal(u64),
    /// To `Demand`: see [`crate::Cluster::demands`].
    Demands,
}

/// Why a command was not carried out. A refused command leaves the state as it was, but for the time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The asker's role or identity does not permit it.
    #[error("not permitted: {reason}")]
    Forbidden {
        /// In words.
        reason: String,
    },
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// The command breaks a rule.
    #[error("{reason}")]
    Invalid {
        /// Which, with found and expected.
        reason: String,
    },
    /// The command comes too late: an old epoch, a superseded version, a closed task.
    #[error("too late: {reason}")]
    Stale {
        /// In words.
        reason: String,
    },
    /// The command contradicts what is there, or there is no room for it.
    #[error("{reason}")]
    Conflict {
        /// In words.
        reason: String,
    },
}

impl Refusal {
    pub(crate) fn forbidden(reason: impl Into<String>) -> Self {
        Self::Forbidden { reason: reason.into() }
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    pub(crate) fn stale(reason: impl Into<String>) -> Self {
        Self::Stale { reason: reason.into() }
    }

    pub(crate) fn conflict(reason: impl Into<String>) -> Self {
        Self::Conflict { reason: reason.into() }
    }
}
