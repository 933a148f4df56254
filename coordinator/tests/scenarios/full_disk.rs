//! A disk that is really full: one node's data on a small file system in memory, in a mount namespace of its own.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use archipelago_protocol::message::Request;

use crate::consortium::{Consortium, wait_until};

#[test]
fn a_node_whose_file_system_is_full_leaves_the_others_and_comes_back_when_there_is_space() {
    if !is_possible() {
        let _ = writeln!(std::io::stderr(), "not tried: this machine lets no user mount a file system for itself");
        return;
    }
    let mut consortium = Consortium::new(3);
    let leader = consortium.leader();
    let small = consortium.nodes().find(|node| *node != leader).unwrap();
    assert!(consortium.stop(small));
    let config = consortium.path(&format!("node{small}/node.toml"));
    // Without a reserve nothing keeps the log from finding the disk full.
    let is_reserve = |line: &&str| line.starts_with("reserve_bytes");
    let text = std::fs::read_to_string(&config).unwrap();
    let reserve = text.lines().find(is_reserve).unwrap();
    std::fs::write(&config, text.replace(reserve, "reserve_bytes = 0")).unwrap();
    consortium.start_within(&["unshare", "-Urm", "sh", "-c", ON_SMALL_DISK, "sh", &format!("node{small}")], small);
    consortium.leader();

    inside(&consortium, small, &format!("cat /dev/zero > node{small}/data/filler"));
    let is =
        |state: &str| consortium.metric(small, &format!("archipelago_node_state{{state=\"{state}\"}}")) == Some(1.0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let n_written = runtime.block_on(async {
        let anna = consortium.client("anna").await.unwrap();
        let mut n_written = 0;
        while !is("disk-full") {
            assert!(n_written < MOST_WRITES, "{n_written} entries fit into a log on a full disk");
            n_written += 1;
            anna.request(Request::AddSite { site: format!("site{n_written}").parse().unwrap() }).await.unwrap();
        }
        n_written
    });
    let health = consortium.http(small, "/healthz").unwrap();
    assert!(health.contains("200 OK") && health.contains("disk-full"), "it stays and tells why: {health}");
    let readiness = || consortium.http(small, "/readyz").unwrap();
    assert!(readiness().contains("503"), "{}", readiness());
    consortium.ask(&["site", "add", "north"]);
    // Room for a few pages is no room: a node that came back for them would be away again at the next entry.
    inside(&consortium, small, &format!("truncate -s -65536 node{small}/data/filler"));
    let until = Instant::now() + A_WHILE;
    while Instant::now() < until {
        assert!(readiness().contains("503"), "{}", readiness());
        std::thread::sleep(Duration::from_millis(5));
    }

    inside(&consortium, small, &format!("rm node{small}/data/filler"));
    wait_until("the node is back", 30, || {
        consortium.http(small, "/readyz").is_some_and(|ready| ready.contains("200 OK"))
    });
    // What it missed counts on it now.
    let other = consortium.nodes().find(|node| ![leader, small].contains(node)).unwrap();
    consortium.kill(other);
    consortium.leader();
    let sites = consortium.ask(&["site", "list"]);
    assert_eq!(sites.as_array().unwrap().len(), n_written + 1, "{sites}");
}

/// Whether this machine lets users mount a file system in a namespace of their own.
fn is_possible() -> bool {
    let tried = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    tried.is_ok_and(|output| output.status.success()) && Command::new("nsenter").arg("--version").output().is_ok()
}

/// Runs a script where a node sees its disk; that it ends because there is no space left is no failure.
fn inside(consortium: &Consortium, node: u64, script: &str) {
    let process = consortium.process(node).to_string();
    let words = ["--preserve-credentials", "-U", "-m", "-t", &process, "sh", "-c"];
    let mut command = Command::new("nsenter");
    command.args(words).arg(format!("cd \"$1\" && {script}")).arg("sh").arg(consortium.path(""));
    assert!(command.stderr(Stdio::null()).status().is_ok(), "`nsenter` does not start");
}

/// Puts a copy of a node's data on 32 MB of memory in its place and goes on as the program.
const ON_SMALL_DISK: &str = "mkdir \"$1/small\" && mount -t tmpfs -o size=32m none \"$1/small\" && \
    cp -a \"$1/data/.\" \"$1/small\" && mount --bind \"$1/small\" \"$1/data\" && shift && exec \"$@\"";
/// Longer than a node stays away at least, and looks for room again some times.
const A_WHILE: Duration = Duration::from_secs(6);
/// A log that takes more has found space.
const MOST_WRITES: usize = 5_000;
