//! `serve` before it has met a coordinator: what it refuses to start with, and how it waits.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use archipelago_common::Principal;
use archipelago_transport::{Credentials, Transport as _, ca::Validity, quic::QuicTransport};

use super::{
    Bench,
    site::{authority, silent_address, write_site},
};

const SERVE: [&str; 3] = ["serve", "--config", "site.toml"];

/// Starts `serve` and reads its log until a line holds `word`.
pub(crate) fn start(bench: &Bench, word: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_archipelago-worker"))
        .args([&SERVE[..], &["--verbose"]].concat())
        .current_dir(bench.path("."))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the worker ended before it said `{word}`");
    }
    // Whoever writes to a closed pipe fails; the rest of the log is read to its end.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    child
}

#[test]
fn a_worker_waits_for_coordinators_that_are_down_and_stops_on_sigterm() {
    let bench = Bench::new();
    let (_socket, address) = silent_address();
    write_site(&bench, &authority(), "site/north", &address);
    let mut child = start(&bench, "calling the coordinators");
    assert!(child.try_wait().unwrap().is_none());
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success() && child.wait().unwrap().success());
}

#[test]
fn coordinators_of_another_authority_are_refused_with_a_hint() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let other = authority();
    let issued = other.issue(&"coordinator/1".parse::<Principal>().unwrap(), Validity::days(1)).unwrap();
    let credentials = Credentials::from_pem(other.certificate(), &issued.certificate, &issued.key).unwrap();
    let listener = runtime.block_on(QuicTransport::new(credentials).listen("127.0.0.1:0")).unwrap();
    write_site(&bench, &authority(), "site/north", listener.address());
    let said = bench.fail(1, &SERVE);
    assert!(said.contains("no coordinator could be reached") && said.contains("same consortium authority"), "{said}");
}

#[test]
fn an_identity_of_another_site_is_refused() {
    let bench = Bench::new();
    write_site(&bench, &authority(), "site/south", "127.0.0.1:1");
    let said = bench.fail(2, &SERVE);
    assert!(said.contains("that of `site/south`") && said.contains("says site `north`"), "{said}");
}

#[test]
fn a_missing_certificate_is_named() {
    let bench = Bench::new();
    write_site(&bench, &authority(), "site/north", "127.0.0.1:1");
    std::fs::remove_file(bench.path("site.pem")).unwrap();
    assert!(bench.fail(2, &SERVE).contains("site.pem"));
}

#[test]
fn a_configuration_error_names_the_field() {
    let bench = Bench::new();
    write_site(&bench, &authority(), "site/north", "127.0.0.1:1");
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    std::fs::write(bench.path("site.toml"), config.replace("dataset", "data_set")).unwrap();
    let said = bench.fail(2, &SERVE);
    assert!(said.contains("site.toml") && said.contains("data_set") && said.contains("hint:"), "{said}");
}

#[test]
fn data_that_cannot_be_used_stop_the_worker_before_it_calls() {
    let bench = Bench::new();
    write_site(&bench, &authority(), "site/north", "127.0.0.1:1");
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    std::fs::write(bench.path("site.toml"), config.replace("\"c\"", "\"z\"")).unwrap();
    assert!(bench.fail(1, &SERVE).contains("has no batch `z`"));
}

#[test]
fn a_broken_audit_log_stops_the_worker() {
    let bench = Bench::new();
    write_site(&bench, &authority(), "site/north", "127.0.0.1:1");
    std::fs::create_dir(bench.path("state")).unwrap();
    std::fs::write(bench.path("state/audit.jsonl"), "{}\n").unwrap();
    assert!(bench.fail(1, &SERVE).contains("broken at line 1"));
}

#[test]
fn the_configuration_is_printed_with_its_sources() {
    let bench = Bench::new();
    write_site(&bench, &authority(), "site/north", "127.0.0.1:1");
    let text = bench.run(&[&SERVE[..], &["--print-config"]].concat());
    assert!(text.lines().any(|l| l.starts_with("data.batch_key") && l.ends_with("\"batch\"  (default)")), "{text}");
    assert!(text.lines().any(|l| l.starts_with("site ") && l.ends_with("\"north\"  (file)")), "{text}");
}
