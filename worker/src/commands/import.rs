//! `import`: a model saved by scvi-tools as a reference.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use archipelago_anndata::H5adFile;
use archipelago_common::{
    condition::ConditionKey,
    fs,
    id::{Name, SiteId, VersionId},
    reference_dir::ReferenceDir,
};
use archipelago_models::{
    formats::{archive::SavedArchive, scvi_tools},
    upstream::{self, Namespace},
};
use clap::Args;
use serde::Serialize;

use super::{archived, native};
use crate::{
    error::{Error, Result},
    existing,
    fields::names_in_uns,
    output::Output,
    results,
};

/// Import a model that scvi-tools (0.8 to 1.4) or scArches saved as a reference.
///
/// Reads `model.pt`, or the three files from before 0.15, and executes nothing in them: a pickle that asks for more than a
/// saved model needs is refused with the opcode or class and its byte. Each batch becomes a condition `owner/dataset/batch`.
/// Also reads scArches' folders (`model_params.pt`, `attr.pkl`, `var_names.csv`), and with `--onto` its adaptors, which hold the
/// columns of one condition. Of a package that saves one archive without names of genes and conditions, `--cells` says them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker import my_scvi_model/ --owner anna --dataset lung --out reference\n  \
    archipelago-worker import old_model/model_params.pt --out reference\n  \
    archipelago-worker import my_expimap/ --terms cells.h5ad --out reference\n  \
    archipelago-worker import best_model_by_metric.pt --cells tcells.h5ad --out reference")]
pub struct ImportArgs {
    /// The folder that `model.save` wrote, or the file `model.pt` (`model_params.pt`) in it.
    model: PathBuf,
    /// The reference that an adaptor's columns are attached to; its base must be the adaptor's.
    #[arg(long, value_name = "DIR")]
    onto: Option<PathBuf>,
    /// The directory to write the reference to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Names of the terms of a model of gene sets, which scArches keeps with the cells: their h5ad file, or a text file with a name on each line
    /// [default: those in `attr.pkl`, if an export of ours wrote it, else `term_0` and so on].
    #[arg(long, value_name = "FILE")]
    terms: Option<PathBuf>,
    /// The entry of `uns` with the names, in an h5ad file.
    #[arg(long, value_name = "KEY", default_value = "terms")]
    terms_key: String,
    /// What the names of the files begin with, as given to `model.save`.
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    at_hand: archived::CellsAtHand,
    /// Whose scale and shift the decoder's batch norm has, of a model of scvi-tools with one that can: everybody's (`shared`, so that what is mapped can be exported
    /// to scvi-tools), or with what each mapped condition adds to it as part of its columns (`conditions`) [default: conditions]
    #[arg(long, value_name = "WHOSE", value_parser = ["shared", "conditions"])]
    batch_norm_affine: Option<String>,
    /// First part of the condition keys: the operator who will publish the reference.
    #[arg(long, default_value = "reference")]
    owner: SiteId,
    /// Second part of the condition keys: the name of the data set.
    #[arg(long, default_value = "atlas")]
    dataset: Name,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    model: String,
    saved_by: String,
    n_genes: usize,
    conditions: Vec<ConditionKey>,
    labels: Vec<String>,
    categorical_covariates: Vec<String>,
    continuous_covariates: Vec<String>,
    moves_embedding: bool,
    /// Constructor arguments that this program does not know: kept on the card, without effect.
    unknown_arguments: Vec<String>,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Models`] saying what is missing, wrong or refused, and where
pub fn run(args: &ImportArgs, output: &Output) -> Result<()> {
    let names = Namespace { owner: args.owner.clone(), dataset: args.dataset.clone() };
    if let Some(source) = native::Source::of(&args.model)? {
        let terms = args.terms.as_deref().map(|path| term_names(path, &args.terms_key)).transpose()?;
        let source = source.with_terms(terms)?;
        return native::import(&source, args.onto.as_deref(), &names, &args.out, output);
    }
    if let Some(path) = &args.terms {
        let found = path.display().to_string();
        return Err(Error::Setting { what: "--terms", found, expected: "nothing: models of scvi-tools have no terms" });
    }
    if let Some(saved) = SavedArchive::of(&args.model)? {
        return archived::import(&saved, &args.at_hand, &names, &args.out, output);
    }
    let mut saved = scvi_tools::read(&args.model, &args.prefix)?;
    match &args.batch_norm_affine {
        Some(whose) => upstream::choose(&mut saved, BATCH_NORM_AFFINE, whose.as_str().into())?,
        None if upstream::has_batch_norm(&saved) && upstream::has_option(&saved, BATCH_NORM_AFFINE)? => {
            upstream::choose(&mut saved, BATCH_NORM_AFFINE, "conditions".into())?;
        }
        None => {}
    }
    let reference = upstream::to_reference(&saved, &names)?;
    fs::create_dir(&args.out)?;
    existing::begin(&args.out)?;
    let dir = ReferenceDir::write(&args.out, &reference.base, &reference.columns)?;
    let registry = &saved.registry;
    let summary = Summary {
        out: args.out.clone(),
        version: dir.version().id(),
        model: reference.base.card.model.clone(),
        saved_by: format!("scvi-tools {}", saved.version),
        n_genes: reference.base.card.genes.len(),
        conditions: reference.columns.keys().cloned().collect(),
        labels: reference.base.card.labels.clone(),
        categorical_covariates: registry.categorical_covariates.iter().map(|covariate| covariate.key.clone()).collect(),
        continuous_covariates: registry.continuous_covariates.clone(),
        moves_embedding: reference.base.card.moves_embedding,
        unknown_arguments: upstream::unknown_arguments(&saved)?.into_iter().map(str::to_owned).collect(),
    };
    results::write_json(&args.out.join(existing::SUMMARY), &summary)?;
    if !summary.unknown_arguments.is_empty() {
        tracing::warn!(arguments = summary.unknown_arguments.join(", "), "constructor arguments without effect here");
    }
    output.show(&summary);
    Ok(())
}

/// The names in an entry of `uns`, or on the lines of a text file.
fn term_names(path: &Path, key: &str) -> Result<Vec<String>> {
    if path.extension().is_some_and(|extension| extension == "h5ad") {
        let failed = |source| Error::Cells { path: path.into(), source };
        let file = H5adFile::open(path).map_err(failed)?;
        return names_in_uns(&file, key).map_err(failed);
    }
    let bytes =
        fs::read_bounded(path, TERMS_BYTES).map_err(|source| Error::ConfigFile { path: path.into(), source })?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Error::Config { path: path.into(), detail: "it is not UTF-8 text".to_owned() })?;
    Ok(text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// The option that says whose scale and shift the decoder's batch norm has.
const BATCH_NORM_AFFINE: &str = "batch_norm_affine";
/// More than the names of all public gene sets.
const TERMS_BYTES: u64 = 16 << 20;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reference   {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "model       {}, saved by {}", self.model, self.saved_by)?;
        writeln!(f, "genes       {}", self.n_genes)?;
        if !self.labels.is_empty() {
            writeln!(f, "labels      {}", self.labels.join(", "))?;
        }
        let covariates = [&self.categorical_covariates[..], &self.continuous_covariates[..]].concat();
        if !covariates.is_empty() {
            writeln!(f, "covariates  {}", covariates.join(", "))?;
        }
        writeln!(f, "conditions  {}", self.conditions.len())?;
        self.conditions.iter().try_for_each(|key| writeln!(f, "  {key}"))?;
        if !self.moves_embedding {
            write!(f, "note        surgery cannot move a query's embedding: the encoder does not take the batch")?;
        }
        Ok(())
    }
}
