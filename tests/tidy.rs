//! The house rules that no compiler checks: who may know whom, and how large a file may grow.
//!
//! A new edge between crates is a one-line diff in [`CRATES`], made on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A crate, the workspace crates it may name, and the third-party crates that must not be reachable from it.
struct Fence {
    name: &'static str,
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

const ASYNC: &str = "tokio";
const TENSORS: &str = "tch";
const FILES: &str = "hdf5-metno";
const RAFT: &str = "raft";
const QUIC: &str = "quinn";

const CRATES: &[Fence] = &[
    Fence { name: "common", may_use: &["hierarchy"], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT] },
    Fence { name: "hierarchy", may_use: &[], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT, "rand"] },
    Fence { name: "pack", may_use: &["common", "transport"], never: &[TENSORS, FILES, RAFT] },
    Fence { name: "protocol", may_use: &["common"], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT] },
    Fence { name: "transport", may_use: &["common"], never: &[RAFT, TENSORS, FILES] },
    Fence { name: "client", may_use: &["common", "protocol", "transport"], never: &[RAFT, TENSORS, FILES] },
    Fence { name: "cluster", may_use: &["common"], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT, "rand"] },
    Fence {
        name: "coordinator",
        may_use: &["common", "pack", "protocol", "transport", "client", "cluster"],
        never: &[TENSORS, FILES],
    },
    Fence { name: "anndata", may_use: &["common"], never: &[ASYNC, QUIC, TENSORS, RAFT] },
    Fence { name: "analysis", may_use: &["hierarchy"], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT] },
    Fence { name: "models", may_use: &["common", "anndata", "analysis"], never: &[ASYNC, QUIC, RAFT] },
    Fence {
        name: "worker",
        may_use: &["common", "pack", "protocol", "transport", "client", "anndata", "analysis", "models"],
        never: &[RAFT],
    },
    Fence { name: "processes", may_use: &[], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT] },
    Fence {
        name: "demo",
        may_use: &["common", "analysis", "anndata", "processes"],
        never: &[ASYNC, QUIC, TENSORS, RAFT],
    },
    Fence {
        name: "campaign",
        may_use: &["common", "protocol", "transport", "client", "processes", "histories"],
        never: &[RAFT, TENSORS, FILES],
    },
    Fence {
        name: "bench-coordinator",
        may_use: &["common", "protocol", "transport", "client", "cluster", "processes"],
        never: &[RAFT, TENSORS, FILES],
    },
    Fence { name: "benches", may_use: &["common", "analysis", "anndata", "models"], never: &[ASYNC, QUIC, RAFT] },
    Fence { name: "bench-privacy", may_use: &["common", "anndata", "models", "worker"], never: &[RAFT] },
    Fence { name: "features", may_use: &[], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT] },
    Fence { name: "tests", may_use: &[], never: &[] },
    // What a crate reads of others is fuzzed in that crate's own tests.
    Fence { name: "fuzz", may_use: &[], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT] },
    Fence { name: "histories", may_use: &["common"], never: &[ASYNC, QUIC, TENSORS, FILES, RAFT] },
    Fence {
        name: "simulation",
        may_use: &["common", "protocol", "cluster", "coordinator", "histories"],
        never: &[TENSORS, FILES],
    },
];

/// The crate without code that every other one has: who reaches a package only through it cannot name it.
const FEATURES: &str = "features";

/// Models that are made of another one, and may name it.
const BUILT_ON: &[(&str, &str)] = &[("scanvi", "scvi")];

/// Files above this are split, whatever the reason.
const LONGEST_FILE: usize = 700;

#[test]
fn crates_know_only_whom_they_may_know() -> Result<()> {
    let workspace = Workspace::load()?;
    for (name, package) in &workspace.members {
        let fence = CRATES.iter().find(|fence| fence.name == name).with_context(|| {
            format!("crate `archipelago-{name}` has no line in CRATES of tests/tidy.rs; add one on purpose")
        })?;
        let used = workspace.direct(package).into_iter().filter_map(|dep| {
            workspace.members.iter().find(|(_, member)| **member == dep).map(|(member, _)| member.as_str())
        });
        for dependency in used.filter(|dependency| *dependency != FEATURES) {
            ensure!(
                fence.may_use.contains(&dependency),
                "`{name}` depends on `{dependency}`, which tests/tidy.rs does not allow"
            );
        }
        let reachable = workspace.reachable_names(package);
        for forbidden in fence.never {
            ensure!(
                !reachable.contains(*forbidden),
                "`{forbidden}` is reachable from `{name}`, which must not know it"
            );
        }
    }
    for fence in CRATES {
        ensure!(workspace.members.contains_key(fence.name), "tests/tidy.rs names `{}`, which is gone", fence.name);
    }
    Ok(())
}

#[test]
fn bincode_is_named_in_one_file_only() -> Result<()> {
    for (path, text) in sources()? {
        let is_codec = path.ends_with("common/src/codec.rs") || path.ends_with("tests/tidy.rs");
        ensure!(is_codec || !text.contains("bincode::"), "`{}` names bincode; use common::codec", path.display());
    }
    Ok(())
}

#[test]
fn rules_can_be_broken_in_the_simulation_only() -> Result<()> {
    for manifest in files(&root(), &|path| path.ends_with("Cargo.toml"))? {
        let text = std::fs::read_to_string(&manifest)?;
        let may = ["coordinator/cluster/Cargo.toml", "tests/simulation/Cargo.toml"];
        let is_default = text.lines().any(|line| line.starts_with("default") && line.contains("mutations"));
        let names_it = text.lines().any(|line| !line.starts_with('#') && line.contains("mutations"));
        ensure!(
            !is_default && (!names_it || may.iter().any(|path| manifest.ends_with(path))),
            "`{}` turns on `mutations`, which breaks rules of the coordinator on purpose",
            manifest.display()
        );
    }
    Ok(())
}

#[test]
fn no_source_file_is_longer_than_the_limit() -> Result<()> {
    for (path, text) in sources()? {
        let n_lines = text.lines().count();
        ensure!(
            n_lines <= LONGEST_FILE,
            "`{}` has {n_lines} lines, more than {LONGEST_FILE}; split it",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn every_module_says_what_it_is_for() -> Result<()> {
    for (path, text) in sources()? {
        ensure!(text.starts_with("//!"), "`{}` does not begin with a module doc (`//!`)", path.display());
    }
    Ok(())
}

#[test]
fn versions_stand_in_the_root_manifest_only() -> Result<()> {
    for manifest in files(&root(), &|path| path.ends_with("Cargo.toml"))? {
        if manifest == root().join("Cargo.toml") {
            continue;
        }
        let text = std::fs::read_to_string(&manifest)?;
        let dependencies = text
            .split("\n[")
            .filter(|section| section.split(']').next().is_some_and(|head| head.ends_with("dependencies")));
        for line in dependencies.flat_map(|section| section.lines().skip(1)).filter(|line| line.contains('=')) {
            ensure!(
                line.starts_with('#') || line.contains("workspace"),
                "`{}`: `{line}` carries a version; put it into [workspace.dependencies]",
                manifest.display()
            );
        }
    }
    Ok(())
}

#[test]
fn packages_are_built_once_whatever_is_selected() -> Result<()> {
    // One package may be built twice, for the target and for build scripts: what is the same for one may differ for the other.
    for edges in ["normal,dev,no-proc-macro", "normal,build,dev"] {
        let whole = features(&["--workspace"], edges)?;
        for name in Workspace::load()?.members.keys() {
            let alone = features(&["--package", &format!("archipelago-{name}")], edges)?;
            let different: Vec<&String> = alone.difference(&whole).collect();
            ensure!(
                different.is_empty(),
                "`-p archipelago-{name}` builds these with other features than `--workspace`: {different:?}; name them in deploy/features"
            );
        }
    }
    Ok(())
}

/// Packages along these edges, with the features that they are built with when these are selected, tests included.
fn features(selection: &[&str], edges: &str) -> Result<BTreeSet<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["tree", "--locked", "--offline", "--edges", edges, "--prefix", "none", "--format", "{p} {f}"])
        .args(selection)
        .current_dir(root())
        .output()
        .context("failed to run `cargo tree`")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let is_ours = |line: &&str| line.starts_with("archipelago-");
    Ok(lines.lines().filter(|line| !is_ours(line)).map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}

#[test]
fn a_model_is_one_folder() -> Result<()> {
    let zoo = root().join("worker/models/src/zoo");
    let mut names = BTreeMap::new();
    for entry in std::fs::read_dir(&zoo)? {
        let folder = entry?.path();
        if folder.is_dir() && !folder.ends_with("family") {
            names.insert(folder.clone(), names_of_model(&folder)?);
        }
    }
    ensure!(names.len() > 2, "found only {} models: the search is broken", names.len());
    for (path, text) in sources()?.into_iter().filter(|(path, _)| is_product(path)) {
        // `zoo/mod.rs` is the list of all models.
        if path == zoo.join("mod.rs") {
            continue;
        }
        let words: BTreeSet<&str> = words(without_tests(&text)).collect();
        for (folder, named) in names.iter().filter(|(folder, _)| !path.starts_with(folder)) {
            let may =
                BUILT_ON.iter().any(|(model, other)| path.starts_with(zoo.join(model)) && folder.ends_with(other));
            let found = named.iter().find(|name| words.contains(name.as_str())).filter(|_| !may);
            ensure!(
                found.is_none(),
                "`{}` says `{}`; what only one model needs stands in its folder, `{}`",
                path.display(),
                found.map_or("", String::as_str),
                folder.display()
            );
        }
    }
    Ok(())
}

/// What a model is called: in the zoo, by the field, and in the package that it comes from.
fn names_of_model(folder: &Path) -> Result<Vec<String>> {
    let after = |file: &str, start: &str| -> Result<Vec<String>> {
        let path = folder.join(file);
        let text = if path.is_file() { std::fs::read_to_string(path)? } else { String::new() };
        let found = text.split(start).skip(1).filter_map(|rest| rest.split_once('"'));
        Ok(found.map(|(name, _)| name.to_owned()).collect())
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let titles = after("mod.rs", "title: \"")?;
    ensure!(titles.len() == 1, "`{}` does not say what the field calls the model", folder.display());
    Ok([vec![name], titles, after("upstream.rs", "name: \"")?].concat())
}

/// What ships: the sources of the programs at sites and coordinators, without their tests.
fn is_product(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).unwrap_or(path);
    let ships = ["common", "protocol", "coordinator", "worker"].iter().any(|folder| inside.starts_with(folder));
    let is_test = inside.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    let of_tests = inside.iter().any(|part| part == "tests" || part == "examples");
    ships && !is_test && !of_tests
}

/// A file up to its tests, which come last.
fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(product, _)| product)
}

/// Words; a hyphen joins, so that the name of a package is not that of a model.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).map(|word| word.trim_matches('-'))
}

/// `cargo metadata`, reduced to who depends on whom in a build (development dependencies do not ship).
struct Workspace {
    /// Package ids of the members, by name without the `archipelago-` prefix.
    members: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Workspace {
    fn load() -> Result<Self> {
        // A build fetches the packages of its own platform only; asking for those of others would need the network.
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
            .current_dir(root())
            .output()
            .context("failed to run `cargo metadata`")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let names: BTreeMap<String, String> =
            list(&metadata["packages"]).map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let members = list(&metadata["workspace_members"])
            .map(|id| (names[&text(id)].trim_start_matches("archipelago-").to_owned(), text(id)))
            .collect();
        let is_built = |dep: &Value| list(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null());
        let edges = list(&metadata["resolve"]["nodes"])
            .map(|node| {
                let deps = list(&node["deps"]).filter(|dep| is_built(dep)).map(|dep| text(&dep["pkg"])).collect();
                (text(&node["id"]), deps)
            })
            .collect();
        Ok(Self { members, names, edges })
    }

    fn direct(&self, package: &str) -> Vec<String> {
        self.edges.get(package).cloned().unwrap_or_default()
    }

    fn reachable_names(&self, package: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let is_features = |id: &String| self.members.get(FEATURES) == Some(id);
        let mut open = self.direct(package);
        while let Some(next) = open.pop() {
            if is_features(&next) {
                continue;
            }
            if seen.insert(next.clone()) {
                open.extend(self.direct(&next));
            }
        }
        seen.iter().map(|id| self.names[id].as_str()).collect()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent folder").to_owned()
}

fn sources() -> Result<Vec<(PathBuf, String)>> {
    let paths = files(&root(), &|path| path.extension().is_some_and(|extension| extension == "rs"))?;
    ensure!(paths.len() > CRATES.len(), "found only {} source files: the search is broken", paths.len());
    paths.into_iter().map(|path| Ok((path.clone(), std::fs::read_to_string(path)?))).collect()
}

fn files(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && !name.ends_with("-out") {
            found.extend(files(&path, wanted)?);
        } else if path.is_file() && wanted(&path) {
            found.push(path);
        }
    }
    Ok(found)
}
