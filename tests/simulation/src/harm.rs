//! Blobs that disks spoil or lose, and how they are found though nobody asks for them.

use archipelago_common::{BlobRef, NodeId, member};

use crate::world::World;

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
        let stays = |holder: &NodeId, blob: &BlobRef| {
            let is_kept = |other: &&NodeId| *other != holder && self.hosts[*other].shelves.is_sound(blob);
            electorates.iter().all(|voters| voters.iter().filter(is_kept).count() > voters.len() / 2)
        };
        // Now and then one that a member is about to fetch, where it asks first: what is spoilt is to be found before it is sent.
        // The others are to be found though nobody asks for them. Who is no member lacks everything, and fetches nothing.
        let mut targets = Vec::new();
        if is_aimed && !is_lost {
            let members: Vec<_> = member::addresses(leader.node.cluster().members()).into_keys().collect();
            let named = leader.node.cluster().referenced_blobs();
            for member in &members {
                let Some(first) = members.iter().rfind(|other| *other != member) else { continue };
                let fetches = |blob: &&BlobRef| {
                    !self.hosts[member].shelves.contains(blob) && self.hosts[first].shelves.is_sound(blob)
                };
                targets
                    .extend(named.iter().filter(fetches).filter(|blob| stays(first, blob)).map(|blob| (*first, *blob)));
            }
        }
        // Or one that came and is not named yet: it is about to count for the command that names it.
        if !is_aimed {
            let named = leader.node.cluster().referenced_blobs();
            let all = self.hosts.iter().flat_map(|(id, host)| host.shelves.all().into_iter().map(|blob| (*id, blob)));
            targets.extend(all.filter(|(id, blob)| !named.contains(blob) && stays(id, blob)));
        }
        if targets.is_empty() {
            let all = self.hosts[&node].shelves.all();
            targets.extend(all.into_iter().filter(|blob| stays(&node, blob)).map(|blob| (node, blob)));
        }
        let Some((holder, blob)) = self.chance.pick(&targets).copied() else { return };
        let Some(host) = self.hosts.get_mut(&holder) else { return };
        if is_lost {
            host.shelves.lose(&blob)
        } else {
            host.shelves.spoil(&blob, place)
        }
        self.coverage.note(if is_lost { "blobs lost" } else { "blobs spoilt" });
        self.say(format_args!("n{holder}'s disk harms {}", blob.digest.short()));
    }
}

/// Blobs that a node reads at a time.
const SCRUBBED: usize = 2;
