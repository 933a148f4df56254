//! What operators install to watch a consortium: rules and dashboards ask for metrics that exist, and no alert is without words
//! on what to do.
//!
//! Which metrics exist, docs/monitoring.md lists; tests of both programs hold it to their registries.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const RULES: [&str; 2] = ["recording.rules.yml", "alerts.rules.yml"];
const PROOF: &str = "alerts.test.yml";

#[test]
fn rules_and_dashboards_ask_for_metrics_that_are_there() -> Result<()> {
    let known = metrics()?;
    ensure!(known.len() > 50, "docs/monitoring.md lists {} metrics", known.len());
    let recorded = after("- record: ", &read("deploy/prometheus/recording.rules.yml")?);
    let mut asked: Vec<(String, String)> = Vec::new();
    for file in RULES.iter().chain([&PROOF]) {
        asked.push(((*file).to_owned(), read(&format!("deploy/prometheus/{file}"))?));
    }
    for (file, dashboard) in dashboards()? {
        asked.extend(expressions(&dashboard).into_iter().map(|expression| (file.clone(), expression)));
    }
    for (file, text) in asked {
        for word in words(&text) {
            let metric = word.strip_suffix("_bucket").unwrap_or(&word);
            let exists = if word.contains(':') { recorded.contains(&word) } else { known.contains(metric) };
            ensure!(exists, "{file} asks for `{word}`, which neither the programs nor the recording rules have");
        }
    }
    Ok(())
}

#[test]
fn every_alert_is_explained_and_proven_and_nothing_else_is() -> Result<()> {
    let alerts = after("- alert: ", &read("deploy/prometheus/alerts.rules.yml")?);
    ensure!(!alerts.is_empty());
    let page = read("docs/monitoring.md")?;
    let explained = after("#### ", &page);
    assert_eq!(alerts, explained, "docs/monitoring.md has a section for each alert");
    for section in page.split("\n#### ").skip(1) {
        let name = section.lines().next().unwrap_or_default();
        let advice = section.split("*Do:*").nth(1).with_context(|| format!("`{name}` does not say what to do"))?;
        ensure!(advice.split_whitespace().count() >= 4, "`{name}` hardly says what to do");
    }
    let tests = after("- name: ", &read(&format!("deploy/prometheus/{PROOF}"))?);
    let expected = alerts.iter().flat_map(|alert| [format!("{alert} fires"), format!("{alert} is quiet")]);
    assert_eq!(tests, expected.collect());
    Ok(())
}

#[test]
fn dashboards_are_whole() -> Result<()> {
    let dashboards = dashboards()?;
    assert_eq!(dashboards.len(), 3);
    for (file, dashboard) in dashboards {
        let panels = dashboard["panels"].as_array().with_context(|| format!("{file} has no panels"))?;
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        ensure!(ids.len() == panels.len(), "{file}: two panels have one id");
        for panel in panels {
            let has_query = panel["targets"].as_array().is_some_and(|targets| !targets.is_empty());
            ensure!(has_query && panel["title"].is_string(), "{file}: {panel}");
        }
    }
    Ok(())
}

#[test]
fn promtool_proves_the_rules() -> Result<()> {
    let dir = root().join("deploy/prometheus");
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not installed (Debian's package `prometheus`)");
        return Ok(());
    }
    for args in [[&["check", "rules"][..], &RULES].concat(), vec!["test", "rules", PROOF]] {
        let output = Command::new("promtool").args(&args).current_dir(&dir).output()?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "promtool {}:\n{said}", args.join(" "));
    }
    Ok(())
}

/// The metrics that the documentation lists, which is what the programs have.
fn metrics() -> Result<BTreeSet<String>> {
    let page = read("docs/monitoring.md")?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `archipelago_"));
    Ok(rows.filter_map(|row| Some(format!("archipelago_{}", row.split_once('`')?.0))).collect())
}

/// What stands behind a word at the beginning of lines.
fn after(word: &str, text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(word)).map(|rest| rest.trim().to_owned()).collect()
}

/// Names of metrics and of recorded series.
fn words(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let names = text.split(|c| !is_of_name(c));
    let names = names.filter(|name| name.starts_with("archipelago_") || name.starts_with("archipelago:"));
    names.map(str::to_owned).collect()
}

fn dashboards() -> Result<BTreeMap<String, Value>> {
    let dir = root().join("deploy/grafana");
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(&dir)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        all.insert(
            path.display().to_string(),
            serde_json::from_str(&text).with_context(|| path.display().to_string())?,
        );
    }
    Ok(all)
}

/// Every query of a dashboard: of its panels, and of its variables.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let is_query =
                |(name, value): &(&String, &Value)| matches!(name.as_str(), "expr" | "query") && value.is_string();
            let own = fields.iter().filter(is_query).filter_map(|(_, value)| value.as_str().map(str::to_owned));
            own.chain(fields.values().flat_map(expressions)).collect()
        }
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

fn read(path: &str) -> Result<String> {
    let path = root().join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}
