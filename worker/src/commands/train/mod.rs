//! `train`: a reference model from counts.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use archipelago_common::{
    condition::ConditionKey,
    fs,
    id::{Name, SiteId, VersionId},
    progress::{Continue, EpochReport},
    reference_dir::ReferenceDir,
    task::{EarlyStopping, TrainSpec},
};
use archipelago_models::{
    Categorical, CellConditions, Cells, CheckpointStore, Config, Device, Reference, Training,
    train::TrainPlan,
    train_reference,
    zoo::{self, scvi::ScviConfig},
};
use clap::Args;
use serde::Serialize;

use super::{CellArgs, DeviceArg};
use crate::{
    data::{AlignedCounts, SiteData},
    error::{Error, Result},
    output::Output,
    results,
};

/// Train a reference model on the batches of an h5ad file.
///
/// Each batch becomes a condition `owner/dataset/batch` of the reference. The directory that is written can be mapped
/// onto, published, and inspected. Options that are not given take the values of the field's surgery tutorials: two layers,
/// layer norm, covariates in the encoder, no batch norm.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker train cells.h5ad --batch-key batch --batches 10x_3pv1,10x_3pv2 --epochs 100 --out reference")]
pub struct TrainArgs {
    /// The h5ad file.
    file: PathBuf,
    /// The directory to write the reference and its results to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The obs column that names the batch.
    #[arg(long, default_value = "batch")]
    batch_key: String,
    #[command(flatten)]
    cells: CellArgs,
    /// First part of the condition keys: the operator who will publish the reference.
    #[arg(long, default_value = "reference")]
    owner: SiteId,
    /// Second part of the condition keys: the name of the data set.
    #[arg(long, default_value = "atlas")]
    dataset: Name,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
}

/// The network.
#[derive(Args, Debug)]
#[command(next_help_heading = "Model")]
struct ModelArgs {
    /// A model of the zoo, see `archipelago-worker models`.
    #[arg(long, default_value = "scvi")]
    model: String,
    /// Dimensions of the latent space [default: 10]
    #[arg(long)]
    n_latent: Option<usize>,
    /// Hidden layers of encoder and decoder [default: 2]
    #[arg(long)]
    n_layers: Option<usize>,
    /// Units of hidden layers [default: 128]
    #[arg(long)]
    n_hidden: Option<usize>,
    /// Distribution of the counts: zinb, nb or poisson [default: zinb]
    #[arg(long)]
    gene_likelihood: Option<String>,
    /// What the dispersion depends on: gene, gene-batch, gene-label or gene-cell [default: gene]
    #[arg(long)]
    dispersion: Option<String>,
    /// Where layer norm is: encoder, decoder, none or both [default: both]
    #[arg(long)]
    use_layer_norm: Option<String>,
    /// Where batch norm is: encoder, decoder, none or both [default: none]
    #[arg(long)]
    use_batch_norm: Option<String>,
    /// Whether the encoder takes the batch; without it surgery cannot move an embedding [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    encode_covariates: Option<bool>,
    /// Dropout rate of the encoder [default: 0.1]
    #[arg(long)]
    dropout_rate: Option<f64>,
    /// Any other option of the model, as `name=value`.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = parse_option)]
    options: Vec<(String, serde_json::Value)>,
}

/// The training run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Training")]
struct PlanArgs {
    /// Passes over the cells [default: 400, fewer for more than 20,000 cells]
    #[arg(long)]
    epochs: Option<u32>,
    /// Cells per minibatch.
    #[arg(long, default_value_t = 128)]
    batch_size: u32,
    /// Adam's step size.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// L2 penalty of the reference; surgery has none.
    #[arg(long, default_value_t = 1e-6)]
    weight_decay: f64,
    /// Epochs over which the weight of the KL term rises to 1; 0 starts at 1.
    #[arg(long, default_value_t = 400)]
    n_epochs_kl_warmup: u32,
    /// Share of the cells to train on; the rest validates.
    #[arg(long, default_value_t = 0.9)]
    train_size: f64,
    /// End when the validation ELBO has not improved for this many epochs [default: never]
    #[arg(long, value_name = "EPOCHS")]
    early_stopping_patience: Option<u32>,
    /// Seed of weights, minibatch order and noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    model: String,
    n_cells: usize,
    n_genes: usize,
    n_empty_cells: usize,
    conditions: Vec<ConditionKey>,
    epochs: usize,
    loss: Option<f64>,
    elbo: f64,
    reconstruction: f64,
    moves_embedding: bool,
    seconds: f64,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::UnknownBatch`], [`Error::Models`], [`Error::Checkpoint`]
pub fn run(args: &TrainArgs, output: &Output) -> Result<()> {
    let started = Instant::now();
    // Before the data is read: a misspelt option should not cost a minute.
    zoo::model(&args.model.model)?.resolve(&args.model.options())?;
    let data = SiteData::open(args.cells.spec(&args.file, &args.batch_key, None))?;
    let aligned = data.counts(&panel(&data, args)?)?;
    let spec = args.plan.spec();
    fs::create_dir(&args.out)?;
    let (reference, history) = train(args, &data, &aligned, &spec, output)?;
    let dir = ReferenceDir::write(&args.out, &reference.base, &reference.columns)?;
    let (cells, conditions) = (cells(&data, &aligned), conditions(args, &data)?);
    let fit = reference.evaluate(&cells, &conditions, spec.seed, args.device.into())?;
    let last = history.values().flatten().last();
    let summary = Summary {
        out: args.out.clone(),
        version: dir.version().id(),
        model: args.model.model.clone(),
        n_cells: data.n_cells(),
        n_genes: aligned.counts.n_cols(),
        n_empty_cells: aligned.n_empty_cells,
        conditions: reference.columns.keys().cloned().collect(),
        epochs: history.values().map(Vec::len).sum(),
        loss: last.map(|report| report.loss),
        elbo: -fit.negative_elbo,
        reconstruction: fit.reconstruction,
        moves_embedding: reference.base.card.moves_embedding,
        seconds: started.elapsed().as_secs_f64(),
    };
    results::write_history(&args.out, &history)?;
    results::write_json(&args.out.join("summary.json"), &summary)?;
    output.show(&summary);
    Ok(())
}

fn train(
    args: &TrainArgs,
    data: &SiteData,
    aligned: &AlignedCounts,
    spec: &TrainSpec,
    output: &Output,
) -> Result<(Reference, results::History)> {
    let n_epochs = TrainPlan::of_spec(spec, data.n_cells())?.n_epochs;
    let (options, cells, conditions) = (args.model.options(), cells(data, aligned), conditions(args, data)?);
    let training = Training {
        model: &args.model.model,
        options: &options,
        genes: data.genes(),
        cells: &cells,
        conditions: &conditions,
        batch_key: &args.batch_key,
        labels_key: args.cells.labels_key.as_deref(),
        spec,
        device: Device::from(args.device),
    };
    output.note(format_args!("training on {} cells × {} genes", data.n_cells(), data.genes().len()));
    let mut display = output.training(u64::from(n_epochs));
    let mut progress = |report: &EpochReport| {
        display.epoch("reference", report);
        Continue::Yes
    };
    let mut checkpoint = FileCheckpoint { path: args.out.join("training.checkpoint") };
    let trained = train_reference(&training, &mut progress, &mut checkpoint).map_err(|error| match error {
        archipelago_models::Error::Checkpoint { .. } => {
            Error::Checkpoint { path: checkpoint.path.clone(), source: error }
        }
        other => Error::Models(other),
    })?;
    checkpoint.discard();
    display.finish();
    Ok((trained.reference, results::History::from([("reference".to_owned(), trained.history)])))
}

/// The panel is the file's genes; naming one twice would leave no order to align a query to.
fn panel(data: &SiteData, args: &TrainArgs) -> Result<Vec<String>> {
    let genes = data.genes().to_vec();
    archipelago_anndata::align::align(&genes, &genes, Default::default())
        .map_err(|source| Error::Cells { path: args.file.clone(), source })?;
    Ok(genes)
}

fn conditions(args: &TrainArgs, data: &SiteData) -> Result<CellConditions> {
    let key_of = |batch: &str| ConditionKey::new(args.owner.clone(), args.dataset.clone(), batch);
    Ok(CellConditions::from_batches(&Categorical::from_values(data.batches()), key_of)?)
}

fn cells<'a>(data: &SiteData, aligned: &'a AlignedCounts) -> Cells<'a> {
    let mut cells = Cells::new(&aligned.counts);
    let labels = data.labels().and_then(|labels| labels.iter().cloned().collect::<Option<Vec<_>>>());
    cells.labels = labels.map(|labels| Categorical::from_values(&labels));
    cells
}

impl PlanArgs {
    fn spec(&self) -> TrainSpec {
        TrainSpec {
            epochs: self.epochs,
            minibatch: self.batch_size,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            n_epochs_kl_warmup: Some(self.n_epochs_kl_warmup).filter(|&epochs| epochs > 0),
            train_size: self.train_size,
            early_stopping: self.early_stopping_patience.map(|patience| EarlyStopping { patience, min_delta: 0.0 }),
            seed: self.seed,
            ..TrainSpec::default()
        }
    }
}

impl ModelArgs {
    fn options(&self) -> Config {
        // The scVI family shares its network's options; the others start from their own defaults.
        let is_of_scvi_family = ["scvi", "scanvi"].contains(&self.model.as_str());
        let mut options = if is_of_scvi_family { ScviConfig::for_surgery().to_options() } else { Config::new() };
        let given: [(&str, Option<serde_json::Value>); 9] = [
            ("n_latent", self.n_latent.map(Into::into)),
            ("n_layers", self.n_layers.map(Into::into)),
            ("n_hidden", self.n_hidden.map(Into::into)),
            ("gene_likelihood", self.gene_likelihood.clone().map(Into::into)),
            ("dispersion", self.dispersion.clone().map(Into::into)),
            ("use_layer_norm", self.use_layer_norm.clone().map(Into::into)),
            ("use_batch_norm", self.use_batch_norm.clone().map(Into::into)),
            ("encode_covariates", self.encode_covariates.map(Into::into)),
            ("dropout_rate", self.dropout_rate.map(Into::into)),
        ];
        options.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        options.extend(self.options.iter().cloned());
        options
    }
}

/// `name=value`; a value that is not JSON is text.
fn parse_option(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected `name=value`")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// A training run's checkpoint beside its results, from which a killed run goes on.
struct FileCheckpoint {
    path: PathBuf,
}

impl FileCheckpoint {
    fn discard(&self) {
        // One that stays behind is refused or taken up by the next run; both are said there.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl CheckpointStore for FileCheckpoint {
    fn load(&mut self) -> archipelago_models::Result<Option<Vec<u8>>> {
        if !self.path.exists() {
            return Ok(None);
        }
        tracing::warn!(path = %self.path.display(), "going on from the checkpoint of a run that did not finish");
        Ok(Some(fs::read_bounded(&self.path, archipelago_common::limits::BLOB_BYTES)?))
    }

    fn save(&mut self, checkpoint: &[u8]) -> archipelago_models::Result<()> {
        Ok(fs::write_atomic(Path::new(&self.path), checkpoint)?)
    }
}

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
        writeln!(f, "training    {} epochs, {:.1} s", self.epochs, self.seconds)?;
        writeln!(f, "ELBO        {:.3} per cell", self.elbo)?;
        write!(f, "likelihood  {:.3} per cell (negative log)", self.reconstruction)?;
        if !self.moves_embedding {
            write!(f, "\nnote        surgery cannot move a query's embedding: the encoder does not take the batch")?;
        }
        Ok(())
    }
}
