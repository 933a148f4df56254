//! `doctor`: each fault that is seeded here is found, named, and comes with what to do.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use archipelago_common::{Principal, reference_dir::ReferenceDir};
use archipelago_transport::{
    Credentials, Transport as _,
    ca::{Authority, Validity},
    net::{NetTransport, Network, Ways},
};
use serde_json::Value;

use super::{
    Bench,
    coordinator::Coordinator,
    site::{authority, write_site},
};

const DOCTOR: [&str; 5] = ["doctor", "--config", "site.toml", "--format", "json"];

/// A site in good health and the coordinator that it is with.
fn healthy() -> (Bench, Authority, Coordinator) {
    let bench = Bench::with_reference();
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, |_| {});
    write_site(&bench, &authority, "site/north", &coordinator.address);
    (bench, authority, coordinator)
}

/// A site without a coordinator: what is wrong beside that is told all the same.
fn alone() -> Bench {
    let bench = Bench::new();
    write_site(&bench, &authority(), "site/north", NOBODY);
    bench
}

/// What `doctor` finds of one thing: verdict, what it found, and its advice.
fn finding(bench: &Bench, what: &str) -> (String, String, String) {
    finding_in(&bench.command(&DOCTOR).output().unwrap(), what)
}

fn finding_in(answer: &Output, what: &str) -> (String, String, String) {
    let said: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let findings = said["findings"].as_array().unwrap();
    let failed = findings.iter().filter(|finding| finding["verdict"] == "failed").count();
    assert_eq!(answer.status.code(), Some(i32::from(failed > 0)), "{said:#}");
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    // The last word on a thing is the one that counts.
    let of_it = findings.iter().rev().find(|finding| finding["what"] == what);
    let found = of_it.unwrap_or_else(|| panic!("nothing about {what}: {said:#}"));
    (text(found, "verdict"), text(found, "found"), text(found, "advice"))
}

/// Holds a finding to a verdict, and what it says to words.
fn expect(bench: &Bench, what: &str, verdict: &str, found: &[&str], advice: &str) {
    let said = finding(bench, what);
    assert_eq!(said.0, verdict, "{said:?}");
    assert!(found.iter().all(|word| said.1.contains(word)), "{said:?}");
    assert!(said.2.contains(advice), "{said:?}");
}

fn change(bench: &Bench, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(bench.path(file)).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(bench.path(file), text.replace(from, to)).unwrap();
}

/// Something before the tables of the configuration.
fn say(bench: &Bench, line: &str) {
    let text = fs::read_to_string(bench.path("site.toml")).unwrap();
    fs::write(bench.path("site.toml"), format!("{line}\n{text}")).unwrap();
}

#[test]
fn a_site_in_good_health_is_told_so_and_nothing_is_changed() {
    let (bench, _authority, coordinator) = healthy();
    let before = files(&bench);
    let answer = bench.command(&DOCTOR).output().unwrap();
    let said: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let verdicts: Vec<_> = said["findings"].as_array().unwrap().iter().map(|f| (&f["what"], &f["verdict"])).collect();
    // The certificates of tests end tomorrow, and are said to.
    let good =
        |(what, verdict): &(&Value, &Value)| *verdict == "ok" || (*what == "certificate" && *verdict == "warning");
    assert!(verdicts.iter().all(good), "{said:#}");
    let looked_at: Vec<_> = verdicts.iter().map(|(what, _)| what.as_str().unwrap()).collect();
    for what in
        ["coordinator 1, UDP", "coordinator 1, TCP", "session", "clock", "policy", "cells", "reference pbmc", "device"]
    {
        assert!(looked_at.contains(&what), "{what} is missing among {looked_at:?}");
    }
    assert!(answer.status.success());
    assert_eq!(files(&bench), before);
    let text = bench.run(&["doctor", "--config", "site.toml"]);
    assert!(text.lines().any(|line| line.starts_with("ok       session")), "{text}");
    let state = coordinator.state();
    assert!(state.uploaded.is_empty() && state.task.assignments.is_empty(), "nothing is sent and no task is taken");
}

#[test]
fn a_way_that_ends_somewhere_is_told_where() {
    let (bench, authority, coordinator) = healthy();
    let at = coordinator.address.clone();
    change(&bench, "site.toml", &at, "no-such-host.invalid:7101");
    expect(&bench, "coordinator 1, name", "failed", &["no-such-host.invalid"], "check the host name");
    change(&bench, "site.toml", "no-such-host.invalid:7101", NOBODY);
    expect(&bench, "coordinator 1, TCP", "failed", &["refused"], "check that the coordinator runs");
    expect(&bench, "session", "failed", &["no coordinator could be reached"], "check that the coordinator runs");
    expect(&bench, "references", "warning", &["no session"], "");

    // UDP vanishes, as behind a firewall, and TCP comes through.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let credentials = |authority: &Authority, principal: &str| {
        let issued = authority.issue(&principal.parse::<Principal>().unwrap(), Validity::days(1)).unwrap();
        Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
    };
    let listen = |credentials, ways| {
        let transport = NetTransport::new(credentials, Network { ways, proxy: None });
        runtime.block_on(transport.listen("127.0.0.1:0")).unwrap()
    };
    let listener = listen(credentials(&authority, "coordinator/1"), Ways::Tcp);
    let _silence = UdpSocket::bind(listener.address()).unwrap();
    change(&bench, "site.toml", NOBODY, listener.address());
    expect(&bench, "coordinator 1, UDP", "warning", &["nothing within"], "let UDP out");
    let by_udp = listener.address().to_owned();
    say(&bench, "transport = \"quic\"");
    expect(&bench, "coordinator 1, UDP", "failed", &["nothing within"], "transport = \"auto\"");
    change(&bench, "site.toml", "transport = \"quic\"\n", "");

    // Somebody else answers: a proxy that opens TLS, or another consortium.
    let other = listen(
        credentials(&Authority::create("other".parse().unwrap(), Validity::days(1)).unwrap().0, "coordinator/1"),
        Ways::Auto,
    );
    change(&bench, "site.toml", &by_udp, other.address());
    expect(&bench, "coordinator 1, TCP", "failed", &["certified by", "other"], "exception for this host");
    let wrong = listen(credentials(&authority, "coordinator/2"), Ways::Auto);
    change(&bench, "site.toml", other.address(), wrong.address());
    expect(&bench, "coordinator 1, TCP", "failed", &["coordinator/2", "coordinator/1"], "node id");
}

/// A network of its own, without an address: what a machine has whose cable is out.
#[test]
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn a_machine_without_a_network_is_told_so() {
    let bench = alone();
    change(&bench, "site.toml", NOBODY, "192.0.2.7:7101");
    let inside = |program: &Path, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]).arg(program).args(args).current_dir(bench.path("."));
        command.output()
    };
    if !inside(Path::new("true"), &[]).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `unshare` or the right to make a network namespace is missing");
        return;
    }
    let answer = inside(&assert_cmd::cargo::cargo_bin("archipelago-worker"), &DOCTOR).unwrap();
    let (verdict, found, advice) = finding_in(&answer, "coordinator 1, TCP");
    assert!(verdict == "failed" && found.contains("Network is unreachable"), "{found}");
    assert!(advice.contains("check this machine's network"), "{advice}");
}

#[test]
fn what_a_proxy_says_is_told() {
    let (bench, _authority, coordinator) = healthy();
    let answers = |answer: &'static str| {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = proxy.local_addr().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for mut socket in proxy.incoming().flatten() {
                let mut asked = [0; 1024];
                let _ = socket.read(&mut asked).and_then(|_| socket.write_all(answer.as_bytes()));
            }
        });
        address
    };
    say(&bench, &format!("transport = \"tcp\"\nproxy = \"http://{NOBODY}\""));
    expect(&bench, "coordinator 1, TCP", "failed", &["proxy", "refused"], "check the proxy's address");
    for (answer, word) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "asks for a user and a password"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "does not allow this address"),
    ] {
        let text = fs::read_to_string(bench.path("site.toml")).unwrap();
        let now = text.lines().find(|line| line.starts_with("proxy")).unwrap().to_owned();
        change(&bench, "site.toml", &now, &format!("proxy = \"http://{}\"", answers(answer)));
        expect(&bench, "coordinator 1, TCP", "failed", &[word], "allows CONNECT");
    }
    drop(coordinator);
}

#[test]
fn what_the_coordinators_hold_against_a_site_is_told() {
    let (bench, _authority, coordinator) = healthy();
    coordinator.state().ahead_ms = 3_600_000;
    expect(&bench, "clock", "warning", &["3600 s behind"], "NTP");
    coordinator.state().ahead_ms = -120_000;
    expect(&bench, "clock", "warning", &["120 s ahead"], "NTP");
    coordinator.state().shuts_out = true;
    expect(&bench, "session", "failed", &["site `north` is not enrolled"], "ask an operator");
}

#[test]
fn faults_of_certificate_and_key_are_told() {
    let bench = alone();
    expect(&bench, "certificate", "warning", &["0 days left"], "ask an operator");
    fs::set_permissions(bench.path("site.key"), fs::Permissions::from_mode(0o644)).unwrap();
    expect(&bench, "key", "warning", &["mode 644"], "chmod 600");
    let authority = authority();
    fs::remove_file(bench.path("site.pem")).unwrap();
    fs::remove_file(bench.path("site.key")).unwrap();
    write_site(&bench, &authority, "site/south", NOBODY);
    expect(&bench, "certificate", "failed", &["that of `site/south`"], "");
    let ended = Validity { not_before: time::OffsetDateTime::now_utc() - time::Duration::days(9), ..Validity::days(1) };
    let ended = Validity { not_after: time::OffsetDateTime::now_utc() - time::Duration::days(2), ..ended };
    let issued = authority.issue(&"site/north".parse().unwrap(), ended).unwrap();
    issued.write(&bench.path("old.pem"), &bench.path("old.key")).unwrap();
    change(&bench, "site.toml", "site.pem", "old.pem");
    change(&bench, "site.toml", "site.key", "old.key");
    expect(&bench, "certificate", "failed", &["expired on"], "ask an operator for a new certificate");
    fs::remove_file(bench.path("old.key")).unwrap();
    expect(&bench, "certificate", "failed", &["old.key"], "");
}

#[test]
fn faults_of_configuration_and_policy_are_told() {
    let bench = alone();
    say(&bench, "policy = \"policy.toml\"");
    fs::write(bench.path("policy.toml"), "min_donors = 3").unwrap();
    expect(&bench, "policy", "failed", &["`donor_key` is missing"], "");
    fs::write(bench.path("policy.toml"), "columns = false").unwrap();
    expect(&bench, "policy", "warning", &["columns stay"], "takes part in nothing");
    fs::write(bench.path("policy.toml"), "embeddings = \"full\"").unwrap();
    expect(&bench, "policy", "ok", &["EMBEDDINGS OF SINGLE CELLS MAY LEAVE"], "");
    say(&bench, "out_dir = \"cells.h5ad/results\"");
    expect(&bench, "disk, out_dir", "failed", &["is no directory"], "name another");
    change(&bench, "site.toml", "dataset =", "data_set =");
    expect(&bench, "configuration", "failed", &["data_set"], "");
}

#[test]
fn faults_of_the_cells_are_told() {
    let (bench, _authority, _coordinator) = healthy();
    say(&bench, "policy = \"policy.toml\"");
    fs::write(bench.path("policy.toml"), "min_cells = 41").unwrap();
    expect(&bench, "cells", "warning", &["too small to leave", "c"], "`min_cells` is 41");
    bench.run(&["generate", "--batches", "a,b,c", "--n-cells", "40", "--n-genes", "20", "--out", "few.h5ad"]);
    change(&bench, "site.toml", "cells.h5ad", "few.h5ad");
    expect(&bench, "reference pbmc", "warning", &["20 of its 60 genes"], "missing genes count as zero");
    change(&bench, "site.toml", "few.h5ad", "cells.h5ad");
    change(&bench, "site.toml", "\"c\"", "\"z\"");
    expect(&bench, "cells", "failed", &["has no batch `z`"], "");
    change(&bench, "site.toml", "\"z\"", "\"c\"");
    change(&bench, "site.toml", "dataset =", "batch_key = \"donor\"\ndataset =");
    expect(&bench, "cells", "failed", &["donor"], "");
    change(&bench, "site.toml", "cells.h5ad", "gone.h5ad");
    expect(&bench, "cells", "failed", &["gone.h5ad"], "");
}

/// Every file of a bench, with its size and when it was written.
fn files(bench: &Bench) -> Vec<(String, u64, std::time::SystemTime)> {
    let each = fs::read_dir(bench.path(".")).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let of = entry.metadata().unwrap();
        (entry.file_name().into_string().unwrap(), of.len(), of.modified().unwrap())
    });
    let mut files: Vec<_> = each.collect();
    files.sort();
    files
}

/// Where nobody listens.
const NOBODY: &str = "127.0.0.1:9";
