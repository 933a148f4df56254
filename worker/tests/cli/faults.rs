//! Other people's faults, and a disk that is full: the worker puts a task aside, says why, and serves on.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use archipelago_common::reference_dir::ReferenceDir;

use super::{
    Bench,
    coordinator::Coordinator,
    site::{authority, write_site},
};

const ONCE: [&str; 5] = ["serve", "--config", "site.toml", "--once", "--verbose"];

fn set_up() -> (Bench, Coordinator) {
    let bench = Bench::with_reference();
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, |_| {});
    write_site(&bench, &authority, "site/north", &coordinator.address);
    (bench, coordinator)
}

/// Runs the worker until a result was accepted; what it said.
fn serve_once(bench: &Bench) -> String {
    let output = bench.command(&ONCE).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    log
}

#[test]
fn an_answer_that_cannot_be_given_is_asked_for_again() {
    let (bench, coordinator) = set_up();
    coordinator.state().unlisted = 1;
    let log = serve_once(&bench);
    assert!(log.contains("the tasks cannot be listed") && log.contains("is larger than"), "{log}");
    assert_eq!(coordinator.state().submissions.len(), 1);
}

#[test]
fn a_spoilt_reference_is_fetched_again() {
    let (bench, coordinator) = set_up();
    coordinator.state().spoilt = 1;
    let log = serve_once(&bench);
    assert!(log.contains("what came is not the reference"), "{log}");
    assert_eq!(coordinator.state().given_up, None);
}

#[test]
fn a_task_whose_reference_stays_spoilt_is_returned_with_a_reason_and_done_when_it_is_mended() {
    let (bench, coordinator) = set_up();
    // As often as one assignment asks for it.
    coordinator.state().spoilt = 3;
    let log = serve_once(&bench);
    assert!(log.contains("the task is returned") && log.contains("looked at again after a while"), "{log}");
    let state = coordinator.state();
    assert_eq!(state.given_up.as_deref(), Some("the reference cannot be read or does not verify"));
    let [accepted] = &state.submissions[..] else { panic!("{} submissions", state.submissions.len()) };
    assert_eq!(accepted.epoch, 2, "claimed again");
}

#[test]
fn a_site_whose_disk_is_full_returns_the_task_and_goes_on_when_there_is_space() {
    if !is_possible() {
        let _ = writeln!(std::io::stderr(), "not tried: this machine lets no user mount a file system for itself");
        return;
    }
    let (bench, coordinator) = set_up();
    std::fs::create_dir(bench.path("state")).unwrap();
    // Until the disk is full there is nothing to do.
    coordinator.state().unlisted = u32::MAX;
    let mut worker = Command::new("unshare")
        .args(["-Urm", "sh", "-c", "mount -t tmpfs -o size=4m none state && exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_archipelago-worker"))
        .args(ONCE)
        .current_dir(bench.path("."))
        .env("OMP_NUM_THREADS", "1")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    coordinator.wait_until(|state| state.unlisted < u32::MAX);
    inside(&worker, &bench.path("."), "cat /dev/zero > state/filler");
    coordinator.state().unlisted = 0;
    coordinator.wait_until(|state| state.given_up.is_some());
    assert_eq!(coordinator.state().given_up.as_deref(), Some("a fault at the site"));
    assert!(worker.try_wait().unwrap().is_none(), "it serves on");
    inside(&worker, &bench.path("."), "rm state/filler");
    coordinator.wait_until(|state| !state.submissions.is_empty());
    assert!(worker.wait().unwrap().success());
}

/// Whether this machine lets users mount a file system in a namespace of their own.
fn is_possible() -> bool {
    let tried = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    tried.is_ok_and(|output| output.status.success()) && Command::new("nsenter").arg("--version").output().is_ok()
}

/// Runs a script where the worker sees its disk; that it ends because there is no space left is no failure.
fn inside(worker: &Child, dir: &Path, script: &str) {
    let process = worker.id().to_string();
    let mut command = Command::new("nsenter");
    command.args(["--preserve-credentials", "-U", "-m", "-t", &process, "sh", "-c"]);
    command.arg(format!("cd \"$1\" && {script}")).arg("sh").arg(dir);
    assert!(command.stderr(Stdio::null()).status().is_ok(), "`nsenter` does not start");
}
