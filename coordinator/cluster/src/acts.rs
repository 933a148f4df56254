//! The record of acts: who did what and what came of it, chained by hash and the same on every coordinator, because it follows
//! from the log. What was refused, and what coordinators do by themselves to keep going, is in no record.
//!
//! The latest [`limits::ACT_BYTES`] are kept in the state: that much goes with every snapshot, and no more. Earlier ones are in the
//! exports that auditors take, which hold on to the rest by the chain; a coordinator's disk is no archive.

use std::collections::VecDeque;

use archipelago_common::{
    Digest, Principal, SiteId,
    act::{Act, Anchor, Anchored},
    codec, limits,
    record::Page,
};
use serde::{Deserialize, Serialize};

use crate::{Body, Cluster, Command, Edition, Outcome, Refusal, Room, Selection, view::page};

/// What was done lately.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Acts {
    /// How many there ever were.
    n_acts: u64,
    /// Hash of the last.
    head: Digest,
    /// Bytes of those that are kept.
    n_bytes: u64,
    kept: VecDeque<Act>,
}

impl Default for Acts {
    fn default() -> Self {
        Self { n_acts: 0, head: Digest::of(b""), n_bytes: 0, kept: VecDeque::new() }
    }
}

impl Acts {
    fn push(&mut self, act: Act) {
        (self.n_acts, self.head) = (act.seq, act.hash());
        self.n_bytes += codec::size(&act);
        self.kept.push_back(act);
        while self.n_bytes > limits::ACT_BYTES {
            let Some(gone) = self.kept.pop_front() else { break };
            self.n_bytes -= codec::size(&gone);
        }
    }

    /// Whether what is kept is the end of the chain.
    pub(crate) fn are_whole(&self) -> bool {
        match (self.kept.front(), self.kept.back()) {
            (Some(first), Some(last)) => {
                let n_kept = self.kept.len() as u64;
                (last.seq, last.hash()) == (self.n_acts, self.head) && first.seq + n_kept == self.n_acts + 1
            }
            _ => self.n_acts == 0,
        }
    }
}

impl Cluster {
    /// The acts after this number, as far as somebody may see them: a site its own.
    pub fn act_page(&self, room: Room, who: &Principal, after: u64) -> Page<Act> {
        let Some(acts) = &self.acts else { return Page { items: Vec::new(), more: false } };
        let first = acts.kept.front().map_or(0, |act| act.seq);
        let n_before = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let own = match who {
            Principal::Site(_) => Some(who.to_string()),
            _ => None,
        };
        let is_seen = |act: &&Act| own.as_ref().is_none_or(|own| act.who == *own);
        page(room, acts.kept.iter().skip(n_before).filter(is_seen).cloned())
    }

    /// How far a site's own log is, as it said last.
    pub fn anchored(&self, site: &SiteId) -> Anchored {
        self.anchors.get(site).copied().unwrap_or_default()
    }

    pub(crate) fn begin_acts(&mut self) {
        if self.edition >= Edition::Eighth {
            self.acts.get_or_insert_default();
        }
    }

    /// Notes an act that was carried out.
    pub(crate) fn record(&mut self, command: &Command, outcome: &Outcome) {
        let Some(mut acts) = self.acts.take() else { return };
        if let Some((what, about)) = told(&command.body) {
            let anchor = match &command.body {
                Body::Anchor { after, hashes } => Some(self.follow(&command.principal, *after, hashes)),
                _ => None,
            };
            acts.push(Act {
                seq: acts.n_acts + 1,
                at_ms: self.now_ms,
                who: command.principal.to_string(),
                key: self.certified_of(&command.principal).map(|certified| certified.key),
                what: what.to_owned(),
                about,
                outcome: came_of(outcome),
                command: command.body.digest().unwrap_or_else(|| Digest::of(b"")),
                anchor,
                previous: acts.head,
            });
        }
        self.acts = Some(acts);
    }

    /// Takes what a site says of its own log. One that does not follow what the site said before is taken too, and stands in the record as
    /// such: a hospital whose disk was lost goes on, and an auditor sees that its log was begun anew.
    pub(crate) fn anchor(
        &mut self,
        principal: &Principal,
        after: Anchored,
        hashes: &[Digest],
    ) -> Result<Outcome, Refusal> {
        self.require_site(principal)?;
        match hashes.len() {
            1..=limits::ANCHOR_HASHES if after.n_records <= MOST_RECORDS => Ok(Outcome::Ticked),
            found => {
                let most = limits::ANCHOR_HASHES;
                Err(Refusal::invalid(format!("the anchor has {found} hashes, expected 1 to {most}")))
            }
        }
    }

    fn follow(&mut self, principal: &Principal, after: Anchored, hashes: &[Digest]) -> Anchor {
        let known = match principal {
            Principal::Site(site) => self.anchored(site),
            _ => Anchored::default(),
        };
        let follows = after == known;
        let anchor = Anchor { after, hashes: hashes.to_vec(), follows };
        if let Principal::Site(site) = principal {
            self.anchors.insert(site.clone(), anchor.end());
        }
        anchor
    }
}

/// What an act is called, and what it is done to. Part of the chain: a change of a word is another chain, and a new edition.
fn told(body: &Body) -> Option<(&'static str, String)> {
    Some(match body {
        // Time, leases and quotas, and what coordinators find out about one another.
        Body::Tick
        | Body::Renew { .. }
        | Body::Grant { .. }
        | Body::AgreeOnTime { .. }
        | Body::Introduce { .. }
        | Body::AdoptMembers { .. } => return None,
        Body::AddSite { site } => ("add-site", site.to_string()),
        Body::RevokeSite { site } => ("revoke-site", site.to_string()),
        Body::PublishReference { name, .. }
        | Body::PublishLaidOutReference { name, .. }
        | Body::PublishSignedReference { name, .. } => ("publish-reference", name.to_string()),
        Body::PublishTask(task) | Body::PublishGatedTask { task, .. } | Body::PublishSignedTask { task, .. } => {
            ("publish-task", format!("reference {}", task.reference))
        }
        Body::CloseTask { task } => ("close-task", format!("task {task}")),
        Body::CancelTask { task } => ("cancel-task", format!("task {task}")),
        Body::Claim { task } => ("claim", format!("task {task}")),
        Body::GiveUp { task, .. } => ("give-up", format!("task {task}")),
        Body::Submit(submission) => {
            ("submit", format!("task {}, {} conditions", submission.task, submission.conditions.len()))
        }
        Body::Withdraw { reference, selection } => ("withdraw", format!("{reference}, {}", in_words(selection))),
        Body::Erase { reference, selection } => ("erase", format!("{reference}, {}", in_words(selection))),
        Body::AddMember { node, address } => ("add-member", format!("coordinator {node}, {address}")),
        Body::PromoteMember { node } => ("promote-member", format!("coordinator {node}")),
        Body::RemoveMember { node } => ("remove-member", format!("coordinator {node}")),
        Body::RaiseEdition { edition } => ("raise-edition", edition.number().to_string()),
        Body::Derive { reference, value, .. } => ("derive", format!("{reference}, {value}")),
        Body::SetClock { now_ms } => ("set-clock", format!("{now_ms} ms")),
        Body::Invite { site, .. } => ("invite", site.to_string()),
        Body::RequestCertificate { key, .. } => ("request-certificate", format!("key {key}")),
        Body::ApproveSite { site, certified, .. } => ("approve", format!("{site}, key {}", certified.key)),
        Body::RefuseSite { site, .. } => ("refuse", site.to_string()),
        Body::RenewCertificate { key, .. } => ("renew-certificate", format!("key {key}")),
        Body::NoteCertificate { who, certified } => ("note-certificate", format!("{who}, key {}", certified.key)),
        Body::Revoke { who, key: None, .. } => ("revoke", who.to_string()),
        Body::Revoke { who, key: Some(key), .. } => ("revoke", format!("{who}, key {key}")),
        Body::Demand { demand, holds: true } => ("demand", demand.to_string()),
        Body::Demand { demand, holds: false } => ("lift", demand.to_string()),
        Body::Propose { deed, .. } => ("propose", deed.to_string()),
        Body::ApproveProposal { number, .. } => ("approve-proposal", format!("proposal {number}")),
        Body::DeclineProposal { number, .. } => ("decline-proposal", format!("proposal {number}")),
        Body::Anchor { after, hashes } => {
            let first = after.n_records + 1;
            ("anchor", format!("records {first} to {}", after.n_records + hashes.len() as u64))
        }
    })
}

fn in_words(selection: &Selection) -> String {
    match selection {
        Selection::Site(owner) => format!("all conditions of {owner}"),
        Selection::Keys(keys) => match keys.as_slice() {
            [key] => key.to_string(),
            keys => format!("{} conditions", keys.len()),
        },
    }
}

fn came_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reference { version, .. } => format!("version {version}"),
        Outcome::Task(task) => format!("task {task}"),
        Outcome::Assigned { epoch, .. } => format!("epoch {epoch}"),
        Outcome::Accepted { version: Some(version) } => format!("accepted, version {version}"),
        Outcome::Accepted { version: None } => "accepted".to_owned(),
        Outcome::Proposal(number) => format!("proposal {number}"),
        Outcome::Ticked
        | Outcome::Demands
        | Outcome::Site(_)
        | Outcome::Released
        | Outcome::Members
        | Outcome::Enrolment(_)
        | Outcome::Standing(_) => "done".to_owned(),
    }
}

/// Records that a site's log may say it has: more than any makes in a century.
const MOST_RECORDS: u64 = 1 << 48;
