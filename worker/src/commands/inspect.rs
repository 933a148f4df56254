//! `inspect`: what a file of cells or a reference holds.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use archipelago_anndata::inspect;
use archipelago_common::{
    condition::ConditionKey,
    hash::Digest,
    id::VersionId,
    layout::{Growth, Layout, Rule, TensorKind},
};
use archipelago_pack::Pack;
use clap::Args;
use serde::Serialize;

use super::{OpenReference, unpack::PackSummary};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Show what an h5ad file, a reference directory or a packed reference holds.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  archipelago-worker inspect cells.h5ad\n  archipelago-worker inspect reference\n  \
    archipelago-worker inspect lung.zip --ca ca.pem"
)]
pub struct InspectArgs {
    /// An h5ad file, a directory that `train`, `map` or `reference fetch` wrote, or a file of `reference pack`.
    path: PathBuf,
    /// Of a packed reference: verify that a publisher of the consortium with this authority signed it.
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
}

/// What a reference is.
#[derive(Serialize)]
struct ReferenceSummary {
    version: VersionId,
    base: Digest,
    base_bytes: u64,
    model: String,
    n_genes: usize,
    first_genes: Vec<String>,
    batch_key: String,
    labels_key: Option<String>,
    moves_embedding: bool,
    /// What versions hold, where it is more than columns that surgery trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<Layout>,
    options: BTreeMap<String, serde_json::Value>,
    training: BTreeMap<String, serde_json::Value>,
    conditions: Vec<ConditionKey>,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::Reference`]
pub fn run(args: &InspectArgs, output: &Output) -> Result<()> {
    if Pack::is_one(&args.path) {
        output.show(&PackSummary::new(&Pack::open(&args.path)?, args.ca.as_deref())?);
        return Ok(());
    }
    match inspect::inspect(&args.path) {
        Ok(summary) => output.show(&summary),
        // A folder of a format that is known is no reference.
        Err(source @ archipelago_anndata::Error::OtherFormat { .. }) => {
            return Err(Error::Cells { path: args.path.clone(), source });
        }
        Err(_) if args.path.is_dir() => output.show(&reference(&args.path)?),
        Err(source) => return Err(Error::Cells { path: args.path.clone(), source }),
    }
    Ok(())
}

fn reference(path: &Path) -> Result<ReferenceSummary> {
    let OpenReference { dir, reference } = OpenReference::open(path)?;
    let card = reference.base.card;
    Ok(ReferenceSummary {
        version: dir.version().id(),
        base: dir.version().base.digest,
        base_bytes: dir.version().base.size,
        model: card.model,
        n_genes: card.genes.len(),
        first_genes: card.genes.into_iter().take(3).collect(),
        batch_key: card.batch_key,
        labels_key: card.labels_key,
        moves_embedding: card.moves_embedding,
        layout: Some(card.layout).filter(|layout| !layout.is_plain()),
        options: card.config,
        training: card.training,
        conditions: reference.columns.into_keys().collect(),
    })
}

impl fmt::Display for ReferenceSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "base        {} ({} bytes)", self.base, self.base_bytes)?;
        writeln!(f, "model       {}, {} genes ({}, …)", self.model, self.n_genes, self.first_genes.join(", "))?;
        writeln!(f, "batch key   {}", self.batch_key)?;
        if let Some(key) = &self.labels_key {
            writeln!(f, "labels key  {key}")?;
        }
        let moves = if self.moves_embedding { "moves a query's embedding" } else { "cannot move a query's embedding" };
        match self.layout.as_ref().map(|layout| &layout.growth) {
            Some(Growth::NoSurgery { reason }) => writeln!(f, "surgery     not possible: {reason}")?,
            _ => writeln!(f, "surgery     {moves}")?,
        }
        self.layout.iter().try_for_each(|layout| write_layout(f, layout))?;
        writeln!(f, "options     {}", list(&self.options))?;
        writeln!(f, "training    {}", list(&self.training))?;
        writeln!(f, "conditions  {}", self.conditions.len())?;
        self.conditions.iter().try_for_each(|key| writeln!(f, "  {key}"))
    }
}

/// What keys own beside trained tensors, and the parts.
fn write_layout(f: &mut fmt::Formatter<'_>, layout: &Layout) -> fmt::Result {
    for axis in &layout.axes {
        let kinds = [(TensorKind::Trained, "trained"), (TensorKind::Statistic, "computed"), (TensorKind::Fact, "fact")];
        let named =
            kinds.iter().flat_map(|(kind, word)| axis.of_kind(*kind).map(move |name| format!("{name} ({word})")));
        writeln!(f, "axis        {}: {}", axis.section, named.collect::<Vec<_>>().join(", "))?;
        let shared: Vec<&str> = axis.shared.iter().map(ConditionKey::batch).collect();
        if !shared.is_empty() {
            writeln!(f, "  shared    {}", shared.join(", "))?;
        }
    }
    for (name, rule) in &layout.parts {
        let how = match rule {
            Rule::Union => "side by side",
            Rule::Pool { .. } => "added up",
        };
        writeln!(f, "part        {name}, members {how}")?;
    }
    Ok(())
}

fn list(values: &BTreeMap<String, serde_json::Value>) -> String {
    values.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}
