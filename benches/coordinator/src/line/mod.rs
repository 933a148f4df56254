//! Transfers over a long line between two network namespaces: 1 Gbit/s, 50 ms there and back, one packet of 200 lost. The bench is at one
//! end, the coordinator at the other; on both, the bare loop goes over the same line.

mod wire;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_processes::wait_until;
use archipelago_transport::{Way, net::Ways};

use crate::{
    Setting,
    cluster::{Cluster, Place},
    table::{Goal, Table, say},
    transfer,
};
use wire::Line;

const PART: &str = "line";

/// Starts the program again in a namespace of its own, for this part alone, and takes over its rows.
pub(crate) fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    if !is_possible() {
        say(
            "line: left out: `unshare`, `nsenter`, `ip`, `sysctl`, /dev/net/tun or the right to make namespaces is missing",
        );
        return Ok(());
    }
    let out = tempfile::tempdir_in(&setting.scratch)?;
    let mut again = Command::new("unshare");
    again.args(UNSHARE).arg(std::env::current_exe()?).arg("--out").arg(out.path());
    again.args(["--scale-down", &setting.scale_down.to_string(), "line-inside"]);
    ensure!(again.status().context("failed to start `unshare`")?.success(), "the measurement in a namespace failed");
    table.take_over(&out.path().join(crate::FIGURES))
}

fn is_possible() -> bool {
    let script = "ip tuntap add near mode tun && nsenter --version && sysctl --version";
    let tried = Command::new("unshare").args(UNSHARE).args(["sh", "-c", script]).stdin(Stdio::null()).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The same inside of it.
pub(crate) async fn measure_inside(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_bytes = (1 << 30) / setting.scale_down;
    say(&format!("{PART}: {} MB over 1 Gbit/s, 50 ms, 0.5 % loss, one node at the far end", n_bytes / 1_000_000));
    let far = Far::lay(LINE)?;
    let place = Place { host: FAR.to_owned(), prefix: far.prefix() };
    for (way, ways) in [(Way::Quic, Ways::Quic), (Way::Tcp, Ways::Tcp)] {
        let cluster = Cluster::start_at(&setting.scratch, std::slice::from_ref(&place))?;
        let operator = cluster.client_over("operator/anna", ways).await?;
        let begun = Instant::now();
        operator.request(archipelago_protocol::message::Request::Status).await?;
        table.row(PART, format!("{way}: one question"), begun.elapsed().as_secs_f64() * 1e3, "ms", Goal::None);
        let rates = transfer::rates(way, &operator, (&setting.scratch, n_bytes), &place).await?;
        let share = |mbs: f64| mbs * 8e6 / LINE.rate * 100.0;
        table.row(PART, format!("{way}: bare loop"), share(rates.bare), "% of line", Goal::None);
        table.row(PART, format!("{way}: upload, verified, fsynced"), share(rates.up), "% of line", Goal::AtLeast(60.0));
        table.row(PART, format!("{way}: download, the same"), share(rates.down), "% of line", Goal::AtLeast(60.0));
    }
    // Each needs the other for a majority, so every chunk crosses the line before the next but few.
    let near = Place { host: NEAR.to_owned(), prefix: vec![] };
    let cluster = Cluster::start_at(&setting.scratch, &[near, place.clone()])?;
    let operator = cluster.client("operator/anna").await?;
    let rates = transfer::rates(Way::Quic, &operator, (&setting.scratch, n_bytes), &place).await?;
    let share = rates.up * 8e6 / LINE.rate * 100.0;
    table.row(PART, "a coordinator at each end: upload, on both of them", share, "% of line", Goal::None);
    Ok(())
}

/// The far end of the line: a namespace that is kept by a process.
struct Far(Child);

impl Far {
    fn lay(line: Line) -> Result<Self> {
        let keeper = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn();
        let far = Self(keeper.context("failed to start `unshare`")?);
        let (own, path) = (std::fs::read_link("/proc/self/ns/net")?, format!("/proc/{}/ns/net", far.0.id()));
        wait_until("a namespace is made", Duration::from_secs(5), || {
            Ok(std::fs::read_link(&path).is_ok_and(|theirs| theirs != own).then_some(()))
        })?;
        wire::lay(line, ["near", "far"])?;
        run(&[], &format!("ip link set far netns {}", far.0.id()))?;
        for (prefix, name, own, other) in [(vec![], "near", NEAR, FAR), (far.prefix(), "far", FAR, NEAR)] {
            run(&prefix, "ip link set lo up")?;
            run(&prefix, &format!("ip addr add {own} peer {other} dev {name}"))?;
            run(&prefix, &format!("ip link set {name} mtu 1500 txqueuelen 10000 up"))?;
            // Linux holds 4 MB of what one TCP connection sends: less than there is on such a line. docs/firewalls.md says how to
            // give it more.
            for buffers in ["tcp_wmem", "tcp_rmem"] {
                run(&prefix, &format!("sysctl -qw net.ipv4.{buffers}=4096\t131072\t33554432"))?;
            }
        }
        Ok(far)
    }

    fn prefix(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.0.id()), "--".to_owned()]
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // Its namespace goes with it and with the last process in there.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(prefix: &[String], line: &str) -> Result<()> {
    let mut words = prefix.iter().map(String::as_str).chain(line.split(' '));
    let done = Command::new(words.next().unwrap_or_default()).args(words).status().with_context(|| line.to_owned())?;
    if !done.success() {
        bail!("failed: {line}");
    }
    Ok(())
}

const LINE: Line =
    Line { rate: 1e9, round_trip: Duration::from_millis(50), loss: 0.005, queue: Duration::from_millis(50) };
const NEAR: &str = "10.78.0.1";
const FAR: &str = "10.78.0.2";
const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--net"];
