//! Somebody who looks, again and again.

use std::collections::BTreeSet;

use archipelago_common::TaskId;
use archipelago_protocol::message::{Reply, Request, Which};

use crate::{
    operator::{AT_CLOSE, EACH, name},
    peer::{Act, Heard, View},
};

/// Asks for references and tasks in turn.
#[derive(Default)]
pub(crate) struct Reader {
    tasks: BTreeSet<TaskId>,
}

impl Reader {
    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Started => vec![Act::Wake(view.chance.within(100..2_000))],
            Heard::Time => vec![Act::Ask(self.question(view))],
            Heard::Answer(_, answer) => {
                match *answer {
                    Ok(Reply::Tasks(tasks)) => self.tasks.extend(tasks.into_iter().map(|task| task.id)),
                    Ok(Reply::TaskHeads(page)) => self.tasks.extend(page.items.into_iter().map(|task| task.id)),
                    _ => {}
                }
                vec![Act::Wake(view.chance.within(20..700))]
            }
            Heard::TasksChanged | Heard::Uploaded(..) => Vec::new(),
        }
    }

    fn question(&self, view: &mut View<'_>) -> Request {
        let tasks: Vec<_> = self.tasks.iter().copied().collect();
        match (view.chance.within(0..10), view.chance.pick(&tasks)) {
            (0..4, Some(&task)) => Request::ShowTask { task },
            (4, _) => Request::ListTasks,
            (5, _) => Request::ListTaskHeads { which: Which::All, after: None },
            (6, _) => Request::ShowReferenceHead { name: name(AT_CLOSE) },
            (7, _) => Request::ShowReferenceHead { name: name(EACH) },
            _ => Request::ShowReference { name: name(EACH) },
        }
    }
}
