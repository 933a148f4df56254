//! A campaign from its begin to its end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use archipelago_common::limits;
use tokio::sync::watch;

use crate::{
    args::RunArgs,
    audit::{self, Findings},
    fault::Schedule,
    network,
    printer::{self, say},
    stage::{Stage, Struck},
    summary::{Linearizable, Quantiles, Summary},
    worker_death,
};

/// Runs a campaign; whether everything held.
pub fn run(args: &RunArgs) -> Result<bool> {
    network::enter(args.network, args.drop_udp)?;
    clear(&args.out)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let summary = runtime.block_on(async {
        let summary = play(args).await;
        // What still runs has nothing more to do.
        summary.with_context(|| format!("seed {}; every log and journal is in `{}`", args.seed, args.out.display()))
    })?;
    runtime.shutdown_background();
    std::fs::write(args.out.join("summary.json"), serde_json::to_vec_pretty(&summary)?)?;
    printer::report(&summary);
    if summary.holds() && !args.keep {
        remove_data(&args.out)?;
    } else {
        say(&format!("every log, journal and data folder is in `{}`", args.out.display()));
    }
    Ok(summary.holds())
}

async fn play(args: &RunArgs) -> Result<Summary> {
    let begun = Instant::now();
    let mut stage = Stage::build(args).await?;
    stage.healthy().await?;
    let mut record = Record::new(args, stage.network.name());
    say(&format!("seed {}, {} sites, network by {}", args.seed, args.sites, stage.network.name()));
    if args.worker_death {
        record.summary.worker_death = Some(worker_death::measure(&mut stage).await?);
    }
    let (stop, stopped) = watch::channel(false);
    let work = tokio::spawn(stage.workload.clone().run(stopped));
    let guests = stage.guests.take().context("the guests come once")?;
    let guests = tokio::spawn(guests.run(stop.subscribe()));
    let mut schedule = Schedule::new(args.seed);
    if !stage.network.can_cut() {
        say("no network namespaces here: processes are killed and stopped, but not cut off");
        schedule = schedule.without_cuts();
    }
    let (faults_begun, mut last_told) = (Instant::now(), None::<Instant>);
    while record.summary.kills < args.kills {
        let fault = schedule.next_fault();
        let struck =
            stage.strike(fault).await.with_context(|| format!("fault {}: {fault}", record.summary.faults + 1))?;
        record.add(fault, &struck);
        if work.is_finished() || guests.is_finished() {
            break;
        }
        if last_told.is_none_or(|told| told.elapsed() > TELL) {
            last_told = Some(Instant::now());
            record.tell(args, faults_begun, stage.fleet.board().n_acknowledged(), &format!("{fault}"));
        }
    }
    stop.send_replace(true);
    work.await.context("the workload ended unexpectedly")?.context("the work that goes on all the time")?;
    guests.await.context("the work with guests ended unexpectedly")?.context("sites that come and go")?;
    stage.healthy().await?;
    record.summary.sessions = stage.sessions();
    say("audit: waiting until all work is done");
    let findings = audit::audit(&mut stage).await?;
    record.summary.seconds = begun.elapsed().as_secs_f64();
    Ok(record.finish(findings))
}

/// The figures as they come in.
struct Record {
    summary: Summary,
    failovers: Vec<f64>,
}

impl Record {
    fn new(args: &RunArgs, network: &'static str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let summary = Summary { seed: args.seed, network, udp_dropped: args.drop_udp, cores, ..Summary::default() };
        Self { summary, failovers: Vec::new() }
    }

    fn add(&mut self, fault: crate::fault::Fault, struck: &Struck) {
        let summary = &mut self.summary;
        summary.faults += 1;
        summary.kills += fault.n_kills();
        let tally = summary.by_fault.entry(fault.to_string()).or_default();
        tally.add(struck.hit, struck.recovery_ms);
        if fault.is_leader_kill() {
            self.failovers.push(struck.recovery_ms);
            summary.failover_ms = Quantiles::of(&self.failovers);
        }
        if let Some(resumed) = struck.resumed {
            summary.interrupted_transfers += 1;
            tally.resent_bytes_max = tally.resent_bytes_max.max(resumed.arrived);
            summary.resent_bytes_max = summary.resent_bytes_max.max(resumed.arrived);
            if resumed.arrived > limits::CHUNK_BYTES {
                summary.resent_more_than_a_chunk += 1;
                say(&format!(
                    "fault {}: {fault}: {} bytes that had arrived were sent again",
                    summary.faults, resumed.arrived
                ));
            }
            summary.repeated_bytes_max = summary.repeated_bytes_max.max(resumed.handed);
        }
    }

    fn tell(&self, args: &RunArgs, begun: Instant, n_acknowledged: u64, last: &str) {
        let (done, elapsed) = (self.summary.kills.min(args.kills), begun.elapsed().as_secs_f64());
        let left = elapsed / f64::from(done.max(1)) * f64::from(args.kills - done);
        let failover = self.summary.failover_ms;
        say(&format!(
            "{done}/{} kills, {elapsed:.0} s elapsed, about {left:.0} s left; {n_acknowledged} submissions acknowledged; \
             failover p50 {:.0} ms, max {:.0} ms; last: {last}",
            args.kills, failover.p50, failover.max
        ));
    }

    fn finish(mut self, findings: Findings) -> Summary {
        let summary = &mut self.summary;
        summary.acknowledged = findings.acknowledged;
        summary.submissions = findings.submissions;
        (summary.enrolments, summary.renewals, summary.revocations) = findings.guests;
        let archipelago_histories::Checked { objects, operations, skipped } = findings.checked;
        summary.linearizable = Linearizable { objects, operations, skipped };
        if objects == 0 && findings.problems.is_empty() {
            summary
                .problems
                .push("no history was checked: the campaign has not shown an order of operations".to_owned());
        }
        summary.lost = findings.lost.len() as u64;
        summary.duplicated = findings.duplicated.len() as u64;
        summary.problems.extend([findings.lost, findings.duplicated, findings.problems].concat());
        if summary.enrolments == 0 || summary.renewals == 0 {
            summary.problems.push("no site came in and renewed its key while everything was killed".to_owned());
        }
        if summary.submissions == 0 {
            summary.problems.push("no submission was acknowledged: the campaign has shown nothing".to_owned());
        }
        if summary.udp_dropped && (summary.sessions["quic"] > 0 || summary.sessions["tcp"] == 0) {
            summary.problems.push(format!("UDP was dropped, and these are the sessions: {:?}", summary.sessions));
        }
        for (fault, tally) in &summary.by_fault {
            if tally.n >= ENOUGH && tally.hit == 0 {
                summary.problems.push(format!("`{fault}` never came in its window in {} attempts", tally.n));
            }
        }
        self.summary
    }
}

fn clear(out: &Path) -> Result<()> {
    if out.join("ca").exists() || out.join("summary.json").exists() {
        std::fs::remove_dir_all(out).with_context(|| format!("failed to clear `{}`", out.display()))?;
    }
    Ok(std::fs::create_dir_all(out)?)
}

/// Logs, journals and the summary stay; the coordinators' data are gigabytes.
fn remove_data(out: &Path) -> Result<()> {
    for node in 1..=crate::stage::NODES {
        std::fs::remove_dir_all(out.join(format!("node{node}/data")))?;
    }
    Ok(())
}

/// Pause between two lines of progress.
const TELL: Duration = Duration::from_secs(5);
/// Attempts after which a window that was never hit is a defect of the campaign.
const ENOUGH: u32 = 5;
