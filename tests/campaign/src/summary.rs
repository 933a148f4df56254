//! What a campaign found: `summary.json`.

use std::collections::BTreeMap;

use serde::Serialize;

/// The figures of a campaign.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Seed of the schedule.
    pub seed: u64,
    /// How processes were cut off: `namespaces`, or not at all, on `loopback`.
    pub network: &'static str,
    /// Whether firewalls dropped UDP.
    pub udp_dropped: bool,
    /// Sessions with coordinators in the end, by `quic` and `tcp`.
    pub sessions: BTreeMap<&'static str, u64>,
    /// Processor cores of the machine.
    pub cores: usize,
    /// How long it took.
    pub seconds: f64,
    /// Processes killed with -9.
    pub kills: u32,
    /// Faults of all kinds.
    pub faults: u32,
    /// Writes that were acknowledged, of sites and operators.
    pub acknowledged: u64,
    /// Of these, submissions.
    pub submissions: u64,
    /// Of these, sites that were let in by an invitation.
    pub enrolments: u64,
    /// And those that came with another key that they had asked for themselves.
    pub renewals: u64,
    /// And those that were shut out.
    pub revocations: u64,
    /// Acknowledged writes that are not there in the end.
    pub lost: u64,
    /// Acknowledged submissions that are there more than once.
    pub duplicated: u64,
    /// References and assignments of which one order of all operations explains every answer, and operations on them.
    pub linearizable: Linearizable,
    /// From the kill of the leader to the acknowledgement of the next write of a client that was connected before.
    pub failover_ms: Quantiles,
    /// Bytes that had arrived at a coordinator or a site and were sent again; the most of any stream.
    pub resent_bytes_max: u64,
    /// Transfers that sent again more than one chunk that had arrived.
    pub resent_more_than_a_chunk: u64,
    /// Bytes that a sender had handed to the transport and handed to it again, whether they had arrived or not.
    pub repeated_bytes_max: u64,
    /// Transfers that a fault interrupted and that these two were measured on.
    pub interrupted_transfers: u64,
    /// By kind of fault.
    pub by_fault: BTreeMap<String, Tally>,
    /// How soon a dead worker is noticed, where that was measured.
    pub worker_death: Option<WorkerDeath>,
    /// Everything else that should not be; a campaign with any has failed.
    pub problems: Vec<String>,
}

/// What was checked of the order of operations.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Linearizable {
    /// Objects whose history was searched.
    pub objects: usize,
    /// Operations on them; one that concerns two objects counts twice.
    pub operations: usize,
    /// References left out: their versions come to be when tasks close, which no operation names.
    pub skipped: usize,
}

/// One kind of fault.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// How often it happened.
    pub n: u32,
    /// How often in the window that it was meant for.
    pub hit: u32,
    /// To the next acknowledged write of a client that was connected before.
    pub recovery_ms: Quantiles,
    /// Bytes that had arrived and were sent again; the most of any stream that this fault interrupted.
    pub resent_bytes_max: u64,
    #[serde(skip)]
    samples: Vec<f64>,
}

/// A dead worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerDeath {
    /// Until the coordinators have noticed that its session is gone.
    pub noticed_s: f64,
    /// Until its task may be claimed again.
    pub offered_again_s: f64,
}

/// Quantiles by nearest rank.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Quantiles {
    /// Number of samples.
    pub n: usize,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Quantiles {
    /// Of these samples.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { n: sorted.len(), p50: rank(0.5), p99: rank(0.99), max: rank(1.0) }
    }
}

impl Tally {
    /// Adds one fault of this kind.
    pub fn add(&mut self, hit: bool, recovery_ms: f64) {
        self.n += 1;
        self.hit += u32::from(hit);
        self.samples.push(recovery_ms);
        self.recovery_ms = Quantiles::of(&self.samples);
    }
}

impl Summary {
    /// Whether everything held.
    pub fn holds(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.problems.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let expected = Quantiles { n: 200, p50: 100.0, p99: 198.0, max: 200.0 };
        assert_eq!(Quantiles::of(&samples), expected);
        assert_eq!(Quantiles::of(&[]), Quantiles::default());
    }
}
