//! Deterministic simulation of whole consortia.
//!
//! Real are: the Raft node and its log on a disk in memory, the replicated state machine, both session machines, the
//! transfer machines and the course of every request. Simulated are: time, the network, the disk under the log, the
//! directory of blobs, and the people and workers who ask. All of it runs in one thread from one seed ([`run`]), so a
//! run that fails can be watched again, event by event.
//!
//! A run has two phases. In the first everything goes wrong that the seed draws, and the rules are checked after every
//! step (`checks`, `watch`). In the second everything is healed, and what was begun must be finished in bounded time.
//! At the end the history of all public operations must be linearizable.

mod acquaintance;
mod blobs;
pub mod campaign;
mod chance;
mod checks;
mod disk;
mod diverged;
mod faults;
mod founding;
mod harm;
mod hoarder;
mod host;
mod joiner;
mod leaver;
mod members;
#[cfg(feature = "mutations")]
pub mod mutations;
mod network;
mod operator;
mod pair;
mod peer;
mod reader;
mod record;
mod recorder;
mod requests;
mod shelves;
mod training;
mod trees;
mod uploads;
mod walk;
mod watch;
mod worker;
mod world;

use archipelago_common::Digest;
pub use record::Coverage;

use world::World;

/// How a run is made. The same settings and seed give the same run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long things go wrong, virtual ms.
    pub unrest_ms: u64,
    /// How long what was begun may take to be finished after that, virtual ms.
    pub patience_ms: u64,
    /// Whether the text of the event log is kept.
    pub keeps_log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { unrest_ms: 60_000, patience_ms: 120_000, keeps_log: false }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The rule that was broken, in words.
    pub failure: Option<String>,
    /// How often each thing came about.
    pub coverage: Coverage,
    /// Digest of the event log.
    pub digest: Digest,
    /// The event log, if it was kept.
    pub log: Option<String>,
    /// The history of public operations, one JSON object a line, if the log was kept.
    pub history: Option<String>,
}

/// Runs one seed. A panic of the code under test is a broken rule like any other.
pub fn run(seed: u64, settings: &Settings) -> Report {
    let mut world = World::new(seed, settings);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(&mut world, settings)));
    if let Err(panic) = lived {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.fail(format!("a panic: {}", text.unwrap_or_default()));
    }
    let failure = world.failure.clone();
    let history = settings.keeps_log.then(|| world.watch.history.to_lines());
    let coverage = std::mem::take(&mut world.coverage);
    let (digest, _, log) = world.take_log().finish();
    Report { seed, failure, coverage, digest, log, history }
}

fn live(world: &mut World, settings: &Settings) {
    world.begin();
    world.run_until(settings.unrest_ms, |_| false);
    if world.failure.is_some() {
        return;
    }
    world.heal();
    let until = world.now + settings.patience_ms;
    world.run_until(until, |world| world.unfinished().is_none());
    if world.failure.is_some() {
        return;
    }
    if let Some(unfinished) = world.unfinished() {
        let waited = settings.patience_ms / 1_000;
        return world.fail(format!("liveness: {waited} s after everything was healed, {unfinished}"));
    }
    world.close_history();
    let (leaders, lapsed) = (world.watch.n_leaders(), world.watch.n_lapsed());
    world.coverage.add("elections", leaders);
    world.coverage.add("leases lapsed", lapsed);
    match archipelago_histories::check(&world.watch.history) {
        Ok(checked) => {
            world.coverage.add("checked: linearizable objects", checked.objects as u64);
            world.coverage.add("checked: linearizable operations", checked.operations as u64);
        }
        Err(violation) => world.fail(format!("linearizability: {violation}")),
    }
}
