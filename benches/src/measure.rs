//! Our side of one case, in a process of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use archipelago_analysis::{
    CsrView,
    preprocess::{CP10K, log1p, normalize_total},
};
use archipelago_anndata::{Csr, H5adFile};
use archipelago_common::{
    ConditionKey,
    progress::{Continue, EpochReport},
    task::{Stopping, TrainSpec},
};
use archipelago_models::{
    Categorical, CellConditions, Cells, Compute, Config, Device, Engine, Moments, NoCheckpoints, Query, Reference,
    Training, data, distributions::Likelihood, model::Configured as _, surgery, train::FurtherOptions, train_reference,
    zoo, zoo::scvi::ScviConfig,
};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    cases::{ALPHA, BETA, LABELS, ModelArg, TYPES},
    machine, report, space, trees,
};

/// What one process measures.
#[derive(Args, Debug)]
pub(crate) struct MeasureArgs {
    /// The folder with the four files of a case.
    folder: PathBuf,
    /// The model.
    #[arg(long, value_enum, default_value_t = ModelArg::Scvi)]
    model: ModelArg,
    /// Passes over the cells.
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where training and surgery start, and the order of the cells.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Go through libtorch's autograd; on a CUDA device everything does.
    #[arg(long)]
    autograd: bool,
    /// On the first CUDA device.
    #[arg(long)]
    cuda: bool,
}

/// One measurement of one side.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Measured {
    /// Seconds of each epoch.
    pub(crate) epochs_s: Vec<f64>,
    /// Mean ELBO per validation cell, nats; see [`elbo`].
    pub(crate) elbo: Option<f64>,
    /// Largest memory in use.
    pub(crate) peak_mib: f64,
}

/// All measurements of one process, by kind: `train`, `latent`, `surgery`.
pub(crate) type Kinds = BTreeMap<String, Measured>;

/// Cells of one file.
pub(crate) struct File {
    pub(crate) counts: Csr,
    pub(crate) genes: Vec<String>,
    pub(crate) conditions: CellConditions,
    labels: Option<Categorical>,
    receptors: data::Receptors,
}

impl File {
    pub(crate) fn read(folder: &Path, name: &str, model: ModelArg) -> Result<Self> {
        let file = H5adFile::open(folder.join(format!("{name}.h5ad")))?;
        let counts = file.rows(None)?.read_all()?;
        let counts = if model.takes_logarithms() { log_normalised(&counts)? } else { counts };
        let batches: Option<Vec<String>> = file.obs().column("batch")?.to_strings().into_iter().collect();
        let batches = Categorical::from_values(&batches.context("a cell has no batch")?);
        let conditions = CellConditions::from_batches(&batches, |batch| format!("bench/data/{batch}").parse())?;
        let column = if model == ModelArg::Scgen { TYPES } else { LABELS };
        let labels = file.obs().column(column).ok().and_then(|labels| labels.to_strings().into_iter().collect());
        let labels = labels.map(|labels: Vec<String>| Categorical::from_values(&labels));
        let chain = |chain: data::Chain| {
            let column = file.obs().column(if chain == data::Chain::Alpha { ALPHA } else { BETA }).ok();
            (chain, column.map_or(vec![], |texts| texts.to_strings().into_iter().flatten().collect()))
        };
        let receptors = data::Receptors::new([data::Chain::Alpha, data::Chain::Beta].map(chain).into());
        Ok(Self { counts, genes: file.var().index().to_vec(), conditions, labels, receptors })
    }

    /// The cells as the model takes them.
    fn cells(&self, model: ModelArg) -> Cells<'_> {
        let cells = Cells::new(&self.counts);
        if model == ModelArg::Multigrate {
            return cells.with("adt", second(&self.counts, &self.genes));
        }
        if model == ModelArg::Mvtcr {
            return cells.with("receptor", self.receptors.clone());
        }
        if model == ModelArg::Expimap {
            return cells.with(data::GENE_SETS, gene_sets(self.genes.len()));
        }
        match self.labels.clone().filter(|_| model.takes_labels()) {
            Some(labels) => cells.with(data::LABELS, labels).found_at(data::LABELS, format!("{}{LABELS}", data::OBS)),
            None => cells,
        }
    }
}

/// A second modality, the same as the peer's script makes: logarithms of the first genes' counts.
fn second(counts: &Csr, genes: &[String]) -> data::Features {
    let some = counts.select_cols(&(0..N_SECOND).collect::<Vec<_>>()).expect("there are so many genes");
    let logarithms = some.data().iter().map(|count| count.ln_1p()).collect();
    let (indptr, indices) = (some.indptr().to_vec(), some.indices().to_vec());
    let values = Csr::new(some.n_rows(), N_SECOND, indptr, indices, logarithms).expect("only values have changed");
    data::Features::new(genes[..N_SECOND].to_vec(), values).expect("a name for each column")
}

/// Features of the second modality.
const N_SECOND: usize = 50;

/// Sets without a meaning, the same as the peers' script makes: each gene is in two.
fn gene_sets(n_genes: usize) -> data::GeneSets {
    let is_member = |set: usize, gene: usize| gene % N_SETS == set || (7 * gene + 3) % N_SETS == set;
    let members = |set| (0..n_genes).filter(|&gene| is_member(set, gene)).map(|gene| gene as u32).collect();
    let terms = (0..N_SETS).map(|set| format!("SET_{set}")).collect();
    data::GeneSets::new(terms, (0..N_SETS).map(members).collect(), n_genes).expect("positions ascend")
}

/// Number of gene sets, about as many as Reactome has for variable genes.
const N_SETS: usize = 200;

/// The options of the field's surgery tutorials, for the models of scvi-tools.
pub(crate) fn options() -> Config {
    ScviConfig { gene_likelihood: Likelihood::Nb, ..ScviConfig::for_surgery() }.options()
}

/// The same for any model.
fn options_of(model: ModelArg) -> Result<Config> {
    if model == ModelArg::Scgen {
        return Ok(Config::from([("hidden_layer_sizes".to_owned(), serde_json::json!([256, 128]))]));
    }
    if model == ModelArg::Multigrate {
        let options = [("modalities", serde_json::json!(["adt"])), ("losses", serde_json::json!(["nb", "mse"]))];
        return Ok(options.map(|(name, value)| (name.to_owned(), value)).into());
    }
    if model == ModelArg::Mvtcr {
        return Ok(Config::new());
    }
    Ok(if model.is_native() { zoo::model(model.name())?.options_for_surgery() } else { options() })
}

/// The card's minibatches, or those of the peer's script, all cells; weight decay as given.
pub(crate) fn spec(epochs: u32, weight_decay: f64) -> TrainSpec {
    let early_stopping = Some(Stopping::Never);
    let (epochs, weight_decay) = (Some(epochs), Some(weight_decay));
    TrainSpec { epochs, train_size: Some(1.0), weight_decay, early_stopping, ..TrainSpec::default() }
}

/// Hears of each epoch and keeps its time. What comes before the first epoch is part of it.
pub(crate) struct Clock {
    last: Instant,
    pub(crate) epochs_s: Vec<f64>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), epochs_s: Vec::new() }
    }

    pub(crate) fn lap(&mut self) -> Continue {
        self.epochs_s.push(self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
        Continue::Yes
    }
}

/// Does one piece of work that has no epochs, and notes the processor's seconds.
pub(crate) fn timed<T>(kinds: &mut Kinds, kind: &str, work: impl FnOnce() -> T) -> Result<T> {
    machine::reset_peak()?;
    let start = machine::processor_s()?;
    let result = work();
    let epochs_s = vec![machine::processor_s()? - start];
    kinds.insert(kind.to_owned(), Measured { epochs_s, elbo: None, peak_mib: machine::peak_mib()? });
    Ok(result)
}

/// Measures and prints JSON.
pub(crate) fn run(args: &MeasureArgs) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    tch::set_num_threads(args.threads as i32);
    let device = if args.cuda { Device::best() } else { Device::Cpu };
    anyhow::ensure!(!args.cuda || device != Device::Cpu, "libtorch finds no CUDA device");
    let engine = if args.autograd || args.cuda { Engine::Autograd } else { Engine::Fast };
    let compute = Compute { device, engine };
    match args.model {
        ModelArg::Treearches => return report::say(&serde_json::to_string(&trees::measure(&args.folder)?)?),
        ModelArg::Sagenet => {
            let spec = TrainSpec { seed: args.seed, ..spec(args.epochs, 0.0) };
            return report::say(&serde_json::to_string(&space::measure(&args.folder, &spec)?)?);
        }
        _ => {}
    }
    let mut kinds = Kinds::new();
    let reference = {
        let file = File::read(&args.folder, "reference", args.model)?;
        let (reference, measured) = train(&file, args, compute)?;
        kinds.insert("train".to_owned(), measured);
        machine::reset_peak()?;
        let mut clock = Clock::start();
        for _ in 0..args.epochs {
            let latent = reference.latent(&file.cells(args.model), &file.conditions, compute)?;
            clock.lap();
            anyhow::ensure!(latent.mean.nrows() == file.counts.n_rows(), "not every cell was embedded");
        }
        let epochs_s = clock.epochs_s;
        kinds.insert("latent".to_owned(), Measured { epochs_s, elbo: None, peak_mib: machine::peak_mib()? });
        reference
    };
    machine::reset_peak()?;
    kinds.insert("surgery".to_owned(), map(reference, args, compute)?);
    report::say(&serde_json::to_string(&kinds)?)
}

fn train(file: &File, args: &MeasureArgs, compute: Compute) -> Result<(Reference, Measured)> {
    let (cells, options) = (file.cells(args.model), options_of(args.model)?);
    let training = Training {
        model: zoo::model(args.model.name())?,
        options: &options,
        genes: &file.genes,
        cells: &cells,
        conditions: &file.conditions,
        batch_key: "batch",
        spec: &TrainSpec { seed: args.seed, ..spec_of(args.model, args.epochs) },
        further: &FurtherOptions::default(),
        compute,
    };
    let mut clock = Clock::start();
    let trained = train_reference(&training, &mut |_: &EpochReport| clock.lap(), &mut NoCheckpoints)?;
    let peak_mib = machine::peak_mib()?;
    check_engine(trained.engine, args.model, compute)?;
    let validation = File::read(&args.folder, "reference_validation", args.model)?;
    let elbo = elbo(&trained.reference, &validation, args.model, compute)?;
    Ok((trained.reference, Measured { epochs_s: clock.epochs_s, elbo, peak_mib }))
}

/// How the peers' scripts train; those of scGen and mvTCR always hold a tenth of the cells out.
fn spec_of(model: ModelArg, epochs: u32) -> TrainSpec {
    let spec = spec(epochs, weight_decay_of(model));
    match model {
        ModelArg::Scgen => TrainSpec { train_size: None, early_stopping: None, ..spec },
        ModelArg::Mvtcr => TrainSpec { train_size: None, ..spec },
        ModelArg::Multigrate => TrainSpec { minibatch: Some(128), ..spec },
        _ => spec,
    }
}

/// What the peers' scripts train with.
fn weight_decay_of(model: ModelArg) -> f64 {
    match model {
        ModelArg::Trvae | ModelArg::Scpoli => 0.04,
        ModelArg::Scgen | ModelArg::Expimap | ModelArg::Mvtcr | ModelArg::Sagenet | ModelArg::Treearches => 0.0,
        ModelArg::Scvi | ModelArg::Scanvi => 1e-6,
        ModelArg::Multigrate => 1e-3,
    }
}

fn check_engine(found: Engine, model: ModelArg, compute: Compute) -> Result<()> {
    anyhow::ensure!(!model.has_kernels() || found == compute.engine, "the kernels were passed by");
    Ok(())
}

/// Values as scGen takes them.
pub(crate) fn log_normalised(counts: &Csr) -> Result<Csr> {
    let view = CsrView::new(counts.n_cols(), counts.indptr(), counts.indices(), counts.data())?;
    let mut values = normalize_total(view, CP10K);
    log1p(&mut values);
    Ok(Csr::new(counts.n_rows(), counts.n_cols(), counts.indptr().to_vec(), counts.indices().to_vec(), values)?)
}

fn map(reference: Reference, args: &MeasureArgs, compute: Compute) -> Result<Measured> {
    let file = File::read(&args.folder, "query", args.model)?;
    let [key] = file.conditions.keys() else { anyhow::bail!("the query has more than one batch") };
    let query = Query { key: key.clone(), cells: file.cells(args.model) };
    let mut clock = Clock::start();
    let mapped = surgery(
        &reference.base,
        &query,
        &TrainSpec { weight_decay: Some(0.0), seed: args.seed, ..spec_of(args.model, args.epochs) },
        compute,
        &mut |_: &EpochReport| clock.lap(),
        &mut NoCheckpoints,
    )?;
    if mapped.history.is_empty() {
        // Nothing was trained: mapping is to lay the cells onto what the reference holds.
        reference.mapped(&query.cells, &file.conditions, Moments::Mean, compute)?;
        clock.lap();
    }
    let peak_mib = machine::peak_mib()?;
    check_engine(mapped.engine, args.model, compute)?;
    let grown = reference.with(key.clone(), mapped.columns)?;
    let validation = File::read(&args.folder, "query_validation", args.model)?;
    Ok(Measured { epochs_s: clock.epochs_s, elbo: elbo(&grown, &validation, args.model, compute)?, peak_mib })
}

/// Mean ELBO per cell; minus the mean squared error for a model whose loss is no bound of a likelihood.
fn elbo(reference: &Reference, file: &File, model: ModelArg, compute: Compute) -> Result<Option<f64>> {
    let fit = reference.evaluate(&file.cells(model), &file.conditions, 0, compute)?;
    Ok(match model {
        ModelArg::Scgen => Some(-fit.reconstruction()),
        // Its loss is no bound of a likelihood of one kind, and the peer's script gives none.
        ModelArg::Mvtcr => None,
        _ => Some(fit.elbo()),
    })
}

/// A condition of the growth measurements.
pub(crate) fn key(name: &str) -> Result<ConditionKey> {
    Ok(format!("bench/data/{name}").parse()?)
}
