//! `train`: a reference model from counts.

mod gene_set_args;
mod model_args;
mod plan_args;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use archipelago_anndata::align::Duplicates;
use archipelago_common::{
    BaseCard, Section,
    condition::ConditionKey,
    fs,
    id::VersionId,
    progress::{Continue, EpochReport, Progress},
    reference_dir::ReferenceDir,
    task::TrainSpec,
};
use archipelago_models::{
    Blueprint, CellConditions, Cells, CheckpointStore, Compute, Config, Device, Engine, PredictFrom, Reference,
    Trained, Training,
    data::{CATEGORICAL, CONTINUOUS},
    model::Model,
    train::{Aim, TrainPlan},
    train_reference, train_reference_from, zoo,
};
use clap::Args;
use serde::Serialize;

pub(crate) use self::model_args::OptionsOf;
use self::{gene_set_args::GeneSetArgs, model_args::ModelArgs, plan_args::PlanArgs};
use super::{CellArgs, ComputeArgs, OpenReference, known::ConditionArgs};
use crate::{
    checkpoint::TrainingFile,
    data::{AlignedCounts, DataSpec, SiteData},
    error::{Error, Result},
    existing,
    fields::Source,
    fit::Fit,
    lists,
    memory::MemoryArgs,
    output::Output,
    results,
};

/// Train a reference model on the batches of an h5ad file.
///
/// Each batch becomes a condition `owner/dataset/batch` of the reference; a model with several condition keys takes what a cell's names on
/// them make together as its batch. The directory that is written can be mapped
/// onto, published, and inspected. Options that are not given take the values of the field's surgery tutorials: two layers,
/// layer norm, covariates in the encoder, no batch norm. A run that was killed goes on when the command is repeated.
#[derive(Args, Debug)]
#[command(after_help = examples())]
pub struct TrainArgs {
    /// The h5ad file.
    file: PathBuf,
    /// The directory to write the reference and its results to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The obs column that names the batch [default: batch, or as in `--from-reference`]
    #[arg(long)]
    batch_key: Option<String>,
    #[command(flatten)]
    cells: CellArgs,
    /// Obs columns of further categorical covariates, separated by commas.
    #[arg(long)]
    categorical_covariate_keys: Vec<String>,
    /// Obs columns of continuous covariates, separated by commas.
    #[arg(long)]
    continuous_covariate_keys: Vec<String>,
    /// Start from this trained reference of a smaller model, its genes, options and conditions.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["categorical_covariate_keys", "continuous_covariate_keys"])]
    from_reference: Option<PathBuf>,
    /// First part of the condition keys: the operator who will publish the reference [default: reference]
    #[arg(long)]
    owner: Option<archipelago_common::id::SiteId>,
    /// Second part of the condition keys: the name of the data set [default: atlas]
    #[arg(long)]
    dataset: Option<archipelago_common::id::Name>,
    #[command(flatten)]
    gene_sets: GeneSetArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// What came of it.
#[derive(Serialize)]
pub(super) struct Summary {
    out: PathBuf,
    version: VersionId,
    model: String,
    n_cells: usize,
    n_genes: usize,
    /// Features of each further panel, such as `n_proteins`.
    #[serde(flatten)]
    panels: BTreeMap<String, usize>,
    n_empty_cells: usize,
    conditions: Vec<ConditionKey>,
    epochs: usize,
    loss: Option<f64>,
    #[serde(flatten)]
    fit: Fit,
    moves_embedding: bool,
    /// Share of the labelled cells whose label the model predicts; only for a model that does.
    accuracy: Option<f64>,
    n_labelled: Option<usize>,
    engine: Engine,
    seconds: f64,
}

/// Everything that is known before training begins.
pub(super) struct Prepared {
    /// The model.
    pub(super) model: &'static dyn Model,
    pretrained: Option<Reference>,
    /// Its options, those that were given.
    pub(super) options: Config,
    data: SiteData,
    aligned: AlignedCounts,
    genes: Vec<String>,
    conditions: CellConditions,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::UnknownBatch`], [`Error::Models`], [`Error::Checkpoint`]
pub fn run(args: &TrainArgs, output: &Output) -> Result<()> {
    let started = Instant::now();
    let prepared = prepare(args, output)?;
    fs::create_dir(&args.out)?;
    let trained = train_shown(args, &prepared, output)?;
    let summary = write(args, &prepared, trained, started)?;
    results::write_json(&args.out.join(existing::SUMMARY), &summary)?;
    // Last, so that a run killed before this line does not train again.
    existing::end(&args.out);
    output.show(&summary);
    Ok(())
}

/// Writes a trained reference and its history; what there is to say of it.
///
/// # Errors  [`Error::Models`] and files that cannot be written
pub(super) fn write(args: &TrainArgs, prepared: &Prepared, trained: Trained, started: Instant) -> Result<Summary> {
    let Prepared { data, aligned, conditions, .. } = prepared;
    let cells = data.annotations().cells(&aligned.counts)?;
    let Trained { mut reference, history, engine } = trained;
    let card = &mut reference.base.card;
    card.recipe = data.recipe().map(|recipe| recipe.clone().for_panel(&card.genes));
    existing::begin(&args.out)?;
    let dir = ReferenceDir::write_with_parts(&args.out, &reference.base, &reference.columns, &reference.parts)?;
    let compute = Compute::from(args.compute);
    let fit = reference.evaluate(&cells, conditions, args.plan.seed, compute)?;
    let labelled = labelled_accuracy(&reference, prepared, &cells, compute.device)?;
    let summary = Summary {
        out: args.out.clone(),
        version: dir.version().id(),
        model: args.model.model.clone(),
        n_cells: data.n_cells(),
        n_genes: prepared.genes.len(),
        panels: panels(&reference.base.card)?,
        n_empty_cells: aligned.n_empty_cells,
        conditions: reference.columns.keys().filter(|key| *key.section() == Section::Condition).cloned().collect(),
        epochs: history.len(),
        loss: history.last().map(|report| report.loss),
        fit: Fit::new(&reference.base.card, &fit),
        moves_embedding: reference.base.card.moves_embedding,
        accuracy: labelled.and_then(|(n_right, n)| (n > 0).then(|| n_right as f64 / n as f64)),
        n_labelled: labelled.map(|(_, n)| n),
        engine,
        seconds: started.elapsed().as_secs_f64(),
    };
    results::write_history(&args.out, &results::History::from([("reference".to_owned(), history)]))?;
    Ok(summary)
}

/// Reads everything that training needs.
///
/// # Errors  [`Error::Cells`], [`Error::UnknownBatch`], [`Error::Models`]
pub(super) fn prepare(args: &TrainArgs, output: &Output) -> Result<Prepared> {
    let pretrained = args.from_reference.as_deref().map(OpenReference::open).transpose()?;
    let pretrained = pretrained.map(|open| open.reference);
    // Before the data is read: a misspelt option should not cost a minute.
    let model = zoo::model(&args.model.model)?;
    let options = args.model.options(model, pretrained.is_some());
    let configured = model.configure(&options)?;
    TrainPlan::new(model, Aim::Reference, &args.plan.spec(), 1)?.with(&args.plan.further())?;
    let spec = args.data_spec(pretrained.as_ref())?.to_train(model, configured.as_ref())?;
    spec.check_batch_key(args.batch_key.as_deref())?;
    let data = SiteData::open(spec)?.handled(args.memory.handling(output));
    let genes = match &pretrained {
        Some(reference) => reference.base.card.genes.clone(),
        None => panel_of_file(&data)?,
    };
    let data = data.on_panel(&genes);
    let aligned = data.counts(&genes)?;
    let conditions = args.conditions(&data, pretrained.as_ref())?;
    Ok(Prepared { model, pretrained, options, data, aligned, genes, conditions })
}

/// One training of what was prepared.
///
/// # Errors  those of the models
pub(super) fn train(
    args: &TrainArgs,
    prepared: &Prepared,
    spec: &TrainSpec,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    let Prepared { model, pretrained, options, data, aligned, genes, conditions } = prepared;
    let training = Training {
        model: *model,
        options,
        genes,
        cells: &data.annotations().cells(&aligned.counts)?,
        conditions,
        batch_key: &data.spec().batch_key,
        spec,
        further: &args.plan.further(),
        compute: args.compute.into(),
    };
    Ok(match pretrained {
        Some(pretrained) => train_reference_from(pretrained, &training, progress, checkpoints)?,
        None => train_reference(&training, progress, checkpoints)?,
    })
}

/// The same, shown to whoever waits, and taken up where it was killed.
fn train_shown(args: &TrainArgs, prepared: &Prepared, output: &Output) -> Result<Trained> {
    let Prepared { model, pretrained, data, genes, .. } = prepared;
    let spec = args.plan.spec();
    let aim = if pretrained.is_some() { Aim::FromPretrained } else { Aim::Reference };
    let n_epochs = TrainPlan::new(*model, aim, &spec, data.n_cells())?.n_epochs;
    output.note(format_args!("training on {} cells × {} genes", data.n_cells(), genes.len()));
    let mut display = output.training(u64::from(n_epochs));
    let mut progress = |report: &EpochReport| {
        display.epoch("reference", report);
        Continue::Yes
    };
    let mut checkpoint = args.checkpoint();
    let trained = train(args, prepared, &spec, &mut progress, &mut checkpoint);
    display.finish();
    trained.map_err(|error| match error {
        Error::Models(error @ archipelago_models::Error::Checkpoint { .. }) => {
            Error::Checkpoint { path: checkpoint.path().to_owned(), source: Box::new(error) }
        }
        other => other,
    })
}

/// How many of the labelled cells get their own label, and how many there are; nothing from a model that predicts none.
fn labelled_accuracy(
    reference: &Reference,
    prepared: &Prepared,
    cells: &Cells<'_>,
    device: Device,
) -> Result<Option<(usize, usize)>> {
    let predicted = reference.predict_labels(cells, &prepared.conditions, PredictFrom::Mean, 0, device);
    let predicted = match predicted {
        Err(archipelago_models::Error::NotLabelModel { .. }) => return Ok(None),
        other => other?,
    };
    let labels = prepared.data.annotations().labels().unwrap_or_default();
    let known = |label: &Option<String>| label.as_ref().is_some_and(|label| predicted.labels.contains(label));
    let pairs = labels.iter().zip(predicted.most_probable()).filter(|(label, _)| known(label));
    let (right, wrong): (Vec<_>, Vec<_>) = pairs.partition(|(label, found)| label.as_deref() == Some(*found));
    Ok(Some((right.len(), right.len() + wrong.len())))
}

/// The panel is the file's genes, each once: naming one twice would leave no order to align a query to. For a model that takes gene
/// sets it is those that are in one.
pub(crate) fn panel_of_file(data: &SiteData) -> Result<Vec<String>> {
    let mut genes = data.genes().to_vec();
    if data.spec().duplicate_genes == Duplicates::Sum {
        let mut known = HashSet::new();
        genes.retain(|gene| known.insert(gene.clone()));
    }
    if let Some(sets) = data.annotations().needed_gene_sets() {
        let own = data.genes().iter().zip(sets.is_in_a_set());
        let in_a_set: HashSet<&String> = own.filter(|(_, is_in)| *is_in).map(|(gene, _)| gene).collect();
        genes.retain(|gene| in_a_set.contains(gene));
    }
    archipelago_anndata::align::align(&genes, &genes, Default::default())
        .map_err(|source| Error::Cells { path: data.spec().path.clone(), source })?;
    Ok(genes)
}

impl TrainArgs {
    /// The directory of the result.
    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// The seed of everything.
    pub(super) fn seed(&self) -> u64 {
        self.plan.seed
    }

    /// How a reference is trained, as far as it was said.
    pub(super) fn spec(&self) -> TrainSpec {
        self.plan.spec()
    }

    fn data_spec(&self, pretrained: Option<&Reference>) -> Result<DataSpec> {
        let usual = pretrained.map_or(BATCH_KEY, |reference| &reference.base.card.batch_key);
        let mut spec = self.cells.spec(&self.file, self.batch_key.as_deref().unwrap_or(usual));
        let covariates =
            [(CATEGORICAL, &self.categorical_covariate_keys), (CONTINUOUS, &self.continuous_covariate_keys)];
        for (field, keys) in covariates.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            spec.fields.set_all(field, lists::split(keys).into_iter().map(Source::obs).collect());
        }
        self.gene_sets.add_to(&mut spec);
        match pretrained {
            Some(reference) => spec.remembering(&reference.base.card),
            None => Ok(spec),
        }
    }

    fn conditions(&self, data: &SiteData, pretrained: Option<&Reference>) -> Result<CellConditions> {
        if let Some(reference) = pretrained {
            let among = ConditionArgs { owner: self.owner.clone(), dataset: self.dataset.clone(), names: None };
            return among.conditions(data, reference);
        }
        let owner = self.owner.clone().map_or_else(|| OWNER.parse(), Ok)?;
        let dataset = self.dataset.clone().map_or_else(|| DATASET.parse(), Ok)?;
        Ok(data.cell_names_on_axes().of_reference(&owner, &dataset)?)
    }

    fn checkpoint(&self) -> TrainingFile {
        TrainingFile::new(self.out.join(existing::TRAINING), self.plan.checkpoint_every)
    }
}

/// What the models' cards show.
fn examples() -> String {
    let examples = zoo::ZOO.iter().map(|model| format!("\n  archipelago-worker train {}", model.card().example));
    examples.fold("Examples:".to_owned(), |text, example| text + &example)
}

/// How many features each panel beside the genes has, under the name that summaries give the number.
fn panels(card: &BaseCard) -> Result<BTreeMap<String, usize>> {
    let registry = Blueprint::of_card(card)?.registry;
    Ok(registry.panels().map(|(field, panel)| (format!("{N}{field}"), panel.names.len())).collect())
}

/// What the number of anything is called by.
const N: &str = "n_";
/// The obs column of batches where none is named.
const BATCH_KEY: &str = "batch";
/// The owner of a reference's conditions where none is named.
const OWNER: &str = "reference";
/// The data set of a reference's conditions where none is named.
const DATASET: &str = "atlas";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reference   {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(
            f,
            "data        {} cells × {} genes, {} conditions",
            self.n_cells,
            self.n_genes,
            self.conditions.len()
        )?;
        for (name, n_features) in &self.panels {
            writeln!(f, "{:<11} {n_features}", name.trim_start_matches(N))?;
        }
        writeln!(f, "training    {} epochs, {:.1} s", self.epochs, self.seconds)?;
        self.fit.fmt(f)?;
        if let (Some(accuracy), Some(n)) = (self.accuracy, self.n_labelled) {
            write!(f, "\naccuracy    {accuracy:.3} of {n} labelled cells are predicted as labelled")?;
        }
        if !self.moves_embedding {
            write!(f, "\nnote        surgery cannot move a query's embedding: the encoder does not take the batch")?;
        }
        Ok(())
    }
}
