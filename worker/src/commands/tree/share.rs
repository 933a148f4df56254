//! `tree share`: a reference over which sites learn a tree together.

use std::{fmt, path::PathBuf};

use archipelago_common::{
    VersionId,
    reference_dir::ReferenceDir,
    tree::{self, Sharing},
};
use archipelago_models::layout_of;
use clap::Args;
use serde::Serialize;

use crate::{error::Result, output::Output};

/// Make a reference over which sites learn a tree of cell types together.
///
/// The new reference has the same network. Its card takes what a tree is made of: sites hand in linear machines for their types
/// and counts of what the machines of others say of their cells, as far as their policies let parts out, and everybody computes the
/// same tree. With `--points` a site whose policy lets full embeddings out hands in the positions of its cells instead of machines.
/// docs/trees.md tells how.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker tree share reference --out atlas")]
pub(super) struct ShareArgs {
    /// The directory of the reference.
    reference: PathBuf,
    /// Take positions of cells from sites whose policies let them out: nearest cells decide instead of planes.
    #[arg(long)]
    points: bool,
    /// Directory of the new reference.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Common`] for a reference that cannot be read or written
pub(super) fn run(args: &ShareArgs, output: &Output) -> Result<()> {
    let given = ReferenceDir::open(&args.reference)?;
    let mut base = given.base()?;
    let parts = given.parts(&base.card.layout)?;
    base.card.layout = layout_of(&base)?;
    let sharing = if args.points { Sharing::Points } else { Sharing::Machines };
    tree::declare(&mut base.card.layout, sharing);
    base.card.format = base.card.layout.card_format();
    let shared = ReferenceDir::write_with_parts(&args.out, &base, &given.columns()?, &parts)?;
    output.show(&Summary { out: args.out.clone(), version: shared.version().id() });
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        writeln!(f, "version     {}", self.version.0.short())
    }
}
