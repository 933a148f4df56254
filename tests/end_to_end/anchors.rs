//! A site's log of what left it, held against what the consortium has on record of it: real processes, real TLS.

use anyhow::{Context as _, Result, ensure};

use super::world::{World, cells_of};

#[test]
fn a_log_that_was_cut_emptied_or_written_anew_is_found_by_what_was_anchored() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::with_small_reference(dir.path())?;
    world.add_site("north", "trusted_operators = [\"anna\"]\n", &cells_of("cells.h5ad", "pbmc", "north", ""))?;
    for (task, epochs) in [("1", "2"), ("2", "3")] {
        world.operator(&["task", "publish", "here", "--epochs", epochs])?;
        world.serves(task, "north")?;
        world.operator(&["withdraw", "here", "--site", "north"])?;
    }
    world.operator(&["audit", "export", "../acts.jsonl"])?;

    let log = world.path("net/north/state/audit.jsonl");
    let whole = std::fs::read_to_string(&log)?;
    let n_entries = whole.lines().count();
    let audit = |more: &[&str]| world.worker(&[&["audit", "net/north/state/audit.jsonl"], more].concat());
    let ways = [&["--against", "net/north/site.toml"][..], &["--against", "acts.jsonl", "--site", "north"]];
    for way in ways {
        let told = audit(way)?;
        ensure!(told.contains(&format!("{n_entries} entries are what was anchored, 0 came since")), "{told}");
    }
    let finds = |text: &str, record: usize| -> Result<()> {
        std::fs::write(&log, text)?;
        audit(&[]).context("alone it is a whole chain")?;
        for way in ways {
            let error = audit(way).err().context("it passed")?.to_string();
            ensure!(error.contains(&format!("first in entry {record} ")), "entry {record}: {error}");
        }
        Ok(())
    };
    let first: String = whole.split_inclusive('\n').take(1).collect();
    finds(&first, 2)?;
    finds("", 1)?;
    // Written anew, by somebody who has the program: another log of the same site, whose chain is whole.
    std::fs::remove_file(&log)?;
    world.operator(&["task", "publish", "here", "--epochs", "4"])?;
    world.serves("3", "north")?;
    let anew = std::fs::read_to_string(&log)?;
    finds(&anew, 1)?;
    // The site has gone on with it: that stands in the record, for whoever reads it.
    let listed = world.operator(&["audit", "list", "--who", "site/north"])?.to_string();
    ensure!(listed.contains("\"follows\":false"), "{listed}");
    // The log as it was is no longer all of it.
    std::fs::write(&log, &whole)?;
    let error = audit(ways[0]).err().context("it passed")?.to_string();
    ensure!(error.contains("first in entry 1 "), "{error}");
    Ok(())
}
