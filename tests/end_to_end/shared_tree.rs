//! A tree of cell types that three sites learn together: real processes, real TLS.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::World;

/// Both orders of arrival give one version, one tree and one digest in the lineage; withdrawal replays the rest.
#[test]
fn three_sites_learn_one_tree_in_every_order_and_a_withdrawal_leaves_that_of_the_rest() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    prepare(&world)?;
    let policy = "parts = { min_cells = 5, min_donors = 1 }\ndonor_key = \"donor\"\n";
    for site in SITES {
        world.add_site(site, policy, &data(site, "labels_key = \"cell_type\"\n"))?;
    }
    for reference in ["here", "there"] {
        world.operator(&["reference", "publish", reference, "../atlas"])?;
    }
    // Columns and machines, then counts by the machines that are there.
    for (round, ask) in [(1, "both"), (3, "parts")] {
        for reference in ["here", "there"] {
            world.operator(&["task", "publish", reference, "--epochs", "2", "--ask", ask])?;
        }
        for site in SITES {
            world.serves(&round.to_string(), site)?;
        }
        for site in SITES.iter().rev() {
            world.serves(&(round + 1).to_string(), site)?;
        }
        ensure!(world.version("here")? == world.version("there")?, "the order of arrival shows");
    }
    let version = world.version("here")?;
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
    world.add_site("west", policy, &data("west", ""))?;
    world.operator(&["task", "publish", "there", "--epochs", "2", "--ask", "parts"])?;
    world.serves("5", "west")?;
    let version = world.version("there")?;
    let mut left = version.parts();
    left.retain(|key| key.starts_with("west/"));
    ensure!(left.len() == 1 && left[0].starts_with("west/pbmc+tree-annotations/west~"), "{left:?}");
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

/// Hands the tree of the current version in, after one that is not it; its digest in the lineage.
fn derive(world: &World, reference: &str) -> Result<String> {
    let dir = format!("../{reference}");
    std::fs::write(world.path("wrong.json"), "{}")?;
    let wrong = world.operator(&["reference", "derive", reference, "tree", &dir, "--result", "../wrong.json"]);
    ensure!(wrong.is_err(), "another tree is taken");
    world.operator(&["reference", "derive", reference, "tree", &dir])?;
    let shown = world.operator(&["reference", "show", reference])?;
    let last = shown["changes"].as_array().and_then(|changes| changes.last()).context("a lineage")?.to_string();
    ensure!(last.contains("hpl-1"), "{last}");
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

/// The section of a site's file on its cells, those of one batch.
fn data(batch: &str, labels: &str) -> String {
    let file = "path = \"../../cells.h5ad\"\ndataset = \"pbmc\"\nbatch_key = \"batch\"\n";
    format!("{file}{labels}batches = [\"{batch}\"]\n")
}

const SITES: [&str; 3] = ["north", "south", "east"];
