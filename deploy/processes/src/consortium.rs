//! The coordinators of one consortium under one folder: founded with the product's own commands, each node a process
//! that can be killed and started again on its data.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::process::{Running, Signal, run_command, wait_until};

/// Where one node is and how it sees the others.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// UDP and TCP address that it listens on.
    pub listen: String,
    /// TCP address of its second port.
    pub ops: SocketAddr,
    /// Every node's address as this node dials it; its own too.
    pub peers: BTreeMap<u64, String>,
    /// Words before the program, such as `nsenter` and its arguments; usually none.
    pub prefix: Vec<String>,
}

/// The running coordinators; every process ends when this value goes.
#[derive(Debug)]
pub struct Consortium {
    dir: PathBuf,
    coordinator: PathBuf,
    /// Another build of the program, which every second start takes.
    other: Option<PathBuf>,
    n_started: u64,
    plans: BTreeMap<u64, NodePlan>,
    running: BTreeMap<u64, Running>,
}

impl Consortium {
    /// Founds a consortium with these nodes in a new folder; none is started yet.
    ///
    /// # Errors  the command of the product that failed
    pub fn found(dir: &Path, coordinator: &Path, name: &str, plans: BTreeMap<u64, NodePlan>) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let consortium = Self {
            dir,
            coordinator: coordinator.to_owned(),
            other: None,
            n_started: 0,
            plans,
            running: BTreeMap::new(),
        };
        consortium.run(&["ca", "init", name, "--out", "ca"])?;
        for (node, plan) in &consortium.plans {
            let folder = format!("node{node}");
            consortium.issue(&format!("coordinator/{node}"), &folder)?;
            let peers: Vec<_> = plan.peers.iter().map(|(node, address)| format!("{node}={address}")).collect();
            let (node, peers, ops) = (node.to_string(), peers.join(","), plan.ops.to_string());
            let at = ["--listen", &plan.listen, "--ops", &ops, "--credentials", &folder, "--out", &folder];
            consortium.run(&[&["init", "--node", &node, "--peers", &peers][..], &at].concat())?;
        }
        Ok(consortium)
    }

    /// From here on every second start of a node takes another build of the program, as when nodes are upgraded one by one, and back.
    pub fn take_turns_with(&mut self, other: &Path) {
        (self.other, self.n_started) = (Some(other.to_owned()), 0);
    }

    /// Makes key and certificate of a principal (`site/north`) in a folder of the consortium's.
    ///
    /// # Errors  the command's
    pub fn issue(&self, principal: &str, folder: &str) -> Result<()> {
        self.run(&["ca", "issue", principal, "--ca", "ca", "--out", folder]).map(drop)
    }

    /// Runs a command of the coordinator's program in the consortium's folder and returns what it printed.
    ///
    /// # Errors  the command's
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        run_command(Command::new(&self.coordinator).args(arguments).current_dir(&self.dir))
    }

    /// Starts a node, on the data it has.
    ///
    /// # Errors  that its program cannot be started
    pub fn start(&mut self, node: u64) -> Result<()> {
        let plan = self.plans.get(&node).with_context(|| format!("there is no node {node}"))?;
        let folder = self.node_dir(node);
        let mut words = plan.prefix.iter().map(String::as_str).map(std::ffi::OsStr::new).collect::<Vec<_>>();
        let config = folder.join("node.toml");
        self.n_started += 1;
        let program = self.other.as_ref().filter(|_| self.n_started.is_multiple_of(2)).unwrap_or(&self.coordinator);
        words.extend([program.as_os_str(), "serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
        let (name, log) = (format!("coordinator {node}"), folder.join("log.txt"));
        self.running.insert(node, Running::start(&name, Path::new(words[0]), &words[1..], &log)?);
        Ok(())
    }

    /// kill -9
    ///
    /// # Errors  that the node does not run
    pub fn kill(&mut self, node: u64) -> Result<()> {
        self.running.remove(&node).with_context(|| format!("coordinator {node} does not run"))?.kill()
    }

    /// Asks a node to end and waits until it has.
    ///
    /// # Errors  that it does not run, does not end in time, or ends as if failed
    pub fn stop(&mut self, node: u64) -> Result<()> {
        let mut running = self.running.remove(&node).with_context(|| format!("coordinator {node} does not run"))?;
        running.signal(Signal::Terminate)?;
        wait_until("a coordinator ends", STOP_PATIENCE, || Ok(running.is_done()?.then_some(())))
    }

    /// Signals a node.
    ///
    /// # Errors  that it does not run
    pub fn signal(&self, node: u64, signal: Signal) -> Result<()> {
        self.running.get(&node).with_context(|| format!("coordinator {node} does not run"))?.signal(signal)
    }

    /// Fails if a node that should run has ended.
    ///
    /// # Errors  which, with the end of its log
    pub fn require_alive(&mut self) -> Result<()> {
        self.running.values_mut().try_for_each(Running::require_alive)
    }

    /// Every node, running or not.
    pub fn nodes(&self) -> impl Iterator<Item = u64> + use<> {
        self.plans.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = u64> {
        self.running.keys().copied()
    }

    /// The process of a node that runs.
    pub fn pid(&self, node: u64) -> Option<u32> {
        self.running.get(&node).map(Running::pid)
    }

    /// The folder of everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A node's folder.
    pub fn node_dir(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node{node}"))
    }

    /// The leader that every running node names and that itself runs; none while they disagree or one is not ready.
    pub fn leader(&self) -> Option<u64> {
        let mut named = self.running.keys().map(|node| self.leader_of(*node));
        let leader = named.next()??;
        (self.running.contains_key(&leader) && named.all(|other| other == Some(leader))).then_some(leader)
    }

    /// The leader that one node names; none if it is not ready or does not answer.
    pub fn leader_of(&self, node: u64) -> Option<u64> {
        self.http(node, "/readyz")?.split_once("node ")?.1.split(' ').next()?.parse().ok()
    }

    /// The value of a metric (its name, with its labels as they are printed) at a node.
    pub fn metric(&self, node: u64, name: &str) -> Option<f64> {
        metric_in(&self.http(node, "/metrics")?, name)
    }

    /// The sum of a metric over all series with a label such as `role="site"`; none if the node does not answer.
    pub fn metric_sum(&self, node: u64, name: &str, label: &str) -> Option<f64> {
        let page = self.http(node, "/metrics")?;
        let values = page.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
            labels.split(',').any(|found| found == label).then_some(value.trim().parse::<f64>().ok()?)
        });
        Some(values.sum())
    }

    /// The answer to a GET on a node's second port; none if it does not answer soon, a stopped process say.
    pub fn http(&self, node: u64, path: &str) -> Option<String> {
        http(self.plans.get(&node)?.ops, path)
    }
}

/// A GET of a page from a coordinator's second port.
pub fn http(ops: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&ops, HTTP_PATIENCE).ok()?;
    stream.set_read_timeout(Some(HTTP_PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {ops}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The value of one line of a page of metrics.
pub fn metric_in(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Waits until all nodes run and name one leader.
///
/// # Errors  that they do not within `patience`, or that one has ended
pub fn wait_for_leader(consortium: &mut Consortium, patience: Duration) -> Result<u64> {
    wait_until("all coordinators name one leader", patience, || {
        consortium.require_alive()?;
        ensure!(consortium.running.len() == consortium.plans.len(), "a coordinator was not started");
        Ok(consortium.leader())
    })
}

const STOP_PATIENCE: Duration = Duration::from_secs(20);
const HTTP_PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# HELP a b\na_b 1\na 2\na{role=\"site\"} 3\n";
        assert_eq!(metric_in(page, "a"), Some(2.0));
        assert_eq!(metric_in(page, "a{role=\"site\"}"), Some(3.0));
        assert_eq!(metric_in(page, "b"), None);
    }
}
