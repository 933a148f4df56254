//! How requests and their outcomes are called in metrics: closed sets, so that every series is there before it is needed.

use archipelago_protocol::message::{Refusal, Reply, Request};

/// Names the variants of [`Request`], once: as a function and as a list.
macro_rules! kinds {
    ($($variant:ident => $name:literal,)*) => {
        /// What a request is called.
        pub fn kind(request: &Request) -> &'static str {
            match request {
                $(Request::$variant { .. } => $name,)*
            }
        }

        /// All that [`kind`] says.
        pub const KINDS: &[&str] = &[$($name),*];
    };
}

kinds! {
    Status => "status",
    ShowTime => "show_time",
    ListReferences => "list_references",
    ShowReference => "show_reference",
    ListTasks => "list_tasks",
    ShowTask => "show_task",
    ListSites => "list_sites",
    Claim => "claim",
    Renew => "renew",
    GiveUp => "give_up",
    Submit => "submit",
    Withdraw => "withdraw",
    AddSite => "add_site",
    RevokeSite => "revoke_site",
    PublishReference => "publish_reference",
    PublishTask => "publish_task",
    CloseTask => "close_task",
    CancelTask => "cancel_task",
    ListMembers => "list_members",
    AddMember => "add_member",
    PromoteMember => "promote_member",
    RemoveMember => "remove_member",
    TransferLeadership => "transfer_leadership",
    ShowHealth => "show_health",
    CollectBlobs => "collect_blobs",
    VerifyBlobs => "verify_blobs",
    PublishGatedTask => "publish_gated_task",
    ShowGates => "show_gates",
    ListReferenceHeads => "list_reference_heads",
    ShowReferenceHead => "show_reference_head",
    ListConditions => "list_conditions",
    ListChanges => "list_changes",
    ListChanged => "list_changed",
    ListTaskHeads => "list_task_heads",
    ShowTaskHead => "show_task_head",
    ListAssignments => "list_assignments",
    ListSubmitted => "list_submitted",
    ListSitesAfter => "list_sites_after",
    Invite => "invite",
    RequestCertificate => "request_certificate",
    ShowEnrolment => "show_enrolment",
    ListEnrolments => "list_enrolments",
    ApproveSite => "approve_site",
    RefuseSite => "refuse_site",
    ListKeys => "list_keys",
    Derive => "derive",
    SetClock => "set_clock",
    PublishSignedReference => "publish_signed_reference",
    PublishSignedTask => "publish_signed_task",
    ShowSignature => "show_signature",
    RenewCertificate => "renew_certificate",
    ListStandings => "list_standings",
    Revoke => "revoke",
    ShowDemands => "show_demands",
    Demand => "demand",
    ListProposals => "list_proposals",
    ApproveProposal => "approve_proposal",
    DeclineProposal => "decline_proposal",
    Anchor => "anchor",
    ShowAnchor => "show_anchor",
    ListActs => "list_acts",
    Erase => "erase",
    ListErasures => "list_erasures",
    ListContacts => "list_contacts",
}

/// What a request came to.
pub fn outcome(result: &Result<Reply, Refusal>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Refusal::NotLeader { .. }) => "not_leader",
        Err(Refusal::Busy { .. }) => "busy",
        Err(Refusal::Forbidden { .. }) => "forbidden",
        Err(Refusal::NotFound { .. }) => "not_found",
        Err(Refusal::Invalid { .. }) => "invalid",
        Err(Refusal::Stale { .. }) => "stale",
        Err(Refusal::Conflict { .. }) => "conflict",
        Err(Refusal::MissingBlobs { .. }) => "missing_blobs",
    }
}

/// All that [`outcome`] says.
pub const OUTCOMES: [&str; 9] =
    ["done", "not_leader", "busy", "forbidden", "not_found", "invalid", "stale", "conflict", "missing_blobs"];
