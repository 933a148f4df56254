//! A consortium in a temporary folder: its authority, its nodes as processes, its operator and its sites.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    ops::RangeInclusive,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use archipelago_client::{Client, ClientConfig, Patience};
use archipelago_common::{
    Base, BaseCard, Columns, ConditionKey, DType, Layout, NodeId, StateDict, Tensor, reference_dir::ReferenceDir,
    state_dict::TensorSpec,
};
use archipelago_transport::{Credentials, net::Network};

pub(crate) struct Consortium {
    dir: tempfile::TempDir,
    n_nodes: u64,
    peers: String,
    ops: BTreeMap<u64, u16>,
    nodes: BTreeMap<u64, Child>,
}

impl Consortium {
    /// A consortium with `n_nodes` running coordinators that have elected a leader.
    pub(crate) fn new(n_nodes: u64) -> Self {
        let mut consortium = Self::founded(n_nodes, |_| 1..=n_nodes);
        (1..=n_nodes).for_each(|node| consortium.start(node));
        consortium.leader();
        consortium
    }

    /// Coordinators that were founded, each with a list of its own, and not started.
    pub(crate) fn founded(n_nodes: u64, list_of: impl Fn(u64) -> RangeInclusive<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..2 * n_nodes).map(|_| free_port()).collect();
        let (own, ops) = ports.split_at(n_nodes as usize);
        let address = |(node, port): (u64, &u16)| format!("{node}=127.0.0.1:{port}");
        let peers = (1..).zip(own).map(address).collect::<Vec<_>>().join(",");
        let ops = (1..).zip(ops.iter().copied()).collect();
        let consortium = Self { dir, n_nodes, peers, ops, nodes: BTreeMap::new() };
        consortium.done(&["ca", "init", "lung", "--out", "ca"]);
        consortium.issue("operator/anna", "anna");
        for node in 1..=n_nodes {
            let (id, home) = (node.to_string(), format!("node{node}"));
            consortium.issue(&format!("coordinator/{node}"), &home);
            let ops = format!("127.0.0.1:{}", consortium.ops[&node]);
            let peers = consortium.peers_among(list_of(node));
            let args =
                ["init", "--node", &id, "--peers", &peers, "--ops", &ops, "--credentials", &home, "--out", &home];
            consortium.done(&args);
        }
        consortium
    }

    /// Some of the founders, as `1=host:port,2=host:port`.
    pub(crate) fn peers_among(&self, nodes: RangeInclusive<u64>) -> String {
        let all: Vec<_> = self.peers.split(',').collect();
        all[*nodes.start() as usize - 1..*nodes.end() as usize].join(",")
    }

    /// Makes a node that joins, and starts it. The cluster must have been told (`members add`) where it will be.
    pub(crate) fn join(&mut self, node: u64, address: &str) {
        let (id, home) = (node.to_string(), format!("node{node}"));
        let ops = free_port();
        self.ops.insert(node, ops);
        self.issue(&format!("coordinator/{node}"), &home);
        let peers = format!("{},{node}={address}", self.peers);
        let ops = format!("127.0.0.1:{ops}");
        let args = ["init", "--join", "--node", &id, "--peers", &peers, "--ops", &ops, "--credentials", &home];
        self.done(&[&args[..], &["--out", &home]].concat());
        self.start(node);
    }

    /// An address on which nobody listens.
    pub(crate) fn free_address() -> String {
        format!("127.0.0.1:{}", free_port())
    }

    pub(crate) fn start(&mut self, node: u64) {
        self.start_within(&[], node);
    }

    /// Starts a node by a program that does something first, given by its words, and then becomes the node.
    pub(crate) fn start_within(&mut self, words: &[&str], node: u64) {
        let log = File::options().create(true).append(true).open(self.path(&format!("node{node}.log"))).unwrap();
        let mut command = self.command(&["serve", "--config", &format!("node{node}/node.toml")]);
        if let Some((first, rest)) = words.split_first() {
            let mut outer = Command::new(first);
            outer.current_dir(self.dir.path()).args(rest).arg(command.get_program()).args(command.get_args());
            command = outer;
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.nodes.insert(node, child);
    }

    /// The process of a node that runs.
    pub(crate) fn process(&self, node: u64) -> u32 {
        self.nodes[&node].id()
    }

    /// kill -9
    pub(crate) fn kill(&mut self, node: u64) {
        let mut child = self.nodes.remove(&node).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; returns whether the node ended as if done.
    pub(crate) fn stop(&mut self, node: u64) -> bool {
        let mut child = self.nodes.remove(&node).unwrap();
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        wait_until("the node stops", 10, || child.try_wait().unwrap().is_some());
        child.wait().unwrap().success()
    }

    /// The leader that every running node names.
    pub(crate) fn leader(&self) -> u64 {
        let mut leader = None;
        wait_until("one leader is known to all", 20, || {
            let named: Vec<_> = self.nodes.keys().map(|node| self.leader_of(*node)).collect();
            leader = named.first().copied().flatten();
            leader.is_some_and(|leader| self.nodes.contains_key(&leader)) && named.iter().all(|l| *l == leader)
        });
        leader.unwrap()
    }

    /// The leader that a node names.
    pub(crate) fn leader_of(&self, node: u64) -> Option<u64> {
        let answer = self.http(node, "/readyz")?;
        answer.split_once("node ")?.1.split(' ').next()?.parse().ok()
    }

    /// The answer to a GET on a node's second port; none if it does not answer.
    pub(crate) fn http(&self, node: u64, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ops[&node])).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, node: u64, name: &str) -> Option<f64> {
        let text = self.http(node, "/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The most memory that a node ever had, in KiB.
    pub(crate) fn peak_kib(&self, node: u64) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process(node))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn issue(&self, principal: &str, out: &str) {
        self.done(&["ca", "issue", principal, "--ca", "ca", "--out", out]);
    }

    /// Asks as the operator; the answer as JSON.
    pub(crate) fn ask(&self, args: &[&str]) -> serde_json::Value {
        let output = self.try_ask(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks as the operator for what is refused; the error.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.try_ask(args);
        assert!(!output.status.success(), "{args:?} was not refused");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn try_ask(&self, args: &[&str]) -> Output {
        self.try_ask_at(&self.peers, args)
    }

    /// As [`Self::try_ask`], of these coordinators.
    pub(crate) fn try_ask_at(&self, peers: &str, args: &[&str]) -> Output {
        let (ca, cert, key) = ("anna/ca.pem", "anna/cert.pem", "anna/key.pem");
        let connection = ["--coordinators", peers, "--ca", ca, "--cert", cert, "--key", key];
        self.command(args).args(connection).args(["--format", "json"]).output().unwrap()
    }

    /// Runs a command that must succeed; what it wrote to stdout.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_archipelago-coordinator"));
        command.current_dir(self.dir.path()).args(args);
        command
    }

    /// A session as whoever has the credentials in a folder.
    pub(crate) async fn client(&self, credentials: &str) -> Result<Client, archipelago_client::ClientError> {
        Client::connect(ClientConfig {
            coordinators: self.addresses(),
            credentials: self.credentials(credentials),
            software: "test".to_owned(),
            patience: Patience::Within(Duration::from_secs(20)),
            known: None,
            network: Network::default(),
        })
        .await
    }

    /// What is in a folder that [`Self::issue`] wrote.
    pub(crate) fn credentials(&self, folder: &str) -> Credentials {
        let home = self.path(folder);
        Credentials::load(&home.join("ca.pem"), &home.join("cert.pem"), &home.join("key.pem")).unwrap()
    }

    /// Where the founders are.
    pub(crate) fn addresses(&self) -> BTreeMap<NodeId, String> {
        let one = |part: &str| {
            let (node, address) = part.split_once('=').unwrap();
            (node.parse().unwrap(), address.to_owned())
        };
        self.peers.split(',').map(one).collect()
    }

    /// The founders, as `1=host:port,2=host:port`.
    pub(crate) fn peers(&self) -> &str {
        &self.peers
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.n_nodes
    }

    /// Writes a reference with one condition of its own to a folder.
    pub(crate) fn write_reference(&self, name: &str) -> ReferenceDir {
        let conditions = BTreeMap::from([(key("anna/ref/a"), columns(1.0))]);
        ReferenceDir::write(&self.path(name), &base(), &conditions).unwrap()
    }
}

impl Drop for Consortium {
    fn drop(&mut self) {
        for (node, child) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.dir.path().join(format!("node{node}.log"))).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(20).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                let _ = writeln!(std::io::stderr(), "--- node {node}\n{tail}");
            }
        }
    }
}

pub(crate) fn key(text: &str) -> ConditionKey {
    text.parse().unwrap()
}

pub(crate) fn columns(value: f32) -> Columns {
    Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[2], &[value, value]))]))
}

/// A base of some megabytes, so that it travels in several chunks.
fn base() -> Base {
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: "scvi".to_owned(),
        config: BTreeMap::new(),
        genes: vec!["CD3D".to_owned(), "LYZ".to_owned()],
        batch_key: "batch".to_owned(),
        labels_key: None,
        labels: vec![],
        layout: Layout::plain(BTreeMap::from([("w".to_owned(), TensorSpec { dtype: DType::F32, shape: vec![2] })])),
        moves_embedding: true,
        training: BTreeMap::new(),
        recipe: None,
    };
    let values: Vec<f32> = (0..600_000).map(|i| i as f32).collect();
    let weight = Tensor::from_f32(&[values.len()], &values);
    Base { card, tensors: StateDict::from_iter([("decoder.weight".to_owned(), weight)]) }
}

/// A port that is free for UDP and for TCP, each time another one. It is below those that the system gives to whoever dials: on one of these
/// a connection of another test may sit by the time the node listens.
fn free_port() -> u16 {
    static N_GIVEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const N_PORTS: u32 = 22_000;
    loop {
        // Tests are processes of their own, and begin at places of their own.
        let place = std::process::id().wrapping_mul(7919).wrapping_add(N_GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + place % N_PORTS) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn wait_until(what: &str, seconds: u64, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
