//! When the rules are checked: after every step of a node, and at the end.

use archipelago_common::{BlobRef, Name, NodeId, SiteId, Version, VersionId, record::TaskState};
use archipelago_coordinator::server::checks::Shelf as _;

use crate::{peer::Role, world::World};

impl World {
    /// Holds a node to the rules after it has done something.
    pub(crate) fn observe(&mut self, node: NodeId) {
        if let Err(why) = self.check_node(node) {
            self.fail(why);
        }
    }

    fn check_node(&mut self, node: NodeId) -> Result<(), String> {
        let Some(host) = self.hosts.get(&node) else { return Ok(()) };
        let (run, Some(live)) = (host.run, &host.live) else { return Ok(()) };
        let (applied, committed) = (live.node.applied(), live.node.committed());
        if live.node.is_leader() {
            self.watch.leads(node, live.node.term())?;
            self.coverage.note("checked: election safety");
        }
        let (last_applied, last_committed) = self.watch.look(node, run, applied, committed);
        self.watch.log(node, &live.node.log_from(last_committed.max(1)), committed)?;
        self.coverage.note("checked: log matching");
        if applied == last_applied {
            return Ok(());
        }
        let cluster = live.node.cluster();
        self.watch.state(node, applied, cluster)?;
        self.watch.submissions(node, applied, cluster)?;
        self.watch.fencing(node, applied, cluster)?;
        for rule in STATE_RULES {
            self.coverage.note(rule);
        }
        let (blobs, versions) = self.watch.new_names(cluster);
        for (reference, id, version) in versions {
            self.check_version(&reference, id, &version)?;
        }
        blobs.into_iter().try_for_each(|blob| self.check_durable(blob))
    }

    /// The id of a version is that of the blobs it names, read from disk and merged anew.
    fn check_version(&mut self, reference: &Name, id: VersionId, version: &Version) -> Result<(), String> {
        let read = |blob: BlobRef| {
            let holder = self.hosts.values().find(|host| host.shelves.contains(&blob));
            let bytes = holder.and_then(|host| host.shelves.read_whole(blob, u64::MAX).ok());
            bytes.map(|bytes| BlobRef::of(&bytes)).ok_or_else(|| format!("blob {blob} of `{reference}` is nowhere"))
        };
        let mut merged = Version { base: read(version.base)?, columns: Default::default() };
        // In the other order than the state machine's.
        for (key, blob) in version.columns.iter().rev() {
            merged = merged.merged(&[(key.clone(), read(*blob)?)].into()).map_err(|e| e.to_string())?;
        }
        self.coverage.note("checked: version digests");
        match merged.id() == id {
            true => Ok(()),
            false => Err(format!("version {id} of `{reference}` is not what its blobs merge to")),
        }
    }

    /// A blob that is named or acknowledged is on a majority of disks.
    fn check_durable(&mut self, blob: BlobRef) -> Result<(), String> {
        let holders = self.hosts.values().filter(|host| host.shelves.contains(&blob)).count();
        // Counted here and not asked of the product, whose count is what is checked.
        let needed = self.hosts.len() / 2 + 1;
        self.coverage.note("checked: durable blobs");
        match holders >= needed {
            true => Ok(()),
            false => Err(format!("blob {blob} counts as durable and is on {holders} of {} disks", self.hosts.len())),
        }
    }

    /// A blob is about to be acknowledged.
    pub(crate) fn check_acknowledged(&mut self, blob: BlobRef) {
        self.coverage.note("blobs acknowledged");
        if let Err(why) = self.check_durable(blob) {
            self.fail(why);
        }
    }

    /// What every running node has applied.
    pub(crate) fn applied(&self) -> Vec<u64> {
        self.hosts.values().filter_map(|host| Some(host.live.as_ref()?.node.applied())).collect()
    }

    /// The sites of the consortium.
    pub(crate) fn sites(&self) -> impl Iterator<Item = SiteId> {
        self.peers.iter().filter_map(|peer| match &peer.role {
            Role::Worker(worker) => Some(worker.site.clone()),
            Role::Operator(_) | Role::Reader(_) => None,
        })
    }

    /// What is still to happen once nothing goes wrong any more; none if all is done.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let applied = self.applied();
        if applied.len() < self.hosts.len() {
            return Some("not every node runs".to_owned());
        }
        let leader = self.hosts.values().filter_map(|host| host.live.as_ref()).find(|live| live.node.is_leader());
        let Some(leader) = leader else { return Some("nobody leads".to_owned()) };
        if applied.iter().any(|index| *index != leader.node.applied()) {
            return Some(format!("the nodes have applied {applied:?}"));
        }
        let cluster = leader.node.cluster();
        for peer in &self.peers {
            let Role::Worker(worker) = &peer.role else { continue };
            if cluster.admit(&peer.who).is_err() {
                continue;
            }
            let open = cluster.tasks().filter(|task| task.state == TaskState::Open);
            if let Some(task) = open.into_iter().find(|task| !worker.is_done_with(task)) {
                return Some(format!("`{}` has not finished task {}", worker.site, task.id));
            }
        }
        let lacks = |blob: &BlobRef| self.hosts.values().any(|host| !host.shelves.contains(blob));
        cluster.referenced_blobs().iter().find(|blob| lacks(blob)).map(|blob| format!("blob {blob} is not everywhere"))
    }
}

/// What is checked whenever a node's state has changed.
const STATE_RULES: [&str; 4] = [
    "checked: state-machine equality",
    "checked: no acknowledged submission lost",
    "checked: none accepted twice",
    "checked: fencing",
];
