//! Networks of sections as members of one ensemble: two sites, each with a section of its own, real processes, real TLS.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::{Version, World, cells_of};

/// Each site trains on its own section. The ensemble is the same in both orders, bit for bit what training in one place gives, maps
/// cells alike wherever it is fetched, and is what it was when a site is taken out.
#[test]
fn sections_of_two_sites_make_one_ensemble_in_any_order() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    let generate = ["generate", "--batches", "atlas,north,south,query", "--n-cells", "120", "--n-genes", "40"];
    let layers = ["--n-types", "4", "--dropout", "0", "--spatial", "--out", "counts.h5ad"];
    world.worker(&[&generate[..], &layers].concat())?;
    world.worker(&["preprocess", "counts.h5ad", "--normalize", "--out", "cells.h5ad"])?;
    let train = |batches: &str, owner: &str, dataset: &str, out: &str| {
        let which = ["space", "train", "cells.h5ad", "--batches", batches, "--owner", owner, "--dataset", dataset];
        let small = ["--resolutions", "0.1,0.5", "--alphas", "0.1,0.25", "--network-epochs", "5", "--out", out];
        world.worker(&[&which[..], &small].concat())
    };
    train("atlas", "anna", "core", "reference")?;
    world.publish_twice("reference")?;
    let at_first = world.version("here")?;
    ensure!(at_first.parts() == ["anna/core+networks/atlas"], "{:?}", at_first.files);

    for (site, least) in [("north", 50), ("south", 100), ("west", 200)] {
        let policy = format!("parts = {{ min_cells = {least} }}\n");
        let batch = if site == "west" { "south" } else { site };
        let places = "\n[data.fields]\ncoordinates = \"obsm/spatial\"\n";
        world.add_site(site, &policy, &cells_of("cells.h5ad", "slices", batch, places))?;
    }
    let here = world.in_both_orders(&["--ask", "parts"], &["south", "north"])?;
    let keys = ["anna/core+networks/atlas", "north/slices+networks/north", "south/slices+networks/south"];
    ensure!(here.parts() == keys, "{:?}", here.files);

    // The same section, learnt without a coordinator.
    train("north", "north", "slices", "alone")?;
    let alone = Version::read(&world.path("alone"))?;
    ensure!(alone.files[keys[1]] == here.files[keys[1]], "other networks: {alone:?} and {here:?}");

    // Cells without a place are mapped alike by whoever has the version.
    let map = |ensemble: &str| -> Result<Value> {
        let out = format!("{ensemble}.h5ad");
        let line = ["space", "map", ensemble, "cells.h5ad", "--batches", "query", "--out", &out, "--format", "json"];
        Ok(serde_json::from_str(&world.worker(&line)?)?)
    };
    let (mapped, also) = (map("here")?, map("there")?);
    ensure!(mapped["n_networks"] == 6 && mapped["networks"] == also["networks"], "{mapped} and {also}");
    ensure!(mapped["confidence"] == also["confidence"], "{mapped} and {also}");

    // What left is the member, and no column and no cell.
    let audit = world.worker(&["audit", "net/north/state/audit.jsonl", "--format", "json"])?;
    let audit: Value = serde_json::from_str(&audit)?;
    let kinds: Vec<&str> =
        audit["entries"].as_array().context("entries")?.iter().filter_map(|e| e["release"]["kind"].as_str()).collect();
    ensure!(kinds.iter().filter(|kind| **kind == "parts").count() == 2, "{kinds:?}");
    ensure!(!kinds.contains(&"columns") && !kinds.contains(&"embeddings"), "{kinds:?}");
    world.passes_over("west", "the policy asks for 200")?;

    world.operator(&["withdraw", "here", "--site", "north"])?;
    ensure!(!world.version("here")?.files.contains_key(keys[1]), "north is still there");
    world.operator(&["withdraw", "here", "--site", "south"])?;
    ensure!(world.version("here")? == at_first, "withdrawn members leave a trace");
    Ok(())
}
