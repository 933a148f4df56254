//! Tasks and references that a site does not run: real processes, real TLS. The traps themselves are in the worker's own tests.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::{World, cells_of};

/// A site that trusts one operator does no task of another one, nor any beyond its bounds, whoever wrote it. It says why, nothing about
/// cells leaves it, and it does the next task.
#[test]
fn a_site_does_no_task_beyond_its_bounds_and_none_of_whom_it_does_not_trust() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::with_small_reference(dir.path())?;
    let policy = "trusted_operators = [\"anna\"]\n[tasks]\nmax_numbers_per_cell = 0.6\n";
    world.add_site("north", policy, &cells_of("cells.h5ad", "pbmc", "north", ""))?;

    world.add_operator("mallory")?;
    world.operator_of("mallory", &["task", "publish", "here", "--epochs", "2"])?;
    world.passes_over("north", "the policy does not trust the operator who published the task")?;
    world.operator(&["task", "close", "1"])?;

    for (task, asked, why) in [
        ("2", ["--learning-rate", "10000000"], "its learning rate is out of the site's range"),
        ("3", ["--epochs", "1"], "it takes fewer steps than the site asks for"),
        ("4", ["--train-size", "0.02"], "it trains on a smaller share of the cells than the site asks for"),
        ("5", ["--max-norm", "1000000"], "its norm of columns is out of the site's range"),
    ] {
        world.operator(&[&["task", "publish", "here"], &asked[..]].concat())?;
        world.declines(task, "north", why)?;
        world.operator(&["task", "close", task])?;
    }
    let audit = world.worker(&["audit", "net/north/state/audit.jsonl", "--format", "json"])?;
    let audit: Value = serde_json::from_str(&audit)?;
    let bytes = audit["bytes_by_kind"].as_object().context("bytes by kind")?;
    let left = |kind: &str| bytes[kind].as_u64() > Some(0);
    ensure!(!["columns", "embeddings", "label-means", "metrics", "parts"].into_iter().any(left), "{audit}");

    world.operator(&["task", "publish", "here", "--epochs", "2"])?;
    world.serves("6", "north")
}
