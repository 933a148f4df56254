//! Somebody who looks, again and again: at one thing, or through a whole list page by page.

use std::collections::BTreeSet;

use archipelago_common::{Name, TaskId, VersionId};
use archipelago_protocol::message::{Refusal, Reply, Request, Which};

use crate::{
    operator::{AT_CLOSE, EACH, name},
    peer::{Act, Heard, View},
    walk::{Next, Walk},
};

/// Asks for references and tasks in turn.
#[derive(Default)]
pub(crate) struct Reader {
    tasks: BTreeSet<TaskId>,
    walk: Option<Walk>,
    /// The version that was read last.
    read: Option<(Name, VersionId)>,
}

impl Reader {
    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Started => {
                (self.walk, self.read) = (None, None);
                vec![Act::Wake(view.chance.within(100..2_000))]
            }
            // A flood that goes out in this one's name wakes it as well.
            Heard::Time if self.walk.is_some() => Vec::new(),
            Heard::Time => vec![Act::Ask(self.question(view))],
            Heard::Answer(request, answer) => self.answer(view, &request, *answer),
            Heard::TasksChanged | Heard::Uploaded(..) => Vec::new(),
        }
    }

    fn question(&mut self, view: &mut View<'_>) -> Request {
        let tasks: Vec<_> = self.tasks.iter().copied().collect();
        match (view.chance.within(0..14), view.chance.pick(&tasks)) {
            (0..4, Some(&task)) => Request::ShowTask { task },
            (4, _) => Request::ListTasks,
            (5, _) => Request::ListTaskHeads { which: Which::Open, after: None },
            (6, _) => Request::ShowReferenceHead { name: name(AT_CLOSE) },
            (7..9, _) => Request::ShowReferenceHead { name: name(EACH) },
            (9, _) => Request::ListChanges { reference: name(EACH), from: 0 },
            (10, Some(&task)) => Request::ListAssignments { task, after: None },
            (11, _) => self.walk.insert(Walk::tasks(self.tasks.clone())).question(),
            _ => Request::ShowReference { name: name(EACH) },
        }
    }

    fn answer(&mut self, view: &mut View<'_>, request: &Request, answer: Result<Reply, Refusal>) -> Vec<Act> {
        let mut acts = Vec::new();
        let is_page = self.walk.as_ref().is_some_and(|walk| walk.question() == *request);
        match &answer {
            Ok(reply) if is_page => acts.extend(self.go_on(reply)),
            // What is to be read does not go away.
            Err(refusal) if is_page => acts.push(Act::Judge(Err(format!("pages: none came: {refusal}")))),
            _ => {}
        }
        match answer {
            Ok(Reply::Tasks(tasks)) => self.tasks.extend(tasks.into_iter().map(|task| task.id)),
            Ok(Reply::TaskHeads(page)) => self.tasks.extend(page.items.into_iter().map(|task| task.id)),
            Ok(Reply::ReferenceHead(head)) if self.walk.is_none() => match self.read.take() {
                Some((_, version)) if version != head.current => {
                    acts.push(Act::Judge(Ok("versions that came while one was read")));
                }
                Some(_) => {}
                None => acts.push(Act::Ask(self.walk.insert(Walk::version(&head)).question())),
            },
            _ => {}
        }
        if self.walk.is_none() && !acts.iter().any(|act| matches!(act, Act::Ask(_))) {
            acts.push(Act::Wake(view.chance.within(20..700)));
        }
        acts
    }

    fn go_on(&mut self, reply: &Reply) -> Vec<Act> {
        match self.walk.as_mut().and_then(|walk| walk.take(reply)) {
            None => Vec::new(),
            Some(Next::Ask(request)) => vec![Act::Judge(Ok("answers that were full")), Act::Ask(request)],
            Some(Next::Read) => {
                let mut acts = vec![Act::Judge(Ok("checked: lists read page by page"))];
                if let Some(Walk::Version { reference, id, .. }) = self.walk.take() {
                    acts.push(Act::Ask(Request::ShowReferenceHead { name: reference.clone() }));
                    self.read = Some((reference, id));
                }
                acts
            }
            Some(Next::Wrong(why)) => vec![Act::Judge(Err(format!("pages: {why}")))],
        }
    }
}
