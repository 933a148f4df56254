//! The operator: enrols sites, publishes references and tasks, closes, cancels, withdraws, revokes.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
};

use archipelago_common::{
    BlobRef, ConditionKey, Digest, Layout, Name, NodeId, SiteId, TaskId, Version, VersionId,
    record::{TaskRecord, TaskState},
    signature::Statement,
    task::{PublishMode, QualityGates, SurgeryTask, TrainSpec},
};
use archipelago_protocol::message::{Reply, Request};

use crate::{
    joiner,
    leaver::leaver,
    pair,
    peer::{Act, HOARDER, Heard, View},
    training::{self, Facts},
    trees,
};

/// The reference whose tasks make a version per submission.
pub(crate) const EACH: &str = "atlas";
/// The reference whose tasks make a version when they close.
pub(crate) const AT_CLOSE: &str = "late";

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("the names above are sound")
}

/// The digest of a reference's base.
pub(crate) fn base_of(reference: &Name) -> Digest {
    base(reference.as_str()).0.digest
}

/// A reference's base.
pub(crate) fn base_blob(reference: &Name) -> BlobRef {
    base(reference.as_str()).0
}

/// What versions of a reference hold: of one of the two, more than columns.
pub(crate) fn layout_of(reference: &Name) -> Layout {
    if reference.as_str() == EACH { training::laid_out() } else { training::plain() }
}

/// The base of a reference. One of the two is longer than a chunk, so that a transfer can stop in the middle.
fn base(reference: &str) -> &'static (BlobRef, Arc<[u8]>) {
    static SHORT: LazyLock<(BlobRef, Arc<[u8]>)> =
        LazyLock::new(|| training::named(training::base(EACH, training::laid_out(), 20)));
    static LONG: LazyLock<(BlobRef, Arc<[u8]>)> =
        LazyLock::new(|| training::named(training::base(AT_CLOSE, training::plain(), 1_100_000)));
    if reference == EACH { &SHORT } else { &LONG }
}

/// A person with a script, and then with ideas.
pub(crate) struct Operator {
    script: VecDeque<Line>,
    sites: Vec<SiteId>,
    open: Vec<TaskId>,
    /// The current version of each reference, as far as this person has heard.
    current: Vec<(Name, VersionId)>,
    n_published: u64,
    has_invited: bool,
    has_revoked: bool,
    /// The keys of the version of [`EACH`] that this person last heard of.
    held: Option<(VersionId, Vec<ConditionKey>)>,
    /// Every coordinator that there is or may be.
    nodes: Vec<NodeId>,
}

enum Line {
    Ask(Request),
    Upload(BlobRef, Arc<[u8]>),
}

impl Operator {
    pub(crate) fn new(sites: &[&str], n_founders: u64) -> Self {
        let sites: Vec<SiteId> = sites.iter().filter_map(|site| site.parse().ok()).collect();
        let enrolled = sites.iter().cloned().chain(HOARDER.parse().ok());
        let mut script: VecDeque<_> = enrolled.map(|site| Line::Ask(Request::AddSite { site })).collect();
        for reference in [EACH, AT_CLOSE] {
            let (base, bytes) = base(reference).clone();
            script.push_back(Line::Upload(base, bytes));
            let key: ConditionKey = "anna/lung/ref".parse().expect("a sound key");
            let layout = layout_of(&name(reference));
            let columns = training::columns(&layout, &base.digest, &key, 0, Facts::Kept);
            let (columns, bytes) = training::named(columns);
            script.push_back(Line::Upload(columns, bytes));
            let version = Version { base, columns: [(key, columns)].into() };
            script.push_back(Line::Ask(Request::PublishReference { name: name(reference), version }));
        }
        let nodes = (1..=n_founders + 2).filter_map(NodeId::new).collect();
        Self {
            script,
            sites,
            open: Vec::new(),
            current: Vec::new(),
            n_published: 0,
            has_invited: false,
            has_revoked: false,
            held: None,
            nodes,
        }
    }

    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Started | Heard::Time => {
                if !std::mem::replace(&mut self.has_invited, true) {
                    let (site, invitation) = (joiner::site(), joiner::invitation());
                    // Clocks jump by days here, and an invitation that has ended is of no use.
                    let expires_ms = view.clock_ms + archipelago_common::limits::LONGEST_INVITATION_MS * 2 / 3;
                    self.script.push_back(Line::Ask(Request::Invite { site, invitation, expires_ms }));
                }
                self.next(view)
            }
            Heard::TasksChanged => Vec::new(),
            Heard::Uploaded(_, Ok(())) => {
                self.script.pop_front();
                self.next(view)
            }
            Heard::Uploaded(_, Err(())) => vec![Act::Wake(view.chance.within(100..600))],
            Heard::Answer(request, answer) => {
                if matches!(self.script.front(), Some(Line::Ask(asked)) if *asked == request) {
                    self.script.pop_front();
                }
                self.learn(answer.ok());
                let pause = if self.script.is_empty() { view.chance.within(100..1_500) } else { 1 };
                vec![Act::Wake(pause)]
            }
        }
    }

    fn next(&mut self, view: &mut View<'_>) -> Vec<Act> {
        match self.script.front() {
            Some(Line::Ask(request)) => vec![Act::Ask(request.clone())],
            Some(Line::Upload(blob, bytes)) => vec![Act::Upload(*blob, bytes.clone())],
            None if !view.is_calm && view.chance.one_in(8) => match self.derivation() {
                Some(lines) => {
                    self.script.extend(lines);
                    self.next(view)
                }
                None => vec![Act::Ask(self.idea(view))],
            },
            None => vec![Act::Ask(self.idea(view))],
        }
    }

    /// What follows from the last known version, to be handed in: the sum of its pool and its tree.
    fn derivation(&mut self) -> Option<[Line; 4]> {
        let (version, keys) = self.held.take()?;
        let (base, layout) = (base_of(&name(EACH)), layout_of(&name(EACH)));
        let lines = |value: Name, bytes: Arc<[u8]>| {
            let (result, bytes) = training::named(bytes);
            let request = Request::Derive { reference: name(EACH), version, value, result };
            [Line::Upload(result, bytes), Line::Ask(request)]
        };
        let [upload_total, ask_total] = lines(training::totals(), training::total(&base, keys.iter()));
        let [upload_tree, ask_tree] = lines(trees::value(), trees::tree(&layout, &base, keys.iter()));
        Some([upload_total, ask_total, upload_tree, ask_tree])
    }

    fn idea(&mut self, view: &mut View<'_>) -> Request {
        let open = view.chance.pick(&self.open).copied();
        let site = view.chance.pick(&self.sites).cloned();
        let reference = name(if view.chance.one_in(3) { AT_CLOSE } else { EACH });
        match (view.chance.within(0..26), open, site) {
            _ if view.is_calm => Request::ListTasks,
            (24..26, _, _) => Request::ListEnrolments { after: None },
            (0..9, _, _) if self.open.len() < 4 => self.task(view, &reference),
            (9..11, Some(task), _) => Request::CloseTask { task },
            (11, Some(task), _) => Request::CancelTask { task },
            (12, _, Some(site)) => view.withdrawal(reference, site),
            (13, _, Some(site)) if self.sites.len() > 2 && view.chance.one_in(6) => {
                self.sites.retain(|other| *other != site);
                Request::RevokeSite { site }
            }
            (20..22, _, _) => self.change_of_members(view),
            (22..24, _, _) if !std::mem::replace(&mut self.has_revoked, true) => {
                Request::Revoke { who: leaver(), key: None, reason: "has left".to_owned() }
            }
            (14..17, Some(task), _) => Request::ShowTask { task },
            (17..20, _, _) => Request::ListTasks,
            _ => Request::ShowReference { name: reference },
        }
    }

    /// Nodes are added, promoted and removed without much thought: what cannot be is refused.
    fn change_of_members(&self, view: &mut View<'_>) -> Request {
        let joining = &self.nodes[self.nodes.len() - 2..];
        let pick = |view: &mut View<'_>, nodes: &[NodeId]| view.chance.pick(nodes).copied().unwrap_or(self.nodes[0]);
        match view.chance.within(0..7) {
            0..3 => {
                let node = pick(view, joining);
                Request::AddMember { node, address: format!("node-{node}:7101") }
            }
            3..6 => Request::PromoteMember { node: pick(view, joining) },
            _ => Request::RemoveMember { node: pick(view, &self.nodes) },
        }
    }

    fn task(&mut self, view: &mut View<'_>, reference: &Name) -> Request {
        let Some((_, version)) = self.current.iter().find(|(known, _)| known == reference) else {
            return Request::ShowReference { name: reference.clone() };
        };
        self.n_published += 1;
        // No two tasks are published with one seed, so one that was published twice shows.
        let train = TrainSpec { seed: self.n_published, ..TrainSpec::default() };
        let mut task = SurgeryTask::new(reference.clone(), *version, train);
        task.publish = if reference.as_str() == EACH { PublishMode::Each } else { PublishMode::AtClose };
        task.lease_ms = view.chance.within(1_500..8_000);
        if view.chance.one_in(4) {
            task.deadline_ms = Some(view.clock_ms + view.chance.within(6_000..30_000));
        }
        if view.chance.one_in(4) {
            task.allow = view.chance.pick(&self.sites).map(|site| [site.clone()].into());
        }
        if view.chance.one_in(2) {
            return Request::PublishTask(Box::new(task));
        }
        match Statement::of_task(&task, view.clock_ms) {
            Ok(said) => {
                let (gates, signature) = (QualityGates::default(), pair::signed(said));
                Request::PublishSignedTask { task: Box::new(task), gates, signature }
            }
            Err(_) => Request::PublishTask(Box::new(task)),
        }
    }

    fn learn(&mut self, reply: Option<Reply>) {
        match reply {
            Some(Reply::Reference(record)) => {
                self.current.retain(|(known, _)| *known != record.name);
                if record.name == name(EACH) {
                    let held = record.versions.get(&record.current).map(|version| version.columns.keys().cloned());
                    self.held = held.map(|keys| (record.current, keys.collect()));
                }
                self.current.push((record.name, record.current));
            }
            Some(Reply::Enrolments(page)) => {
                self.script.extend(page.items.iter().filter_map(joiner::approval).map(Line::Ask));
            }
            Some(Reply::Task(task)) => self.learn_task(&task),
            Some(Reply::Tasks(tasks)) => tasks.iter().for_each(|task| self.learn_task(task)),
            _ => {}
        }
    }

    fn learn_task(&mut self, task: &TaskRecord) {
        self.open.retain(|open| *open != task.id);
        if task.state == TaskState::Open {
            self.open.push(task.id);
        }
    }
}
