//! A consortium of one coordinator as real processes with real TLS, and sites whose worker is run when a test says so.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use archipelago_processes::{Consortium, NodePlan, Running, consortium::wait_for_leader, free_ports, wait_until};
use serde_json::Value;

use super::program;

/// A coordinator, an operator and sites below one folder.
pub(crate) struct World {
    dir: PathBuf,
    consortium: Consortium,
    address: String,
}

/// A version's id and the digests of its files, by key.
#[derive(PartialEq, Debug)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) files: BTreeMap<String, String>,
}

impl World {
    pub(crate) fn found(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize()?;
        let ports = free_ports(2)?;
        let address = format!("127.0.0.1:{}", ports[0]);
        let plan = NodePlan {
            listen: address.clone(),
            ops: format!("127.0.0.1:{}", ports[1]).parse()?,
            peers: [(1, address.clone())].into(),
            prefix: vec![],
        };
        let program = program("archipelago-coordinator")?;
        let mut consortium = Consortium::found(&dir.join("net"), &program, "test", [(1, plan)].into())?;
        consortium.start(1)?;
        wait_for_leader(&mut consortium, PATIENCE)?;
        consortium.issue("operator/anna", "anna")?;
        let world = Self { dir, consortium, address };
        std::fs::write(world.path("net/anna/operator.toml"), world.credentials())?;
        Ok(world)
    }

    /// The same with a reference `here` of batch `atlas` of `cells.h5ad`, which has batch `north` as well.
    pub(crate) fn with_small_reference(dir: &Path) -> Result<Self> {
        let world = Self::found(dir)?;
        let generate =
            ["generate", "--batches", "atlas,north", "--n-cells", "60", "--n-genes", "50", "--out", "cells.h5ad"];
        world.worker(&generate)?;
        let small = ["--epochs", "2", "--n-hidden", "16", "--n-latent", "4", "--device", "cpu"];
        let named = ["--batches", "atlas", "--owner", "anna", "--dataset", "core", "--out", "reference"];
        world.worker(&[&["train", "cells.h5ad"], &small[..], &named].concat())?;
        world.operator(&["reference", "publish", "here", "../reference"])?;
        Ok(world)
    }

    /// Enrols a site; `data` is the section of its file on its cells.
    pub(crate) fn add_site(&self, site: &str, policy: &str, data: &str) -> Result<()> {
        self.consortium.issue(&format!("site/{site}"), site)?;
        self.operator(&["site", "add", site])?;
        let folder = self.path(&format!("net/{site}"));
        std::fs::write(folder.join("policy.toml"), policy)?;
        let config = format!(
            "site = \"{site}\"\npolicy = \"policy.toml\"\nstate_dir = \"state\"\nout_dir = \"results\"\n{}\n[data]\n{data}",
            self.credentials()
        );
        Ok(std::fs::write(folder.join("site.toml"), config)?)
    }

    /// Publishes one reference under both names, so that sites can come to each in an order of its own.
    pub(crate) fn publish_twice(&self, dir: &str) -> Result<()> {
        let dir = format!("../{dir}");
        BOTH.iter().try_for_each(|name| self.operator(&["reference", "publish", name, &dir]).map(drop))
    }

    /// Publishes the same task over both references, and has sites do them, once in this order and once in the other: the version that
    /// both then have.
    pub(crate) fn in_both_orders(&self, asked: &[&str], sites: &[&str]) -> Result<Version> {
        let publish = |name: &&str| -> Result<String> {
            let record = self.operator(&[&["task", "publish", name], asked].concat())?;
            Ok(record["id"].to_string().trim_matches('"').to_owned())
        };
        let tasks = BOTH.iter().map(publish).collect::<Result<Vec<_>>>()?;
        sites.iter().try_for_each(|site| self.serves(&tasks[0], site))?;
        sites.iter().rev().try_for_each(|site| self.serves(&tasks[1], site))?;
        let [here, there] = [self.version(BOTH[0])?, self.version(BOTH[1])?];
        ensure!(here == there, "the order of arrival shows: {here:?} and {there:?}");
        Ok(here)
    }

    fn credentials(&self) -> String {
        let own = "ca = \"ca.pem\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\n[coordinators]\n";
        format!("{own}1 = \"{}\"\n", self.address)
    }

    /// Has a site's worker do what it may, until one task is accepted; fails where that is another task.
    pub(crate) fn serves(&self, task: &str, site: &str) -> Result<()> {
        let config = format!("net/{site}/site.toml");
        self.worker(&["serve", "--config", &config, "--once"])?;
        let shown = self.operator(&["task", "show", task])?;
        let state = shown["assignments"][site]["state"].to_string();
        ensure!(state.to_lowercase().contains("accepted"), "task {task} of {site}: {shown}");
        Ok(())
    }

    /// Has a site's worker decline the only task that it may do: it ends, and the operator reads why.
    pub(crate) fn declines(&self, task: &str, site: &str, why: &str) -> Result<()> {
        let config = format!("net/{site}/site.toml");
        let told = self.worker(&["serve", "--config", &config, "--once"]);
        let told = told.err().context("the task was done")?.to_string();
        ensure!(told.contains("the task is declined"), "{told}");
        let shown = self.operator(&["task", "show", task])?["assignments"][site]["state"].to_string();
        ensure!(shown.contains(&format!("declined by the site: {why}")), "task {task} of {site}: {shown}");
        Ok(())
    }

    /// Enrols another operator, who has a folder of its name.
    pub(crate) fn add_operator(&self, name: &str) -> Result<()> {
        self.consortium.issue(&format!("operator/{name}"), name)?;
        Ok(std::fs::write(self.path(&format!("net/{name}/operator.toml")), self.credentials())?)
    }

    /// Has a site's worker look at the tasks, until it says why it takes none.
    pub(crate) fn passes_over(&self, site: &str, why: &str) -> Result<()> {
        let (folder, log) = (self.path(&format!("net/{site}")), self.path("log.txt"));
        let arguments = ["serve".into(), "--config".into(), folder.join("site.toml")];
        let _worker = Running::start(site, &program("archipelago-worker")?, &arguments, &log)?;
        wait_until("a worker passes a task over", PATIENCE, || {
            Ok(std::fs::read_to_string(&log)?.contains(why).then_some(()))
        })
    }

    /// The current version of a reference, fetched as its operator fetches it.
    pub(crate) fn version(&self, reference: &str) -> Result<Version> {
        let dir = self.path(reference);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        self.operator(&["reference", "fetch", reference, "--out", &format!("../{reference}")])?;
        Version::read(&dir)
    }

    pub(crate) fn operator(&self, arguments: &[&str]) -> Result<Value> {
        self.operator_of("anna", arguments)
    }

    pub(crate) fn operator_of(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        let config = format!("{name}/operator.toml");
        let printed = self.consortium.run(&[arguments, &["--config", &config, "--format", "json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("{arguments:?} printed {printed}"))
    }

    pub(crate) fn worker(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("archipelago-worker")?);
        let output = command.args(arguments).current_dir(&self.dir).env("OMP_NUM_THREADS", "1").output()?;
        ensure!(output.status.success(), "{arguments:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The section of a site's file on the cells of one batch; `more` are further lines of it.
pub(crate) fn cells_of(file: &str, dataset: &str, batch: &str, more: &str) -> String {
    let named = format!("path = \"../../{file}\"\ndataset = \"{dataset}\"\nbatch_key = \"batch\"\n");
    format!("{named}batches = [\"{batch}\"]\n{more}")
}

impl Version {
    /// As it lies in a reference's folder.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let file: Value = serde_json::from_slice(&std::fs::read(dir.join("version.json"))?)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("text");
        let files = file["columns"].as_object().context("files by key")?;
        let files = files.iter().map(|(key, file)| Ok((key.clone(), text(&file["digest"])?))).collect::<Result<_>>()?;
        Ok(Self { id: text(&file["version"])?, files })
    }

    /// The keys of the members of parts.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).filter(|key| key.contains('+')).collect()
    }
}

/// The names of a reference that is published twice.
const BOTH: [&str; 2] = ["here", "there"];
/// How long an election and a look at the tasks may take.
const PATIENCE: Duration = Duration::from_secs(60);
