//! What a consortium demands of those who act in it: that two persons do some things together, one proposing and another approving,
//! and that what is published is signed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    enrolment::Fingerprint,
    error::{Error, Result},
    id::shorten,
    principal::Principal,
    role::Role,
};

/// Something that two persons may have to do together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Publish a reference.
    Publish,
    /// Shut a name or a key out.
    Revoke,
    /// Withdraw columns of another owner.
    Withdraw,
    /// Add, promote or remove a coordinator.
    ChangeMembers,
    /// Change what is demanded, once anything asks for two persons.
    ChangeDemands,
}

impl Act {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Revoke => "revoke",
            Self::Withdraw => "withdraw",
            Self::ChangeMembers => "change-members",
            Self::ChangeDemands => "change-demands",
        }
    }
}

/// Something that a consortium demands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// That references and tasks are signed by their publishers.
    Signatures,
    /// That two persons publish a reference.
    TwoPublish,
    /// That two persons shut somebody, or a key, out.
    TwoRevoke,
    /// That two persons withdraw what is another's.
    TwoWithdraw,
    /// That two persons change the members.
    TwoChangeMembers,
}

impl Demand {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Signatures, Self::TwoPublish, Self::TwoRevoke, Self::TwoWithdraw, Self::TwoChangeMembers];

    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signatures => "signatures",
            Self::TwoPublish => "two-to-publish",
            Self::TwoRevoke => "two-to-revoke",
            Self::TwoWithdraw => "two-to-withdraw",
            Self::TwoChangeMembers => "two-to-change-members",
        }
    }

    /// What it asks two persons for, if anything.
    pub fn of_two(self) -> Option<Act> {
        match self {
            Self::Signatures => None,
            Self::TwoPublish => Some(Act::Publish),
            Self::TwoRevoke => Some(Act::Revoke),
            Self::TwoWithdraw => Some(Act::Withdraw),
            Self::TwoChangeMembers => Some(Act::ChangeMembers),
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Demand {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|demand| demand.as_str() == text).ok_or_else(|| Error::InvalidName {
            what: "demand",
            found: shorten(text),
            expected: "`signatures`, `two-to-publish`, `two-to-revoke`, `two-to-withdraw` or `two-to-change-members`",
        })
    }
}

/// Something that one person has proposed, and another is to approve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Counted from 1.
    pub number: u64,
    /// Of which kind.
    pub act: Act,
    /// What is proposed, in words.
    pub deed: String,
    /// The role that whoever proposes, approves or declines it has.
    pub role: Role,
    /// Who proposed it.
    pub by: Principal,
    /// The key that they came with.
    pub key: Fingerprint,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// The last moment at which it can be approved, Unix milliseconds.
    pub expires_ms: u64,
    /// How it stands.
    pub state: ProposalState,
}

/// How a proposal stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalState {
    /// Nobody has said anything to it.
    Waits,
    /// It was approved, and done.
    Done {
        /// Who approved it.
        by: Principal,
        /// The key that they came with.
        key: Fingerprint,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// Somebody said no, or whoever proposed it took it back.
    Declined {
        /// Who.
        by: Principal,
        /// In words.
        reason: String,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
}

impl Proposal {
    /// Whether it can be approved at this time.
    pub fn waits(&self, now_ms: u64) -> bool {
        self.state == ProposalState::Waits && now_ms <= self.expires_ms
    }
}
