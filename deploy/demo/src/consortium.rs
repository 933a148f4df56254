//! A consortium on loopback: an authority, three coordinators, an operator and the sites, each as it would be anywhere.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_common::{
    TaskId,
    record::{AssignmentState, ReferenceHistory, ReferenceRecord, StatusRecord, TaskRecord},
};
use archipelago_processes::{Running, free_ports, program, run, wait_until};
use serde::de::DeserializeOwned;

use crate::cells::{Cells, SiteCells};

/// The reference's name in the consortium.
pub const REFERENCE: &str = "atlas";
/// The data set part of every condition key.
pub const DATASET: &str = "demo";

const NODES: u64 = 3;
/// The operator, who publishes the reference and so owns its first conditions.
pub const OPERATOR: &str = "atlas-team";
/// How long a cluster may take to have a leader.
const ELECTION_PATIENCE: Duration = Duration::from_secs(30);

/// The running consortium; every process ends when this value goes.
pub struct Consortium {
    dir: PathBuf,
    coordinator: PathBuf,
    worker: PathBuf,
    /// Addresses for sites and operators, by node.
    addresses: BTreeMap<u64, String>,
    nodes: BTreeMap<u64, Running>,
    sites: BTreeMap<String, Running>,
}

/// On which terms a site takes part.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Column of obs with its labels, if it has some.
    pub labels_key: Option<&'a str>,
    /// Its policy, as TOML.
    pub policy: &'a str,
    /// Where further fields of its cells are, as lines of TOML.
    pub fields: &'a str,
}

impl Consortium {
    /// Founds the consortium under `dir` and starts its coordinators.
    pub fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let ports = free_ports(NODES as usize)?;
        let addresses = (1..=NODES).zip(ports.iter().map(|port| format!("127.0.0.1:{port}"))).collect();
        let mut consortium = Self {
            dir: dir.to_owned(),
            coordinator: program("archipelago-coordinator")?,
            worker: program("archipelago-worker")?,
            addresses,
            nodes: BTreeMap::new(),
            sites: BTreeMap::new(),
        };
        consortium.found()?;
        wait_until("the coordinators elect a leader", ELECTION_PATIENCE, || {
            consortium.require_alive()?;
            Ok(consortium.status()?.leader)
        })?;
        Ok(consortium)
    }

    fn found(&mut self) -> Result<()> {
        self.command(&["ca", "init", "demo", "--out", "ca"])?;
        self.issue(&format!("operator/{OPERATOR}"), OPERATOR)?;
        let peers: Vec<_> = self.addresses.iter().map(|(node, address)| format!("{node}={address}")).collect();
        let peers = peers.join(",");
        for node in 1..=NODES {
            let folder = format!("node{node}");
            self.issue(&format!("coordinator/{node}"), &folder)?;
            let node = node.to_string();
            self.command(&["init", "--node", &node, "--peers", &peers, "--credentials", &folder, "--out", &folder])?;
        }
        let mut file = "ca = \"ca.pem\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\n[coordinators]\n".to_owned();
        for (node, address) in &self.addresses {
            file += &format!("{node} = \"{address}\"\n");
        }
        std::fs::write(self.dir.join(OPERATOR).join("operator.toml"), file)?;
        (1..=NODES).try_for_each(|node| self.start_node(node))
    }

    fn issue(&self, principal: &str, folder: &str) -> Result<()> {
        self.command(&["ca", "issue", principal, "--ca", "ca", "--out", folder]).map(drop)
    }

    fn start_node(&mut self, node: u64) -> Result<()> {
        let folder = self.dir.join(format!("node{node}"));
        let config = folder.join("node.toml");
        let arguments = ["serve".as_ref(), "--config".as_ref(), config.as_os_str()];
        let name = format!("coordinator {node}");
        self.nodes.insert(node, Running::start(&name, &self.coordinator, &arguments, &folder.join("log.txt"))?);
        Ok(())
    }

    /// Certifies and enrols sites.
    pub fn enrol(&self, sites: &[&str]) -> Result<()> {
        for site in sites {
            self.issue(&format!("site/{site}"), site)?;
            self.ask(&["site", "add", site])?;
        }
        Ok(())
    }

    /// Publishes a reference directory.
    pub fn publish(&self, reference: &Path) -> Result<()> {
        self.ask(&["reference", "publish", REFERENCE, path_text(reference)?]).map(drop)
    }

    /// Publishes a surgery task on the reference that asks for `both`, `columns` or `parts`.
    pub fn publish_task(&self, epochs: u32, seed: u64, ask: &str) -> Result<TaskId> {
        let (epochs, seed) = (epochs.to_string(), seed.to_string());
        let usual = ["task", "publish", REFERENCE, "--epochs", &epochs, "--seed", &seed, "--lease", "30"];
        let record: TaskRecord = self.answer(&[&usual[..], &["--ask", ask]].concat())?;
        Ok(record.id)
    }

    /// Ends a task.
    pub fn close_task(&self, task: TaskId) -> Result<()> {
        self.ask(&["task", "close", &task.to_string()]).map(drop)
    }

    /// Hands in what is derived from the current version, of which `dir` is a copy.
    pub fn derive(&self, value: &str, dir: &Path) -> Result<()> {
        self.ask(&["reference", "derive", REFERENCE, value, path_text(dir)?]).map(drop)
    }

    /// Starts a site's worker, which ends by itself once its submission is accepted.
    pub fn start_site(&mut self, site: &SiteCells, cells: &Cells, terms: &Terms<'_>) -> Result<()> {
        let folder = self.dir.join(&site.site);
        let mut file = format!(
            "site = \"{}\"\npolicy = \"policy.toml\"\nstate_dir = \"state\"\nout_dir = \"results\"\nca = \"ca.pem\"\n\
             certificate = \"cert.pem\"\nkey = \"key.pem\"\n\n[data]\npath = {:?}\ndataset = \"{DATASET}\"\n\
             batch_key = {:?}\n",
            site.site,
            path_text(&site.file)?,
            cells.batch_key,
        );
        if let Some(labels_key) = terms.labels_key {
            file += &format!("labels_key = {labels_key:?}\n");
        }
        std::fs::write(folder.join("policy.toml"), terms.policy)?;
        if let Some(layer) = &cells.layer {
            file += &format!("layer = {layer:?}\n");
        }
        if !terms.fields.is_empty() {
            file += &format!("\n[data.fields]\n{}", terms.fields);
        }
        file += "\n[coordinators]\n";
        for (node, address) in &self.addresses {
            file += &format!("{node} = \"{address}\"\n");
        }
        let config = folder.join("site.toml");
        std::fs::write(&config, file)?;
        let arguments = ["serve".as_ref(), "--config".as_ref(), config.as_os_str(), "--once".as_ref()];
        let running = Running::start(&site.site, &self.worker, &arguments, &folder.join("log.txt"))?;
        self.sites.insert(site.site.clone(), running);
        Ok(())
    }

    /// Fails if a coordinator that should run has ended.
    pub fn require_alive(&mut self) -> Result<()> {
        self.nodes.values_mut().try_for_each(Running::require_alive)
    }

    /// Number of sites whose submission the cluster has accepted.
    pub fn accepted(&self, task: TaskId) -> Result<u64> {
        let task = self.task(task)?;
        Ok(task.assignments.values().filter(|a| matches!(a.state, AssignmentState::Accepted { .. })).count() as u64)
    }

    /// Whether a site has claimed the task and reported progress.
    pub fn is_training(&self, task: TaskId) -> Result<bool> {
        Ok(self.task(task)?.assignments.values().any(|a| a.progress.is_some()))
    }

    /// Whether every site's worker has ended well.
    pub fn sites_done(&mut self) -> Result<bool> {
        self.sites.values_mut().try_fold(true, |done, site| Ok(site.is_done()? && done))
    }

    /// Ends the leader's process at once and returns its id.
    pub fn kill_leader(&mut self) -> Result<u64> {
        let leader = self.status()?.leader.context("the cluster has no leader to kill")?.as_u64();
        let Some(mut node) = self.nodes.remove(&leader) else { bail!("coordinator {leader} does not run") };
        node.kill()?;
        Ok(leader)
    }

    /// Starts the coordinator that was killed again, on its old data, and waits until it has caught up.
    pub fn restart_dead_coordinator(&mut self) -> Result<()> {
        let dead = (1..=NODES).find(|node| !self.nodes.contains_key(node)).context("every coordinator runs")?;
        self.start_node(dead)?;
        let goal = self.status()?.applied;
        let own = [(dead, self.addresses[&dead].clone())];
        wait_until("the killed coordinator catches up", ELECTION_PATIENCE, || {
            self.nodes.values_mut().try_for_each(Running::require_alive)?;
            let applied = self.status_of(&own)?.applied;
            Ok((applied >= goal).then_some(()))
        })
    }

    /// Downloads the current version.
    pub fn fetch(&self, out: &Path) -> Result<()> {
        self.ask(&["reference", "fetch", REFERENCE, "--out", path_text(out)?]).map(drop)
    }

    /// The reference with its lineage.
    pub fn reference(&self) -> Result<ReferenceRecord> {
        let history: ReferenceHistory = self.answer(&["reference", "show", REFERENCE])?;
        Ok(history.record())
    }

    /// Takes a site's conditions out again.
    pub fn withdraw(&self, site: &str) -> Result<()> {
        self.ask(&["withdraw", REFERENCE, "--site", site]).map(drop)
    }

    /// Asks every process to end.
    pub fn stop(mut self) -> Result<()> {
        ensure!(self.sites_done()?, "a site is still at work");
        self.nodes.clear();
        Ok(())
    }

    fn task(&self, task: TaskId) -> Result<TaskRecord> {
        self.answer(&["task", "show", &task.to_string()])
    }

    fn status(&self) -> Result<StatusRecord> {
        self.answer(&["status"])
    }

    /// The state as one node sees it.
    fn status_of(&self, node: &[(u64, String); 1]) -> Result<StatusRecord> {
        let [(id, address)] = node;
        let folder = self.dir.join(OPERATOR);
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let coordinators = format!("{id}={address}");
        let arguments = [
            "status",
            "--coordinators",
            &coordinators,
            "--ca",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
            "--format",
            "json",
        ];
        Ok(serde_json::from_str(&run(&self.coordinator, &arguments)?)?)
    }

    fn answer<T: DeserializeOwned>(&self, question: &[&str]) -> Result<T> {
        let text = self.ask(question)?;
        serde_json::from_str(&text).with_context(|| format!("the answer to `{}`", question.join(" ")))
    }

    /// Runs an operator's command and returns its answer as JSON text.
    fn ask(&self, question: &[&str]) -> Result<String> {
        let config = self.dir.join(OPERATOR).join("operator.toml");
        let mut arguments = question.to_vec();
        arguments.extend(["--format", "json", "--config", path_text(&config)?]);
        run(&self.coordinator, &arguments)
    }

    /// Runs a command that needs no cluster, with folders relative to the consortium's.
    fn command(&self, arguments: &[&str]) -> Result<String> {
        const FOLDER_FLAGS: [&str; 3] = ["--out", "--ca", "--credentials"];
        let mut resolved = Vec::new();
        let mut is_folder = false;
        for argument in arguments {
            let folder = self.dir.join(argument);
            resolved.push(if is_folder { path_text(&folder)?.to_owned() } else { (*argument).to_owned() });
            is_folder = FOLDER_FLAGS.contains(argument);
        }
        run(&self.coordinator, &resolved)
    }
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))
}
