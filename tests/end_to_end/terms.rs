//! New terms of two sites, from their cells to one version and back: real processes, real TLS.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::World;

/// Terms stay where they are until a task asks for them and the policy lets them out. Then they stand beside each other, in one order.
#[test]
fn terms_of_two_sites_come_to_stand_beside_each_other_and_are_taken_out_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::found(dir.path())?;
    prepare(&world)?;
    for reference in ["here", "there"] {
        world.operator(&["reference", "publish", reference, "../reference"])?;
    }
    let site = |site: &str, least: u32, batch: &str, adds: &str| {
        let cells = "path = \"../../cells.h5ad\"\ndataset = \"pbmc\"\nbatch_key = \"batch\"\n";
        let data = format!("{cells}batches = [\"{batch}\"]\n{adds}");
        world.add_site(site, &format!("parts = {{ min_cells = {least} }}\n"), &data)
    };
    let adds = |n_ext| format!("[adds]\nn_ext = {n_ext}\ngene_sets = [\"../../own.gmt\"]\n");
    site("north", 60, "north", &adds(2))?;
    site("south", 20, "south", &adds(1))?;
    // Its terms are made of too few cells for its policy, and it says so; the last one adds nothing.
    site("east", 61, "east", &adds(1))?;
    site("west", 1, "south", "")?;

    // One reference gets columns and terms in one order of sites, the other terms alone in the other.
    world.operator(&["task", "publish", "here", "--epochs", "2"])?;
    world.operator(&["task", "publish", "there", "--epochs", "2", "--ask", "parts"])?;
    world.passes_over("west", "`[adds]` of this site's configuration adds nothing")?;
    for site in ["south", "north", "east"] {
        world.serves("1", site)?;
    }
    for site in ["north", "south"] {
        world.serves("2", site)?;
    }
    let (here, there) = (world.version("here")?, world.version("there")?);
    let keys = ["north/pbmc+terms/north", "south/pbmc+terms/south"];
    ensure!(here.parts() == keys && there.parts() == keys, "{here:?} and {there:?}");
    ensure!(keys.iter().all(|key| here.files[*key] == there.files[*key]), "{here:?} and {there:?}");
    let summary = |site: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(world.path(&format!("net/{site}/results/task-1/summary.json")))?)?)
    };
    let withheld = &summary("east")?["withheld"]["east/pbmc+terms/east"];
    ensure!(*withheld == "it has 60 cells, the policy asks for 61", "{withheld}");

    // The site's own are the same bits, and everybody reads the same names in the same order.
    let audit: Value =
        serde_json::from_str(&world.worker(&["audit", "net/north/state/audit.jsonl", "--format", "json"])?)?;
    let left = audit["entries"].as_array().context("entries")?.iter().map(|entry| &entry["release"]);
    let left: Vec<&Value> = left.filter(|release| release["kind"] == "parts").collect();
    ensure!(left.len() == 2 && left.iter().all(|one| one["condition"] == keys[0]), "{audit}");
    ensure!(left.iter().all(|one| one["digest"] == here.files[keys[0]].as_str()), "{audit}");
    let terms = |reference: &str| -> Result<Vec<String>> {
        world.worker(&["results", "terms", reference, "--out", "terms.csv", "--overwrite"])?;
        let text = std::fs::read_to_string(world.path("terms.csv"))?;
        Ok(text.lines().skip(1).filter_map(|line| line.split(',').next()).map(str::to_owned).collect())
    };
    let of = |site: &str, names: &[&str]| {
        names.iter().map(|name| format!("{name} of {site}/pbmc/{site}")).collect::<Vec<_>>()
    };
    let (north, south) =
        (of("north", &["OWN", "unconstrained_0", "unconstrained_1"]), of("south", &["OWN", "unconstrained_0"]));
    let known = ["ODD", "EVEN"].map(str::to_owned).to_vec();
    ensure!(terms("here")? == [known.clone(), north, south.clone()].concat(), "{:?}", terms("here")?);
    ensure!(terms("here")? == terms("there")?, "the order of arrival shows");

    // North's cells are placed on south's terms too; on its own they lie where its site has them.
    let latent = |reference: &str| -> Result<Vec<Vec<String>>> {
        let cells = ["cells.h5ad", "--batches", "north", "--owner", "north", "--dataset", "pbmc"];
        let out = ["--device", "cpu", "--out", "latent.csv", "--overwrite"];
        world.worker(&[&["latent", reference], &cells[..], &out].concat())?;
        let text = std::fs::read_to_string(world.path("latent.csv"))?;
        Ok(text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect())
    };
    let with_all = latent("here")?;

    // Taken out again, exactly north's terms go; then the columns and all that came with them.
    world.operator(&["withdraw", "there", "--site", "north"])?;
    let without = world.version("there")?;
    ensure!(without.parts() == [keys[1]] && without.files[keys[1]] == here.files[keys[1]], "{without:?}");
    ensure!(terms("there")? == [known.clone(), south].concat(), "{:?}", terms("there")?);
    world.operator(&["withdraw", "here", "--site", "south"])?;
    let _ = world.version("here")?;
    let with_north = latent("here")?;
    let n_means = |table: &[Vec<String>]| table[0].iter().filter(|name| name.starts_with("mean_")).count();
    ensure!((n_means(&with_all), n_means(&with_north)) == (7, 5), "{:?}", with_all[0]);
    let means = |table: &[Vec<String>], n: usize| -> Vec<Vec<String>> {
        let columns: Vec<usize> = (0..table[0].len()).filter(|&at| table[0][at].starts_with("mean_")).take(n).collect();
        table.iter().map(|row| columns.iter().map(|&at| row[at].clone()).collect()).collect()
    };
    ensure!(means(&with_all, 5) == means(&with_north, 5), "south's terms moved north's cells");
    for site in ["north", "east"] {
        world.operator(&["withdraw", "here", "--site", site])?;
    }
    let _ = world.version("here")?;
    ensure!(terms("here")? == known, "withdrawn terms leave a trace");
    Ok(())
}

/// Cells of four batches, a reference of one of them, and a set of genes of the sites' own.
fn prepare(world: &World) -> Result<()> {
    let generate = ["generate", "--batches", "atlas,north,south,east", "--n-cells", "60", "--n-genes", "50"];
    world.worker(&[&generate[..], &["--n-types", "3", "--n-donors", "2", "--out", "cells.h5ad"]].concat())?;
    let set = |name: &str, genes: &mut dyn Iterator<Item = usize>| {
        let genes: Vec<String> = genes.map(|gene| format!("GENE{gene:05}")).collect();
        format!("SET_{name}\tna\t{}\n", genes.join("\t"))
    };
    let (odd, even) = (set("ODD", &mut (1..50).step_by(2)), set("EVEN", &mut (2..50).step_by(2)));
    std::fs::write(world.path("sets.gmt"), odd + &even)?;
    std::fs::write(world.path("own.gmt"), set("OWN", &mut (10..20)))?;
    let train = ["train", "cells.h5ad", "--model", "expimap", "--batches", "atlas", "--gene-sets", "sets.gmt"];
    let small = ["--hidden-layer-sizes", "8", "--epochs", "2", "--device", "cpu"];
    let named = ["--owner", "anna", "--dataset", "core", "--out", "reference"];
    world.worker(&[&train[..], &small, &named].concat()).map(drop)
}
