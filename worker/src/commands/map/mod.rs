//! `map`: new batches onto a reference, without a coordinator.

mod exact;
mod extension_args;
mod shot;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Instant,
};

use archipelago_anndata::{Csr, align::Alignment};
use archipelago_common::{
    Figure,
    condition::ConditionKey,
    fs,
    id::{Name, SiteId, VersionId},
    reference_dir::ReferenceDir,
    task::{ColumnInit, ConditionMetrics, MissingGenes, Stopping, TrainSpec, Warmup},
};
use archipelago_models::{
    Blueprint, CellConditions, Engine, Extension,
    data::{FieldValues, Panel, PanelAlignment},
    surgery::{Likeness, Start},
};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::{extension_args::ExtensionArgs, upstream::UpstreamArgs};
use super::{CellArgs, ComputeArgs, OpenReference, defaults};
use crate::{
    checkpoint::EPOCHS_PER_CHECKPOINT,
    data::{AlignedCounts, DataSpec, SiteData},
    error::{Error, Result},
    existing,
    fields::SourceMap,
    fit,
    mapping::{self, QueryGroup, QueryKeys, Rules},
    memory::MemoryArgs,
    naming::NameTable,
    output::Output,
    results,
};

/// Map the batches of an h5ad file onto a reference by surgery.
///
/// Each batch becomes a new condition `owner/dataset/batch`; where the reference takes several condition keys, what a cell's names make
/// together is its batch. By exact surgery (the default) only its own columns are trained,
/// so the result can be merged with others; upstream's surgery follows scvi-tools to the letter (in evaluation mode, as it does with a
/// current Lightning), moves more, and is labelled approximate. Shot surgery trains nothing: a batch takes over the columns of that batch of the reference as which its cells are
/// reconstructed best; with `--epochs` exact surgery starts from these. A reference that takes labels learns from those that the
/// query has, and takes a cell without one as unlabelled. The directory that is written holds the grown reference (to map onto again, to compare), the mapped cells with
/// their positions in `obsm['X_archipelago']`, the history of training and a summary. A run that was killed goes on when the
/// command is repeated.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker map reference query.h5ad --batch-key batch --batches 10x_5p --epochs 50 --out mapped\n  \
    archipelago-worker map reference query.h5ad --surgery shot --out at-once\n  \
    archipelago-worker map reference query.h5ad --surgery upstream --weight-decay 0 --epochs 50 --out compared")]
pub struct MapArgs {
    /// The reference directory.
    reference: PathBuf,
    /// The h5ad file with the query.
    query: PathBuf,
    /// The directory to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The obs column that names the batch [default: as in the reference]
    #[arg(long)]
    batch_key: Option<String>,
    #[command(flatten)]
    cells: CellArgs,
    /// Take every cell as unlabelled, whatever the file says.
    #[arg(long, conflicts_with = "labels_key")]
    ignore_labels: bool,
    /// First part of the new condition keys.
    #[arg(long, default_value = "local")]
    owner: SiteId,
    /// Second part of the new condition keys: the name of the data set.
    #[arg(long, default_value = "query")]
    dataset: Name,
    /// Under whose rules.
    #[arg(long, value_enum, default_value_t = SurgeryArg::Exact)]
    surgery: SurgeryArg,
    /// Share of a batch's cells by which shot surgery finds the batch that it is most like [default: all of them]
    #[arg(long, value_name = "SHARE")]
    subsample: Option<f64>,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    extension: ExtensionArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Also write the positions before training, to `obsm['X_archipelago_untrained']`; exact surgery only.
    #[arg(long)]
    untrained: bool,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// The training run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Training")]
struct PlanArgs {
    #[arg(long, help = defaults::help("Passes over the cells of each condition", defaults::epochs))]
    epochs: Option<u32>,
    #[arg(long, help = defaults::help("Cells per minibatch", |training| training.minibatch.to_string()))]
    batch_size: Option<u32>,
    #[arg(long, help = defaults::help("Adam's step size", |training| training.adam.rate.to_string()))]
    learning_rate: Option<f64>,
    #[arg(long, help = defaults::help(
        "Epochs over which the weight of the KL term rises; 0 starts at its full weight", defaults::kl_warmup
    ))]
    n_epochs_kl_warmup: Option<u32>,
    #[arg(long, value_name = "WEIGHT", help = defaults::help(
        "Full weight of the KL term", |training| training.max_kl_weight.to_string()
    ))]
    max_kl_weight: Option<f64>,
    /// Optimiser steps of each condition; without --epochs there are as many of these as it takes [default: no bound]
    #[arg(long, value_name = "STEPS")]
    max_steps: Option<u64>,
    #[arg(long, value_name = "EPOCHS", help = defaults::help(
        "End after so many epochs without a better figure of the condition's own validation cells; 0 is never",
        defaults::patience,
    ))]
    early_stopping_patience: Option<u32>,
    /// How new columns start: mean (of the reference's) or random; upstream's surgery knows random only.
    #[arg(long, default_value = "mean")]
    init: ColumnInit,
    /// Genes of the reference that the cells lack: left-out of the loss, or taken as zeros; upstream's surgery knows zeros only.
    #[arg(long, value_name = "HOW", default_value = "left-out")]
    missing_genes: MissingGenes,
    #[arg(long, value_name = "WEIGHT", help = defaults::help(
        "How strongly latent states are drawn to where cells of the reference lie, where the reference says where that is; 0 is not at \
         all, as upstream; exact surgery only", |training| training.reference_pull.to_string()
    ))]
    reference_pull: Option<f64>,
    /// Epochs from one checkpoint to the next; a run that was killed goes on from the last.
    #[arg(long, value_name = "EPOCHS", default_value_t = EPOCHS_PER_CHECKPOINT)]
    checkpoint_every: u32,
    /// Seed of minibatch order, noise and random columns, together with the condition key.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl PlanArgs {
    /// Whether shot surgery trains from what it has found.
    fn trains(&self) -> bool {
        self.epochs.is_some() || self.max_steps.is_some()
    }

    /// The first of the settings that say how epochs are, if one was given.
    fn of_epochs(&self) -> Option<(&'static str, String)> {
        let batch_size = self.batch_size.map(|n| ("--batch-size", n.to_string()));
        let rate = self.learning_rate.map(|rate| ("--learning-rate", rate.to_string()));
        let warmup = self.n_epochs_kl_warmup.map(|n| ("--n-epochs-kl-warmup", n.to_string()));
        let weight = self.max_kl_weight.map(|weight| ("--max-kl-weight", weight.to_string()));
        let patience = self.early_stopping_patience.map(|n| ("--early-stopping-patience", n.to_string()));
        batch_size.or(rate).or(warmup).or(weight).or(patience)
    }
}

/// Under whose rules a query is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum SurgeryArg {
    /// Ours: each batch's own columns and nothing else.
    Exact,
    /// Without training: each batch takes over the columns of the reference's batch that it is most like.
    Shot,
    /// scvi-tools': all batches together, and more moves; approximate.
    Upstream,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    surgery: &'static str,
    parent: VersionId,
    version: VersionId,
    n_cells: usize,
    n_empty_cells: usize,
    n_genes_found: usize,
    n_genes_panel: usize,
    /// How the features of the cells met those of the reference, by field.
    #[serde(flatten)]
    panels: BTreeMap<String, PanelMet>,
    /// Labels of the cells that the reference does not know, by field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    new_labels: BTreeMap<String, Vec<String>>,
    conditions: BTreeMap<ConditionKey, ConditionMetrics>,
    /// The reference's batch that each is most like, of shot surgery.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    likeness: BTreeMap<ConditionKey, Likeness>,
    /// How people read the figures of the conditions.
    #[serde(skip)]
    figures: Vec<Figure>,
    engine: Option<Engine>,
    seconds: f64,
    /// Of these, until the counts were read.
    reading_seconds: f64,
    /// Of these, while columns were trained.
    training_seconds: f64,
    /// Of these, while positions were computed and cells written.
    writing_seconds: f64,
}

/// How the features of the cells met those of the reference.
#[derive(Serialize)]
struct PanelMet {
    n_panel: usize,
    /// Features of the reference that the cells do not have.
    missing: Vec<String>,
    /// Features of the cells that the reference does not know.
    unknown: Vec<String>,
}

/// A query that is ready to be mapped.
struct Mapping<'a> {
    args: &'a MapArgs,
    parent: OpenReference,
    data: SiteData,
    /// How the query's genes met the panel.
    alignment: Alignment,
    n_empty_cells: usize,
    /// The counts of all cells, where all are trained together.
    counts: Option<Csr>,
    /// The keys of all cells.
    conditions: CellConditions,
    groups: Vec<QueryGroup>,
    /// What is added to the reference's model.
    extension: Extension,
    train: TrainSpec,
}

/// What either surgery leaves.
struct Mapped {
    dir: ReferenceDir,
    engine: Option<Engine>,
    history: results::History,
    conditions: BTreeMap<ConditionKey, ConditionMetrics>,
    likeness: BTreeMap<ConditionKey, Likeness>,
    /// When the columns were trained.
    trained: Instant,
}

/// Runs the command.
///
/// # Errors  [`Error::Reference`], [`Error::Cells`], [`Error::UnknownBatch`], [`Error::Models`], [`Error::Setting`]
pub fn run(args: &MapArgs, output: &Output) -> Result<()> {
    let started = Instant::now();
    args.check()?;
    let mapping = Mapping::prepare(args, output)?;
    let read = Instant::now();
    if !mapping.parent.reference.base.card.moves_embedding {
        output.note("note: this reference's encoder does not take the batch, so positions will not move");
    }
    fs::create_dir(&args.out)?;
    let mapped = match args.surgery {
        SurgeryArg::Exact => exact::map(&mapping, Start::Asked, output)?,
        SurgeryArg::Shot => shot::map(&mapping, output)?,
        SurgeryArg::Upstream => upstream::map(&mapping, output)?,
    };
    let summary = Summary {
        out: args.out.clone(),
        surgery: args.rules().label(),
        parent: mapping.parent.dir.version().id(),
        version: mapped.dir.version().id(),
        n_cells: mapping.data.n_cells(),
        n_empty_cells: mapping.n_empty_cells,
        n_genes_found: mapping.alignment.n_found,
        n_genes_panel: mapping.alignment.n_panel,
        panels: mapping.panels_met()?,
        new_labels: mapping.new_labels()?,
        conditions: mapped.conditions,
        likeness: mapped.likeness,
        figures: mapping.parent.reference.base.card.layout.figures.clone(),
        engine: mapped.engine,
        seconds: started.elapsed().as_secs_f64(),
        reading_seconds: (read - started).as_secs_f64(),
        training_seconds: (mapped.trained - read).as_secs_f64(),
        writing_seconds: mapped.trained.elapsed().as_secs_f64(),
    };
    results::write_history(&args.out, &mapped.history)?;
    results::write_json(&args.out.join(existing::SUMMARY), &summary)?;
    existing::end(&args.out);
    output.show(&summary);
    Ok(())
}

impl<'a> Mapping<'a> {
    fn prepare(args: &'a MapArgs, output: &Output) -> Result<Self> {
        let parent = OpenReference::open(&args.reference)?;
        let card = &parent.reference.base.card;
        let extension = args.extension.of(card, args.surgery)?;
        let spec = args.cells.seen_through(&args.query, args.batch_key.as_deref(), card)?;
        spec.check_batch_key(args.batch_key.as_deref())?;
        let usual = if args.ignore_labels { SourceMap::default() } else { spec.usual.clone() };
        let spec = DataSpec { usual, ..spec };
        let data = SiteData::open(spec)?.handled(args.memory.handling(output));
        data.check_writable()?;
        let layout = &card.layout;
        let keys = QueryKeys::new(&data, &args.owner, &args.dataset, layout)?;
        let own = keys.conditions.cells_of_own_keys(layout);
        if let Some(key) = own.keys().find(|key| parent.reference.columns.contains_key(key)) {
            return Err(archipelago_models::Error::KnownCondition { key: key.clone() }.into());
        }
        let (counts, of_groups) = match args.surgery {
            SurgeryArg::Exact | SurgeryArg::Shot => (None, data.counts_by_group(&card.genes, &keys.groups)?),
            SurgeryArg::Upstream => {
                let AlignedCounts { counts, alignment, n_empty_cells } = data.counts(&card.genes)?;
                let select = |cells: &Vec<usize>| counts.select_rows_stored(cells);
                let groups = keys.groups.iter().map(select).collect::<archipelago_anndata::Result<_>>()?;
                (Some(counts), AlignedCounts { counts: groups, alignment, n_empty_cells })
            }
        };
        let AlignedCounts { counts: of_groups, alignment, n_empty_cells } = of_groups;
        let groups = QueryGroup::all(&data, &keys, of_groups, &alignment);
        let (train, conditions) = (args.spec(), keys.conditions);
        Ok(Self { args, parent, data, alignment, n_empty_cells, counts, conditions, groups, extension, train })
    }

    /// How the cells' features meet each panel of the reference beside its genes.
    fn panels_met(&self) -> Result<BTreeMap<String, PanelMet>> {
        let registry = Blueprint::of_card(&self.parent.reference.base.card)?.registry;
        let met = |(field, panel): (&str, &Panel)| {
            let PanelAlignment { missing, unknown } = match self.data.annotations().field(field) {
                Some(FieldValues::Matrix(features)) => features.alignment(&panel.names),
                _ => PanelAlignment { missing: panel.names.clone(), unknown: vec![] },
            };
            if !unknown.is_empty() {
                let features = unknown.join(", ");
                tracing::warn!(field, features, "the reference does not know these; they are left out");
            }
            (field.to_owned(), PanelMet { n_panel: panel.names.len(), missing, unknown })
        };
        Ok(registry.panels().map(met).collect())
    }

    /// Labels that the reference does not know, of fields in which such ones are taken.
    fn new_labels(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let registry = Blueprint::of_card(&self.parent.reference.base.card)?.registry;
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for group in &self.groups {
            for (field, new) in registry.new_labels(&group.cells()?) {
                all.entry(field).or_default().extend(new);
            }
        }
        Ok(all.into_iter().map(|(field, new)| (field, new.into_iter().collect())).collect())
    }

    fn write_cells(&self, positions: &[(&str, Vec<crate::egress::Latent>)]) -> Result<()> {
        let path = self.args.out.join("mapped.h5ad");
        let base = &self.parent.dir.version().base.digest;
        let found = mapping::Found { positions, placed: None, names: &NameTable::default() };
        mapping::write_mapped(&path, &self.data, &self.groups, &found, (self.args.rules(), base))
    }
}

impl MapArgs {
    fn rules(&self) -> Rules {
        match self.surgery {
            SurgeryArg::Exact => Rules::Exact,
            SurgeryArg::Shot => Rules::Shot,
            SurgeryArg::Upstream => Rules::Upstream,
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |what, found: &str, expected| Err(Error::Setting { what, found: found.to_owned(), expected });
        if let Some(share) = self.subsample {
            if self.surgery != SurgeryArg::Shot {
                return refuse("--subsample", &share.to_string(), "nothing without `--surgery shot`");
            }
            if !(share > 0.0 && share <= 1.0) {
                return refuse("--subsample", &share.to_string(), "a share above 0 and up to 1");
            }
        }
        let given = self.upstream.given();
        match (self.surgery, given.first()) {
            (SurgeryArg::Exact | SurgeryArg::Shot, Some((what, found))) => {
                refuse(what, found, "nothing without `--surgery upstream`: exact surgery moves new columns only")
            }
            (SurgeryArg::Upstream, _) if self.untrained => {
                refuse("--untrained", "given", "nothing with `--surgery upstream`")
            }
            (SurgeryArg::Shot, None) if !self.plan.trains() => match self.plan.of_epochs() {
                Some((what, found)) => {
                    refuse(what, &found, "nothing without `--epochs` or `--max-steps`: shot surgery trains nothing")
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What was asked; the model knows the rest.
    fn spec(&self) -> TrainSpec {
        TrainSpec {
            epochs: self.plan.epochs,
            minibatch: self.plan.batch_size,
            learning_rate: self.plan.learning_rate,
            weight_decay: self.upstream.weight_decay(),
            kl_warmup: self.plan.n_epochs_kl_warmup.map(Warmup::over_epochs),
            max_kl_weight: self.plan.max_kl_weight,
            max_steps: self.plan.max_steps,
            missing_genes: self.plan.missing_genes,
            reference_pull: self.plan.reference_pull,
            early_stopping: self.plan.early_stopping_patience.map(Stopping::with_patience),
            init: self.plan.init,
            seed: self.plan.seed,
            ..TrainSpec::default()
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mapped      {}", self.out.join("mapped.h5ad").display())?;
        writeln!(f, "surgery     {}", self.surgery)?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "parent      {}", self.parent)?;
        writeln!(f, "genes       {} of {} in the panel", self.n_genes_found, self.n_genes_panel)?;
        for (field, PanelMet { n_panel, missing, unknown }) in &self.panels {
            let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            writeln!(f, "{field:<11} {} of {n_panel} in the panel", n_panel - missing.len())?;
            writeln!(f, "  missing   {}", list(missing))?;
            writeln!(f, "  left out  {}", list(unknown))?;
        }
        for (field, new) in &self.new_labels {
            writeln!(f, "{field:<11} new to the reference: {}", new.join(", "))?;
        }
        writeln!(f, "time        {:.1} s", self.seconds)?;
        for (key, metrics) in &self.conditions {
            let ConditionMetrics { n_cells, epochs, figures, .. } = metrics;
            writeln!(f, "{key}  {n_cells} cells, {epochs} epochs, {}", fit::line(&self.figures, figures))?;
        }
        for (key, Likeness { nearest, losses }) in &self.likeness {
            writeln!(f, "{key}  is most like {nearest}, of {}; loss {:.1}", losses.len(), losses[nearest])?;
        }
        Ok(())
    }
}
