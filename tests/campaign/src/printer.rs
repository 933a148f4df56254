//! The one place that writes to the terminal.

use crate::summary::Summary;

/// Tells what is going on.
#[expect(clippy::print_stderr, reason = "this is the printer")]
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// Tells what went wrong, with its causes.
pub fn report_error(error: &anyhow::Error) {
    say(&format!("error: {error}"));
    for cause in error.chain().skip(1) {
        say(&format!("  caused by: {cause}"));
    }
}

/// Tells what came of it.
#[expect(clippy::print_stdout, reason = "this is the printer")]
pub fn report(summary: &Summary) {
    println!("{:<44} {:>5} {:>5} {:>22}", "fault", "n", "hit", "next write p50/max ms");
    for (fault, tally) in &summary.by_fault {
        let times = format!("{:.0}/{:.0}", tally.recovery_ms.p50, tally.recovery_ms.max);
        println!("{fault:<44} {:>5} {:>5} {times:>22}", tally.n, tally.hit);
    }
    println!();
    println!(
        "kills               {} ({} faults, {:.0} s, seed {})",
        summary.kills, summary.faults, summary.seconds, summary.seed
    );
    println!("acknowledged        {} ({} submissions)", summary.acknowledged, summary.submissions);
    println!(
        "sites               {} let in, {} keys renewed, {} shut out",
        summary.enrolments, summary.renewals, summary.revocations
    );
    println!("lost                {}", summary.lost);
    println!("duplicated          {}", summary.duplicated);
    let order = &summary.linearizable;
    println!(
        "one order explains  {} operations on {} references and assignments; {} references not checked",
        order.operations, order.objects, order.skipped
    );
    let failover = &summary.failover_ms;
    println!(
        "failover            p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms of {}",
        failover.p50, failover.p99, failover.max, failover.n
    );
    println!(
        "sent again          {} bytes at most that had arrived, per stream; more than a chunk in {} of {} transfers",
        summary.resent_bytes_max, summary.resent_more_than_a_chunk, summary.interrupted_transfers
    );
    if let Some(death) = &summary.worker_death {
        println!(
            "dead worker         noticed after {:.1} s, task offered again after {:.1} s",
            death.noticed_s, death.offered_again_s
        );
    }
    for problem in &summary.problems {
        println!("PROBLEM             {problem}");
    }
}
