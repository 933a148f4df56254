//! Who may ask for what: the one table of roles.

use archipelago_common::Principal;

use crate::message::{Refusal, Request, StreamOpen, Withdrawal};

/// Whether a principal may make a request at all. That a site withdraws its own conditions only, submits its own keys
/// only and so on is for the state machine, which knows them.
///
/// # Errors  [`Refusal::Forbidden`]
pub fn permit(who: &Principal, request: &Request) -> Result<(), Refusal> {
    use Principal::{Auditor, Coordinator, Invited, Operator, Site};
    match (request, who) {
        (_, Coordinator(_)) => Err(forbidden("a coordinator asks nothing of another's sessions")),
        (Request::RequestCertificate { .. } | Request::ShowEnrolment, Invited(_))
        | (Request::RenewCertificate { .. } | Request::ShowEnrolment, Site(_)) => Ok(()),
        (_, Invited(_)) => Err(forbidden("an invitation is there to ask for a certificate and for nothing else")),
        (Request::RequestCertificate { .. }, Site(_))
        | (Request::RequestCertificate { .. } | Request::ShowEnrolment, Operator(_) | Auditor(_)) => {
            Err(forbidden("this is for whoever comes with an invitation"))
        }
        (Request::RenewCertificate { .. }, Operator(_) | Auditor(_)) => {
            Err(forbidden("sites renew their certificates; yours comes from whoever has the authority's key"))
        }
        (
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
            | Request::ShowSignature { .. },
            Site(_) | Operator(_) | Auditor(_),
        ) => Ok(()),
        (
            Request::ListSites
            | Request::ListSitesAfter { .. }
            | Request::ListMembers
            | Request::ShowHealth
            | Request::ListEnrolments { .. }
            | Request::ListKeys { .. }
            | Request::ListStandings { .. },
            Operator(_) | Auditor(_),
        ) => Ok(()),
        (
            Request::ListSites
            | Request::ListSitesAfter { .. }
            | Request::ListEnrolments { .. }
            | Request::ListKeys { .. }
            | Request::ListStandings { .. },
            Site(_),
        ) => Err(forbidden("the list of sites is for operators and auditors")),
        (Request::ListMembers | Request::ShowHealth, Site(_)) => {
            Err(forbidden("the state of the coordinators is for operators and auditors"))
        }
        (Request::Claim { .. } | Request::Renew { .. } | Request::GiveUp { .. } | Request::Submit(_), Site(_)) => {
            Ok(())
        }
        (
            Request::Claim { .. } | Request::Renew { .. } | Request::GiveUp { .. } | Request::Submit(_),
            Operator(_) | Auditor(_),
        ) => Err(forbidden("tasks are taken and handed in by sites")),
        (Request::Withdraw { what: Withdrawal::Site(named), .. }, Site(site)) if named != site => {
            Err(forbidden("a site withdraws its own conditions only"))
        }
        (Request::Withdraw { .. } | Request::Derive { .. }, Site(_) | Operator(_)) => Ok(()),
        (Request::Withdraw { .. } | Request::Derive { .. }, Auditor(_)) => Err(forbidden("an auditor changes nothing")),
        (
            Request::AddSite { .. }
            | Request::RevokeSite { .. }
            | Request::PublishReference { .. }
            | Request::PublishTask(_)
            | Request::CloseTask { .. }
            | Request::CancelTask { .. }
            | Request::AddMember { .. }
            | Request::PromoteMember { .. }
            | Request::RemoveMember { .. }
            | Request::TransferLeadership { .. }
            | Request::CollectBlobs { .. }
            | Request::VerifyBlobs
            | Request::PublishGatedTask { .. }
            | Request::SetClock { .. }
            | Request::Invite { .. }
            | Request::ApproveSite { .. }
            | Request::RefuseSite { .. }
            | Request::PublishSignedReference { .. }
            | Request::PublishSignedTask { .. }
            | Request::Revoke { .. },
            Site(_) | Operator(_) | Auditor(_),
        ) => match who {
            Operator(_) => Ok(()),
            _ => Err(forbidden("this is for operators")),
        },
    }
}

/// Whether a principal may open a kind of stream.
///
/// # Errors  [`Refusal::Forbidden`]
pub fn permit_stream(who: &Principal, open: &StreamOpen) -> Result<(), Refusal> {
    use Principal::{Auditor, Coordinator, Invited, Operator, Site};
    match (open, who) {
        (StreamOpen::Control(_), Site(_) | Operator(_) | Auditor(_) | Invited(_)) => Ok(()),
        (_, Invited(_)) => Err(forbidden("an invitation is there to ask for a certificate and for nothing else")),
        (StreamOpen::Control(_), Coordinator(_)) => Err(forbidden("a coordinator has no session")),
        (StreamOpen::Put(_), Site(_) | Operator(_) | Coordinator(_)) => Ok(()),
        (StreamOpen::Put(_), Auditor(_)) => Err(forbidden("an auditor changes nothing")),
        (StreamOpen::Get { .. }, _) => Ok(()),
        (
            StreamOpen::Raft | StreamOpen::Peer(_) | StreamOpen::RaftFrom { .. } | StreamOpen::Relay(_),
            Coordinator(_),
        ) => Ok(()),
        (
            StreamOpen::Raft | StreamOpen::Peer(_) | StreamOpen::RaftFrom { .. } | StreamOpen::Relay(_),
            Site(_) | Operator(_) | Auditor(_),
        ) => Err(forbidden("this is between coordinators")),
    }
}

fn forbidden(reason: &str) -> Refusal {
    Refusal::Forbidden { reason: reason.to_owned() }
}
