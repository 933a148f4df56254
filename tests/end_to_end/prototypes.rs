//! Prototypes of cell types that two sites contribute, beside those of the same cells in one place: real processes, real TLS.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::{Version, World, cells_of};

/// Two sites have a type that the reference lacks. Their prototypes are pooled as if all cells were in one place, bit for bit and in both
/// orders; a type of which a site has too few cells stays there; and what a site takes back is gone.
#[test]
fn prototypes_of_two_sites_are_those_of_all_their_cells() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    prepare_cells(&world)?;
    world.publish_twice("reference")?;
    let at_first = world.version("here")?;
    ensure!(at_first.parts() == [ANNAS], "{:?}", at_first.parts());
    ensure!(!pooled(&world, "here")?.contains_key("type-03"), "the reference knows the type");

    for (site, least) in [("north", 15), ("south", 1)] {
        world.add_site(site, &policy(least), &cells_of("cells.h5ad", "pbmc", site, "labels_key = \"cell_type\"\n"))?;
    }
    let here = world.in_both_orders(&["--epochs", "2"], &["south", "north"])?;
    ensure!(here.parts() == [ANNAS, NORTH, SOUTH], "{:?}", here.parts());

    // The same cells in one place, under the same names.
    map(&world, "reference", "north", "with-north")?;
    map(&world, "with-north", "south", "one-place")?;
    let one_place = Version::read(&world.path("one-place"))?;
    ensure!(here == one_place, "pooled otherwise: {here:?} and {one_place:?}");
    let (all, in_one_place) = (pooled(&world, "here")?, pooled(&world, "one-place")?);
    ensure!(all == in_one_place && all.len() == 3, "other prototypes: {all:?} and {in_one_place:?}");

    // North takes back what it gave, and lets less out from now on.
    world.operator(&["withdraw", "here", "--site", "north"])?;
    let without = world.version("here")?;
    ensure!(without.parts() == [ANNAS, SOUTH], "{:?}", without.parts());
    map(&world, "reference", "south", "with-south")?;
    ensure!(without == Version::read(&world.path("with-south"))?, "the withdrawn member leaves a trace");
    let souths = pooled(&world, "here")?;
    std::fs::write(world.path("net/north/policy.toml"), policy(20))?;
    world.operator(&["task", "publish", "here", "--epochs", "2"])?;
    world.serves("3", "north")?;
    let summary: Value = serde_json::from_slice(&std::fs::read(world.path("net/north/results/task-3/summary.json"))?)?;
    ensure!(summary["withheld"][NORTH] == "`type-03`: it has 18 cells, the policy asks for 20", "{summary}");
    world.version("here")?;
    let less = pooled(&world, "here")?;
    ensure!(less["type-03"] == souths["type-03"], "what was withheld is there: {less:?}");
    ensure!(less["type-01"] == all["type-01"] && less["type-02"] == all["type-02"], "{less:?} and {all:?}");

    for site in ["north", "south"] {
        world.operator(&["withdraw", "here", "--site", site])?;
    }
    ensure!(world.version("here")? == at_first, "withdrawn members leave a trace");
    Ok(())
}

/// Cells of three batches, and a reference of one of them that knows two of their three types.
fn prepare_cells(world: &World) -> Result<()> {
    let generate = ["generate", "--batches", "atlas,north,south", "--n-cells", "60", "--n-genes", "50"];
    world.worker(&[&generate[..], &["--n-types", "3", "--n-donors", "2", "--out", "cells.h5ad"]].concat())?;
    let known = ["--obs", "batch=atlas", "--obs", "cell_type=type-01,type-02", "--out", "core.h5ad"];
    world.worker(&[&["subset", "cells.h5ad"], &known[..]].concat())?;
    let train = ["train", "core.h5ad", "--model", "scpoli", "--labels-key", "cell_type", "--pretraining-epochs", "2"];
    let small = ["--hidden-layer-sizes", "8", "--latent-dim", "3", "--embedding-dims", "3", "--epochs", "4"];
    let named = ["--owner", "anna", "--dataset", "core", "--out", "reference"];
    world.worker(&[&train[..], &small, &named].concat()).map(drop)
}

/// Parts of types with so many cells, of two donors.
fn policy(min_cells: u32) -> String {
    format!("new_labels = true\nparts = {{ min_cells = {min_cells}, min_donors = 2 }}\ndonor_key = \"donor\"\n")
}

/// Maps a site's batch under the names that it has in the consortium.
fn map(world: &World, reference: &str, site: &str, out: &str) -> Result<()> {
    let named = ["--batches", site, "--owner", site, "--dataset", "pbmc"];
    world.worker(&[&["map", reference, "cells.h5ad", "--epochs", "2", "--out", out], &named[..]].concat()).map(drop)
}

/// Cells and place of the pooled prototype of each type, as they are printed: a float is printed with all that it takes to read it back.
fn pooled(world: &World, reference: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let file = format!("{reference}.csv");
    let ask = ["results", "prototypes", reference, "--what", "pooled", "--overwrite", "--out", &file];
    world.worker(&ask)?;
    let text = std::fs::read_to_string(world.path(&file))?;
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().context("a table has a head")?;
    let is_told = |name: &str| name == "n_cells" || name.starts_with('z');
    let of_type = names.iter().position(|name| *name == "cell_type").context("types are told")?;
    let row = |line: Vec<&str>| {
        let told = line.iter().zip(&names).filter(|(_, name)| is_told(name)).map(|(value, _)| (*value).to_owned());
        (line[of_type].to_owned(), told.collect())
    };
    Ok(lines.map(row).collect())
}

const ANNAS: &str = "anna/core+prototypes/atlas";
const NORTH: &str = "north/pbmc+prototypes/north";
const SOUTH: &str = "south/pbmc+prototypes/south";
