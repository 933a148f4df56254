//! A campaign of a few kills, as `make campaign` runs one of hundreds.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Runs a short campaign and checks what it found.
fn check(seed: u64, network: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_archipelago-campaign"));
    let coordinator = program.with_file_name("archipelago-coordinator");
    assert!(coordinator.is_file(), "`{}` is not built; `make build` builds it", coordinator.display());
    let (dir, seed_text) = (out.path().join("out"), seed.to_string());
    let output = Command::new(program)
        .args(["run", "--kills", "5", "--sites", "3", "--seed", &seed_text])
        .args(network)
        .arg("--out")
        .arg(&dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let kept = out.keep();
        panic!("seed {seed}; everything is in `{}`\n{told}{}", kept.display(), String::from_utf8_lossy(&output.stdout));
    }
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["lost"], &summary["duplicated"]), (&0.into(), &0.into()), "{summary:#}");
    assert!(summary["kills"].as_u64() >= Some(5), "{summary:#}");
    assert!(summary["submissions"].as_u64() > Some(0), "{summary:#}");
    for what in ["enrolments", "renewals"] {
        assert!(summary[what].as_u64() > Some(0), "{what}: {summary:#}");
    }
    assert!(summary["linearizable"]["operations"].as_u64() > Some(0), "{summary:#}");
    let hits: u64 = summary["by_fault"].as_object().unwrap().values().filter_map(|fault| fault["hit"].as_u64()).sum();
    assert!(hits > 0, "no fault came in its window: {summary:#}");
}

#[test]
fn nothing_acknowledged_is_lost_while_processes_are_killed_and_stopped_on_loopback() {
    check(1, &["--network", "loopback"]);
}

#[test]
fn nothing_acknowledged_is_lost_while_processes_are_killed_and_cut_off_as_the_machine_allows() {
    check(2, &["--network", "auto"]);
}

/// As at sites behind a firewall that lets no datagram through; what carries the sessions is in the summary, and QUIC is a problem.
#[test]
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn nothing_acknowledged_is_lost_where_every_firewall_drops_udp() {
    let tried =
        Command::new("unshare").args(["--user", "--map-root-user", "--net", "nft", "add table inet firewall"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `unshare`, `nft` or the right to make network namespaces is missing");
        return;
    }
    check(3, &["--drop-udp"]);
}
