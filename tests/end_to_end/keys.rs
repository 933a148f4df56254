//! Cells with several condition keys, from the files of two sites to a merged version and back: real processes, real TLS.

use anyhow::{Result, ensure};

use super::world::{Version, World};

/// Both sites bring the level `run-1` of their own, and share the cell types that the reference knows.
#[test]
fn sites_that_bring_the_same_level_of_a_key_stay_apart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    prepare_cells(&world)?;
    for reference in ["here", "there", "alone"] {
        world.operator(&["reference", "publish", reference, "../reference"])?;
    }
    let at_first = world.version("here")?;
    for site in ["north", "south"] {
        let cells = format!("path = \"../../{site}.h5ad\"\ndataset = \"pbmc\"\n");
        let data = format!("{cells}\n[data.fields]\ncell_type = \"obs/cell_type\"\n");
        world.add_site(site, POLICY, &data)?;
    }
    for reference in ["here", "there", "alone"] {
        world.operator(&["task", "publish", reference, "--epochs", "2", "--max-norm", "1000"])?;
    }
    for (task, site) in [("1", "north"), ("1", "south"), ("2", "south"), ("2", "north"), ("3", "south")] {
        world.serves(task, site)?;
    }
    let (here, there, alone) = (world.version("here")?, world.version("there")?, world.version("alone")?);
    ensure!(here == there, "the order of arrival shows: {here:?} and {there:?}");

    // The types are the reference's, so that each site brings its batch once, and a condition for each type of its cells.
    let brought = |version: &Version| -> Vec<String> {
        version.files.keys().filter(|key| !at_first.files.contains_key(*key)).cloned().collect()
    };
    let of = |site: &str| {
        let conditions = (1..=3).map(|n| format!("{site}/pbmc/run-1_type-0{n}"));
        conditions.chain([format!("{site}/pbmc@batch/run-1")]).collect::<Vec<String>>()
    };
    let expected = [of("north"), of("south")].concat();
    ensure!(brought(&here).iter().eq(&expected), "{:?}", brought(&here));
    let level = |version: &Version, site: &str| version.files[&format!("{site}/pbmc@batch/run-1")].clone();
    ensure!(level(&here, "north") != level(&here, "south"), "two sites' cells gave one embedding");

    // What a site gets is what it would get at home, whoever else maps.
    world.worker(&[
        "map",
        "reference",
        "south.h5ad",
        "--epochs",
        "2",
        "--owner",
        "south",
        "--dataset",
        "pbmc",
        "--out",
        "home",
    ])?;
    let home = Version::read(&world.path("home"))?;
    ensure!(home.files == alone.files, "the consortium gave another result: {home:?} and {alone:?}");

    for reference in ["here", "there"] {
        world.operator(&["withdraw", reference, "--site", "north"])?;
        ensure!(world.version(reference)? == alone, "north leaves a trace in `{reference}`");
    }
    world.operator(&["withdraw", "here", "--site", "south"])?;
    ensure!(world.version("here")? == at_first, "withdrawn sites leave a trace");
    Ok(())
}

/// A reference with the condition keys batch and cell type, and a file for each of two sites.
fn prepare_cells(world: &World) -> Result<()> {
    for (file, batches, seed) in [("atlas", "a,b", "1"), ("north", "run-1", "2"), ("south", "run-1", "3")] {
        let out = format!("{file}.h5ad");
        let generate = ["generate", "--batches", batches, "--seed", seed, "--n-cells", "60", "--n-genes", "50"];
        world.worker(&[&generate[..], &["--n-types", "3", "--out", &out]].concat())?;
    }
    let keys = ["--condition-keys", "batch,cell_type", "--common-condition-keys", "cell_type"];
    let small = ["--hidden-layer-sizes", "8", "--latent-dim", "3", "--embedding-dims", "4", "--epochs", "3"];
    let train =
        ["train", "atlas.h5ad", "--model", "scpoli", "--owner", "anna", "--dataset", "core", "--out", "reference"];
    world.worker(&[&train[..], &keys, &small].concat()).map(drop)
}

/// Of sites with small conditions, which own a number for each gene.
const POLICY: &str = "columns = true\nmin_cells = 5\n[tasks]\nmax_numbers_per_cell = 10.0\n";
