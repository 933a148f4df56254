//! The search for an order of operations that explains every answer.
//!
//! An operation may come next if no other that is still to come was answered before it was asked. The search goes
//! depth first and never visits the same set of done operations in the same state twice. Its cost grows with the
//! number of operations that overlap, not with the length of the history.

use std::{collections::HashSet, fmt};

use crate::{Operation, object::Object};

/// A history that no order explains.
#[derive(Clone, Debug)]
pub struct Violation {
    object: String,
    state: String,
    /// The longest order found.
    order: Vec<Operation>,
    /// What could have come next, and none of it fits.
    stuck: Vec<Operation>,
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of the operations on {} explains every answer", self.object)?;
        writeln!(f, "the longest order has {} operations and ends in {}; its last are", self.order.len(), self.state)?;
        for operation in self.order.iter().rev().take(SHOWN).rev() {
            writeln!(f, "  {}", Line(operation))?;
        }
        writeln!(f, "none of these can follow:")?;
        for operation in self.stuck.iter().take(SHOWN) {
            writeln!(f, "  {}", Line(operation))?;
        }
        Ok(())
    }
}

struct Line<'a>(&'a Operation);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, call, invoked, returned, answer } = self.0;
        let returned = returned.map_or("never".to_owned(), |at| at.to_string());
        write!(f, "{invoked}–{returned} {client}: {call:?} → {answer:?}")
    }
}

/// Operations of a violation that are shown.
const SHOWN: usize = 12;

/// Checks the history of one object.
///
/// # Errors  [`Violation`]
pub fn check<O: Object>(object: &O, operations: &[&Operation]) -> Result<(), Box<Violation>> {
    let mut operations: Vec<_> = operations.iter().copied().filter(|operation| matters(operation)).collect();
    operations.sort_by_key(|operation| operation.invoked);
    Search { object, operations: &operations, done: Done::new(operations.len()), seen: HashSet::new() }.run()
}

/// A refusal changes nothing and says nothing here; a look that was not answered neither.
fn matters(operation: &Operation) -> bool {
    use crate::{Answer, Call};
    let is_look = matches!(operation.call, Call::ShowReference { .. } | Call::ShowTask { .. });
    operation.answer != Some(Answer::Refused) && !(is_look && operation.answer.is_none())
}

struct Search<'a, O: Object> {
    object: &'a O,
    operations: &'a [&'a Operation],
    done: Done,
    seen: HashSet<(Vec<u64>, O::State)>,
}

/// One step of the order: which operation was put there, and what else may be tried in its place.
struct Frame<S> {
    /// Operation and the state after it, still to be tried.
    choices: Vec<(usize, S)>,
    /// The operation that was tried last.
    chosen: Option<usize>,
}

impl<O: Object> Search<'_, O> {
    fn run(mut self) -> Result<(), Box<Violation>> {
        let initial = self.object.initial();
        let mut longest: (Vec<usize>, O::State) = (Vec::new(), initial.clone());
        let mut stack = vec![self.frame(initial)];
        while let Some(frame) = stack.last_mut() {
            if let Some(chosen) = frame.chosen.take() {
                self.done.clear(chosen);
            }
            if self.is_complete() {
                return Ok(());
            }
            let Some((chosen, state)) = frame.choices.pop() else {
                stack.pop();
                continue;
            };
            frame.chosen = Some(chosen);
            self.done.set(chosen);
            if stack.len() > longest.0.len() {
                longest = (stack.iter().filter_map(|frame| frame.chosen).collect(), state.clone());
            }
            if self.is_complete() {
                return Ok(());
            }
            if self.seen.insert((self.done.bits.clone(), state.clone())) {
                let next = self.frame(state);
                stack.push(next);
            }
        }
        if self.is_complete() { Ok(()) } else { Err(Box::new(self.violation(&longest))) }
    }

    fn frame(&self, state: O::State) -> Frame<O::State> {
        let after = |i: usize| self.object.apply(&state, self.operations[i]).into_iter().map(move |next| (i, next));
        // The last is tried first: so what was asked first, and what was answered before what was not.
        let mut choices: Vec<_> = self.candidates().into_iter().flat_map(after).collect();
        choices.sort_by_key(|(i, _)| (self.operations[*i].answer.is_some(), std::cmp::Reverse(*i)));
        Frame { choices, chosen: None }
    }

    /// What may come next: everything that was asked before the first answer that is still to be explained.
    fn candidates(&self) -> Vec<usize> {
        let left = || (0..self.operations.len()).filter(|i| !self.done.has(*i));
        let horizon = left().filter_map(|i| self.operations[i].returned).min().unwrap_or(u64::MAX);
        left().take_while(|i| self.operations[*i].invoked <= horizon).collect()
    }

    fn is_complete(&self) -> bool {
        (0..self.operations.len()).all(|i| self.done.has(i) || self.operations[i].answer.is_none())
    }

    fn violation(&mut self, (order, state): &(Vec<usize>, O::State)) -> Violation {
        self.done = Done::new(self.operations.len());
        order.iter().for_each(|i| self.done.set(*i));
        Violation {
            object: self.object.to_string(),
            state: format!("{state:?}"),
            order: order.iter().map(|i| self.operations[*i].clone()).collect(),
            stuck: self.candidates().into_iter().map(|i| self.operations[i].clone()).collect(),
        }
    }
}

/// A set of operations.
struct Done {
    bits: Vec<u64>,
}

impl Done {
    fn new(n: usize) -> Self {
        Self { bits: vec![0; n.div_ceil(64)] }
    }

    fn has(&self, i: usize) -> bool {
        self.bits[i / 64] >> (i % 64) & 1 == 1
    }

    fn set(&mut self, i: usize) {
        self.bits[i / 64] |= 1 << (i % 64);
    }

    fn clear(&mut self, i: usize) {
        self.bits[i / 64] &= !(1 << (i % 64));
    }
}
