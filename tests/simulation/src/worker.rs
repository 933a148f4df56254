//! A site's worker: claims, trains for a while, uploads, hands in; and now and then hangs, dies, comes too late,
//! says everything twice, or takes its work back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use archipelago_common::{
    BlobRef, ConditionKey, Section, SiteId, TaskId,
    record::{AssignmentState, Progress, Submission, SubmittedCondition, TaskRecord, TaskState},
};
use archipelago_protocol::message::{Refusal, Reply, Request};

use crate::{
    operator::{EACH, base_of, layout_of, name},
    peer::{Act, Heard, SITES, View},
    training::{self, Facts},
    trees,
};

/// One site's worker.
pub(crate) struct Worker {
    pub(crate) site: SiteId,
    work: Work,
    /// Tasks that are not for this site, by the coordinators' word. It is remembered across restarts.
    pub(crate) skipped: BTreeSet<TaskId>,
    /// What was trained under an epoch that is over: a slow process may still send it.
    late: Option<Submission>,
    /// The next submission has more conditions than an answer holds.
    pub(crate) is_crowded: bool,
}

enum Work {
    /// Nothing is under way.
    Idle,
    /// A question is.
    Asking,
    /// A task is, in this epoch, until then.
    Training { task: Box<TaskRecord>, epoch: u64, until_ms: u64 },
    /// Blobs are, and then the submission is handed in.
    Uploading { submission: Submission, left: Vec<(BlobRef, Arc<[u8]>)>, all: Vec<(BlobRef, Arc<[u8]>)> },
}

impl Worker {
    pub(crate) fn new(site: &str) -> Self {
        let site = site.parse().expect("a site's name is sound");
        Self { site, work: Work::Idle, skipped: BTreeSet::new(), late: None, is_crowded: false }
    }

    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Started => {
                self.work = Work::Asking;
                vec![Act::Ask(Request::ListTasks)]
            }
            Heard::Time => self.time(view),
            Heard::TasksChanged if matches!(self.work, Work::Idle) => {
                self.work = Work::Asking;
                vec![Act::Ask(Request::ListTasks)]
            }
            Heard::TasksChanged => Vec::new(),
            Heard::Answer(request, answer) => self.answer(view, request, *answer),
            Heard::Uploaded(blob, result) => self.uploaded(view, blob, result.is_ok()),
        }
    }

    /// Whether there is nothing left to do for a task.
    pub(crate) fn is_done_with(&self, task: &TaskRecord) -> bool {
        let accepted =
            task.assignments.get(&self.site).is_some_and(|a| matches!(a.state, AssignmentState::Accepted { .. }));
        accepted || self.skipped.contains(&task.id) || !task.task.allows(&self.site)
    }

    fn time(&mut self, view: &mut View<'_>) -> Vec<Act> {
        match &mut self.work {
            Work::Idle => {
                self.work = Work::Asking;
                vec![Act::Ask(Request::ListTasks)]
            }
            Work::Asking => Vec::new(),
            Work::Training { task, epoch, until_ms } if view.clock_ms < *until_ms => {
                let progress = Progress { epochs_done: 1, epochs_planned: 2, loss: None };
                let (request, lease_ms) =
                    (Request::Renew { task: task.id, epoch: *epoch, progress }, task.task.lease_ms);
                let left_ms = *until_ms - view.clock_ms;
                vec![Act::Ask(request), Act::Wake(left_ms.min(lease_ms / 3).max(1))]
            }
            Work::Training { .. } => self.finish(view),
            Work::Uploading { left, .. } => match left.last().cloned() {
                Some((blob, bytes)) => vec![Act::Upload(blob, bytes)],
                None => Vec::new(),
            },
        }
    }

    fn answer(&mut self, view: &mut View<'_>, request: Request, answer: Result<Reply, Refusal>) -> Vec<Act> {
        match (request, answer) {
            (Request::ListTasks, Ok(Reply::Tasks(tasks))) => self.choose(view, &tasks),
            (Request::Claim { task }, Ok(Reply::Assigned { epoch, .. })) => {
                let mut acts = vec![Act::Ask(Request::ShowTask { task })];
                if let Some(late) = self.late.take_if(|late| late.task == task && late.epoch < epoch) {
                    // The process that hung has woken up and knows nothing of the new epoch.
                    acts.push(Act::Ask(Request::Submit(late)));
                }
                acts
            }
            (Request::ShowTask { .. }, Ok(Reply::Task(task))) if matches!(self.work, Work::Asking) => {
                self.train(view, *task)
            }
            (Request::Submit(submission), Ok(Reply::Accepted { .. })) if self.is_current(&submission) => {
                self.handed_in(view, submission)
            }
            (Request::Submit(submission), Err(Refusal::MissingBlobs { .. })) if self.is_current(&submission) => {
                if let Work::Uploading { left, all, .. } = &mut self.work {
                    left.clone_from(all);
                }
                vec![Act::Wake(view.chance.within(50..500))]
            }
            (Request::Submit(submission), Err(Refusal::Stale { .. })) if self.is_current(&submission) => {
                self.rest(view)
            }
            (Request::Submit(submission), Err(_)) if self.is_current(&submission) => {
                self.skipped.insert(submission.task);
                self.work = Work::Asking;
                let (task, epoch, reason) = (submission.task, submission.epoch, "it was refused".to_owned());
                vec![Act::Ask(Request::GiveUp { task, epoch, reason })]
            }
            (Request::Claim { task }, Err(_)) => {
                self.skipped.insert(task);
                self.rest(view)
            }
            // Of an earlier submission, or said twice.
            (Request::Renew { .. } | Request::Submit(_) | Request::Withdraw { .. } | Request::Erase { .. }, _) => {
                Vec::new()
            }
            _ => self.rest(view),
        }
    }

    fn choose(&mut self, view: &mut View<'_>, tasks: &[TaskRecord]) -> Vec<Act> {
        let open: Vec<_> =
            tasks.iter().filter(|task| task.state == TaskState::Open && !self.is_done_with(task)).collect();
        match view.chance.pick(&open) {
            Some(task) => vec![Act::Ask(Request::Claim { task: task.id })],
            None => self.rest(view),
        }
    }

    fn train(&mut self, view: &mut View<'_>, task: TaskRecord) -> Vec<Act> {
        let Some(epoch) = task.assignments.get(&self.site).map(|assignment| assignment.epoch) else {
            return self.rest(view);
        };
        let lease_ms = task.task.lease_ms;
        let hangs = !view.is_calm && view.chance.one_in(6);
        let duration_ms =
            if hangs { lease_ms + view.chance.within(500..lease_ms) } else { view.chance.within(100..lease_ms) };
        if !view.is_calm && view.chance.one_in(14) {
            return vec![Act::Die(view.chance.within(100..4_000))];
        }
        let until_ms = view.clock_ms + duration_ms;
        self.work = Work::Training { task: Box::new(task), epoch, until_ms };
        // One that hangs does not renew.
        vec![Act::Wake(if hangs { duration_ms } else { duration_ms.min(lease_ms / 3).max(1) })]
    }

    fn finish(&mut self, view: &mut View<'_>) -> Vec<Act> {
        let Work::Training { task, epoch, .. } = std::mem::replace(&mut self.work, Work::Idle) else {
            return Vec::new();
        };
        let (base, layout) = (base_of(&task.task.reference), layout_of(&task.task.reference));
        let n_conditions = view.chance.within(1..3);
        // A worker that takes facts for weights: it is refused, and gives up.
        let is_noised = !layout.is_plain() && view.chance.one_in(12);
        let facts = if is_noised { Facts::Noised } else { Facts::Kept };
        let mut conditions = BTreeMap::new();
        let mut all = Vec::new();
        let mut add = |key: ConditionKey, (columns, bytes): (BlobRef, Arc<[u8]>)| {
            conditions.insert(key, SubmittedCondition { columns, embeddings: None, metrics: None });
            if all.last().is_none_or(|(last, _)| *last != columns) {
                all.push((columns, bytes));
            }
        };
        for i in 0..n_conditions {
            // Now and then a batch that another task may have mapped already, with other columns.
            let batch = if view.chance.one_in(12) { "again".to_owned() } else { format!("t{}-{i}", task.id) };
            let key: ConditionKey = format!("{}/lung/{batch}", self.site).parse().expect("a sound key");
            if !layout.is_plain() {
                let part = key.clone().in_section(Section::Part(training::counts()));
                add(part.clone(), training::named(training::member(&base, &part)));
            }
            let seed = task.task.train.seed;
            add(key.clone(), training::named(training::columns(&layout, &base, &key, seed, facts)));
        }
        if std::mem::take(&mut self.is_crowded) {
            // All with the same columns, which are uploaded once.
            let key = |i| format!("{}/lung/t{}-crowd-{i}", self.site, task.id).parse().expect("a sound key");
            let columns = training::columns(&layout, &base, &key(0), task.task.train.seed, Facts::Kept);
            (0..CROWD).for_each(|i| add(key(i), training::named(columns.clone())));
        }
        if !layout.is_plain() && view.chance.one_in(2) {
            // Counted from the whole site, and handed in with every task alike: it must count once.
            let all_cells = format!("{}/lung+{}/all", self.site, training::counts());
            let part: ConditionKey = all_cells.parse().expect("a sound key");
            add(part.clone(), training::named(training::member(&base, &part)));
        }
        if !layout.is_plain() && view.chance.one_in(5) {
            // A tree: machines of the site, and what it counted by those of the others.
            add(trees::machines_key(&self.site), training::named(trees::machines(&base, &self.site)));
            for other in SITES.iter().filter_map(|other| other.parse().ok()).filter(|other| *other != self.site) {
                if view.chance.one_in(2) {
                    let counted = training::named(trees::counted(&base, &self.site, &other));
                    add(trees::counts_key(&base, &self.site, &other), counted);
                }
            }
        }
        let submission = Submission { task: task.id, epoch, version: task.task.version, conditions };
        self.late = Some(submission.clone());
        self.work = Work::Uploading { submission, left: all.clone(), all };
        self.time(view)
    }

    fn uploaded(&mut self, view: &mut View<'_>, blob: BlobRef, is_durable: bool) -> Vec<Act> {
        let Work::Uploading { submission, left, .. } = &mut self.work else { return Vec::new() };
        if !is_durable {
            return vec![Act::Wake(view.chance.within(100..800))];
        }
        left.retain(|(waiting, _)| *waiting != blob);
        if !left.is_empty() {
            return self.time(view);
        }
        let submission = submission.clone();
        match view.chance.within(0..16) {
            // Between upload and hand-in: all is to be done again.
            0 if !view.is_calm => vec![Act::Die(view.chance.within(100..4_000))],
            // Two processes of one site.
            1 => vec![Act::Ask(Request::Submit(submission.clone())), Act::Ask(Request::Submit(submission))],
            _ => vec![Act::Ask(Request::Submit(submission))],
        }
    }

    fn handed_in(&mut self, view: &mut View<'_>, submission: Submission) -> Vec<Act> {
        let mut acts = self.rest(view);
        match view.chance.within(0..20) {
            // The answer was lost at home: asked again as a new request.
            0..4 => acts.push(Act::Ask(Request::Submit(submission))),
            4 if !view.is_calm => {
                acts.push(Act::Ask(view.withdrawal(name(EACH), self.site.clone())));
            }
            _ => {}
        }
        acts
    }

    fn rest(&mut self, view: &mut View<'_>) -> Vec<Act> {
        self.work = Work::Idle;
        vec![Act::Wake(view.chance.within(200..2_000))]
    }

    fn is_current(&self, submission: &Submission) -> bool {
        matches!(&self.work, Work::Uploading { submission: current, .. } if current == submission)
    }
}

/// Conditions of a crowded submission: several answers' worth.
const CROWD: u64 = 30;
