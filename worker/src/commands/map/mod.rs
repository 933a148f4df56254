//! `map`: new batches onto a reference, without a coordinator.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Mutex, time::Instant};

use archipelago_common::{
    condition::{Columns, ConditionKey},
    fs,
    id::{Name, SiteId, VersionId},
    progress::Continue,
    reference_dir::ReferenceDir,
    task::{ColumnInit, ConditionMetrics, TrainSpec},
};
use archipelago_models::Surgery;
use clap::Args;
use serde::Serialize;

use super::{CellArgs, DeviceArg, OpenReference};
use crate::{
    data::{AlignedCounts, SiteData},
    error::Result,
    mapping::{self, QueryBatch, Surgeon},
    output::Output,
    results,
};

/// Map the batches of an h5ad file onto a reference by exact surgery.
///
/// Each batch becomes a new condition `owner/dataset/batch`; only its own columns are trained. The directory that is written
/// holds the grown reference (to map onto again, to compare), the mapped cells with their positions in
/// `obsm['X_archipelago']`, the history of training and a summary.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker map reference query.h5ad --batch-key batch --batches 10x_5p --epochs 50 --out mapped")]
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
    /// First part of the new condition keys.
    #[arg(long, default_value = "local")]
    owner: SiteId,
    /// Second part of the new condition keys: the name of the data set.
    #[arg(long, default_value = "query")]
    dataset: Name,
    /// Passes over the cells of each condition [default: 400, fewer for more than 20,000 cells]
    #[arg(long)]
    epochs: Option<u32>,
    /// Cells per minibatch.
    #[arg(long, default_value_t = 128)]
    batch_size: u32,
    /// Adam's step size.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Epochs over which the weight of the KL term rises to 1; 0 starts at 1.
    #[arg(long, default_value_t = 400)]
    n_epochs_kl_warmup: u32,
    /// How new columns start: mean (of the reference's) or random.
    #[arg(long, default_value = "mean")]
    init: ColumnInit,
    /// Seed of minibatch order, noise and random columns, together with the condition key.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the positions before training, to `obsm['X_archipelago_untrained']`.
    #[arg(long)]
    untrained: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    parent: VersionId,
    version: VersionId,
    n_cells: usize,
    n_empty_cells: usize,
    n_genes_found: usize,
    n_genes_panel: usize,
    conditions: BTreeMap<ConditionKey, ConditionMetrics>,
    seconds: f64,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Reference`], [`crate::Error::Cells`], [`crate::Error::UnknownBatch`], [`crate::Error::Models`]
pub fn run(args: &MapArgs, output: &Output) -> Result<()> {
    let started = Instant::now();
    let OpenReference { dir: parent, reference } = OpenReference::open(&args.reference)?;
    let card = &reference.base.card;
    if !card.moves_embedding {
        output.note("note: this reference's encoder does not take the batch, so positions will not move");
    }
    let batch_key = args.batch_key.as_deref().unwrap_or(&card.batch_key);
    let data = SiteData::open(args.cells.spec(&args.query, batch_key, Some(card)))?;
    let aligned = data.counts(&card.genes)?;
    let batches = QueryBatch::all(&data, &aligned, &args.owner, &args.dataset)?;
    if let Some(batch) = batches.iter().find(|batch| reference.columns.contains_key(&batch.key)) {
        return Err(archipelago_models::Error::KnownCondition { key: batch.key.clone() }.into());
    }
    let train = args.spec();
    let surgeon = Surgeon {
        base: &reference.base,
        base_digest: parent.version().base.digest,
        train: &train,
        device: args.device.into(),
        checkpoints: None,
    };
    let (surgeries, history) = map(&surgeon, &batches, output)?;
    fs::create_dir(&args.out)?;
    let mut grown = reference.columns.clone();
    grown.extend(batches.iter().zip(&surgeries).map(|(batch, surgery)| (batch.key.clone(), surgery.columns.clone())));
    let dir = ReferenceDir::write(&args.out, &reference.base, &grown)?;
    write_cells(args, &surgeon, &data, &batches, &surgeries)?;
    let summary = summary(args, &parent, &dir, &data, &aligned, batches.iter().zip(&surgeries), started);
    results::write_history(&args.out, &history)?;
    results::write_json(&args.out.join("summary.json"), &summary)?;
    output.show(&summary);
    Ok(())
}

fn map(surgeon: &Surgeon<'_>, batches: &[QueryBatch], output: &Output) -> Result<(Vec<Surgery>, results::History)> {
    let mut n_epochs = 0;
    for batch in batches {
        n_epochs += u64::from(surgeon.n_epochs(batch.cells.len())?);
    }
    let display = Mutex::new(output.training(n_epochs));
    let surgeries = surgeon.map_all(
        batches,
        &mapping::shared(&display, |display, key, report| {
            display.epoch(&key.to_string(), report);
            Continue::Yes
        }),
    )?;
    let history = display.into_inner().unwrap_or_else(|e| e.into_inner()).finish();
    Ok((surgeries, history))
}

fn write_cells(
    args: &MapArgs,
    surgeon: &Surgeon<'_>,
    data: &SiteData,
    batches: &[QueryBatch],
    surgeries: &[Surgery],
) -> Result<()> {
    let positions = |columns: &dyn Fn(&Surgery) -> Columns| {
        let each = batches.iter().zip(surgeries);
        each.map(|(batch, surgery)| surgeon.latent(batch, &columns(surgery))).collect::<Result<Vec<_>>>()
    };
    let mut layers = vec![(mapping::OBSM_KEY, positions(&|surgery| surgery.columns.clone())?)];
    if args.untrained {
        layers.push(("X_archipelago_untrained", positions(&|surgery| surgery.initial.clone())?));
    }
    mapping::write_mapped(&args.out.join("mapped.h5ad"), data, batches, &layers)
}

fn summary<'a>(
    args: &MapArgs,
    parent: &ReferenceDir,
    dir: &ReferenceDir,
    data: &SiteData,
    aligned: &AlignedCounts,
    mapped: impl Iterator<Item = (&'a QueryBatch, &'a Surgery)>,
    started: Instant,
) -> Summary {
    let coverage = aligned.alignment.coverage();
    Summary {
        out: args.out.clone(),
        parent: parent.version().id(),
        version: dir.version().id(),
        n_cells: data.n_cells(),
        n_empty_cells: aligned.n_empty_cells,
        n_genes_found: aligned.alignment.n_found,
        n_genes_panel: aligned.alignment.n_panel,
        conditions: mapped.map(|(batch, surgery)| (batch.key.clone(), mapping::metrics(surgery, coverage))).collect(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

impl MapArgs {
    fn spec(&self) -> TrainSpec {
        TrainSpec {
            epochs: self.epochs,
            minibatch: self.batch_size,
            learning_rate: self.learning_rate,
            n_epochs_kl_warmup: Some(self.n_epochs_kl_warmup).filter(|&epochs| epochs > 0),
            init: self.init,
            seed: self.seed,
            ..TrainSpec::default()
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mapped      {}", self.out.join("mapped.h5ad").display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "parent      {}", self.parent)?;
        writeln!(f, "genes       {} of {} in the panel", self.n_genes_found, self.n_genes_panel)?;
        writeln!(f, "time        {:.1} s", self.seconds)?;
        for (key, metrics) in &self.conditions {
            let ConditionMetrics { n_cells, epochs, elbo, reconstruction, .. } = metrics;
            writeln!(
                f,
                "{key}  {n_cells} cells, {epochs} epochs, ELBO {elbo:.3}, negative log-likelihood {reconstruction:.3}"
            )?;
        }
        Ok(())
    }
}
