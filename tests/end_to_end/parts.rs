//! Contributions that are no columns, from the cells of two sites to a merged version and back: real processes, real TLS.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::{Version, World, cells_of};

/// Label means of two sites are pooled: the same bits as in one place, in both orders, until one of them is withdrawn.
#[test]
fn what_two_sites_contribute_is_merged_exactly_and_taken_out_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    prepare_cells(&world)?;
    world.publish_twice("reference")?;
    let at_first = world.version("here")?;
    ensure!(at_first.parts() == ["anna/core+label-means/atlas"], "{:?}", at_first.parts());

    // Of one type north has too few cells for its policy, and a site without a word on parts takes no such task.
    let data = |batch| cells_of("logged.h5ad", "pbmc", batch, "labels_key = \"cell_type\"\n");
    world.add_site("north", "parts = { min_cells = 20, min_donors = 2 }\ndonor_key = \"donor\"\n", &data("north"))?;
    world.add_site("south", "parts = { min_cells = 1 }\n", &data("south"))?;
    world.add_site("west", "columns = true\n", &data("south"))?;
    let here = world.in_both_orders(&["--ask", "parts"], &["south", "north"])?;
    world.passes_over("west", "the policy lets no parts out")?;
    let keys = ["anna/core+label-means/atlas", "north/pbmc+label-means/north", "south/pbmc+label-means/south"];
    ensure!(here.parts() == keys, "{:?}", here.parts());

    // The same cells in one place, and their sum.
    world.worker(&["map", "reference", "logged.h5ad", "--batches", "north,south", "--out", "mapped"])?;
    let mapped = Version::read(&world.path("mapped"))?;
    let one_place = &mapped.files["local/query+label-means/south"];
    ensure!(here.files["south/pbmc+label-means/south"] == *one_place, "another sum: {here:?} and {mapped:?}");
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
    ensure!(parts[0]["digest"] == here.files["north/pbmc+label-means/north"].as_str(), "{audit}");
    ensure!(left.iter().all(|release| release["kind"] != "columns"), "a task for parts got columns: {audit}");

    // Taken out again, and handed in again.
    world.operator(&["withdraw", "here", "--site", "north"])?;
    let without = world.version("here")?;
    ensure!(without.parts().len() == 2 && !without.parts().contains(&keys[1]), "{:?}", without.parts());
    world.operator(&["task", "publish", "here", "--ask", "parts"])?;
    world.serves("3", "north")?;
    ensure!(world.version("here")? == here, "handed in again, it is another version");
    world.operator(&["withdraw", "here", "--site", "north"])?;
    world.operator(&["withdraw", "here", "--site", "south"])?;
    ensure!(world.version("here")? == at_first, "withdrawn members leave a trace");
    Ok(())
}

/// Cells of three batches, and the reference of one of them.
fn prepare_cells(world: &World) -> Result<()> {
    let generate = ["generate", "--batches", "atlas,north,south", "--n-cells", "60", "--n-genes", "50"];
    world.worker(&[&generate[..], &["--n-types", "3", "--n-donors", "2", "--out", "cells.h5ad"]].concat())?;
    world.worker(&["preprocess", "cells.h5ad", "--normalize", "--out", "logged.h5ad"])?;
    let train = ["train", "logged.h5ad", "--model", "scgen", "--batches", "atlas", "--labels-key", "cell_type"];
    let small = ["--hidden-layer-sizes", "8,6", "--z-dimension", "3", "--epochs", "2", "--device", "cpu"];
    let named = ["--owner", "anna", "--dataset", "core", "--out", "reference"];
    world.worker(&[&train[..], &small, &named].concat()).map(drop)
}
