//! Blobs that disks spoil or lose, and how they are found though nobody asks for them.

use archipelago_common::{BlobRef, NodeId, member};

use crate::{host::Host, world::World};

impl World {
    /// Reads some blobs, and has those fetched again that are not what they should be.
    pub(crate) fn scrub(&mut self, node: NodeId) {
        for _ in 0..SCRUBBED {
            let Some(host) = self.hosts.get_mut(&node) else { return };
            let Some((digest, is_sound)) = host.shelves.scrub(host.scrubbed) else { return };
            host.scrubbed = digest;
            if !is_sound {
                self.coverage.note("spoilt blobs found by reading");
                self.say(format_args!("n{node} reads {} and finds it spoilt", digest.short()));
            }
        }
    }

    /// A disk spoils or loses a blob, but never so many copies that no majority has it.
    pub(crate) fn harm_blob(&mut self, node: NodeId, is_lost: bool) {
        let (place, is_aimed) = (self.chance.number(), self.chance.number().is_multiple_of(2));
        // Only somebody who leads knows who has to have it.
        let lives = self.hosts.values().filter_map(|host| host.live.as_ref());
        let leader = lives.filter(|live| live.node.is_leader()).max_by_key(|live| live.node.term());
        let Some(leader) = leader else { return };
        let electorates = leader.node.configuration().electorates(leader.node.cluster().voters());
        let stays = |blob: &BlobRef| {
            let is_kept = |other: &&NodeId| **other != node && self.hosts[*other].shelves.is_sound(blob);
            electorates.iter().all(|voters| voters.iter().filter(is_kept).count() > voters.len() / 2)
        };
        let all: Vec<_> = self.hosts[&node].shelves.all().into_iter().filter(stays).collect();
        // Now and then one that a member is about to fetch: what is spoilt is to be found before it is sent. The others are to be
        // found though nobody asks for them. Who is no member lacks everything, and fetches nothing.
        let members = member::addresses(leader.node.cluster().members());
        let fetches = |host: &Host| host.live.is_some() && members.contains_key(&host.id);
        let lacks = |blob: &BlobRef| self.hosts.values().any(|host| fetches(host) && !host.shelves.contains(blob));
        let wanted: Vec<_> = all.iter().copied().filter(lacks).collect();
        let all = if is_aimed && !is_lost && !wanted.is_empty() { wanted } else { all };
        let Some(blob) = self.chance.pick(&all).copied() else { return };
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if is_lost {
            host.shelves.lose(&blob)
        } else {
            host.shelves.spoil(&blob, place)
        }
        self.coverage.note(if is_lost { "blobs lost" } else { "blobs spoilt" });
        self.say(format_args!("n{node}'s disk harms {}", blob.digest.short()));
    }
}

/// Blobs that a node reads at a time.
const SCRUBBED: usize = 2;
