//! The check of the check: one rule of the coordinator is broken on purpose, and a run must notice.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use archipelago_cluster::mutation::{self, Rule};

use crate::{Settings, run};

/// What became of a broken rule.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The rule.
    pub rule: Rule,
    /// Seeds until one noticed, that one included; none did, if there is none.
    pub n_seeds: Option<u64>,
    /// How it was noticed.
    pub how: String,
}

/// The rules of these names; all where none is named.
///
/// # Errors   a name that no rule has
pub fn named(names: &[String]) -> Result<Vec<Rule>, String> {
    if names.is_empty() {
        return Ok(Rule::ALL.to_vec());
    }
    let rule =
        |name: &String| Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == *name).ok_or_else(|| name.clone());
    names.iter().map(rule).collect()
}

/// Breaks rules in turn and runs seeds until one notices, `most_seeds` at most.
pub fn check(rules: &[Rule], most_seeds: u64, settings: &Settings, progress: impl Fn(&Caught) + Sync) -> Vec<Caught> {
    let next = AtomicUsize::new(0);
    let caught = Mutex::new(Vec::new());
    let work = || {
        while let Some(rule) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = catch(*rule, most_seeds, settings);
            progress(&row);
            caught.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(row);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut caught = caught.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    caught.sort_by_key(|row| row.rule);
    caught
}

fn catch(rule: Rule, most_seeds: u64, settings: &Settings) -> Caught {
    mutation::set_broken(Some(rule));
    let failure = (0..most_seeds).find_map(|seed| Some((seed, run(seed, settings).failure?)));
    mutation::set_broken(None);
    match failure {
        Some((seed, how)) => Caught { rule, n_seeds: Some(seed + 1), how },
        None => Caught { rule, n_seeds: None, how: format!("not in {most_seeds} seeds") },
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how: String = self.how.lines().next().unwrap_or_default().chars().take(HOW).collect();
        let n_seeds = self.n_seeds.map_or("never".to_owned(), |n| n.to_string());
        write!(f, "| {:<18} | {n_seeds:>5} | {how} |", format!("{:?}", self.rule))
    }
}

/// Characters of a reason that are shown.
const HOW: usize = 100;
