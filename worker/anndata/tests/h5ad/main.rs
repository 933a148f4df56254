//! h5ad files, real, written by us, of old forms, and hostile.

mod alignment;
mod bombs;
mod cellranger;
mod copied;
mod example;
mod fuzz;
mod hostile;
mod kept;
mod modalities;
mod old_forms;
mod python;
mod round_trip;
mod shared_data;

use std::path::PathBuf;

/// The folder of real data, `None` (with a line that says so) where a checkout has none.
fn shared(part: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ARCHIPELAGO_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = root.join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    skipped(&format!("no {} (set ARCHIPELAGO_SHARED to the folder that holds `{part}`)", folder.display()));
    None
}

#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
