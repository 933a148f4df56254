//! Contributions that are no columns, from the cells of two sites to a merged version and back: real processes, real TLS.

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

/// Label means of two sites are pooled: the same bits as in one place, in both orders, until one of them is withdrawn.
#[test]
fn what_two_sites_contribute_is_merged_exactly_and_taken_out_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    world.prepare_cells()?;
    for reference in ["here", "there"] {
        world.operator(&["reference", "publish", reference, "../reference"])?;
    }
    let at_first = world.version("here")?;
    ensure!(at_first.members.keys().eq(["anna/core+label-means/atlas"]), "{:?}", at_first.members);

    // Of one type north has too few cells for its policy, and a site without a word on parts takes no such task.
    world.add_site("north", "parts = { min_cells = 20, min_donors = 2 }\ndonor_key = \"donor\"\n")?;
    world.add_site("south", "parts = { min_cells = 1 }\n")?;
    world.add_site("west", "columns = true\n")?;
    world.operator(&["task", "publish", "here", "--ask", "parts"])?;
    world.operator(&["task", "publish", "there", "--ask", "parts"])?;
    world.passes_over("west", "the policy lets no parts out")?;
    for site in ["south", "north"] {
        world.serves("1", site)?;
    }
    for site in ["north", "south"] {
        world.serves("2", site)?;
    }
    let (here, there) = (world.version("here")?, world.version("there")?);
    ensure!(here == there, "the order of arrival shows: {here:?} and {there:?}");
    let keys = ["anna/core+label-means/atlas", "north/pbmc+label-means/north", "south/pbmc+label-means/south"];
    ensure!(here.members.keys().eq(keys), "{:?}", here.members);

    // The same cells in one place, and their sum.
    world.worker(&["map", "reference", "logged.h5ad", "--batches", "north,south", "--out", "mapped"])?;
    let mapped = Version::read(&world.path("mapped"))?;
    let one_place = &mapped.members["local/query+label-means/south"];
    ensure!(here.members["south/pbmc+label-means/south"] == *one_place, "another sum: {here:?} and {mapped:?}");
    let total = |reference: &str| -> Result<Value> {
        world.operator(&["reference", "derive", reference, "label-totals", &format!("../{reference}")])
    };
    ensure!(total("here")?["changes"] != Value::Null && total("there")?["changes"] != Value::Null, "no totals");

    // What stayed at home, what left, and where.
    let summary: Value = serde_json::from_slice(&std::fs::read(world.path("net/north/results/task-1/summary.json"))?)?;
    let withheld = summary["withheld"]["north/pbmc+label-means/north"].as_str().context("something is withheld")?;
    ensure!(withheld == "`type-03`: it has 18 cells, the policy asks for 20", "{withheld}");
    let audit: Value =
        serde_json::from_str(&world.worker(&["audit", "net/north/state/audit.jsonl", "--format", "json"])?)?;
    let left: Vec<&Value> = audit["entries"].as_array().context("entries")?.iter().map(|e| &e["release"]).collect();
    let parts: Vec<&&Value> = left.iter().filter(|release| release["kind"] == "parts").collect();
    ensure!(parts.len() == 2, "one part for each of two tasks: {audit}");
    ensure!(parts.iter().all(|release| release["condition"] == "north/pbmc+label-means/north"), "{audit}");
    ensure!(parts[0]["digest"] == here.members["north/pbmc+label-means/north"].as_str(), "{audit}");
    ensure!(left.iter().all(|release| release["kind"] != "columns"), "a task for parts got columns: {audit}");

    // Taken out again, and handed in again.
    world.operator(&["withdraw", "here", "--site", "north"])?;
    let without = world.version("here")?;
    ensure!(without.members.len() == 2 && !without.members.contains_key(keys[1]), "{:?}", without.members);
    world.operator(&["task", "publish", "here", "--ask", "parts"])?;
    world.serves("3", "north")?;
    ensure!(world.version("here")? == here, "handed in again, it is another version");
    world.operator(&["withdraw", "here", "--site", "north"])?;
    world.operator(&["withdraw", "here", "--site", "south"])?;
    ensure!(world.version("here")? == at_first, "withdrawn members leave a trace");
    Ok(())
}

/// A coordinator, an operator and sites below one folder.
struct World {
    dir: PathBuf,
    consortium: Consortium,
    address: String,
}

/// A version's id and the digests of its members of parts, by key.
#[derive(PartialEq, Debug)]
struct Version {
    id: String,
    members: BTreeMap<String, String>,
}

impl World {
    fn found(dir: &Path) -> Result<Self> {
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

    /// Cells of three batches, and the reference of one of them.
    fn prepare_cells(&self) -> Result<()> {
        let generate = ["generate", "--batches", "atlas,north,south", "--n-cells", "60", "--n-genes", "50"];
        self.worker(&[&generate[..], &["--n-types", "3", "--n-donors", "2", "--out", "cells.h5ad"]].concat())?;
        self.worker(&["preprocess", "cells.h5ad", "--normalize", "--out", "logged.h5ad"])?;
        let train = ["train", "logged.h5ad", "--model", "scgen", "--batches", "atlas", "--labels-key", "cell_type"];
        let small = ["--hidden-layer-sizes", "8,6", "--z-dimension", "3", "--epochs", "2", "--device", "cpu"];
        let named = ["--owner", "anna", "--dataset", "core", "--out", "reference"];
        self.worker(&[&train[..], &small, &named].concat()).map(drop)
    }

    fn add_site(&self, site: &str, policy: &str) -> Result<()> {
        self.consortium.issue(&format!("site/{site}"), site)?;
        self.operator(&["site", "add", site])?;
        let folder = self.path(&format!("net/{site}"));
        std::fs::write(folder.join("policy.toml"), policy)?;
        let batch = if site == "west" { "south" } else { site };
        let config = format!(
            "site = \"{site}\"\npolicy = \"policy.toml\"\nstate_dir = \"state\"\nout_dir = \"results\"\n{}\n[data]\n\
             path = \"../../logged.h5ad\"\ndataset = \"pbmc\"\nbatch_key = \"batch\"\nlabels_key = \"cell_type\"\n\
             batches = [\"{batch}\"]\n",
            self.credentials()
        );
        Ok(std::fs::write(folder.join("site.toml"), config)?)
    }

    fn credentials(&self) -> String {
        let own = "ca = \"ca.pem\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\n[coordinators]\n";
        format!("{own}1 = \"{}\"\n", self.address)
    }

    /// Has a site's worker do what it may, until one task is accepted; fails where that is another task.
    fn serves(&self, task: &str, site: &str) -> Result<()> {
        let config = format!("net/{site}/site.toml");
        self.worker(&["serve", "--config", &config, "--once"])?;
        let shown = self.operator(&["task", "show", task])?;
        let state = shown["assignments"][site]["state"].to_string();
        ensure!(state.to_lowercase().contains("accepted"), "task {task} of {site}: {shown}");
        Ok(())
    }

    /// Has a site's worker look at the tasks, until it says why it takes none.
    fn passes_over(&self, site: &str, why: &str) -> Result<()> {
        let (folder, log) = (self.path(&format!("net/{site}")), self.path("log.txt"));
        let arguments = ["serve".into(), "--config".into(), folder.join("site.toml")];
        let _worker = Running::start(site, &program("archipelago-worker")?, &arguments, &log)?;
        wait_until("a worker passes a task over", PATIENCE, || {
            Ok(std::fs::read_to_string(&log)?.contains(why).then_some(()))
        })
    }

    /// The current version of a reference, fetched as its operator fetches it.
    fn version(&self, reference: &str) -> Result<Version> {
        let dir = self.path(reference);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        self.operator(&["reference", "fetch", reference, "--out", &format!("../{reference}")])?;
        Version::read(&dir)
    }

    fn operator(&self, arguments: &[&str]) -> Result<Value> {
        let as_anna = ["--config", "anna/operator.toml", "--format", "json"];
        let printed = self.consortium.run(&[arguments, &as_anna].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("{arguments:?} printed {printed}"))
    }

    fn worker(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("archipelago-worker")?);
        let output = command.args(arguments).current_dir(&self.dir).env("OMP_NUM_THREADS", "1").output()?;
        ensure!(output.status.success(), "{arguments:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Version {
    fn read(dir: &Path) -> Result<Self> {
        let file: Value = serde_json::from_slice(&std::fs::read(dir.join("version.json"))?)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("text");
        let files = file["columns"].as_object().context("files by key")?;
        let members = files.iter().filter(|(key, _)| key.contains('+'));
        let members = members.map(|(key, file)| Ok((key.clone(), text(&file["digest"])?))).collect::<Result<_>>()?;
        Ok(Self { id: text(&file["version"])?, members })
    }
}

/// How long an election and a look at the tasks may take.
const PATIENCE: Duration = Duration::from_secs(60);
