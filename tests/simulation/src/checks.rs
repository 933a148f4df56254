//! When the rules are checked: after every step of a node, and at the end.

use archipelago_common::{
    BlobRef, Columns, Name, NodeId, Section, SiteId, Version, VersionId,
    part::{self, Member},
    record::TaskState,
};
use archipelago_coordinator::server::checks::Shelf as _;

use crate::{
    diverged::is_spoilt,
    host::{Host, Live},
    operator::{base_of, layout_of},
    peer::Role,
    training, trees,
    world::World,
};

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
        let state = live.node.state().clone();
        let cluster = state.read();
        if !is_spoilt(&cluster) {
            self.watch.state(node, applied, &cluster)?;
            if self.watch.revocations(node, &cluster)? {
                self.coverage.note("checked: who was revoked is not heard");
            }
        }
        self.check_founding(node, &cluster)?;
        self.watch.submissions(node, applied, &cluster)?;
        self.watch.fencing(node, applied, &cluster)?;
        self.watch.invitations(node, &cluster)?;
        self.watch.pairs(node, &cluster)?;
        self.watch.signatures(node, &cluster)?;
        let now_ms = cluster.now_ms();
        for rule in STATE_RULES {
            self.coverage.note(rule);
        }
        let (blobs, versions) = self.watch.new_names(&cluster);
        drop(cluster);
        self.check_time(node, now_ms)?;
        for (reference, id, version) in versions {
            self.check_version(&reference, id, &version)?;
            self.check_content(&reference, id, &version)?;
        }
        blobs.into_iter().try_for_each(|blob| self.check_durable(node, blob))
    }

    /// Time: no clock makes it run ahead of the true time by more than clocks that count may be off, and a clock that counted alone.
    fn check_time(&mut self, node: NodeId, now_ms: u64) -> Result<(), String> {
        let true_ms = crate::host::EPOCH_MS + self.now;
        self.watch.note_day(now_ms);
        match now_ms <= true_ms + MOST_AHEAD_MS.max(self.watch.most_ahead_by_one_clock()) {
            true => Ok(()),
            false => Err(format!("time: to n{node} it is {} s later than it is", (now_ms - true_ms) / 1_000)),
        }
    }

    /// The id of a version is that of the blobs it names, read from disk and merged anew.
    fn check_version(&mut self, reference: &Name, id: VersionId, version: &Version) -> Result<(), String> {
        let read = |blob: BlobRef| {
            let holder = self.hosts.values().find(|host| host.shelves.is_sound(&blob));
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

    /// What a version holds is what it should be: facts are facts, and the members of the pool add up to what was counted.
    fn check_content(&mut self, reference: &Name, id: VersionId, version: &Version) -> Result<(), String> {
        let layout = layout_of(reference);
        let read = |blob: &BlobRef| {
            let holder = self.hosts.values().find(|host| host.shelves.is_sound(blob));
            holder.and_then(|host| host.shelves.read_whole(*blob, u64::MAX).ok())
        };
        let (mut members, mut expected) = (Vec::new(), 0.0);
        for (key, blob) in &version.columns {
            let bytes = read(blob).ok_or_else(|| format!("blob {blob} of `{reference}` is nowhere"))?;
            if key.is_part() && *key.section() != Section::Part(training::counts()) {
                continue;
            }
            if let Some(rule) = layout.rule(key.section()) {
                members.push(Member::from_bytes(rule, &bytes).map_err(|e| e.to_string())?);
                // Counted once for every batch, however often it was handed in.
                let (n_cells, _) = training::counted(&version.base.digest, key);
                expected += if key.batch().ends_with('\'') { 0.0 } else { n_cells as f64 };
            } else {
                let columns = Columns::from_bytes(&bytes).map_err(|e| e.to_string())?;
                if !training::are_facts(&columns) {
                    return Err(format!("version {id} of `{reference}` holds facts with noise, of `{key}`"));
                }
            }
        }
        self.coverage.note("checked: facts");
        let Some(rule) = layout.rule(&Section::Part(training::counts())) else { return Ok(()) };
        let total = part::pooled(rule, &members).map_err(|e| e.to_string())?;
        let found = total.table("T cell", "n").map_or(0.0, |n| n.to_f64()[0]);
        self.coverage.note("checked: pools");
        match found == expected {
            true => Ok(()),
            false => {
                Err(format!("the pool of version {id} of `{reference}` counts {found} cells, expected {expected}"))
            }
        }
    }

    /// What was derived from a version is what its members add up to, or the tree that they make, in whatever order they came.
    pub(crate) fn check_derived(&self, reference: &Name) -> Result<(), String> {
        let base = base_of(reference);
        for host in self.hosts.values().filter_map(|host| host.live.as_ref()) {
            let cluster = host.node.cluster();
            let Some(record) = cluster.reference(reference) else { continue };
            let keys = || record.columns().keys();
            for (value, expected) in [
                (training::totals(), training::total(&base, keys())),
                (trees::value(), trees::tree(&layout_of(reference), &base, keys())),
            ] {
                let (found, expected) = (record.derived(&value), BlobRef::of(&expected));
                if found.is_some_and(|found| found != expected) {
                    return Err(format!("`{reference}` has {found:?} for `{value}`, which is {expected}"));
                }
            }
        }
        Ok(())
    }

    /// A blob that is named or acknowledged is on a majority of disks.
    fn check_durable(&mut self, node: NodeId, blob: BlobRef) -> Result<(), String> {
        let Some(live) = self.live(node) else { return Ok(()) };
        let now = live.node.configuration();
        self.coverage.note("checked: durable blobs");
        for voters in [now.voters, now.outgoing] {
            let has = |voter: &&NodeId| self.hosts[*voter].shelves.is_sound(&blob);
            let found = voters.iter().filter(has).count();
            // Counted here and not asked of the product, whose count is what is checked.
            if !voters.is_empty() && found <= voters.len() / 2 {
                return Err(format!("blob {blob} counts as durable and is on {found} of {} disks", voters.len()));
            }
        }
        Ok(())
    }

    /// A blob is about to be acknowledged.
    pub(crate) fn check_acknowledged(&mut self, node: NodeId, blob: BlobRef) {
        self.coverage.note("blobs acknowledged");
        if let Err(why) = self.check_durable(node, blob) {
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
            Role::Operator(_)
            | Role::Reader(_)
            | Role::Hoarder(_)
            | Role::Joiner(_)
            | Role::Leaver(_)
            | Role::Pair(_) => None,
        })
    }

    /// Nothing can be finished where a log was lost while a change of members was under way that left no majority of those
    /// who remember; an operator would have to found anew. Anywhere else this is still to happen.
    fn unless_forgotten(&self, what: &str) -> Option<String> {
        let remembers = |node: &NodeId| self.hosts[node].lost.is_none();
        let lives = self.hosts.values().filter(|host| remembers(&host.id)).filter_map(|host| host.live.as_ref());
        let latest = lives.max_by_key(|live| (live.node.committed(), live.node.term()));
        let is_forgotten = latest.is_some_and(|live| {
            let electorates = live.node.configuration().electorates(live.node.cluster().voters());
            electorates.iter().any(|voters| voters.iter().filter(|node| remembers(node)).count() <= voters.len() / 2)
        });
        (!is_forgotten).then(|| what.to_owned())
    }

    /// What is still to happen once nothing goes wrong any more; none if all is done.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let leads = |live: &&Live| live.node.is_leader();
        let leader = self.hosts.values().filter_map(|host| host.live.as_ref()).find(leads);
        let Some(leader) = leader else { return self.unless_forgotten("nobody leads") };
        let cluster = leader.node.cluster();
        if cluster.members().next().is_none() || !leader.node.configuration().is_settled(&cluster) {
            return self.unless_forgotten("the members have not settled");
        }
        let members = cluster.voters().into_iter().chain(cluster.learners()).map(|node| &self.hosts[&node]);
        // One that was lost is there for an operator to remove.
        let members: Vec<_> = members.filter(|host| host.lost.is_none()).collect();
        let applied = |host: &&Host| host.live.as_ref().map(|live| live.node.applied());
        if members.iter().any(|host| applied(host) != Some(leader.node.applied())) {
            let all: Vec<_> = members.iter().map(applied).collect();
            return Some(format!("the members have applied {all:?}"));
        }
        if let Some(contradicted) = self.contradicted(&cluster.voters()) {
            return Some(contradicted);
        }
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
        let (_, erased) = cluster.erased_since(0);
        if let Some(blob) = erased.iter().find(|blob| members.iter().any(|host| host.shelves.contains(blob))) {
            return Some(format!("blob {blob} was erased and is on a disk still"));
        }
        let lacks = |blob: &BlobRef| members.iter().any(|host| !host.shelves.is_sound(blob));
        cluster
            .referenced_blobs()
            .iter()
            .find(|blob| lacks(blob))
            .map(|blob| format!("blob {blob} is not everywhere as it came"))
    }
}

/// What is checked whenever a node's state has changed.
const STATE_RULES: [&str; 9] = [
    "checked: one founding",
    "checked: state-machine equality",
    "checked: no acknowledged submission lost",
    "checked: none accepted twice",
    "checked: fencing",
    "checked: invitations used once",
    "checked: two persons",
    "checked: signatures",
    "checked: time",
];
/// What time may be ahead: clocks jump by 40 s, and a majority of them may agree on that.
const MOST_AHEAD_MS: u64 = 120_000;
