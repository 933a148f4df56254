//! What this is built of: every crate comes under a licence that deny.toml allows and from the registry, and none has a fault that is known
//! and not argued there. It is what `cargo deny check` says, without that tool, which takes minutes to build.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use semver::{Version, VersionReq};
use serde::Deserialize;
use serde_json::Value;

fn root() -> Result<PathBuf> {
    Ok(PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("the crate is in the workspace")?.to_owned())
}

/// What cargo knows of every package; of those alone that are built here, or of all that are locked.
fn packages(is_built_here: bool) -> Result<Vec<Value>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked", "--offline"]).current_dir(root()?);
    if is_built_here {
        command.args(["--filter-platform", &target]);
    }
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["packages"].as_array().context("cargo lists packages")?.clone())
}

#[test]
fn every_crate_comes_under_a_licence_that_is_allowed() -> Result<()> {
    let policy = std::fs::read_to_string(root()?.join("deny.toml"))?;
    let (_, licences) = policy.split_once("\nallow = [").context("deny.toml has a list of licences")?;
    let allowed: BTreeSet<&str> = quoted(licences.split(']').next().unwrap_or_default()).collect();
    let packages = packages(true)?;
    for package in packages.iter().filter(|package| package["source"].is_string()) {
        let name = package["name"].as_str().unwrap_or_default();
        let expression = match package["license"].as_str() {
            Some(expression) => expression,
            None => {
                clarified(&policy, name).with_context(|| format!("`{name}` names no licence, nor does deny.toml"))?
            }
        };
        ensure!(
            is_allowed(expression, &allowed),
            "`{name}` comes under `{expression}`, which deny.toml does not allow"
        );
    }
    ensure!(packages.len() > 300);
    Ok(())
}

#[test]
fn every_crate_comes_from_the_registry_and_in_versions_that_somebody_chose() -> Result<()> {
    let packages = packages(true)?;
    let sources: BTreeSet<&str> = packages.iter().filter_map(|package| package["source"].as_str()).collect();
    ensure!(sources.len() == 1 && sources.iter().all(|source| source.starts_with("registry+")), "{sources:?}");
    for package in packages.iter().filter(|package| package["source"].is_null()) {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|dependency| dependency["path"].is_null()) {
            ensure!(dependency["req"] != "*", "{} takes any version of {}", package["name"], dependency["name"]);
        }
    }
    Ok(())
}

/// The snapshot of the advisory database, which `deploy/release/advisories.py` writes.
#[derive(Deserialize)]
struct Snapshot {
    advisories: Vec<Advisory>,
}

#[derive(Deserialize)]
struct Advisory {
    id: String,
    #[serde(rename = "crate")]
    name: String,
    kind: String,
    patched: Vec<String>,
    unaffected: Vec<String>,
}

impl Advisory {
    fn concerns(&self, version: &Version) -> Result<bool> {
        for sound in self.patched.iter().chain(&self.unaffected) {
            let sound = VersionReq::parse(sound).with_context(|| format!("{}: `{sound}`", self.id))?;
            if sound.matches(version) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[test]
fn no_crate_has_a_known_fault_that_is_not_argued_and_no_argument_is_for_nothing() -> Result<()> {
    let snapshot: Snapshot = serde_json::from_str(include_str!("advisories.json"))?;
    ensure!(snapshot.advisories.len() > 1_000, "{} advisories", snapshot.advisories.len());
    let policy = std::fs::read_to_string(root()?.join("deny.toml"))?;
    let mut argued: BTreeSet<&str> = quoted(&policy).filter(|text| text.starts_with("RUSTSEC-")).collect();
    for package in packages(true)?.iter().filter(|package| package["source"].is_string()) {
        let (name, version) = (package["name"].as_str().unwrap_or_default(), package["version"].as_str());
        let version = Version::parse(version.unwrap_or_default())?;
        for advisory in snapshot.advisories.iter().filter(|advisory| advisory.name == name) {
            let Advisory { id, kind, .. } = advisory;
            if advisory.concerns(&version)? {
                ensure!(
                    policy.contains(id.as_str()),
                    "{id} ({kind}) concerns {name} {version}: take another, or argue in deny.toml"
                );
                argued.remove(id.as_str());
            }
        }
    }
    ensure!(argued.is_empty(), "deny.toml argues for {argued:?}, which concerns nothing that is built here");
    Ok(())
}

#[test]
fn an_advisory_concerns_the_versions_between_those_that_are_sound() -> Result<()> {
    let advisory = Advisory {
        id: "RUSTSEC-0000-0000".to_owned(),
        name: "web".to_owned(),
        kind: "vulnerability".to_owned(),
        patched: vec![">= 1.18.4, < 1.19.0".to_owned(), ">= 1.20.3".to_owned()],
        unaffected: vec!["< 1.7.0".to_owned()],
    };
    for (version, expected) in
        [("1.6.9", false), ("1.7.0", true), ("1.18.4", false), ("1.19.0", true), ("1.20.3", false)]
    {
        ensure!(advisory.concerns(&Version::parse(version)?)? == expected, "{version}");
    }
    Ok(())
}

/// What deny.toml says of a crate that does not say it itself.
fn clarified<'a>(policy: &'a str, name: &str) -> Option<&'a str> {
    let sections = policy.split("[[licenses.clarify]]").skip(1);
    let section = sections.into_iter().find(|section| section.contains(&format!("\"{name}\"")))?;
    quoted(section.lines().find_map(|line| line.strip_prefix("expression = "))?).next()
}

/// Whether an expression holds: one of what `OR` joins, all of what `AND` joins; `/` is an old `OR`. Without nesting but in
/// parentheses, which is how crates write them.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    if let Some(parts) = split(expression, " OR ") {
        return parts.iter().any(|part| is_allowed(part, allowed));
    }
    if let Some(parts) = split(expression, " AND ") {
        return parts.iter().all(|part| is_allowed(part, allowed));
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed.contains(expression),
    }
}

/// The parts between words that stand outside of parentheses; none if there are no such words.
fn split(expression: &str, word: &str) -> Option<Vec<String>> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    let mut rest = expression;
    while let Some(next) = rest.chars().next() {
        if depth == 0 && rest.starts_with(word) {
            parts.push(String::new());
            rest = &rest[word.len()..];
            continue;
        }
        depth += i32::from(next == '(') - i32::from(next == ')');
        parts.last_mut()?.push(next);
        rest = &rest[next.len_utf8()..];
    }
    (parts.len() > 1).then_some(parts)
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Apache-2.0", true),
        ("(MIT AND GPL-3.0) OR (GPL-2.0 AND MIT)", false),
        ("GPL-3.0 OR Apache-2.0 WITH LLVM-exception", true),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
