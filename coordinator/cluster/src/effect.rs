//! What the world outside has to do after a command.
//!
//! Effects are idempotent and derivable from the state: nothing is lost when the node that should have carried one
//! out dies, because its successor starts from [`Cluster::outstanding`].

use archipelago_common::Principal;

use crate::{Cluster, Deed, command::Body};

/// Something to do outside the state machine. Both kinds concern live sessions, so every node carries them out for
/// the sessions that it holds; merging, in contrast, touches names of blobs only and happens inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// End every session of somebody who may not be here any more: they were revoked, or the key of the session was, or it was replaced.
    CutSessions {
        /// Who.
        who: Principal,
    },
    /// Tell connected sites that the set of tasks open to them may have changed.
    AnnounceTasks,
}

impl Cluster {
    /// What follows from a command if it is carried out, seen before it is.
    pub(crate) fn effect_of(&self, body: &Body) -> Option<Effect> {
        let cut = |who: Principal| Some(Effect::CutSessions { who });
        match body {
            Body::RevokeSite { site } => cut(Principal::Site(site.clone())),
            Body::Revoke { who, .. } => cut(who.clone()),
            Body::ApproveSite { site, certified, .. } => {
                self.replaces_key(site, certified.key).then(|| cut(Principal::Site(site.clone())))?
            }
            // The first use of a renewed key ends what stands with the one before; any other use of any key ends nothing.
            Body::NoteCertificate { who: Principal::Site(site), certified } => {
                let is_first_use = self.renewed.get(site).is_some_and(|renewed| renewed.key == certified.key);
                is_first_use.then(|| cut(Principal::Site(site.clone())))?
            }
            Body::ApproveProposal { number, .. } => match self.proposed(*number)? {
                Deed::RevokeSite { site } => cut(Principal::Site(site.clone())),
                Deed::Revoke { who, .. } => cut(who.clone()),
                Deed::Withdraw { .. } | Deed::Erase { .. } => Some(Effect::AnnounceTasks),
                Deed::Publish { .. }
                | Deed::AddMember { .. }
                | Deed::PromoteMember { .. }
                | Deed::RemoveMember { .. }
                | Deed::Demand { .. } => None,
            },
            // An enrolled site may find tasks that wait for it; a withdrawal may end work on a version.
            Body::AddSite { .. }
            | Body::PublishTask(_)
            | Body::PublishGatedTask { .. }
            | Body::PublishSignedTask { .. }
            | Body::CloseTask { .. }
            | Body::CancelTask { .. }
            | Body::Withdraw { .. }
            | Body::Erase { .. } => Some(Effect::AnnounceTasks),
            Body::Tick
            | Body::PublishReference { .. }
            | Body::PublishLaidOutReference { .. }
            | Body::PublishSignedReference { .. }
            | Body::Claim { .. }
            | Body::Renew { .. }
            | Body::GiveUp { .. }
            | Body::Submit(_)
            // Raft's configuration follows the state by itself; see `Cluster::voters`.
            | Body::AdoptMembers { .. }
            | Body::AddMember { .. }
            | Body::PromoteMember { .. }
            | Body::RemoveMember { .. }
            | Body::Derive { .. }
            | Body::RaiseEdition { .. }
            | Body::Introduce { .. }
            | Body::Grant { .. }
            | Body::Invite { .. }
            | Body::RequestCertificate { .. }
            | Body::RenewCertificate { .. }
            | Body::NoteCertificate { .. }
            | Body::RefuseSite { .. }
            | Body::Demand { .. }
            | Body::Propose { .. }
            | Body::DeclineProposal { .. }
            | Body::Anchor { .. } => None,
            // Leases and deadlines may be over.
            Body::AgreeOnTime { .. } | Body::SetClock { .. } => Some(Effect::AnnounceTasks),
        }
    }

    /// Every effect that may still have to be carried out; what a new leader, or a node that just restored a
    /// snapshot, starts with.
    pub fn outstanding(&self) -> Vec<Effect> {
        let revoked = self.sites.values().filter(|site| site.revoked_ms.is_some());
        let sites = revoked.map(|site| &site.site).chain(self.certified.keys());
        let cut = sites.map(|site| Principal::Site(site.clone())).chain(self.revoked.keys().cloned());
        let cut = cut.chain(self.revoked_keys.values().map(|(who, _)| who.clone()));
        let mut effects: Vec<_> = cut.map(|who| Effect::CutSessions { who }).collect();
        if !self.index.open().is_empty() {
            effects.push(Effect::AnnounceTasks);
        }
        effects
    }
}
