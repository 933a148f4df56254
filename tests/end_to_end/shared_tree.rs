//! A tree of cell types that three sites learn together: real processes, real TLS.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::{World, cells_of};

/// Both orders of arrival give one version, one tree and one digest in the lineage; withdrawal replays the rest.
#[test]
fn three_sites_learn_one_tree_in_every_order_and_a_withdrawal_leaves_that_of_the_rest() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    prepare(&world)?;
    let parts = format!("parts = {{ min_cells = {FEWEST}, min_donors = 1 }}\n");
    let policy = &format!("new_labels = true\n{parts}donor_key = \"donor\"\n");
    for site in SITES {
        world.add_site(site, policy, &cells_of("cells.h5ad", "pbmc", site, "labels_key = \"cell_type\"\n"))?;
    }
    world.publish_twice("atlas")?;
    // Columns and machines, then counts by the machines that are there.
    world.in_both_orders(&["--epochs", "2", "--ask", "both"], &SITES)?;
    let version = world.in_both_orders(&["--epochs", "2", "--ask", "parts"], &SITES)?;
    let of_part = |part: &str| version.parts().iter().filter(|key| key.contains(part)).count();
    ensure!((of_part("+tree-machines/"), of_part("+tree-counts/")) == (3, 6), "{:?}", version.parts());

    // The coordinators compute the tree themselves: another one is refused, and both references have the same.
    let digests = [derive(&world, "here")?, derive(&world, "there")?];
    ensure!(digests[0] == digests[1], "one version, two trees: {digests:?}");
    let shown: Value = serde_json::from_str(&world.worker(&["tree", "show", "here", "--format", "json"])?)?;
    let newick = shown["newick"].as_str().context("a tree")?;
    for site in SITES {
        ensure!(newick.contains(&format!("-{site}/pbmc/{site}")), "{site} is not in {newick}");
    }
    world.worker(&["tree", "show", "here", "--page", "tree.html", "--picture", "tree.svg"])?;
    ensure!(
        std::fs::read_to_string(world.path("tree.html"))?.contains("joins"),
        "the page tells of no data set that joined"
    );

    // A site withdraws: what is left is the tree of the others, and whoever comes again joins last.
    world.operator(&["withdraw", "here", "--site", "east"])?;
    world.version("here")?;
    let without = derive(&world, "here")?;
    ensure!(without != digests[0], "a withdrawn site is still in the tree");
    let shown: Value = serde_json::from_str(&world.worker(&["tree", "show", "here", "--format", "json"])?)?;
    let newick = shown["newick"].as_str().context("a tree")?;
    ensure!(!newick.contains("east") && newick.contains("north") && newick.contains("south"), "{newick}");

    // Cells without labels are placed at home, and the consortium learns their numbers alone.
    for task in ["1", "2", "3", "4"] {
        world.operator(&["task", "close", task])?;
    }
    world.add_site("west", policy, &cells_of("cells.h5ad", "pbmc", "west", ""))?;
    annotate(&world)?;
    world.worker(&[
        "plot",
        "sankey",
        "net/west/results/task-5/mapped.h5ad",
        "--observed",
        "batch",
        "--predicted",
        "tree_label",
        "--out",
        "flow.svg",
    ])?;

    // Cells that another network placed are refused.
    let refused = world.worker(&["tree", "predict", "there", "other.h5ad", "--out", "placed.h5ad"]);
    let told = refused.err().context("cells of another network are placed")?.to_string();
    ensure!(told.contains("were placed by the network"), "{told}");
    let without =
        world.worker(&["tree", "show", "reference"]).err().context("a reference without a tree is shown")?.to_string();
    ensure!(without.contains("`tree share` makes one"), "{without}");
    world.worker(&["tree", "predict", "there", "net/west/results/task-5/mapped.h5ad", "--out", "placed.h5ad"])?;
    Ok(())
}

/// Where the publisher takes positions, a site that lets them out gives its cells, another one machines; the tree is one, whatever the
/// order, and of cells alone once that one is gone.
#[test]
fn sites_that_share_positions_give_cells_and_the_others_machines() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    prepare(&world)?;
    world.worker(&["tree", "share", "reference", "--points", "--out", "open"])?;
    world.publish_twice("open")?;
    for site in SITES {
        let embeddings = if site == "east" { "none" } else { "full" };
        let parts = format!("parts = {{ min_cells = {FEWEST} }}\n");
        let policy = format!("embeddings = \"{embeddings}\"\nnew_labels = true\n{parts}");
        world.add_site(site, &policy, &cells_of("cells.h5ad", "pbmc", site, "labels_key = \"cell_type\"\n"))?;
    }
    world.in_both_orders(&["--epochs", "2", "--ask", "both"], &SITES)?;
    let version = world.in_both_orders(&["--epochs", "2", "--ask", "parts"], &SITES)?;
    let of_part = |part: &str| -> Vec<&str> { version.parts().into_iter().filter(|key| key.contains(part)).collect() };
    ensure!(
        of_part("+tree-points/") == ["north/pbmc+tree-points/north", "south/pbmc+tree-points/south"],
        "{version:?}"
    );
    ensure!(of_part("+tree-machines/") == ["east/pbmc+tree-machines/east"], "{version:?}");
    ensure!(of_part("+tree-counts/").len() == 6, "{version:?}");
    let digests = [derive(&world, "here")?, derive(&world, "there")?];
    ensure!(digests[0] == digests[1], "one version, two trees: {digests:?}");

    world.operator(&["withdraw", "here", "--site", "east"])?;
    world.version("here")?;
    ensure!(derive(&world, "here")? != digests[0], "a withdrawn site is still in the tree");
    let cells = "net/north/results/task-3/mapped.h5ad";
    let told = world.worker(&["tree", "predict", "here", cells, "--out", "placed.h5ad", "--format", "json"])?;
    let told: Value = serde_json::from_str(&told)?;
    let labels = told["labels"].as_object().context("labels")?;
    ensure!(told["n_cells"] == 120 && labels.keys().any(|label| label.ends_with("-north/pbmc/north")), "{told}");
    Ok(())
}

/// A site without labels and one with labels have their cells annotated by the tree of `there`; what the consortium learns of it, until
/// one of them withdraws.
fn annotate(world: &World) -> Result<()> {
    let before = world.version("there")?;
    world.operator(&["task", "publish", "there", "--epochs", "2", "--ask", "annotations"])?;
    for site in ["west", "east"] {
        world.serves("5", site)?;
    }
    let added: Vec<String> =
        world.version("there")?.files.into_keys().filter(|key| !before.files.contains_key(key)).collect();
    let is_of = |site: &str| added.iter().any(|key| key.starts_with(&format!("{site}/pbmc+tree-annotations/{site}~")));
    ensure!(added.len() == 2 && is_of("west") && is_of("east"), "{added:?}");

    // What is counted is what stands in the sites' own files, as far as their policies let labels of few cells out.
    let (of_west, of_east) = (placed(world, "west")?, placed(world, "east")?);
    let mut of_both = of_east.clone();
    of_west.into_iter().for_each(|(label, n)| *of_both.entry(label).or_insert(0) += n);
    let annotated = || -> Result<BTreeMap<String, u64>> {
        let shown: Value = serde_json::from_str(&world.worker(&["tree", "show", "there", "--format", "json"])?)?;
        Ok(serde_json::from_value(shown["annotated"].clone())?)
    };
    ensure!(annotated()? == of_both && !of_east.is_empty(), "{:?} and {of_both:?}", annotated()?);
    let audit: Value =
        serde_json::from_str(&world.worker(&["audit", "net/west/state/audit.jsonl", "--format", "json"])?)?;
    let left = &audit["bytes_by_kind"];
    ensure!(left["columns"] == 0 && left["embeddings"] == 0 && left["parts"].as_u64() > Some(0), "{audit}");
    // A site that has been counted has nothing to add, and what is withdrawn is no longer counted.
    world.operator(&["task", "publish", "there", "--epochs", "2", "--ask", "annotations"])?;
    world.passes_over("west", "the version has all that its cells can add to a tree")?;
    world.operator(&["task", "close", "6"])?;
    let west = added.iter().find(|key| key.starts_with("west/")).context("the key of its counts")?;
    world.operator(&["withdraw", "there", "--condition", west])?;
    world.version("there")?;
    ensure!(annotated()? == of_east, "{:?} and {of_east:?}", annotated()?);
    Ok(())
}

/// How many of a site's cells the tree puts where, without labels of fewer cells than its policy lets out.
fn placed(world: &World, site: &str) -> Result<BTreeMap<String, u64>> {
    let cells = format!("net/{site}/results/task-5/mapped.h5ad");
    let line = ["tree", "predict", "there", &cells, "--out", "again.h5ad", "--overwrite", "--format", "json"];
    let told: Value = serde_json::from_str(&world.worker(&line)?)?;
    let mut labels: BTreeMap<String, u64> = serde_json::from_value(told["labels"].clone())?;
    labels.retain(|_, n| *n >= FEWEST);
    Ok(labels)
}

/// Hands the tree of the current version in, after one that is not it; its digest in the lineage.
fn derive(world: &World, reference: &str) -> Result<String> {
    let dir = format!("../{reference}");
    std::fs::write(world.path("wrong.json"), "{}")?;
    let wrong = world.operator(&["reference", "derive", reference, "tree", &dir, "--result", "../wrong.json"]);
    ensure!(wrong.is_err(), "another tree is taken");
    world.operator(&["reference", "derive", reference, "tree", &dir])?;
    let shown = world.operator(&["reference", "show", reference])?;
    let last = shown["changes"].as_array().and_then(|changes| changes.last()).context("a lineage")?.to_string();
    ensure!(last.contains("hpl-"), "{last}");
    let digest = last.split("\"digest\":\"").nth(1).and_then(|rest| rest.get(..64)).context("a digest")?;
    Ok(digest.to_owned())
}

/// Cells of five batches, a reference of one of them that takes trees, and what another network says of its cells.
fn prepare(world: &World) -> Result<()> {
    let generate = ["generate", "--batches", "core,north,south,east,west", "--n-cells", "120", "--n-genes", "60"];
    world.worker(&[&generate[..], &["--n-types", "3", "--n-donors", "2", "--out", "cells.h5ad"]].concat())?;
    let train = ["train", "cells.h5ad", "--batches", "core", "--epochs", "5", "--n-latent", "4", "--device", "cpu"];
    for (out, seed) in [("reference", "0"), ("other", "1")] {
        world
            .worker(&[&train[..], &["--owner", "anna", "--dataset", "core", "--seed", seed, "--out", out]].concat())?;
    }
    world.worker(&["latent", "other", "cells.h5ad", "--batches", "core", "--out", "other.h5ad"])?;
    world.worker(&["tree", "share", "reference", "--out", "atlas"]).map(drop)
}

/// Cells of a label that the sites' policies let out.
const FEWEST: u64 = 5;
const SITES: [&str; 3] = ["north", "south", "east"];
