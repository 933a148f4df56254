//! The bytes of every message, kept in `testdata/v1`: what was written yesterday is read tomorrow.
//!
//! `UPDATE=1 cargo test -p archipelago-protocol --test golden` writes the files of new messages. A changed file is a
//! changed protocol: that needs a new version, not a new file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use archipelago_common::{
    Digest, Principal, TaskId,
    health::OfNode,
    member::{Incarnation, MembersRecord},
    proposal::Demand,
    record::{Page, SiteRecord},
    signature::Subject,
    standing::Standing,
    task::{Asks, SurgeryTask},
};
use archipelago_protocol::{
    frame::{self, Message},
    message::{
        Chunk, FromCoordinator, GetReply, Hello, Notice, PeerAsk, PeerReply, PutReply, Refusal, Reply, Request,
        RequestKey, StreamOpen, ToCoordinator, Welcome, Which, Withdrawal,
    },
};
use proptest::prelude::*;

mod examples;
mod roles;

use examples::{
    act, anchored, asked_task, assignments, blob, certified_key, changes, collected, contact, enrolment, enrolments,
    erasure, gates, gates_on_accuracy, greeting, health, key, member, node, officer, presentation, progress, proposals,
    reference, reference_head, renewing, signature, standing, status, submission, submission_with_accuracy,
    submission_with_parts, surgery_task, task_head, task_of_steps, task_record, version,
};

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let mut golden = Golden::default();
    stream_openings(&mut golden);
    requests(&mut golden);
    replies(&mut golden);
    refusals(&mut golden);
    others(&mut golden);
    golden.finish();
}

/// Compares messages with their files.
#[derive(Default)]
struct Golden {
    names: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Golden {
    fn check<M: Message + PartialEq + std::fmt::Debug>(&mut self, name: &str, message: &M) {
        assert!(self.names.insert(format!("{name}.bin")), "two messages are called {name}");
        let path = dir().join(name).with_extension("bin");
        let bytes = frame::encode(message).unwrap();
        assert_eq!(&frame::decode::<M>(&bytes).unwrap(), message, "{name} does not round trip");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        } else if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
            self.wrong.push(name.to_owned());
        }
    }

    fn finish(self) {
        assert_eq!(self.wrong, [""; 0], "these messages have other bytes than their files in testdata/v1");
        let files = std::fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(files.collect::<BTreeSet<_>>(), self.names, "files and messages are not the same");
    }
}

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

fn stream_openings(golden: &mut Golden) {
    let opens = [
        StreamOpen::Control(Hello { protocol: 1, software: "archipelago-worker 0.1.0".to_owned() }),
        StreamOpen::Put(blob("columns")),
        StreamOpen::Get { blob: blob("base"), from_chunk: 300 },
        StreamOpen::Raft,
        StreamOpen::Peer(PeerAsk::Barrier),
        StreamOpen::Peer(PeerAsk::Holdings),
        StreamOpen::Peer(PeerAsk::Health),
        StreamOpen::Peer(PeerAsk::Collect { dry_run: true }),
        StreamOpen::Peer(PeerAsk::Verify),
        StreamOpen::Peer(PeerAsk::Greet(greeting())),
        StreamOpen::Peer(PeerAsk::Vouch { node: node(4), incarnation: Incarnation(9) }),
        StreamOpen::Peer(PeerAsk::Clock),
        StreamOpen::Peer(PeerAsk::Marks),
        StreamOpen::Peer(PeerAsk::Present(presentation())),
        StreamOpen::RaftFrom { address: "10.0.0.4:7101".to_owned() },
        StreamOpen::Relay(blob("columns")),
    ];
    for open in opens {
        // The compiler asks for a line here, and with it for an example above, when there is a new variant.
        let name = match open {
            StreamOpen::Control(_) => "control",
            StreamOpen::Put(_) => "put",
            StreamOpen::Get { .. } => "get",
            StreamOpen::Raft => "raft",
            StreamOpen::RaftFrom { .. } => "raft-from",
            StreamOpen::Relay(_) => "relay",
            StreamOpen::Peer(PeerAsk::Barrier) => "peer-barrier",
            StreamOpen::Peer(PeerAsk::Holdings) => "peer-holdings",
            StreamOpen::Peer(PeerAsk::Health) => "peer-health",
            StreamOpen::Peer(PeerAsk::Collect { .. }) => "peer-collect",
            StreamOpen::Peer(PeerAsk::Verify) => "peer-verify",
            StreamOpen::Peer(PeerAsk::Greet(_)) => "peer-greet",
            StreamOpen::Peer(PeerAsk::Vouch { .. }) => "peer-vouch",
            StreamOpen::Peer(PeerAsk::Clock) => "peer-clock",
            StreamOpen::Peer(PeerAsk::Marks) => "peer-marks",
            StreamOpen::Peer(PeerAsk::Present(_)) => "peer-present",
        };
        golden.check(&format!("open-{name}"), &open);
    }
}

fn requests(golden: &mut Golden) {
    for (id, body) in (1..).zip(all_requests()) {
        let name = name_of(&body);
        let key = RequestKey([id as u8; 16]);
        golden.check(&format!("request-{name}"), &ToCoordinator::Request { id, key, body });
    }
    golden.check("ping", &ToCoordinator::Ping);
}

/// One of each kind, and of those that can say more than they always could.
fn all_requests() -> Vec<Request> {
    let (name, task) = ("lung-atlas".parse().unwrap(), TaskId(7));
    let site = || "charite".parse().unwrap();
    let withdraw = |what| Request::Withdraw { reference: "lung-atlas".parse().unwrap(), what };
    vec![
        Request::Status,
        Request::ListReferences,
        Request::ShowReference { name },
        Request::ListTasks,
        Request::ShowTask { task },
        Request::ListSites,
        Request::Claim { task },
        Request::Renew { task, epoch: 2, progress: progress() },
        Request::GiveUp { task, epoch: 2, reason: "out of disk".to_owned() },
        Request::Submit(submission()),
        withdraw(Withdrawal::Site(site())),
        withdraw(Withdrawal::Keys(vec![key()])),
        Request::AddSite { site: site() },
        Request::RevokeSite { site: site() },
        Request::PublishReference { name: "lung-atlas".parse().unwrap(), version: version() },
        Request::PublishTask(Box::new(surgery_task())),
        Request::CloseTask { task },
        Request::CancelTask { task },
        Request::ListMembers,
        Request::AddMember { node: node(4), address: "10.0.0.4:7101".to_owned() },
        Request::PromoteMember { node: node(4) },
        Request::RemoveMember { node: node(3) },
        Request::TransferLeadership { to: Some(node(2)) },
        Request::ShowHealth,
        Request::CollectBlobs { dry_run: true },
        Request::VerifyBlobs,
        Request::PublishGatedTask { task: Box::new(surgery_task()), gates: gates() },
        Request::ShowGates { task },
        Request::PublishTask(Box::new(asked_task())),
        Request::ListReferenceHeads { after: Some(reference().name) },
        Request::ShowReferenceHead { name: reference().name },
        Request::ListConditions {
            reference: reference().name,
            version: version().id(),
            owner: Some(site()),
            after: Some(key()),
        },
        Request::ListChanges { reference: reference().name, from: 300 },
        Request::ListChanged { reference: reference().name, change: 2, after: None },
        Request::ListTaskHeads { which: Which::Open, after: Some(task) },
        Request::ShowTaskHead { task },
        Request::ListAssignments { task, after: Some(site()) },
        Request::ListSubmitted { task, site: site(), after: Some(key()) },
        Request::ListSitesAfter { after: None },
        Request::PublishGatedTask { task: Box::new(surgery_task()), gates: gates_on_accuracy() },
        Request::Submit(submission_with_accuracy()),
        Request::Derive {
            reference: reference().name,
            version: version().id(),
            value: "totals".parse().unwrap(),
            result: blob("totals"),
        },
        Request::Submit(submission_with_parts()),
        Request::SetClock { now_ms: 1_700_000_000_000 },
        Request::PublishTask(Box::new(SurgeryTask { asks: Asks::Parts, ..surgery_task() })),
        Request::PublishTask(Box::new(SurgeryTask { asks: Asks::Annotations, ..surgery_task() })),
        Request::ShowTime,
        Request::PublishTask(Box::new(task_of_steps())),
        Request::Invite { site: site(), invitation: enrolment().invitation, expires_ms: 1_700_000_600_000 },
        Request::RequestCertificate { request: "a signing request".to_owned() },
        Request::ShowEnrolment,
        Request::ListEnrolments { after: Some(enrolment().invitation) },
        Request::ApproveSite { site: site(), certificate: "a certificate".to_owned() },
        Request::RefuseSite { site: site(), reason: "not one of ours".to_owned() },
        Request::ListKeys { after: Some(site()) },
        Request::PublishSignedReference {
            name: reference().name,
            version: version(),
            signature: Box::new(signature()),
        },
        Request::PublishSignedTask { task: Box::new(surgery_task()), gates: gates(), signature: Box::new(signature()) },
        Request::ShowSignature { of: Subject::Reference(reference().name) },
        Request::RenewCertificate { request: "a signing request".to_owned(), signature: Box::new(signature()) },
        Request::ListStandings { after: Some(standing().who) },
        Request::Revoke { who: standing().who, key: None, reason: "has left".to_owned() },
        Request::Revoke { who: standing().who, key: Some(certified_key().key), reason: "a laptop".to_owned() },
        Request::Revoke { who: Principal::Site(site()), key: None, reason: "has left".to_owned() },
        Request::Revoke { who: officer(), key: None, reason: "has left".to_owned() },
        Request::ShowDemands,
        Request::Demand { demand: Demand::TwoRevoke, holds: true },
        Request::ListProposals { after: Some(6) },
        Request::ApproveProposal { number: 7 },
        Request::DeclineProposal { number: 7, reason: "not now".to_owned() },
        Request::Anchor { after: anchored(), hashes: vec![blob("record").digest] },
        Request::ShowAnchor,
        Request::ListActs { after: 70 },
        Request::Erase { reference: erasure().reference, what: Withdrawal::Keys(vec![erasure().key]) },
        Request::Erase { reference: erasure().reference, what: Withdrawal::Site(site()) },
        Request::ListErasures { after: Some((erasure().reference, erasure().key)) },
        Request::ListContacts { after: Some(site()) },
    ]
}

fn name_of(request: &Request) -> &'static str {
    match request {
        Request::Status => "status",
        Request::ListReferences => "list-references",
        Request::ShowReference { .. } => "show-reference",
        Request::ListTasks => "list-tasks",
        Request::ShowTask { .. } => "show-task",
        Request::ListSites => "list-sites",
        Request::Claim { .. } => "claim",
        Request::Renew { .. } => "renew",
        Request::GiveUp { .. } => "give-up",
        Request::Submit(submission) if *submission == submission_with_accuracy() => "submit-figures",
        Request::Submit(submission) if submission.conditions.len() > 1 => "submit-parts",
        Request::Submit(_) => "submit",
        Request::Withdraw { what: Withdrawal::Site(_), .. } => "withdraw-site",
        Request::Withdraw { what: Withdrawal::Keys(_), .. } => "withdraw-keys",
        Request::AddSite { .. } => "add-site",
        Request::RevokeSite { .. } => "revoke-site",
        Request::PublishReference { .. } => "publish-reference",
        Request::PublishTask(task) if task.asks == Asks::Annotations => "publish-task-annotations",
        Request::PublishTask(task) if task.asks != Asks::Both => "publish-task-parts",
        Request::PublishTask(task) if !task.train.is_in_second_layout() => "publish-task-steps",
        Request::PublishTask(task) if !task.train.is_in_first_layout() => "publish-task-asked",
        Request::PublishTask(_) => "publish-task",
        Request::CloseTask { .. } => "close-task",
        Request::CancelTask { .. } => "cancel-task",
        Request::ListMembers => "list-members",
        Request::AddMember { .. } => "add-member",
        Request::PromoteMember { .. } => "promote-member",
        Request::RemoveMember { .. } => "remove-member",
        Request::TransferLeadership { .. } => "transfer-leadership",
        Request::ShowHealth => "show-health",
        Request::CollectBlobs { .. } => "collect-blobs",
        Request::VerifyBlobs => "verify-blobs",
        Request::PublishGatedTask { gates, .. } if !gates.are_in_first_layout() => "publish-gated-task-figures",
        Request::PublishGatedTask { .. } => "publish-gated-task",
        Request::ShowGates { .. } => "show-gates",
        Request::ListReferenceHeads { .. } => "list-reference-heads",
        Request::ShowReferenceHead { .. } => "show-reference-head",
        Request::ListConditions { .. } => "list-conditions",
        Request::ListChanges { .. } => "list-changes",
        Request::ListChanged { .. } => "list-changed",
        Request::ListTaskHeads { .. } => "list-task-heads",
        Request::ShowTaskHead { .. } => "show-task-head",
        Request::ListAssignments { .. } => "list-assignments",
        Request::ListSubmitted { .. } => "list-submitted",
        Request::ListSitesAfter { .. } => "list-sites-after",
        Request::Derive { .. } => "derive",
        Request::SetClock { .. } => "set-clock",
        Request::ShowTime => "show-time",
        Request::Invite { .. } => "invite",
        Request::RequestCertificate { .. } => "request-certificate",
        Request::ShowEnrolment => "show-enrolment",
        Request::ListEnrolments { .. } => "list-enrolments",
        Request::ApproveSite { .. } => "approve-site",
        Request::RefuseSite { .. } => "refuse-site",
        Request::ListKeys { .. } => "list-keys",
        Request::PublishSignedReference { .. } => "publish-signed-reference",
        Request::PublishSignedTask { .. } => "publish-signed-task",
        Request::ShowSignature { .. } => "show-signature",
        Request::RenewCertificate { .. } => "renew-certificate",
        Request::ListStandings { .. } => "list-standings",
        Request::Revoke { who: Principal::Site(_), .. } => "revoke-a-site",
        Request::Revoke { who: Principal::Officer(..), .. } => "revoke-officer",
        Request::Anchor { .. } => "anchor",
        Request::ShowAnchor => "show-anchor",
        Request::ListActs { .. } => "list-acts",
        Request::Erase { what: Withdrawal::Keys(_), .. } => "erase-keys",
        Request::Erase { what: Withdrawal::Site(_), .. } => "erase-site",
        Request::ListErasures { .. } => "list-erasures",
        Request::ListContacts { .. } => "list-contacts",
        Request::Revoke { key: None, .. } => "revoke",
        Request::Revoke { key: Some(_), .. } => "revoke-key",
        Request::ShowDemands => "show-demands",
        Request::Demand { .. } => "demand",
        Request::ListProposals { .. } => "list-proposals",
        Request::ApproveProposal { .. } => "approve-proposal",
        Request::DeclineProposal { .. } => "decline-proposal",
    }
}

fn replies(golden: &mut Golden) {
    let site = SiteRecord { site: "charite".parse().unwrap(), enrolled_ms: 1_000, revoked_ms: Some(2_000) };
    let site_record = site.clone();
    let replies = [
        Reply::Status(status()),
        Reply::References(vec![reference()]),
        Reply::Reference(Box::new(reference())),
        Reply::Tasks(vec![task_record()]),
        Reply::Task(Box::new(task_record())),
        Reply::Sites(vec![site.clone()]),
        Reply::Site(site),
        Reply::Assigned { epoch: 3, lease_until_ms: 1_700_000_060_000 },
        Reply::Released,
        Reply::Accepted { version: Some(version().id()) },
        Reply::Members(MembersRecord { leader: Some(node(1)), members: vec![member()] }),
        Reply::Health(vec![OfNode { node: node(1), answer: Some(health()) }, OfNode { node: node(2), answer: None }]),
        Reply::Collected(vec![OfNode { node: node(1), answer: Some(collected()) }]),
        Reply::Gates(gates()),
        Reply::ReferenceHeads(Page { items: vec![reference_head()], more: true }),
        Reply::ReferenceHead(Box::new(reference_head())),
        Reply::Conditions(Page { items: vec![(key(), blob("columns"))], more: false }),
        Reply::Changes(changes()),
        Reply::TaskHeads(Page { items: vec![task_head()], more: true }),
        Reply::TaskHead(Box::new(task_head())),
        Reply::Assignments(assignments()),
        Reply::Submitted(Page { items: submission().conditions.into_iter().collect(), more: true }),
        Reply::SitePage(Page { items: vec![site_record], more: true }),
        Reply::Time(1_700_000_000_000),
        Reply::Enrolment(Box::new(enrolment())),
        Reply::Enrolments(Page { items: enrolments(), more: true }),
        Reply::Keys(Page { items: vec![("charite".parse().unwrap(), certified_key())], more: false }),
        Reply::Signature(Some(Box::new(signature()))),
        Reply::Enrolments(Page { items: vec![renewing()], more: false }),
        Reply::Standing(Box::new(standing())),
        Reply::Standings(Page { items: vec![standing()], more: true }),
        Reply::Standing(Box::new(Standing { who: officer(), ..standing() })),
        Reply::Proposal(Box::new(proposals()[0].clone())),
        Reply::Proposals(Page { items: proposals(), more: true }),
        Reply::Demands([Demand::Signatures, Demand::TwoRevoke].into()),
        Reply::Anchored(anchored()),
        Reply::Acts(Page { items: vec![act()], more: true }),
        Reply::Erasures(Page { items: vec![erasure()], more: false }),
        Reply::Contacts(Page { items: vec![contact()], more: false }),
    ];
    for (id, reply) in (1..).zip(replies) {
        let name = match &reply {
            Reply::Status(_) => "status",
            Reply::References(_) => "references",
            Reply::Reference(_) => "reference",
            Reply::Tasks(_) => "tasks",
            Reply::Task(_) => "task",
            Reply::Sites(_) => "sites",
            Reply::Site(_) => "site",
            Reply::Assigned { .. } => "assigned",
            Reply::Released => "released",
            Reply::Accepted { .. } => "accepted",
            Reply::Members(_) => "members",
            Reply::Health(_) => "health",
            Reply::Collected(_) => "collected",
            Reply::Gates(_) => "gates",
            Reply::ReferenceHeads(_) => "reference-heads",
            Reply::ReferenceHead(_) => "reference-head",
            Reply::Conditions(_) => "conditions",
            Reply::Changes(_) => "changes",
            Reply::TaskHeads(_) => "task-heads",
            Reply::TaskHead(_) => "task-head",
            Reply::Assignments(_) => "assignments",
            Reply::Submitted(_) => "submitted",
            Reply::SitePage(_) => "site-page",
            Reply::Time(_) => "time",
            Reply::Enrolment(_) => "enrolment",
            Reply::Enrolments(page) if page.items == [renewing()] => "enrolments-renewing",
            Reply::Enrolments(_) => "enrolments",
            Reply::Standing(standing) if standing.who == officer() => "standing-officer",
            Reply::Standing(_) => "standing",
            Reply::Standings(_) => "standings",
            Reply::Proposal(_) => "proposal",
            Reply::Proposals(_) => "proposals",
            Reply::Demands(_) => "demands",
            Reply::Anchored(_) => "anchored",
            Reply::Acts(_) => "acts",
            Reply::Erasures(_) => "erasures",
            Reply::Contacts(_) => "contacts",
            Reply::Keys(_) => "keys",
            Reply::Signature(_) => "signature",
        };
        golden.check(&format!("reply-{name}"), &FromCoordinator::Response { id, result: Ok(reply) });
    }
}

fn refusals(golden: &mut Golden) {
    let reason = || "the version was superseded".to_owned();
    let refusals = [
        Refusal::NotLeader { leader: Some(node(2)) },
        Refusal::Busy { retry_after_ms: 50 },
        Refusal::Forbidden { reason: reason() },
        Refusal::NotFound { what: "task 7".to_owned() },
        Refusal::Invalid { reason: reason() },
        Refusal::Stale { reason: reason() },
        Refusal::Conflict { reason: reason() },
        Refusal::MissingBlobs { blobs: vec![blob("columns")] },
    ];
    for (id, refusal) in (1..).zip(refusals) {
        let name = match &refusal {
            Refusal::NotLeader { .. } => "not-leader",
            Refusal::Busy { .. } => "busy",
            Refusal::Forbidden { .. } => "forbidden",
            Refusal::NotFound { .. } => "not-found",
            Refusal::Invalid { .. } => "invalid",
            Refusal::Stale { .. } => "stale",
            Refusal::Conflict { .. } => "conflict",
            Refusal::MissingBlobs { .. } => "missing-blobs",
        };
        golden.check(&format!("refusal-{name}"), &FromCoordinator::Response { id, result: Err(refusal) });
    }
}

fn others(golden: &mut Golden) {
    golden.check("welcome", &FromCoordinator::Welcome(Welcome { protocol: 1, node: node(1), leader: Some(node(3)) }));
    golden.check("notice-tasks-changed", &FromCoordinator::Notice(Notice::TasksChanged));
    golden.check("notice-leader-changed", &FromCoordinator::Notice(Notice::LeaderChanged { leader: Some(node(2)) }));
    let reason = "shutting down".to_owned();
    golden.check("notice-closing", &FromCoordinator::Notice(Notice::Closing { reason }));
    let addresses = BTreeMap::from([(node(1), "10.0.0.1:7101".to_owned())]);
    golden.check("notice-members-changed", &FromCoordinator::Notice(Notice::MembersChanged { addresses }));
    golden.check("pong", &FromCoordinator::Pong);
    golden.check("peer-barrier", &PeerReply::Barrier { index: 1_000 });
    golden.check("peer-holdings", &PeerReply::Holdings { applied: 1_000, missing: 2 });
    golden.check("peer-health", &PeerReply::Health(health()));
    golden.check("peer-collected", &PeerReply::Collected(collected()));
    golden.check("peer-refused", &PeerReply::Refused(Refusal::NotLeader { leader: None }));
    golden.check("peer-greeting", &PeerReply::Greeting(greeting()));
    golden.check("peer-known", &PeerReply::Known);
    golden.check("peer-clock", &PeerReply::Clock { now_ms: 1_700_000_000_000 });
    golden.check("peer-presentation", &PeerReply::Presentation(presentation()));
    golden.check("peer-marks", &PeerReply::Marks(vec![(64, Digest::of(b"64"))]));
    golden.check("put-send", &PutReply::Send { from_chunk: 2 });
    golden.check("put-durable", &PutReply::Durable);
    golden.check("put-refused", &PutReply::Refused(Refusal::Busy { retry_after_ms: 50 }));
    golden.check("put-has", &PutReply::Has { n_chunks: 3 });
    golden.check("get-sending", &GetReply::Sending);
    golden.check("get-refused", &GetReply::Refused(Refusal::NotFound { what: "blob".to_owned() }));
    golden.check("get-sending-part", &GetReply::SendingPart { n_chunks: 3 });
    let bytes = b"one chunk".to_vec();
    golden.check("chunk", &Chunk { chunk_idx: 300, digest: Digest::of(&bytes), bytes: bytes.into() });
}

/// Decodes as every kind; any answer will do, but there must be one.
fn decode_as_everything(bytes: &[u8]) -> usize {
    [
        frame::decode::<StreamOpen>(bytes).is_ok(),
        frame::decode::<ToCoordinator>(bytes).is_ok(),
        frame::decode::<FromCoordinator>(bytes).is_ok(),
        frame::decode::<PutReply>(bytes).is_ok(),
        frame::decode::<PeerReply>(bytes).is_ok(),
        frame::decode::<GetReply>(bytes).is_ok(),
        frame::decode::<Chunk>(bytes).is_ok(),
    ]
    .into_iter()
    .filter(|is_ok| *is_ok)
    .count()
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_as_everything(&bytes);
        decode_as_everything(&[&[1], &bytes[..]].concat());
    }

    #[test]
    fn damaged_messages_are_errors_or_messages_and_never_a_panic(
        file in 0_usize..1_000, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut files: Vec<_> = std::fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut bytes = std::fs::read(&files[file % files.len()]).unwrap();
        prop_assert!(decode_as_everything(&bytes) >= 1);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        decode_as_everything(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decode_as_everything(&bytes);
    }
}
