//! Who may ask for what: the one table of roles.

use archipelago_common::{Principal, Role};

use crate::message::{Refusal, Request, StreamOpen, Withdrawal};

/// Who a request is for.
enum For {
    /// Sites and people; a site sees what is its own.
    Everybody,
    /// Sites.
    Sites,
    /// Sites for what is their own, and publishers.
    Owners,
    /// Sites for what is their own, and people with one of these roles.
    SitesOr(&'static [Role]),
    /// People with one of these roles.
    Roles(&'static [Role]),
    /// Whoever comes with an invitation.
    Invited,
    /// Whoever comes with an invitation, and sites.
    Joining,
}

fn is_for(request: &Request) -> For {
    match request {
        Request::RequestCertificate { .. } => For::Invited,
        Request::ShowEnrolment => For::Joining,
        Request::Status
        | Request::ListReferences
        | Request::ShowReference { .. }
        | Request::ListTasks
        | Request::ShowTask { .. }
        | Request::ShowGates { .. }
        | Request::ListReferenceHeads { .. }
        | Request::ShowReferenceHead { .. }
        | Request::ListConditions { .. }
        | Request::ListChanges { .. }
        | Request::ListChanged { .. }
        | Request::ListTaskHeads { .. }
        | Request::ShowTaskHead { .. }
        | Request::ListAssignments { .. }
        | Request::ListSubmitted { .. }
        | Request::ShowTime
        | Request::ShowDemands
        | Request::ShowSignature { .. }
        | Request::ListErasures { .. } => For::Everybody,
        Request::Claim { .. }
        | Request::Renew { .. }
        | Request::GiveUp { .. }
        | Request::Submit(_)
        | Request::RenewCertificate { .. }
        | Request::Anchor { .. }
        | Request::ShowAnchor => For::Sites,
        Request::Withdraw { .. } | Request::Erase { .. } | Request::Derive { .. } => For::Owners,
        Request::ListActs { .. } => For::SitesOr(&[Role::Auditor]),
        // A publisher chooses sites for a task, an enroller knows them.
        Request::ListSites | Request::ListSitesAfter { .. } | Request::ListContacts { .. } => {
            For::Roles(&[Role::Publisher, Role::Enroller, Role::Auditor])
        }
        Request::ListEnrolments { .. } | Request::ListKeys { .. } => For::Roles(&[Role::Enroller, Role::Auditor]),
        Request::ListStandings { .. } => For::Roles(&[Role::Enroller, Role::Administrator, Role::Auditor]),
        Request::ListProposals { .. } => For::Roles(&Role::ALL),
        // As the proposal says, which the state machine knows.
        Request::ApproveProposal { .. } | Request::DeclineProposal { .. } => {
            For::Roles(&[Role::Publisher, Role::Enroller, Role::Administrator])
        }
        Request::ListMembers | Request::ShowHealth => For::Roles(&[Role::Administrator, Role::Auditor]),
        Request::PublishReference { .. }
        | Request::PublishSignedReference { .. }
        | Request::PublishTask(_)
        | Request::PublishGatedTask { .. }
        | Request::PublishSignedTask { .. }
        | Request::CloseTask { .. }
        | Request::CancelTask { .. } => For::Roles(&[Role::Publisher]),
        Request::AddSite { .. }
        | Request::RevokeSite { .. }
        | Request::Invite { .. }
        | Request::ApproveSite { .. }
        | Request::RefuseSite { .. }
        | Request::Revoke { who: Principal::Site(_), .. } => For::Roles(&[Role::Enroller]),
        Request::Revoke { .. }
        | Request::Demand { .. }
        | Request::AddMember { .. }
        | Request::PromoteMember { .. }
        | Request::RemoveMember { .. }
        | Request::TransferLeadership { .. }
        | Request::CollectBlobs { .. }
        | Request::VerifyBlobs
        | Request::SetClock { .. } => For::Roles(&[Role::Administrator]),
    }
}

/// Whether a principal may make a request at all. That a site withdraws its own conditions only, submits its own keys
/// only and so on is for the state machine, which knows them.
///
/// # Errors  [`Refusal::Forbidden`]
pub fn permit(who: &Principal, request: &Request) -> Result<(), Refusal> {
    use Principal::{Auditor, Coordinator, Invited, Officer, Operator, Site};
    match (is_for(request), who) {
        (_, Coordinator(_)) => Err(forbidden("a coordinator asks nothing of another's sessions")),
        (For::Invited | For::Joining, Invited(_)) | (For::Joining, Site(_)) => Ok(()),
        (_, Invited(_)) => Err(forbidden(FOR_CERTIFICATES)),
        (For::Invited | For::Joining, _) => Err(forbidden("this is for whoever comes with an invitation")),
        (For::Everybody, Site(_) | Operator(_) | Auditor(_) | Officer(..)) => Ok(()),
        (For::Owners, Site(site)) => match request {
            Request::Withdraw { what: Withdrawal::Site(named), .. }
            | Request::Erase { what: Withdrawal::Site(named), .. }
                if named != site =>
            {
                Err(forbidden("a site withdraws its own conditions only"))
            }
            _ => Ok(()),
        },
        (For::Sites | For::SitesOr(_), Site(_)) => Ok(()),
        (For::Sites, Operator(_) | Auditor(_) | Officer(..)) => match request {
            Request::RenewCertificate { .. } => {
                Err(forbidden("sites renew their certificates; yours comes from whoever has the authority's key"))
            }
            Request::Anchor { .. } | Request::ShowAnchor => Err(forbidden("a site says itself how far its log is")),
            _ => Err(forbidden("tasks are taken and handed in by sites")),
        },
        (For::Owners, Operator(_) | Auditor(_) | Officer(..)) => require_one_of(who, &[Role::Publisher]),
        (For::SitesOr(roles), Operator(_) | Auditor(_) | Officer(..))
        | (For::Roles(roles), Site(_) | Operator(_) | Auditor(_) | Officer(..)) => require_one_of(who, roles),
    }
}

/// Whether a principal may open a kind of stream.
///
/// # Errors  [`Refusal::Forbidden`]
pub fn permit_stream(who: &Principal, open: &StreamOpen) -> Result<(), Refusal> {
    use Principal::{Auditor, Coordinator, Invited, Officer, Operator, Site};
    match (open, who) {
        (StreamOpen::Control(_), Site(_) | Operator(_) | Auditor(_) | Officer(..) | Invited(_)) => Ok(()),
        (_, Invited(_)) => Err(forbidden(FOR_CERTIFICATES)),
        (StreamOpen::Control(_), Coordinator(_)) => Err(forbidden("a coordinator has no session")),
        (StreamOpen::Put(_) | StreamOpen::Get { .. }, Site(_) | Coordinator(_)) => Ok(()),
        (StreamOpen::Put(_), Operator(_) | Auditor(_) | Officer(..)) => require_one_of(who, &[Role::Publisher]),
        (StreamOpen::Get { .. }, Operator(_) | Auditor(_) | Officer(..)) => {
            require_one_of(who, &[Role::Publisher, Role::Auditor])
        }
        (
            StreamOpen::Raft | StreamOpen::Peer(_) | StreamOpen::RaftFrom { .. } | StreamOpen::Relay(_),
            Coordinator(_),
        ) => Ok(()),
        (
            StreamOpen::Raft | StreamOpen::Peer(_) | StreamOpen::RaftFrom { .. } | StreamOpen::Relay(_),
            Site(_) | Operator(_) | Auditor(_) | Officer(..),
        ) => Err(forbidden("this is between coordinators")),
    }
}

fn require_one_of(who: &Principal, roles: &[Role]) -> Result<(), Refusal> {
    if roles.iter().any(|role| who.may(*role)) {
        return Ok(());
    }
    let named = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
    let reason = format!("this is for whoever is {named}, or operator; `{who}` is not");
    Err(Refusal::Forbidden { reason })
}

fn forbidden(reason: &str) -> Refusal {
    Refusal::Forbidden { reason: reason.to_owned() }
}

const FOR_CERTIFICATES: &str = "an invitation is there to ask for a certificate and for nothing else";
