//! The replicated state machine: members, sites, references, tasks, submissions, versions.
//!
//! [`Cluster::apply`] turns one [`Command`] into an answer and effects. It is synchronous and deterministic: the same
//! log gives the same state, bit for bit, on every coordinator. It knows names and digests of blobs, never their
//! bytes; what must be read from them (the summary of a base, the check of columns) the leader does before it proposes.
//!
//! Start with [`Command`], then `submission.rs` and `reference.rs`: what is accepted, and what becomes of it. The rules
//! that hold at all times are in [`invariants`].

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    Fingerprint, Layout, Name, NodeId, Principal, SiteId, TaskId,
    act::Anchored,
    enrolment::{CertifiedKey, EnrolmentRecord},
    member::{Incarnation, MemberRecord},
    proposal::Demand,
    record::{SiteRecord, TaskRecord},
    signature::{Signature, Subject},
    standing::Revocation,
    task::QualityGates,
};
use serde::{Deserialize, Serialize};

mod acts;
mod chain;
mod command;
mod deed;
mod derive;
mod earlier_formats;
mod edition;
mod effect;
mod enrolment;
mod erasure;
mod founding;
mod growth;
mod history;
mod index;
pub mod invariants;
mod member;
pub mod mutation;
mod outcome;
mod proposal;
mod reference;
mod requests;
mod signature;
mod site;
mod snapshot;
mod standing;
mod submission;
mod task;
mod time;
mod upload;
mod view;

pub use command::{Body, Command, Selection};
pub use deed::Deed;
pub use edition::Edition;
pub use effect::Effect;
pub use founding::{are_of_one_cluster, awaited_founder};
pub use history::Reference;
pub use outcome::{Applied, Outcome, Refusal};
pub use time::agreed_ms;
pub use view::{Counts, Room, Which, page};

use acts::Acts;
use chain::Chain;
use erasure::Erasures;
use index::Index;
use proposal::Proposed;
use requests::Requests;
use upload::Uploads;

/// Everything that the coordinators agree on.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// What time it is; goes back only where an operator sets it.
    now_ms: u64,
    sites: BTreeMap<SiteId, SiteRecord>,
    references: BTreeMap<Name, Reference>,
    tasks: BTreeMap<TaskId, TaskRecord>,
    requests: Requests,
    members: BTreeMap<NodeId, MemberRecord>,
    /// What tasks ask of the quality of submissions, where they do.
    gates: BTreeMap<TaskId, QualityGates>,
    /// What versions of a reference hold, where its summary does not say it all.
    layouts: BTreeMap<Name, Layout>,
    /// The latest that it ever was.
    latest_ms: u64,
    /// The life of each member's log that counts as that member, once it has said it.
    incarnations: BTreeMap<NodeId, Incarnation>,
    /// By which rules commands are carried out.
    edition: Edition,
    /// Bytes that everything was said to take when it was accepted; see [`growth`].
    n_bytes: u64,
    /// A digest of all that was carried out; see [`chain`].
    chain: Option<Chain>,
    /// What sites upload in a day.
    uploads: BTreeMap<SiteId, Uploads>,
    /// Invitations that are open or were answered lately, by the keys that come with them; one of each site.
    enrolments: BTreeMap<Fingerprint, EnrolmentRecord>,
    /// The keys of sites that came in by an invitation. One that was certified by hand may have any that the authority has signed.
    certified: BTreeMap<SiteId, CertifiedKey>,
    /// What publishers signed.
    signatures: BTreeMap<Subject, Signature>,
    /// Until when everybody is certified who has come; see [`standing`].
    met: BTreeMap<Principal, CertifiedKey>,
    /// Keys that sites have asked for by themselves and that were approved, until each comes for the first time.
    renewed: BTreeMap<SiteId, CertifiedKey>,
    /// Names that are shut out, and are no sites.
    revoked: BTreeMap<Principal, Revocation>,
    /// Keys that are shut out, and whose they were.
    revoked_keys: BTreeMap<Fingerprint, (Principal, Revocation)>,
    /// What this consortium demands; see [`proposal`].
    demands: BTreeSet<Demand>,
    /// What one person has proposed and another is to approve, and what was lately.
    proposals: BTreeMap<u64, Proposed>,
    /// What was done lately; see [`acts`].
    acts: Option<Acts>,
    /// How far the own logs of sites are, as they said last.
    anchors: BTreeMap<SiteId, Anchored>,
    /// What was deleted; see [`erasure`].
    erasures: Erasures,
    #[serde(skip)]
    index: Index,
}

impl Cluster {
    /// Carries out one command. Time passes first, so a lease or deadline that is over is over for this command too,
    /// whether or not a tick has come in between. A refused command changes nothing else.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let mut effects = Vec::new();
        if self.advance(command.now_ms) {
            effects.push(Effect::AnnounceTasks);
        }
        if let Some(outcome) = self.requests.recall(command) {
            return Applied { outcome, effects };
        }
        // Whose sessions it ends follows from how everybody stood before.
        let effect = self.effect_of(&command.body);
        let outcome = self.carry_out(command);
        if let Ok(outcome) = &outcome {
            effects.extend(effect);
            self.requests.remember(command, outcome, self.edition);
            self.add_to_chain(command, outcome);
            self.record(command, outcome);
        }
        Applied { outcome, effects }
    }

    fn carry_out(&mut self, Command { principal, body, .. }: &Command) -> Result<Outcome, Refusal> {
        self.require_heard(principal)?;
        self.require_alone(principal, body)?;
        match body {
            Body::Tick => site::require_coordinator(principal).map(|()| Outcome::Ticked),
            Body::AddSite { site } => self.add_site(principal, site),
            Body::RevokeSite { site } => self.revoke_site(principal, site),
            Body::PublishReference { name, version, summary } => {
                self.publish_unsigned_reference(principal, (name, version), (summary, &summary.layout()))
            }
            Body::PublishLaidOutReference { name, version, summary, layout } => {
                self.publish_unsigned_reference(principal, (name, version), (summary, layout))
            }
            Body::PublishTask(task) => self.publish_unsigned_task(principal, task, &QualityGates::default()),
            Body::CloseTask { task } => self.close_task(principal, *task),
            Body::CancelTask { task } => self.cancel_task(principal, *task),
            Body::Claim { task } => self.claim(principal, *task),
            Body::Renew { task, epoch, progress } => self.renew(principal, *task, *epoch, *progress),
            Body::GiveUp { task, epoch, reason } => self.give_up(principal, *task, *epoch, reason),
            Body::Submit(submission) => self.submit(principal, submission),
            Body::Withdraw { reference, selection } => self.withdraw(principal, reference, selection),
            Body::AdoptMembers { addresses } => self.adopt_members(principal, addresses),
            Body::AddMember { node, address } => self.add_member(principal, *node, address),
            Body::PromoteMember { node } => self.promote_member(principal, *node),
            Body::RemoveMember { node } => self.remove_member(principal, *node),
            Body::PublishGatedTask { task, gates } => self.publish_unsigned_task(principal, task, gates),
            Body::RaiseEdition { edition } => self.raise_edition(principal, *edition),
            Body::Derive { reference, version, value, result } => {
                self.derive(principal, reference, *version, value, *result)
            }
            Body::AgreeOnTime { clocks } => self.agree_on_time(principal, clocks),
            Body::SetClock { now_ms } => self.set_clock(principal, *now_ms),
            Body::Grant { site, bytes, limit } => self.grant(principal, site, *bytes, *limit),
            Body::Introduce { node, incarnation } => self.introduce(principal, *node, *incarnation),
            Body::Invite { site, invitation, expires_ms } => self.invite(principal, site, *invitation, *expires_ms),
            Body::RequestCertificate { key, request } => self.request_certificate(principal, *key, request),
            Body::ApproveSite { site, certified, certificate } => {
                self.approve_site(principal, site, *certified, certificate)
            }
            Body::RefuseSite { site, reason } => self.refuse_site(principal, site, reason),
            Body::PublishSignedReference { name, version, summary, layout, signature } => {
                self.publish_signed_reference(principal, (name, version), (summary, layout), signature)
            }
            Body::PublishSignedTask { task, gates, signature } => {
                self.publish_signed_task(principal, task, gates, signature)
            }
            Body::RenewCertificate { key, request, signature } => {
                self.renew_certificate(principal, *key, request, signature)
            }
            Body::NoteCertificate { who, certified } => self.note_certificate(principal, who, *certified),
            Body::Anchor { after, hashes } => self.anchor(principal, *after, hashes),
            Body::Erase { reference, selection } => self.erase(principal, reference, selection),
            Body::Revoke { who, key, reason } => self.revoke(principal, who, *key, reason),
            Body::Demand { demand, holds } => self.demand(principal, *demand, *holds),
            Body::Propose { deed, key } => self.propose(principal, deed, *key),
            Body::ApproveProposal { number, key } => self.approve_proposal(principal, *number, *key),
            Body::DeclineProposal { number, reason } => self.decline_proposal(principal, *number, reason),
        }
    }
}
