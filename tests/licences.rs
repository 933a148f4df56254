//! Every crate that anything here is built of comes under a licence that deny.toml allows: what `cargo deny check licenses` says, without
//! that tool.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

#[test]
fn every_crate_comes_under_a_licence_that_is_allowed() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate is in the workspace")?;
    let policy = std::fs::read_to_string(root.join("deny.toml"))?;
    let (_, licences) = policy.split_once("\nallow = [").context("deny.toml has a list of licences")?;
    let allowed: BTreeSet<&str> = quoted(licences.split(']').next().unwrap_or_default()).collect();
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform"];
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO")).args(args).arg(target).current_dir(root).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo lists packages")?;
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
