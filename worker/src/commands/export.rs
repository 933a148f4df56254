//! `export`: a reference as a model that scvi-tools loads.

use std::{fmt, path::PathBuf};

use archipelago_common::{condition::ConditionKey, id::VersionId};
use archipelago_models::{formats::scvi_tools, upstream};
use clap::Args;
use serde::Serialize;

use super::{OpenReference, archived, native};
use crate::{error::Result, output::Output};

/// Export a reference as a saved model of scvi-tools 1.4, or of scArches 0.6.1 where the model is one of scArches' own.
///
/// Writes `model.pt`, which `load` and `load_query_data` of the model's class take, and which opens in PyTorch's
/// restricted mode. Batches keep their names where all conditions are of one data set, and are named by their whole keys
/// otherwise.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker export reference --out my_scvi_model")]
pub struct ExportArgs {
    /// The reference directory.
    reference: PathBuf,
    /// Export the columns of this condition only, as an adaptor that scArches attaches to a model of the same base.
    #[arg(long, value_name = "KEY")]
    condition: Option<ConditionKey>,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    class: String,
    scvi_tools_version: String,
    n_tensors: usize,
    batch_key: String,
    batches: Vec<String>,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Reference`], [`crate::Error::Models`]
pub fn run(args: &ExportArgs, output: &Output) -> Result<()> {
    let OpenReference { dir, reference } = OpenReference::open(&args.reference)?;
    if native::export(&dir, &reference, args.condition.as_ref(), &args.out, output)? {
        return Ok(());
    }
    if archived::export(&dir, &reference, &args.out, output)? {
        return Ok(());
    }
    let saved = upstream::from_reference(&reference)?;
    scvi_tools::write(&saved, &args.out)?;
    output.show(&Summary {
        out: args.out.join("model.pt"),
        version: dir.version().id(),
        class: saved.model_name.clone().unwrap_or_default(),
        scvi_tools_version: saved.version.to_string(),
        n_tensors: saved.state_dict.len(),
        batch_key: saved.registry.batch.key.clone(),
        batches: saved.registry.batch.categories.iter().map(ToString::to_string).collect(),
    });
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model       {}", self.out.display())?;
        writeln!(f, "class       {} of scvi-tools {}", self.class, self.scvi_tools_version)?;
        writeln!(f, "tensors     {}", self.n_tensors)?;
        writeln!(f, "batch key   {}", self.batch_key)?;
        write!(f, "batches     {}", self.batches.join(", "))
    }
}
