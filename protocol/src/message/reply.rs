//! What is answered, or why not.

use std::collections::BTreeSet;

use archipelago_common::{
    act::{Act, Anchored, Erasure},
    blob::BlobRef,
    condition::ConditionKey,
    contact::SiteContact,
    enrolment::{CertifiedKey, EnrolmentRecord, EnrolmentState},
    health::{Collected, HealthRecord, OfNode},
    id::{NodeId, SiteId, VersionId},
    member::MembersRecord,
    proposal::{Demand, Proposal},
    record::{
        AssignmentHead, AssignmentState, Cause, Change, Page, ReferenceHead, ReferenceRecord, SiteRecord, StatusRecord,
        SubmittedCondition, TaskHead, TaskRecord,
    },
    signature::Signature,
    standing::Standing,
    task::QualityGates,
};
use serde::{Deserialize, Serialize};

use super::request::{since_asked, since_gates, since_keys, since_named, since_submission};
use crate::version;

/// The answer to a request that was not refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Status`.
    Status(StatusRecord),
    /// To `ListReferences`.
    References(Vec<ReferenceRecord>),
    /// To `ShowReference` and `PublishReference`, `PublishSignedReference`, `Withdraw`, `Erase`. To the last three, of a long history only what fits: the current
    /// version's id is always there.
    Reference(Box<ReferenceRecord>),
    /// To `ListTasks`.
    Tasks(Vec<TaskRecord>),
    /// To `ShowTask`, `PublishTask`, `PublishGatedTask`, `PublishSignedTask`, `CloseTask`, `CancelTask`.
    Task(Box<TaskRecord>),
    /// To `ListSites`.
    Sites(Vec<SiteRecord>),
    /// To `AddSite` and `RevokeSite`.
    Site(SiteRecord),
    /// To `Claim` and `Renew`.
    Assigned {
        /// The assignment's epoch; goes into every later request about it.
        epoch: u64,
        /// When the lease ends unless renewed, Unix milliseconds of the leader's clock.
        lease_until_ms: u64,
    },
    /// To `GiveUp`.
    Released,
    /// To `Submit`: the submission is durable and accepted.
    Accepted {
        /// The version that holds it, once there is one (`publish = each`: at once).
        version: Option<VersionId>,
    },
    /// To `ListMembers`, `AddMember`, `PromoteMember`, `RemoveMember`, `TransferLeadership`.
    Members(MembersRecord),
    /// To `ShowHealth` and `VerifyBlobs`.
    Health(Vec<OfNode<HealthRecord>>),
    /// To `CollectBlobs`.
    Collected(Vec<OfNode<Collected>>),
    /// To `ShowGates`.
    Gates(QualityGates),
    /// To `ListReferenceHeads`.
    ReferenceHeads(Page<ReferenceHead>),
    /// To `ShowReferenceHead`.
    ReferenceHead(Box<ReferenceHead>),
    /// To `ListConditions` and `ListChanged`.
    Conditions(Page<(ConditionKey, BlobRef)>),
    /// To `ListChanges`: each with whether it has more conditions than are here.
    Changes(Page<(Change, bool)>),
    /// To `ListTaskHeads`.
    TaskHeads(Page<TaskHead>),
    /// To `ShowTaskHead`.
    TaskHead(Box<TaskHead>),
    /// To `ListAssignments`.
    Assignments(Page<(SiteId, AssignmentHead)>),
    /// To `ListSubmitted`.
    Submitted(Page<(ConditionKey, SubmittedCondition)>),
    /// To `ListSitesAfter`.
    SitePage(Page<SiteRecord>),
    /// To `ShowTime`: Unix milliseconds by what a majority's clocks agreed on last.
    Time(u64),
    /// To `Invite`, `RequestCertificate`, `RenewCertificate`, `ShowEnrolment`, `ApproveSite` and `RefuseSite`.
    Enrolment(Box<EnrolmentRecord>),
    /// To `ListEnrolments`.
    Enrolments(Page<EnrolmentRecord>),
    /// To `ListKeys`.
    Keys(Page<(SiteId, CertifiedKey)>),
    /// To `ShowSignature`; none where nobody signed.
    Signature(Option<Box<Signature>>),
    /// To `Revoke`.
    Standing(Box<Standing>),
    /// To `ListStandings`.
    Standings(Page<Standing>),
    /// To `ApproveProposal` and `DeclineProposal`, and to whatever one person has now proposed because two are to do it.
    Proposal(Box<Proposal>),
    /// To `ListProposals`.
    Proposals(Page<Proposal>),
    /// To `ShowDemands` and `Demand`.
    Demands(BTreeSet<Demand>),
    /// To `ShowAnchor`.
    Anchored(Anchored),
    /// To `ListActs`.
    Acts(Page<Act>),
    /// To `ListErasures`.
    Erasures(Page<Erasure>),
    /// To `ListContacts`.
    Contacts(Page<SiteContact>),
}

impl Reply {
    /// The answer for a peer that speaks this version. What it could not read is left out of a list, so that it can go on with
    /// the rest.
    ///
    /// # Errors  [`Refusal::Invalid`] where that is all that was asked for
    pub fn in_version(self, protocol: u16) -> Result<Self, Refusal> {
        if protocol >= version::NEWEST {
            return Ok(self);
        }
        let too_new = |what: String| {
            let reason = format!("{what} has what protocol {protocol} cannot say; upgrade this program");
            Err(Refusal::Invalid { reason })
        };
        Ok(match self {
            Self::References(mut records) => {
                records.retain(|record| since_reference(record) <= protocol);
                Self::References(records)
            }
            Self::Tasks(mut records) => {
                records.retain(|record| since_task(record) <= protocol);
                Self::Tasks(records)
            }
            Self::Reference(record) if since_reference(&record) > protocol => {
                return too_new(format!("reference `{}`", record.name));
            }
            Self::Task(record) if since_task(&record) > protocol => return too_new(format!("task {}", record.id)),
            Self::TaskHeads(mut page) => {
                page.items.retain(|head| since_asked(&head.task) <= protocol);
                // The next page is asked for by the last of this one.
                if page.items.is_empty() && page.more {
                    return too_new("a page of tasks".to_owned());
                }
                Self::TaskHeads(page)
            }
            Self::TaskHead(head) if since_asked(&head.task) > protocol => {
                return too_new(format!("task {}", head.id));
            }
            Self::Enrolments(mut page) => {
                page.items.retain(|record| since_enrolment(record) <= protocol);
                // The next page is asked for by the last of this one.
                if page.items.is_empty() && page.more {
                    return too_new("a page of requests".to_owned());
                }
                Self::Enrolments(page)
            }
            Self::Enrolment(record) if since_enrolment(&record) > protocol => {
                return too_new(format!("the request of `{}`", record.site));
            }
            Self::Standings(mut page) => {
                page.items.retain(|standing| since_named(&standing.who) <= protocol);
                // The next page is asked for by the last of this one.
                if page.items.is_empty() && page.more {
                    return too_new("a page of standings".to_owned());
                }
                Self::Standings(page)
            }
            Self::Standing(standing) if since_named(&standing.who) > protocol => {
                return too_new(standing.who.to_string());
            }
            Self::Proposal(proposal) if protocol < 9 => {
                let (number, deed) = (proposal.number, proposal.deed);
                let reason = format!(
                    "it is not done yet, but proposed with number {number} ({deed}): two persons do this together; `proposals` \
                     of a program of protocol 9 shows and approves it"
                );
                return Err(Refusal::Conflict { reason });
            }
            Self::Gates(gates) if since_gates(&gates) > protocol => return too_new("a quality gate".to_owned()),
            reply => reply,
        })
    }
}

/// Before 8 no site asked by itself.
fn since_enrolment(record: &EnrolmentRecord) -> u16 {
    if matches!(record.state, EnrolmentState::Renewing { .. }) { 8 } else { 7 }
}

fn since_reference(record: &ReferenceRecord) -> u16 {
    let is_derived = record.lineage.iter().any(|event| matches!(event.cause, Cause::Derived { .. }));
    if is_derived { 3 } else { since_keys(record.versions.values().flat_map(|version| version.columns.keys())) }
}

fn since_task(record: &TaskRecord) -> u16 {
    let submissions = record.assignments.values().filter_map(|assignment| match &assignment.state {
        AssignmentState::Accepted { submission, .. } => Some(submission),
        _ => None,
    });
    submissions.map(since_submission).max().unwrap_or(1).max(since_asked(&record.task))
}

/// Why a request was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Ask the leader instead, with the same request key.
    #[error("this coordinator is not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too much at once; ask again later with the same request key.
    #[error("the coordinator is busy")]
    Busy {
        /// When to ask again.
        retry_after_ms: u64,
    },
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
    /// The request breaks a rule.
    #[error("{reason}")]
    Invalid {
        /// Which, with found and expected.
        reason: String,
    },
    /// The request comes too late: an old epoch, a superseded version, a closed task.
    #[error("too late: {reason}")]
    Stale {
        /// In words.
        reason: String,
    },
    /// The request contradicts what is there.
    #[error("{reason}")]
    Conflict {
        /// In words.
        reason: String,
    },
    /// Blobs that the request names are not on a majority of coordinators.
    #[error("{} blobs that the request names have not been uploaded", blobs.len())]
    MissingBlobs {
        /// Which.
        blobs: Vec<BlobRef>,
    },
}
