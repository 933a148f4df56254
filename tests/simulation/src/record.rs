//! What happened: the event log, whose digest tells whether two runs were the same, and how often each thing came about.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use archipelago_common::{Digest, hash::StreamHasher};

/// The event log of one run.
#[derive(Default)]
pub(crate) struct EventLog {
    hasher: StreamHasher,
    line: String,
    /// Kept only where somebody wants to read it.
    text: Option<String>,
    n_lines: u64,
}

impl EventLog {
    /// A log that keeps its text, or only its digest.
    pub(crate) fn new(keeps_text: bool) -> Self {
        Self { text: keeps_text.then(String::new), ..Self::default() }
    }

    /// Adds a line.
    pub(crate) fn say(&mut self, now: u64, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        let _ = writeln!(self.line, "{now:>7} {what}");
        self.hasher.update(self.line.as_bytes());
        self.n_lines += 1;
        if let Some(text) = &mut self.text {
            text.push_str(&self.line);
        }
    }

    /// Digest of all lines, their number, and the text if it was kept.
    pub(crate) fn finish(self) -> (Digest, u64, Option<String>) {
        (self.hasher.finish(), self.n_lines, self.text)
    }
}

/// How often each thing came about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage(pub BTreeMap<&'static str, u64>);

impl Coverage {
    /// One more of these.
    pub(crate) fn note(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// So many more of these.
    pub(crate) fn add(&mut self, what: &'static str, n: u64) {
        *self.0.entry(what).or_default() += n;
    }

    /// How many of these.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// Adds up.
    pub fn merge(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }
}
