//! Somebody who looks, again and again.

use std::collections::BTreeSet;

use archipelago_common::TaskId;
use archipelago_protocol::message::{Reply, Request};

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
                if let Ok(Reply::Tasks(tasks)) = *answer {
                    self.tasks.extend(tasks.into_iter().map(|task| task.id));
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
            (4..6, _) => Request::ListTasks,
            (6, _) => Request::ShowReference { name: name(AT_CLOSE) },
            _ => Request::ShowReference { name: name(EACH) },
        }
    }
}
