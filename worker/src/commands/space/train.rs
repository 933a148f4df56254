//! `space train`: the networks of sections.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Mutex, time::Instant};

use archipelago_anndata::{Categorical as Codes, Column};
use archipelago_common::{
    condition::ConditionKey,
    fs,
    id::{Name, SiteId, VersionId},
    progress::{Continue, EpochReport},
    reference_dir::ReferenceDir,
    task::TrainSpec,
};
use archipelago_models::{
    CellConditions, Cells, Compute, Config, Device, Engine, Reference, Training,
    train::FurtherOptions,
    zoo::space::{
        COORDINATES, Partition, Sagenet, SagenetConfig,
        ensemble::{Given, Learnt, add_sections, config_of, empty},
        member::Trained,
    },
};
use clap::Args;
use serde::Serialize;

use super::{SECTIONS, SPATIAL, check_genes, open};
use crate::{
    commands::{
        CellArgs, EngineArg,
        train::{OptionsOf, panel_of_file},
    },
    data::{AlignedCounts, DataSpec, SiteData},
    error::{Error, Result},
    existing,
    fields::Source,
    memory::MemoryArgs,
    output::Output,
    results,
};

/// Train networks on sections: cells whose places are known.
///
/// Every batch is a section. X holds values that are normalised and log-transformed (`preprocess --target-sum 1e4`), obsm the places. The
/// directory that is written holds the ensemble, and `sections.h5ad`, the cells with their partitions. With `--onto` the networks of
/// further sections are added to an ensemble, with its genes and its options.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker space train normalised.h5ad --batch-key section --batches section0,section1 --out ensemble\n  \
    archipelago-worker space train normalised.h5ad --resolutions 0.1,0.5 --network-epochs 30 --out ensemble\n  \
    archipelago-worker space train others.h5ad --onto ensemble --out larger")]
pub(super) struct TrainArgs {
    /// The h5ad file.
    file: PathBuf,
    /// The directory to write the ensemble and its results to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The obs column that names the section.
    #[arg(long, default_value = "batch")]
    batch_key: String,
    #[command(flatten)]
    cells: CellArgs,
    /// Obs columns of partitions to learn instead of communities of near cells, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    partition_keys: Vec<String>,
    /// Add to the ensemble of this directory.
    #[arg(long, value_name = "ENSEMBLE")]
    onto: Option<PathBuf>,
    /// First part of the sections' keys: the operator who will publish the ensemble [default: reference]
    #[arg(long)]
    owner: Option<SiteId>,
    /// Second part of the sections' keys: the name of the data set [default: atlas]
    #[arg(long)]
    dataset: Option<Name>,
    #[command(flatten)]
    options: OptionsOf<Sagenet>,
    /// Who computes losses and gradients.
    #[arg(long, value_enum, default_value_t = EngineArg::Fast)]
    engine: EngineArg,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    n_genes: usize,
    n_empty_cells: usize,
    sections: Vec<Section>,
    seconds: f64,
}

/// A section that was learnt.
#[derive(Serialize)]
struct Section {
    key: ConditionKey,
    n_cells: usize,
    /// Pairs of genes that go together, and the penalty under which they were found.
    n_edges: usize,
    alpha: f64,
    networks: Vec<Network>,
}

/// A network that was trained.
#[derive(Serialize)]
struct Network {
    partition: String,
    n_parts: usize,
    loss: f64,
    accuracy: f64,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::UnknownBatch`], [`Error::LacksGenes`], [`Error::Models`] for a section that gives nothing to learn
pub(super) fn run(args: &TrainArgs, output: &Output) -> Result<()> {
    let started = Instant::now();
    let onto = args.onto.as_deref().map(open).transpose()?.map(|(open, _)| open.reference);
    let options = args.options.given();
    if onto.is_some() && !options.is_empty() {
        let (what, found) = ("--onto", "given together with options of networks".to_owned());
        return Err(Error::Setting { what, found, expected: "the options of the ensemble that is added to" });
    }
    let config = SagenetConfig::parse(&options)?;
    let data = SiteData::open(args.spec(&config)?)?.handled(args.memory.handling(output));
    data.check_writable()?;
    let genes = match &onto {
        Some(ensemble) => ensemble.base.card.genes.clone(),
        None => panel_of_file(&data)?,
    };
    let aligned = data.counts(&genes)?;
    check_genes(&args.file, &aligned.alignment)?;
    let work = Work { args, data, aligned, genes, options };
    let (reference, learnt, history) = work.learn(onto, output)?;
    fs::create_dir(&args.out)?;
    existing::begin(&args.out)?;
    let dir = ReferenceDir::write_with_parts(&args.out, &reference.base, &reference.columns, &reference.parts)?;
    work.write_sections(&learnt)?;
    let summary = Summary {
        out: args.out.clone(),
        version: dir.version().id(),
        n_genes: work.genes.len(),
        n_empty_cells: work.aligned.n_empty_cells,
        sections: learnt.iter().map(Section::of).collect::<Result<_>>()?,
        seconds: started.elapsed().as_secs_f64(),
    };
    results::write_history(&args.out, &history)?;
    results::write_json(&args.out.join(existing::SUMMARY), &summary)?;
    existing::end(&args.out);
    output.show(&summary);
    Ok(())
}

/// Cells that were read, and what is to be made of them.
struct Work<'a> {
    args: &'a TrainArgs,
    data: SiteData,
    aligned: AlignedCounts,
    genes: Vec<String>,
    options: Config,
}

type LearntSections = BTreeMap<ConditionKey, Learnt>;

impl Work<'_> {
    fn learn(&self, onto: Option<Reference>, output: &Output) -> Result<(Reference, LearntSections, results::History)> {
        let Self { args, data, aligned, genes, options } = self;
        let owner = args.owner.clone().map_or_else(|| "reference".parse(), Ok)?;
        let dataset = args.dataset.clone().map_or_else(|| "atlas".parse(), Ok)?;
        let conditions = data.cell_names_on_axes().of_reference(&owner, &dataset)?;
        let cells: Cells<'_> = data.annotations().cells(&aligned.counts)?;
        let training = Training {
            model: &Sagenet,
            options,
            genes,
            cells: &cells,
            conditions: &conditions,
            batch_key: &args.batch_key,
            spec: &TrainSpec::default(),
            further: &FurtherOptions::default(),
            compute: Compute { device: Device::Cpu, engine: args.engine.into() },
        };
        let mut ensemble = match onto {
            Some(ensemble) => ensemble,
            None => {
                let mut ensemble = empty(&training)?;
                ensemble.base.card.recipe = data.recipe().map(|recipe| recipe.clone().for_panel(genes));
                ensemble
            }
        };
        let given = self.partitions(&conditions)?;
        let config = config_of(&ensemble)?;
        let n_partitions =
            if args.partition_keys.is_empty() { config.resolutions.len() } else { args.partition_keys.len() };
        let n_networks = conditions.keys().len() * n_partitions;
        output.note(format_args!("training {n_networks} networks on {} cells × {} genes", data.n_cells(), genes.len()));
        let display = Mutex::new(output.training((n_networks * config.network_epochs) as u64));
        let told = |name: &str, report: &EpochReport| {
            display.lock().unwrap_or_else(|e| e.into_inner()).epoch(name, report);
            Continue::Yes
        };
        let engine: Engine = args.engine.into();
        let learnt = add_sections(&mut ensemble, &cells, &conditions, &given, engine, &told);
        let history = display.into_inner().unwrap_or_else(|e| e.into_inner()).finish();
        Ok((ensemble, learnt?, history))
    }

    /// The partitions that obs columns name, for each section.
    fn partitions(&self, conditions: &CellConditions) -> Result<Given> {
        let mut given = Given::new();
        for name in &self.args.partition_keys {
            let values = self.data.column(name)?;
            let n_missing = values.iter().filter(|value| value.is_none()).count();
            if n_missing > 0 {
                let (path, column, n_cells) = (self.args.file.clone(), name.clone(), values.len());
                return Err(Error::MissingValues { path, column, n_missing, n_cells });
            }
            for (code, key) in conditions.keys().iter().enumerate() {
                let own = values.iter().zip(conditions.codes()).filter(|(_, of)| **of as usize == code);
                let own: Vec<&str> = own.filter_map(|(value, _)| value.as_deref()).collect();
                let partition = Partition { name: name.clone(), parts: numbers_of(&own) };
                given.entry(key.clone()).or_default().push(partition);
            }
        }
        Ok(given)
    }

    /// The sections with their partitions, as a file for scanpy.
    fn write_sections(&self, learnt: &LearntSections) -> Result<()> {
        let mut columns: BTreeMap<&str, Vec<Option<u32>>> = BTreeMap::new();
        for section in learnt.values() {
            for partition in &section.partitions {
                let column = columns.entry(&partition.name).or_insert_with(|| vec![None; self.data.n_cells()]);
                section.cells.iter().zip(&partition.parts).for_each(|(&cell, &part)| column[cell] = Some(part));
            }
        }
        self.data.write_all(&self.args.out.join(SECTIONS), |adata| {
            // Those that were given are there already.
            for (name, parts) in
                columns.iter().filter(|(name, _)| !self.args.partition_keys.iter().any(|k| k == **name))
            {
                adata.obs.insert(*name, numbered(parts)?)?;
            }
            Ok(())
        })
    }
}

impl TrainArgs {
    fn spec(&self, config: &SagenetConfig) -> Result<DataSpec> {
        let mut spec = self.cells.spec(&self.file, &self.batch_key);
        if spec.fields.get(COORDINATES).is_none() {
            spec.fields.set(COORDINATES, Source::Obsm { key: SPATIAL.to_owned(), names: None });
        }
        spec.to_train(&Sagenet, config)
    }
}

/// The number of each value, in the order in which values are sorted: numbers as such.
fn numbers_of(values: &[&str]) -> Vec<u32> {
    let mut names: Vec<&str> = values.to_vec();
    let number_of = |name: &str| name.parse::<u64>().ok();
    names.sort_by_key(|name| (number_of(name).is_none(), number_of(name), *name));
    names.dedup();
    let number = |value: &&str| names.iter().position(|name| name == value).unwrap_or_default() as u32;
    values.iter().map(number).collect()
}

/// A column of numbered parts.
pub(super) fn numbered(parts: &[Option<u32>]) -> archipelago_anndata::Result<Column> {
    let n_parts = parts.iter().flatten().max().map_or(0, |most| most + 1);
    let codes = parts.iter().map(|part| part.map_or(-1, |part| part as i32)).collect();
    Ok(Column::Categorical(Codes::new(codes, (0..n_parts).map(|part| part.to_string()).collect::<Vec<_>>(), false)?))
}

impl Section {
    fn of((key, learnt): (&ConditionKey, &Learnt)) -> Result<Self> {
        let network = |(partition, trained): (&String, &Trained)| {
            let (partition, n_parts) = (partition.clone(), trained.n_classes()?);
            Ok(Network { partition, n_parts, loss: trained.loss, accuracy: trained.accuracy })
        };
        Ok(Self {
            key: key.clone(),
            n_cells: learnt.cells.len(),
            n_edges: learnt.networks.pairs.len(),
            alpha: learnt.networks.alpha,
            networks: learnt.networks.networks.iter().map(network).collect::<Result<_>>()?,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ensemble    {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        let n_cells: usize = self.sections.iter().map(|section| section.n_cells).sum();
        writeln!(f, "data        {n_cells} cells × {} genes, {} sections", self.n_genes, self.sections.len())?;
        write!(f, "training    {:.1} s", self.seconds)?;
        for Section { key, n_cells, n_edges, alpha, networks } in &self.sections {
            write!(f, "\n\n{key}: {n_cells} cells, {n_edges} pairs of genes (alpha {alpha:.3})")?;
            for Network { partition, n_parts, loss, accuracy } in networks {
                write!(f, "\n  {partition:<16} {n_parts:>3} parts, loss {loss:.3}, accuracy {accuracy:.3}")?;
            }
        }
        Ok(())
    }
}
