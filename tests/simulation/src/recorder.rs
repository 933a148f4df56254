//! Every public operation with its call and its answer, for the linearizability check, and what may be told at once:
//! that what somebody has read nobody un-reads, and that no acknowledgement is broken.

use archipelago_common::{
    Principal,
    record::{AssignmentState, TaskRecord},
};
use archipelago_histories::{Answer, Call, Operation, Seen};
use archipelago_protocol::message::{Refusal, Reply, Request, Withdrawal};

use crate::{peer::Asking, world::World};

impl World {
    /// A request that a peer is about to make.
    pub(crate) fn asked(&mut self, peer: usize, request: Request) -> Asking {
        let who = self.peers[peer].who.clone();
        let calls = calls(&who, &request, self);
        if let Request::Withdraw { what, .. } | Request::Erase { what, .. } = &request {
            self.watch.note_withdrawal(what);
        }
        let floor = self.watch.lineage_seen(&request);
        Asking { request, calls, invoked: self.moment(), floor }
    }

    /// A peer has its answer.
    pub(crate) fn answered(&mut self, peer: usize, asking: Asking, result: &Result<Reply, Refusal>) {
        let who = self.peers[peer].who.clone();
        let text = match result {
            Ok(reply) => name_of(reply),
            Err(refusal) => format!("no: {refusal}"),
        };
        self.say(format_args!("p{peer} asked {} and is told {text}", kind(&asking.request)));
        self.coverage.note(if result.is_ok() { "requests carried out" } else { "requests refused" });
        match (&asking.request, result) {
            (Request::AddMember { .. }, Ok(_)) => self.coverage.note("members added"),
            (Request::PromoteMember { .. }, Ok(_)) => self.coverage.note("members promoted"),
            (Request::Erase { .. }, Ok(_)) => self.coverage.note("erasures"),
            (Request::RemoveMember { .. }, Ok(_)) => self.coverage.note("members removed"),
            _ => {}
        }
        if let Err(why) = self.check_answer(&who, &asking, result) {
            self.fail(why);
        }
        let returned = self.moment();
        for operation in operations(&who, &asking, result, returned) {
            self.watch.history.operations.push(operation);
        }
    }

    /// A peer has died before it heard.
    pub(crate) fn unanswered(&mut self, peer: usize, asking: Asking) {
        let client = self.peers[peer].who.to_string();
        self.coverage.note("requests without an answer");
        for call in asking.calls {
            let operation =
                Operation { client: client.clone(), call, invoked: asking.invoked, returned: None, answer: None };
            self.watch.history.operations.push(operation);
        }
    }

    /// Requests that wait at the end were not answered either.
    pub(crate) fn close_history(&mut self) {
        for peer in 0..self.peers.len() {
            if self.peers[peer].session.is_some() {
                self.kill_peer(peer);
            }
        }
    }

    fn check_answer(
        &mut self,
        who: &Principal,
        asking: &Asking,
        result: &Result<Reply, Refusal>,
    ) -> Result<(), String> {
        match (&asking.request, result) {
            (Request::ShowReference { .. }, Ok(Reply::Reference(record))) => {
                self.coverage.note("checked: monotone reads");
                self.watch.read(&record.name, record.lineage.len(), asking.floor)
            }
            (Request::ShowReferenceHead { .. }, Ok(Reply::ReferenceHead(head))) => {
                self.coverage.note("checked: monotone reads");
                self.watch.read(&head.name, head.n_changes as usize, asking.floor)
            }
            (Request::Claim { .. } | Request::Submit(_), Err(Refusal::Stale { reason }))
                if reason.contains("was withdrawn from reference") =>
            {
                Err(format!("a withdrawal stops others: `{who}` is told that {reason}"))
            }
            (Request::Derive { reference, .. }, Ok(_)) => {
                self.coverage.note("values derived");
                self.coverage.note("checked: derived values");
                self.check_derived(reference)
            }
            // The operator computes it rightly, so only what changed meanwhile can speak against it.
            (Request::Derive { .. }, Err(Refusal::Invalid { reason } | Refusal::Conflict { reason })) => {
                Err(format!("a value that was derived rightly is refused: {reason}"))
            }
            (Request::Submit(submission), Ok(Reply::Accepted { .. })) => {
                let Principal::Site(site) = who else { return Ok(()) };
                self.coverage.note("submissions acknowledged");
                let applied = self.applied().into_iter().max().unwrap_or_default();
                self.watch.acknowledge(site, submission, applied)
            }
            _ => Ok(()),
        }
    }
}

/// What of a request goes into the history.
fn calls(who: &Principal, request: &Request, world: &World) -> Vec<Call> {
    match (request, who) {
        (Request::PublishReference { name, version }, _) => {
            vec![Call::Publish { reference: name.clone(), version: version.clone() }]
        }
        (Request::ShowReference { name } | Request::ShowReferenceHead { name }, _) => {
            vec![Call::ShowReference { reference: name.clone() }]
        }
        // What is current afterwards is the same.
        (Request::Withdraw { reference, what } | Request::Erase { reference, what }, _) => {
            let (owner, keys) = match what {
                Withdrawal::Site(site) => (Some(site.clone()), Vec::new()),
                Withdrawal::Keys(keys) => (None, keys.clone()),
            };
            vec![Call::Withdraw { reference: reference.clone(), owner, keys }]
        }
        (Request::Claim { task }, Principal::Site(site)) => vec![Call::Claim { task: *task, site: site.clone() }],
        (Request::GiveUp { task, epoch, .. }, Principal::Site(site)) => {
            vec![Call::GiveUp { task: *task, site: site.clone(), epoch: *epoch }]
        }
        (Request::Submit(submission), Principal::Site(site)) => {
            let Some(reference) = world.watch.reference_of(submission.version) else { return Vec::new() };
            vec![Call::Submit {
                reference,
                task: submission.task,
                site: site.clone(),
                epoch: submission.epoch,
                columns: submission.conditions.iter().map(|(key, given)| (key.clone(), given.columns)).collect(),
            }]
        }
        (Request::ShowTask { task }, Principal::Site(site)) => {
            vec![Call::ShowTask { task: *task, site: site.clone() }]
        }
        (Request::ShowTask { task }, _) => world.sites().map(|site| Call::ShowTask { task: *task, site }).collect(),
        _ => Vec::new(),
    }
}

/// The operations that a request and its answer stand for.
fn operations(who: &Principal, asking: &Asking, result: &Result<Reply, Refusal>, returned: u64) -> Vec<Operation> {
    let operation = |call: Call, answer| Operation {
        client: who.to_string(),
        call,
        invoked: asking.invoked,
        returned: Some(returned),
        answer: Some(answer),
    };
    let mut operations = Vec::new();
    for call in asking.calls.clone() {
        let Ok(reply) = result else {
            operations.push(operation(call, Answer::Refused));
            continue;
        };
        match (reply, &call) {
            (Reply::Reference(record), Call::ShowReference { .. }) => {
                operations.push(operation(call, Answer::Reference { current: record.current }));
            }
            (Reply::ReferenceHead(head), Call::ShowReference { .. }) => {
                operations.push(operation(call, Answer::Reference { current: head.current }));
            }
            (Reply::Reference(record), _) => {
                // What is shown with the answer is a look of its own, at or after the change.
                let reference = record.name.clone();
                operations.push(operation(call, Answer::Done));
                operations
                    .push(operation(Call::ShowReference { reference }, Answer::Reference { current: record.current }));
            }
            (Reply::Assigned { epoch, .. }, _) => operations.push(operation(call, Answer::Assigned { epoch: *epoch })),
            (Reply::Released, _) => operations.push(operation(call, Answer::Done)),
            (Reply::Accepted { version }, _) => {
                operations.push(operation(call, Answer::Accepted { version: *version }))
            }
            (Reply::Task(task), Call::ShowTask { site, .. }) => {
                let answer = seen(task, site);
                operations.push(operation(call, answer));
            }
            _ => {}
        }
    }
    operations
}

fn seen(task: &TaskRecord, site: &archipelago_common::SiteId) -> Answer {
    let Some(assignment) = task.assignments.get(site) else { return Answer::Unassigned };
    let seen = match assignment.state {
        AssignmentState::Assigned => Seen::Assigned,
        AssignmentState::Lapsed => Seen::Lapsed,
        AssignmentState::GivenUp { .. } => Seen::GivenUp,
        AssignmentState::Accepted { .. } => Seen::Accepted,
    };
    Answer::Assignment { epoch: assignment.epoch, seen }
}

fn kind(request: &Request) -> String {
    match request {
        Request::Submit(submission) => format!("submit task {} epoch {}", submission.task, submission.epoch),
        Request::PublishTask(task) => format!("publish-task seed {}", task.train.seed),
        Request::PublishSignedTask { task, .. } => format!("publish-signed-task seed {}", task.train.seed),
        Request::PublishSignedReference { name, .. } => format!("publish-signed-reference {name}"),
        Request::PublishReference { name, .. } => format!("publish-reference {name}"),
        request => format!("{request:?}"),
    }
}

fn name_of(reply: &Reply) -> String {
    match reply {
        Reply::Reference(record) => {
            format!("`{}` is at {} of {}", record.name, record.current.0.short(), record.lineage.len())
        }
        Reply::ReferenceHead(head) => {
            format!("`{}` is at {} of {}", head.name, head.current.0.short(), head.n_changes)
        }
        Reply::TaskHeads(page) => format!("{} tasks", page.items.len()),
        Reply::Task(task) => format!("task {} is {:?}", task.id, task.state),
        Reply::Tasks(tasks) => format!("{} tasks", tasks.len()),
        Reply::Assigned { epoch, lease_until_ms } => format!("epoch {epoch} until {lease_until_ms}"),
        Reply::Accepted { version } => format!("accepted {:?}", version.map(|version| version.0.short())),
        Reply::Released => "done".to_owned(),
        Reply::Site(record) => format!("site {}", record.site),
        Reply::Members(record) => format!("{} members", record.members.len()),
        _ => "a list".to_owned(),
    }
}
