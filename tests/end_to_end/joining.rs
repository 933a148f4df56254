//! From nothing to the first version that three sites have made on three nodes, by the commands that the README has: real processes,
//! real TLS, no file written by hand.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_processes::{Running, free_ports, wait_until};
use serde_json::Value;

use super::program;

/// A folder in which one types commands, and how many were typed.
struct Desk {
    dir: PathBuf,
    n_typed: usize,
}

#[test]
fn three_nodes_and_three_sites_come_together_by_the_commands_of_the_readme() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut desk = Desk { dir: dir.path().canonicalize()?, n_typed: 0 };
    make_cells(&desk)?;
    let commands = commands_of_the_readme()?;
    let mut commands = commands.iter().map(String::as_str);
    let mut next = |begins: &str| -> Result<String> {
        let command = commands.next().context("the README has no more commands")?;
        ensure!(command.contains(begins), "the README goes on with `{command}`, expected `{begins}`");
        Ok(command.to_owned())
    };
    let began = Instant::now();

    let mut found = next("found lung")?;
    for (node, port) in (1..).zip(free_ports(3)?) {
        found = found.replace(&format!("10.0.0.{node}:7101"), &format!("127.0.0.1:{port}"));
    }
    desk.types(&found)?;
    let serve = next("serve --config lung/node1/node.toml")?;
    let _nodes = (1..=3).map(|node| desk.starts(&serve.replace("node1", &format!("node{node}")), "."));
    let _nodes = _nodes.collect::<Result<Vec<_>>>()?;
    desk.types(&next("train shared.h5ad")?)?;
    for begins in ["reference publish", "task publish", "invite north east west"] {
        desk.types(&next(begins)?)?;
    }
    let since_invited = Instant::now();

    let join = next("join north.invite")?;
    let mut sites = Vec::new();
    for site in SITES {
        std::fs::rename(desk.dir.join(format!("{site}.invite")), desk.dir.join(site).join(format!("{site}.invite")))?;
        sites.push((site, desk.starts(&join.replace("north", site), site)?));
    }
    let told = SITES.map(|site| desk.fingerprint_that_is_told(site)).into_iter().collect::<Result<Vec<_>>>()?;
    let waiting: Value = serde_json::from_str(&desk.types(&(next("requests")? + " --format json"))?)?;
    let waiting = waiting.as_array().context("a list")?.iter();
    let waiting: BTreeMap<_, _> =
        waiting.map(|record| (record["site"].as_str(), record["state"]["asked"]["key"].as_str())).collect();
    let shown = SITES.iter().zip(&told).map(|(site, key)| (Some(*site), Some(key.as_str()))).collect();
    ensure!(waiting == shown, "{waiting:?} wait, and the sites show {shown:?}");
    let said: String = told.iter().map(|key| format!(" --fingerprint {key}")).collect();
    desk.types(&(next("approve north east west")? + &said))?;
    for (site, joining) in &mut sites {
        wait_until("a site has its certificate", PATIENCE, || Ok(joining.is_done()?.then_some(())))?;
        ensure!(desk.log(site)?.contains("archipelago-worker serve --config"), "it says what to type next");
    }
    desk.note(&format!("enrolled after {:.1} s", since_invited.elapsed().as_secs_f64()));

    let serve = next("serve --config north/site.toml")?;
    let _workers =
        SITES.iter().map(|site| desk.starts(&serve.replace("north", site), site)).collect::<Result<Vec<_>>>()?;
    let n_typed = desk.n_typed;
    wait_until("three sites have handed in", PATIENCE, || {
        let shown: Value = serde_json::from_str(&desk.types("archipelago-coordinator task show 1 --format json")?)?;
        let is_in = |site: &str| shown["assignments"][site]["state"].to_string().to_lowercase().contains("accepted");
        Ok(SITES.into_iter().all(is_in).then_some(()))
    })?;
    desk.types("archipelago-coordinator reference fetch lung --out fetched")?;
    let version: Value = serde_json::from_slice(&std::fs::read(desk.dir.join("fetched/version.json"))?)?;
    let keys: Vec<_> = version["columns"].as_object().context("columns by key")?.keys().cloned().collect();
    for site in SITES {
        let of_site: Vec<_> = keys.iter().filter(|key| key.starts_with(&format!("{site}/cells/"))).collect();
        let [key] = of_site[..] else { bail!("`{site}` has {of_site:?} in the version, expected one key") };
        let named = desk.run(&format!("archipelago-worker names --config {site}/site.toml --key {key}"), site)?;
        ensure!(named.trim() == format!("{key}  {}", donor_of(site)), "the site knows who that is: {named}");
    }
    no_name_has_left(&desk)?;
    desk.note(&format!("{n_typed} commands, first version of all three after {:.1} s", began.elapsed().as_secs_f64()));
    ensure!(n_typed <= 16, "{n_typed} commands were typed");

    second_use_and_other_mistakes(&mut desk)
}

/// The names of batches are at their sites, and in no byte that the coordinators keep or say. With its own table a site finds its cells
/// in the consortium's version.
fn no_name_has_left(desk: &Desk) -> Result<()> {
    let (mut n_files, mut n_bytes) = (0, 0);
    let mut folders = vec![desk.dir.join("lung"), desk.dir.join("fetched")];
    let mut files = vec![desk.dir.join("nodes.log")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        let bytes = std::fs::read(&file)?;
        let holds = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        for site in SITES {
            ensure!(!holds(&donor_of(site)), "`{}` holds a name of site `{site}`", file.display());
        }
        (n_files, n_bytes) = (n_files + 1, n_bytes + bytes.len());
    }
    ensure!(n_files > 20 && n_bytes > 100_000, "{n_files} files of {n_bytes} bytes are not all that three nodes keep");
    let latent = "archipelago-worker latent ../fetched cells.h5ad --batch-key batch --out latent.csv";
    let refused = desk.run(latent, "north");
    ensure!(refused.is_err(), "nobody finds the batch by its name alone");
    desk.run(&format!("{latent} --names north/state/names.json"), "north").map(drop)
}

/// A batch's name that must not be known elsewhere.
fn donor_of(site: &str) -> String {
    format!("patient-of-{site}-4711")
}

/// What is refused of what came in above.
fn second_use_and_other_mistakes(desk: &mut Desk) -> Result<()> {
    let key = desk.dir.join("north/north/key.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key)?.permissions());
    ensure!(mode & 0o077 == 0, "the site's key can be read by others: {mode:o}");
    let join = "archipelago-worker join north.invite --data cells.h5ad --batch-key batch";
    let again = desk.types_at(join, "north")?;
    ensure!(again.contains("is in the consortium"), "run again, it says where things are: {again}");
    desk.fails_at(&format!("{join} --dir elsewhere"), "north", "was used already, by key")?;
    desk.fails_at("archipelago-coordinator approve north", ".", "was approved already")?;
    desk.fails_at("archipelago-coordinator approve south", ".", "it was not invited")?;
    let text = std::fs::read_to_string(desk.dir.join("north/north.invite"))?;
    std::fs::write(desk.dir.join("north/cut.invite"), &text[..text.len() / 2])?;
    desk.fails_at(&join.replace("north.invite", "cut.invite"), "north", "is no invitation as `invite` writes it")?;

    a_certificate_is_renewed_while_the_worker_serves(desk)?;

    desk.types("archipelago-coordinator invite south")?;
    std::fs::rename(desk.dir.join("south.invite"), desk.dir.join("north/south.invite"))?;
    let into_north = format!("{} --dir north", join.replace("north.invite", "south.invite"));
    desk.fails_at(&into_north, "north", "it is of site `north`, and the invitation is for `south`")?;
    let south = desk.starts_at(&join.replace("north.invite", "south.invite"), "north", "south")?;
    desk.fingerprint_that_is_told("south")?;
    desk.fails_at(
        "archipelago-coordinator approve south --fingerprint 00000000000000000000000000000000",
        ".",
        "somebody else may have used the invitation",
    )?;
    desk.fails_at("archipelago-coordinator approve south", ".", "compare it with what the site says")?;
    let listed = desk.types("archipelago-coordinator site list")?;
    ensure!(listed.contains("south  asks to be let in since"), "{listed}");
    let looked = desk.types("archipelago-coordinator doctor")?;
    ensure!(looked.contains("asking to be let in: south"), "{looked}");
    desk.types("archipelago-coordinator refuse south --reason no-such-hospital")?;
    let mut south = south;
    wait_until("the refused site hears it", PATIENCE, || {
        south.ended()?.map(|status| ensure_failed(status.success())).transpose()
    })?;
    let log = desk.log("south")?;
    ensure!(log.contains("operator `anna` said no: no-such-hospital"), "{log}");
    let found = desk.types("archipelago-coordinator found lung --nodes 127.0.0.1:1 --operator anna");
    ensure!(found.is_err_and(|error| error.to_string().contains("it holds")), "another list is another consortium");
    Ok(())
}

/// The worker makes another key, asks by itself, and goes on with what the operator has certified: nobody restarts it, and nobody
/// compares anything.
fn a_certificate_is_renewed_while_the_worker_serves(desk: &mut Desk) -> Result<()> {
    let join = "archipelago-worker join late.invite --data cells.h5ad --batch-key batch";
    desk.types("archipelago-coordinator invite late")?;
    std::fs::rename(desk.dir.join("late.invite"), desk.dir.join("north/late.invite"))?;
    let mut joining = desk.starts_at(join, "north", "late")?;
    let first = desk.fingerprint_that_is_told("late")?;
    desk.types(&format!("archipelago-coordinator approve late --days 1 --fingerprint {first}"))?;
    wait_until("a site has its certificate", PATIENCE, || Ok(joining.is_done()?.then_some(())))?;
    let listed = desk.types("archipelago-coordinator site list")?;
    ensure!(listed.contains(&format!("key {first}, its certificate ENDS")), "{listed}");

    // A certificate begins an hour before it is made, which is more than this share of a day.
    let (folder, config) = (desk.dir.join("north/late"), desk.dir.join("north/late/site.toml"));
    let toml = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("renew_after = 0.03\n{toml}"))?;
    let old = [("\"cert.pem\"", "\"old.pem\""), ("\"key.pem\"", "\"old.key\""), ("\"state\"", "\"old\"")];
    std::fs::write(folder.join("old.toml"), old.iter().fold(toml, |toml, (from, to)| toml.replace(from, to)))?;
    std::fs::copy(folder.join("cert.pem"), folder.join("old.pem"))?;
    std::fs::copy(folder.join("key.pem"), folder.join("old.key"))?;

    let mut worker = desk.starts_at("archipelago-worker serve --config late/site.toml", "north", "late")?;
    wait_until("the worker asks for another certificate", PATIENCE, || {
        worker.require_alive()?;
        let waiting = desk.types("archipelago-coordinator requests")?;
        Ok(waiting.contains("late  asks for another certificate since").then_some(()))
    })?;
    let looked = desk.types("archipelago-coordinator doctor")?;
    ensure!(looked.contains("asking for another certificate: late"), "{looked}");
    desk.types("archipelago-coordinator approve --renewals")?;
    wait_until("the coordinators know the site by its new key", PATIENCE, || {
        worker.require_alive()?;
        let listed = desk.types("archipelago-coordinator site list")?;
        Ok((!listed.contains(&first) && !listed.contains("ENDS")).then_some(()))
    })?;
    ensure!(!folder.join("key.pem.new").exists(), "the new key is in the place of the old one");
    desk.fails_at("archipelago-worker serve --config late/old.toml --once", "north", "it was replaced")?;
    wait_until("the worker goes on", PATIENCE, || {
        worker.require_alive()?;
        let shown: Value = serde_json::from_str(&desk.types("archipelago-coordinator task show 1 --format json")?)?;
        let state = shown["assignments"]["late"]["state"].to_string().to_lowercase();
        Ok(state.contains("accepted").then_some(()))
    })?;
    drop(worker);
    desk.types("archipelago-coordinator revoke site/late")?;
    let looked = desk.command("archipelago-worker doctor --config late/site.toml --format json", "north")?.output()?;
    let said: Value = serde_json::from_slice(&looked.stdout)?;
    let findings = said["findings"].as_array().context("findings")?;
    let session = findings.iter().find(|finding| finding["what"] == "session").context("a word on the session")?;
    let found = session["found"].to_string();
    ensure!(session["verdict"] == "failed" && found.contains("site `late` was revoked"), "{session}");
    Ok(())
}

fn ensure_failed(succeeded: bool) -> Result<()> {
    ensure!(!succeeded, "it was refused and ended well");
    Ok(())
}

/// The commands of the README's section on a consortium, until the three sites serve.
fn commands_of_the_readme() -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let section = readme.split("## A consortium\n").nth(1).context("the section")?;
    let section = section.split("These are 16 commands").next().context("what is counted")?;
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    Ok(lines.filter(|line| !line.starts_with("export ARCHIPELAGO_CONFIG=lung/operator/operator.toml")).collect())
}

/// Cells that may be shared, and those of each site in its own folder.
fn make_cells(desk: &Desk) -> Result<()> {
    let generate = |batches: &str, out: &str| {
        let sizes = "--n-cells 150 --n-genes 50";
        let command = format!("archipelago-worker generate --batches {batches} {sizes} --out {out}");
        desk.run(&command, ".").map(drop)
    };
    generate("atlas,other", "shared.h5ad")?;
    for site in SITES {
        std::fs::create_dir(desk.dir.join(site))?;
        generate(&donor_of(site), &format!("{site}/cells.h5ad"))?;
    }
    Ok(())
}

impl Desk {
    /// Types a command and waits for its end.
    fn types(&mut self, command: &str) -> Result<String> {
        self.types_at(command, ".")
    }

    fn types_at(&mut self, command: &str, at: &str) -> Result<String> {
        self.n_typed += 1;
        self.run(command, at)
    }

    fn run(&self, command: &str, at: &str) -> Result<String> {
        let output = self.command(command, at)?.output()?;
        ensure!(output.status.success(), "`{command}` failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Types a command that must fail, in these words.
    fn fails_at(&mut self, command: &str, at: &str, why: &str) -> Result<()> {
        match self.types_at(command, at) {
            Ok(printed) => bail!("`{command}` succeeded: {printed}"),
            Err(error) => ensure!(error.to_string().contains(why), "`{command}`: {error}, expected `{why}`"),
        }
        Ok(())
    }

    /// Types a command that goes on.
    fn starts(&mut self, command: &str, at: &str) -> Result<Running> {
        let name = if at == "." { "nodes".to_owned() } else { at.to_owned() };
        self.starts_at(command, at, &name)
    }

    fn starts_at(&mut self, command: &str, at: &str, log: &str) -> Result<Running> {
        self.n_typed += 1;
        let mut command = self.command(command, at)?;
        Running::start_command(log, &mut command, &self.dir.join(format!("{log}.log")))
    }

    fn command(&self, command: &str, at: &str) -> Result<Command> {
        let mut words = command.split_whitespace();
        let mut typed = Command::new(program(words.next().context("a command")?)?);
        typed.args(words).current_dir(self.dir.join(at)).env("OMP_NUM_THREADS", "1");
        typed.env("ARCHIPELAGO_CONFIG", self.dir.join("lung/operator/operator.toml"));
        Ok(typed)
    }

    fn log(&self, name: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.join(format!("{name}.log")))?)
    }

    /// What a site reads out on the telephone, once its request was taken.
    fn fingerprint_that_is_told(&self, site: &str) -> Result<String> {
        wait_until("a site asks", PATIENCE, || {
            let log = self.log(site)?;
            let key = log.lines().map(str::trim).find(|line| line.len() == 39 && line.matches('-').count() == 7);
            Ok(key.filter(|_| log.contains("asked; waiting for the operator")).map(str::to_owned))
        })
    }

    #[expect(clippy::print_stderr, reason = "figures are shown, not asserted")]
    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}

const SITES: [&str; 3] = ["north", "east", "west"];
/// How long a step may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(240);
