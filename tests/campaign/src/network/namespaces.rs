//! Network namespaces: every coordinator and every site on an Ethernet of its own, joined by a bridge. Needs no root where
//! the kernel lets users make namespaces: the whole campaign runs in one of its own ([`enter`]), so nothing outside is
//! touched and nothing is left behind.
//!
//! A way is cut by giving its sender a wrong hardware address for its receiver: datagrams leave and reach nobody, in
//! this direction alone, and the sender is not told, as when a cable is pulled. A firewall that drops UDP stands before every party
//! where that is wanted.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_processes::wait_until;

use super::{OPERATORS, Way, Whom, node_name};
use crate::args::NetworkChoice;

/// The parties and their addresses.
pub struct Namespaces {
    parties: BTreeMap<String, Party>,
}

struct Party {
    address: Ipv4Addr,
    /// A process that keeps the namespace; none for the campaign's own.
    keeper: Option<Child>,
}

/// Starts the program again inside a namespace of its own, if that is wanted and possible; else returns.
///
/// # Errors  that it is wanted and not possible
pub fn enter(choice: NetworkChoice, drop_udp: bool) -> Result<()> {
    ensure!(
        choice != NetworkChoice::Loopback || !drop_udp,
        "`--drop-udp` needs namespaces: leave `--network loopback` out"
    );
    if choice == NetworkChoice::Loopback || is_inside() {
        return Ok(());
    }
    if !is_possible(drop_udp) {
        let missing = "`unshare`, `nsenter`, `ip`, `nft` or the right to make namespaces is missing";
        ensure!(choice == NetworkChoice::Auto && !drop_udp, missing);
        return Ok(());
    }
    let mut again = Command::new("unshare");
    again.args(UNSHARE).arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    bail!("failed to start `unshare`: {}", again.exec());
}

/// Whether this process was started by [`enter`].
pub(super) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn is_possible(drop_udp: bool) -> bool {
    let script = "ip link add hub type bridge && ip link add v1 type veth peer name v2 && nsenter --version";
    let script = if drop_udp { format!("{script} && nft '{FIREWALL}'") } else { script.to_owned() };
    let tried = Command::new("unshare").args(UNSHARE).args(["sh", "-c", &script]).stdin(Stdio::null()).output();
    tried.is_ok_and(|output| output.status.success())
}

impl Namespaces {
    pub(super) fn build(n_nodes: u64, sites: &[String], drop_udp: bool) -> Result<Self> {
        ip(None, &["link set lo up", "link add hub type bridge"])?;
        let own = Ipv4Addr::new(10, 77, 0, 254);
        ip(None, &[&format!("addr add {own}/24 dev hub"), "link set hub up"])?;
        let mut parties = BTreeMap::from([(OPERATORS.to_owned(), Party { address: own, keeper: None })]);
        let names = (1..=n_nodes).map(node_name).chain(sites.iter().cloned());
        for (i, name) in (1..).zip(names) {
            let address = Ipv4Addr::new(10, 77, 0, i);
            parties.insert(name, Party { address, keeper: Some(keeper(i, address)?) });
        }
        if drop_udp {
            parties.values().try_for_each(|party| run(party.keeper.as_ref(), &["nft", FIREWALL]))?;
        }
        Ok(Self { parties })
    }

    pub(super) fn listen(&self, node: u64) -> (String, SocketAddr) {
        let address = self.parties[&node_name(node)].address;
        (format!("{address}:{PORT}"), SocketAddr::from((address, OPS_PORT)))
    }

    pub(super) fn addresses(&self) -> BTreeMap<u64, String> {
        let node = |(name, party): (&String, &Party)| {
            Some((name.strip_prefix("node")?.parse().ok()?, format!("{}:{PORT}", party.address)))
        };
        self.parties.iter().filter_map(node).collect()
    }

    pub(super) fn prefix(&self, party: &str) -> Vec<String> {
        let keeper = self.parties.get(party).and_then(|party| party.keeper.as_ref());
        keeper.map_or_else(Vec::new, |keeper| vec!["nsenter".to_owned(), namespace(keeper), "--".to_owned()])
    }

    pub(super) fn cut_node(&self, node: u64, from: Whom, way: Way) -> Result<()> {
        let own = node_name(node);
        let is_meant = |name: &str| match from {
            Whom::All => true,
            Whom::Nodes => name.starts_with("node"),
            Whom::Sites => !name.starts_with("node") && name != OPERATORS,
        };
        let others: Vec<_> = self.parties.keys().filter(|name| **name != own && is_meant(name)).collect();
        self.cut(&own, &others, way)
    }

    pub(super) fn cut_site(&self, site: &str, way: Way) -> Result<()> {
        let nodes: Vec<_> = self.parties.keys().filter(|name| name.starts_with("node")).collect();
        self.cut(site, &nodes, way)
    }

    pub(super) fn heal(&self) -> Result<()> {
        self.parties.values().try_for_each(|party| ip(party.keeper.as_ref(), &["neigh flush all nud permanent"]))
    }

    fn cut(&self, own: &str, others: &[&String], way: Way) -> Result<()> {
        if way != Way::In {
            let lines: Vec<_> = others.iter().map(|other| self.misdirect(own, other)).collect();
            ip(self.parties[own].keeper.as_ref(), &lines)?;
        }
        if way != Way::Out {
            for other in others {
                ip(self.parties[*other].keeper.as_ref(), &[self.misdirect(other, own)])?;
            }
        }
        Ok(())
    }

    /// The command that sends what `from` has for `to` to nobody.
    fn misdirect(&self, from: &str, to: &str) -> String {
        let device = if self.parties[from].keeper.is_some() { "eth0" } else { "hub" };
        format!("neigh replace {} lladdr 02:00:00:00:00:01 dev {device} nud permanent", self.parties[to].address)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for keeper in self.parties.values_mut().filter_map(|party| party.keeper.as_mut()) {
            // Its namespace goes with it and with the last process in there.
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }
}

/// A new namespace on the bridge, kept by a process that ends with this one: its input is ours.
fn keeper(i: u8, address: Ipv4Addr) -> Result<Child> {
    let keeper = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn();
    let keeper = keeper.context("failed to start `unshare`")?;
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let path = format!("/proc/{}/ns/net", keeper.id());
    wait_until("a namespace is made", Duration::from_secs(5), || {
        Ok(std::fs::read_link(&path).is_ok_and(|theirs| theirs != own).then_some(()))
    })?;
    ip(
        None,
        &[
            format!("link add v{i} type veth peer name eth0 netns {}", keeper.id()),
            format!("link set v{i} master hub up"),
        ],
    )?;
    let up = ["link set lo up".to_owned(), format!("addr add {address}/24 dev eth0"), "link set eth0 up".to_owned()];
    ip(Some(&keeper), &up)?;
    Ok(keeper)
}

/// Runs commands of `ip`, in a namespace or in our own.
fn ip<S: AsRef<str>>(keeper: Option<&Child>, lines: &[S]) -> Result<()> {
    let mut command = inside(keeper, &["ip", "-batch", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().context("failed to start `ip`")?;
    let mut input = child.stdin.take().context("the input of `ip` is there once")?;
    for line in lines {
        writeln!(input, "{}", line.as_ref())?;
    }
    drop(input);
    ensure!(child.wait()?.success(), "`ip` refused: {}", lines.iter().map(S::as_ref).collect::<Vec<_>>().join("; "));
    Ok(())
}

/// Runs a command, in a namespace or in our own.
fn run(keeper: Option<&Child>, words: &[&str]) -> Result<()> {
    ensure!(inside(keeper, words).status()?.success(), "failed: {}", words.join(" "));
    Ok(())
}

fn inside(keeper: Option<&Child>, words: &[&str]) -> Command {
    let prefix = keeper.map(|keeper| ["nsenter".to_owned(), namespace(keeper), "--".to_owned()]);
    let mut all = prefix.into_iter().flatten().chain(words.iter().map(|word| (*word).to_owned()));
    let mut command = Command::new(all.next().unwrap_or_default());
    command.args(all);
    command
}

fn namespace(keeper: &Child) -> String {
    format!("--net=/proc/{}/ns/net", keeper.id())
}

/// The port of every coordinator for its peers, and its second port: each has an address of its own.
const PORT: u16 = 7101;
const OPS_PORT: u16 = 9101;
/// What a hospital's firewall does to UDP: no word comes back.
const FIREWALL: &str = "table inet firewall {
    chain out { type filter hook output priority 0; meta l4proto udp counter drop; }
    chain in { type filter hook input priority 0; meta l4proto udp counter drop; }
}";
const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--net"];
const INSIDE: &str = "ARCHIPELAGO_CAMPAIGN_INSIDE";
