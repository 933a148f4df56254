//! What the world outside has to do after a command.
//!
//! Effects are idempotent and derivable from the state: nothing is lost when the node that should have carried one
//! out dies, because its successor starts from [`Cluster::outstanding`].

use archipelago_common::Principal;

use crate::{Cluster, command::Body};

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

impl Effect {
    /// What follows from a command that was carried out.
    pub(crate) fn of(body: &Body) -> Option<Self> {
        match body {
            // An approval may replace the key of a site, as may the first use of a renewed one: whoever has the earlier one goes.
            Body::RevokeSite { site } | Body::ApproveSite { site, .. } => {
                Some(Self::CutSessions { who: Principal::Site(site.clone()) })
            }
            Body::Revoke { who, .. } => Some(Self::CutSessions { who: who.clone() }),
            Body::NoteCertificate { who: who @ Principal::Site(_), .. } => Some(Self::CutSessions { who: who.clone() }),
            // An enrolled site may find tasks that wait for it; a withdrawal may end work on a version.
            Body::AddSite { .. }
            | Body::PublishTask(_)
            | Body::PublishGatedTask { .. }
            | Body::PublishSignedTask { .. }
            | Body::CloseTask { .. }
            | Body::CancelTask { .. }
            | Body::Withdraw { .. } => Some(Self::AnnounceTasks),
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
            | Body::RefuseSite { .. } => None,
            // Leases and deadlines may be over.
            Body::AgreeOnTime { .. } | Body::SetClock { .. } => Some(Self::AnnounceTasks),
        }
    }
}

impl Cluster {
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
