//! Many seeds on all cores, and whether they have shown anything: a simulation in which nothing goes wrong, or
//! nothing is ever accepted, proves nothing.

use std::{
    fmt,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Coverage, Report, Settings, run};

/// What came of many seeds.
pub struct Campaign {
    /// Seeds that ran.
    pub n_seeds: u64,
    /// Seeds that broke a rule, and which.
    pub failures: Vec<(u64, String)>,
    /// How often each thing came about in all of them.
    pub coverage: Coverage,
    elapsed: Duration,
}

impl Campaign {
    /// Runs these seeds; tells `progress` a line now and then. Stops early after many failures.
    pub fn run(seeds: Range<u64>, settings: &Settings, progress: impl Fn(String) + Sync) -> Self {
        let (begun, next) = (Instant::now(), AtomicU64::new(seeds.start));
        let reports: Mutex<(Self, Instant)> = Mutex::new((Self::empty(), begun));
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return;
                }
                let report = run(seed, settings);
                let mut all = reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let (campaign, told) = &mut *all;
                campaign.add(report);
                if told.elapsed() >= PROGRESS {
                    *told = Instant::now();
                    progress(campaign.progress(seeds.end - seeds.start, begun.elapsed()));
                }
                if campaign.failures.len() >= MOST_FAILURES {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let (mut campaign, _) = reports.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        campaign.failures.sort();
        campaign.elapsed = begun.elapsed();
        campaign
    }

    /// Whether no rule was broken, and enough happened to break one.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.missing().is_empty()
    }

    /// What must come about in any good number of seeds and did not.
    pub fn missing(&self) -> Vec<&'static str> {
        EXPECTED.iter().copied().filter(|what| self.coverage.of(what) == 0).collect()
    }

    fn empty() -> Self {
        Self { n_seeds: 0, failures: Vec::new(), coverage: Coverage::default(), elapsed: Duration::ZERO }
    }

    fn add(&mut self, report: Report) {
        self.n_seeds += 1;
        self.coverage.merge(&report.coverage);
        if let Some(failure) = report.failure {
            self.failures.push((report.seed, failure));
        }
    }

    fn progress(&self, n_all: u64, elapsed: Duration) -> String {
        let left = elapsed.as_secs_f64() / self.n_seeds as f64 * (n_all - self.n_seeds) as f64;
        format!(
            "{} of {n_all} seeds, {} failed, {:.0} s elapsed, {left:.0} s remaining",
            self.n_seeds,
            self.failures.len(),
            elapsed.as_secs_f64()
        )
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, n) in &self.coverage.0 {
            writeln!(f, "{n:>12}  {what}")?;
        }
        for (seed, failure) in &self.failures {
            writeln!(f, "seed {seed} fails: {failure}")?;
        }
        for what in self.missing() {
            writeln!(f, "never came about: {what}")?;
        }
        let (n_failed, seconds) = (self.failures.len(), self.elapsed.as_secs_f64());
        writeln!(f, "{} seeds in {seconds:.1} s, {n_failed} failed", self.n_seeds)
    }
}

/// Without these a set of seeds proves nothing.
const EXPECTED: &[&str] = &[
    "crashes",
    "elections",
    "messages lost",
    "messages that came twice",
    "snapshots sent",
    "reads confirmed",
    "submissions acknowledged",
    "blobs acknowledged",
    "leases lapsed",
    "requests refused",
    "requests without an answer",
    "peers that died",
    "nodes that stopped at a failed write",
    "blobs collected",
    "changes of members begun",
    "changes of members refused",
    "members added",
    "members promoted",
    "members removed",
    "chunks spared by a resumed upload",
    "fault: killed node",
    "fault: lost power",
    "fault: lost power in a write",
    "fault: blackout",
    "fault: partition",
    "fault: one-way cut",
    "fault: leader cut off",
    "fault: peer cut off",
    "fault: bad network",
    "fault: slow disk",
    "fault: full disk",
    "fault: clock jump",
    "fault: killed peer",
    "fault: clock days off",
    "fault: log lost",
    "fault: blob spoilt",
    "fault: blob lost",
    "fault: flood of requests",
    "fault: answers at their limits",
    "answers that were full",
    "versions that came while one was read",
    "checked: answers at their limits",
    "checked: lists read page by page",
    "requests for a certificate taken",
    "invitations that were used already",
    "certificates fetched",
    "checked: invitations used once",
    "checked: who was revoked is not heard",
    "proposals approved",
    "proposals declined",
    "proposals that nobody approved themselves",
    "references refused that nobody signed",
    "checked: two persons",
    "checked: signatures",
    "blobs spoilt",
    "blobs lost",
    "spoilt blobs found by reading",
    "requests of floods",
    "logs founded anew",
    "fault: founded with another list",
    "founders that were waited for",
    "fault: state spoilt",
    "states that a disk changed",
    "states found to differ",
    "nodes that stopped: a majority contradicts them",
    "checked: one founding",
    "checked: quotas",
    "uploads refused for the day",
    "fault: leadership given away",
    "checked: election safety",
    "checked: log matching",
    "checked: state-machine equality",
    "checked: no acknowledged submission lost",
    "checked: none accepted twice",
    "checked: fencing",
    "checked: version digests",
    "checked: durable blobs",
    "checked: monotone reads",
    "checked: linearizable objects",
    "checked: one life of a log",
    "erasures",
    "blobs erased",
    "checked: facts",
    "checked: pools",
    "checked: derived values",
];

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);
/// Nobody reads more.
const MOST_FAILURES: usize = 20;
