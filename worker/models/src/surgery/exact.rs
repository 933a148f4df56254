//! Exact surgery: the columns of one condition as a pure function of base, cells, key, spec and seed.
//!
//! What makes it exact: batch norm uses the reference's running statistics, there is no dropout and no weight decay, noise,
//! minibatch order and initial columns come from a generator seeded with (seed, key), the kernels' sums have one order whatever the
//! number of threads, and libtorch computes on one. Several conditions run in parallel and do not know of each other.

use std::collections::BTreeMap;

use archipelago_common::{
    Base, Columns, ConditionKey, Digest, StateDict,
    layout::Growth,
    part::Contribution,
    progress::{Continue, EpochReport, Progress},
    task::{ColumnInit, MissingGenes, TrainSpec},
};
use rayon::prelude::*;

use super::measured::Measured;
use crate::{
    aggregate::Aggregate,
    blueprint::Blueprint,
    data::{CellConditions, Cells, Dataset, GrownAxis},
    device::{Compute, Device, Engine, OneThread},
    error::{Error, Result},
    extension::Extension,
    model::Module,
    nn::{Builder, ConditionSource, Mode, SeededNoise, Source, Trainable},
    reference::Reference,
    train::{Aim, CheckpointStore, Evaluation, NoCheckpoints, Seeds, TrainPlan, Trainer},
    zoo,
};

/// What to map: one condition and its cells.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The new condition.
    pub key: ConditionKey,
    /// Its cells, counts aligned to the reference's panel.
    pub cells: Cells<'a>,
}

/// The result of mapping one condition.
#[derive(Clone, PartialEq, Debug)]
pub struct Surgery {
    /// The trained columns.
    pub columns: Columns,
    /// The columns before training.
    pub initial: Columns,
    /// What its cells contribute to the model's parts.
    pub contributions: Vec<Contribution>,
    /// Tensors that the site keeps for itself, where the model has some. They are no part of the columns.
    pub local: StateDict,
    /// One report per epoch.
    pub history: Vec<EpochReport>,
    /// Digest of the frozen tensors before training.
    pub frozen_before: Digest,
    /// Digest of the frozen tensors after training; equal, or surgery fails.
    pub frozen_after: Digest,
    /// How well the grown reference fits the condition's cells.
    pub fit: Evaluation,
    /// Cells of the condition.
    pub n_cells: usize,
    /// Whether a repetition gives the same bits.
    pub deterministic: bool,
    /// Who computed.
    pub engine: Engine,
}

/// What to map of a site whose cells have keys on several axes. A cell's loss depends on its keys on all of them, so they are trained
/// together; cells that share no key are queries of their own.
#[derive(Clone, Debug)]
pub struct JointQuery<'a> {
    /// The keys of each cell on every axis of the reference. Those that its card shares are the base's, the others are new.
    pub conditions: CellConditions,
    /// The cells, counts aligned to the reference's panel.
    pub cells: Cells<'a>,
}

/// Where the columns of new keys start, and whether they are trained from there.
#[derive(Clone, Copy, Debug, Default)]
pub enum Start<'a> {
    /// Where the spec says.
    #[default]
    Asked,
    /// At these, those of each key.
    At(&'a BTreeMap<ConditionKey, Columns>),
    /// At these, where they stay.
    Untrained(&'a BTreeMap<ConditionKey, Columns>),
}

/// The result of mapping keys together.
#[derive(Clone, PartialEq, Debug)]
pub struct JointSurgery {
    /// The trained columns of each new key, on every axis.
    pub columns: BTreeMap<ConditionKey, Columns>,
    /// The columns before training.
    pub initial: BTreeMap<ConditionKey, Columns>,
    /// What the cells of each condition contribute to the model's parts.
    pub contributions: BTreeMap<ConditionKey, Vec<Contribution>>,
    /// Tensors that the site keeps for itself.
    pub local: StateDict,
    /// One report per epoch.
    pub history: Vec<EpochReport>,
    /// Digest of the frozen tensors, before training and after.
    pub frozen: Digest,
    /// How well the grown reference fits the cells of each condition.
    pub fit: BTreeMap<ConditionKey, Evaluation>,
    /// Number of cells.
    pub n_cells: usize,
    /// Whether a repetition gives the same bits.
    pub deterministic: bool,
    /// Who computed.
    pub engine: Engine,
}

/// Maps one condition onto a reference.
///
/// # Errors  [`Error::NoSurgery`] where the reference says so, [`Error::NotExact`] for a spec with weight decay, data that do not fit,
/// [`Error::Cancelled`], [`Error::Diverged`]
pub fn surgery(
    base: &Base,
    query: &Query<'_>,
    spec: &TrainSpec,
    compute: impl Into<Compute>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Surgery> {
    let (compute, n_cells) = (compute.into(), query.cells.n_cells());
    let conditions = CellConditions::single(query.key.clone(), n_cells);
    let mut joint = map(
        (base, &Extension::default()),
        (&query.cells, &conditions),
        (spec, Start::Asked),
        compute,
        progress,
        checkpoints,
    )?;
    let of_key = |mut columns: BTreeMap<ConditionKey, Columns>| columns.remove(&query.key).unwrap_or_default();
    Ok(Surgery {
        columns: of_key(joint.columns),
        initial: of_key(joint.initial),
        contributions: joint.contributions.into_values().flatten().collect(),
        local: joint.local,
        history: joint.history,
        frozen_before: joint.frozen,
        frozen_after: joint.frozen,
        fit: joint.fit.remove(&query.key).expect("the only condition was evaluated"),
        n_cells,
        deterministic: joint.deterministic,
        engine: joint.engine,
    })
}

/// Maps cells with keys on several axes. With one key it is [`surgery`].
///
/// # Errors  those of [`surgery`]
pub fn joint_surgery(
    base: &Base,
    query: &JointQuery<'_>,
    spec: &TrainSpec,
    compute: impl Into<Compute>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<JointSurgery> {
    extended_surgery(base, &Extension::default(), query, spec, compute, progress, checkpoints)
}

/// The same onto a reference to whose model the site adds something of its own.
///
/// # Errors  those of [`surgery`], and an addition that the model does not take
pub fn extended_surgery(
    base: &Base,
    extension: &Extension,
    query: &JointQuery<'_>,
    spec: &TrainSpec,
    compute: impl Into<Compute>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<JointSurgery> {
    surgery_from(Start::Asked, (base, extension), query, spec, compute, progress, checkpoints)
}

/// The same from other columns than the spec says.
///
/// # Errors  those of [`surgery`], and [`Error::UnknownCondition`] for a key without columns to start from
pub fn surgery_from(
    start: Start<'_>,
    (base, extension): (&Base, &Extension),
    query: &JointQuery<'_>,
    spec: &TrainSpec,
    compute: impl Into<Compute>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<JointSurgery> {
    map((base, extension), (&query.cells, &query.conditions), (spec, start), compute.into(), progress, checkpoints)
}

fn map(
    (base, extension): (&Base, &Extension),
    (cells, conditions): (&Cells<'_>, &CellConditions),
    (spec, start): (&TrainSpec, Start<'_>),
    Compute { device, engine }: Compute,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<JointSurgery> {
    if let Some(decay) = spec.weight_decay.filter(|decay| *decay != 0.0) {
        return Err(Error::NotExact { detail: format!("weight decay is {decay}, expected 0") });
    }
    if let Some(reason) = base.card.layout.refuses_all() {
        return Err(Error::NoSurgery { reason: reason.to_owned() });
    }
    let _one_thread = OneThread::new();
    let blueprint = Blueprint::extended(&base.card, extension)?;
    let (dataset, axes) = blueprint.encode_to_grow(cells, conditions, &base.card.layout)?;
    let own: Vec<&[ConditionKey]> = std::iter::once(conditions.keys()).chain(axes.iter().map(|a| &*a.own)).collect();
    let keys: Vec<String> = own.concat().iter().map(ToString::to_string).collect();
    let seeds = Seeds::new(spec.seed, keys.join("\n"));
    let given = own.iter().map(|keys| start.columns_of(keys)).collect::<Result<Vec<_>>>()?;
    let source = |axis: usize| match (&given[axis], spec.init) {
        (Some(columns), _) => ConditionSource::Stored(columns),
        (None, ColumnInit::Random) => ConditionSource::Fresh(own[axis].len()),
        (None, ColumnInit::Mean) => ConditionSource::Mean(own[axis].len()),
    };
    let module = build(&blueprint, base, &base.tensors, &axes, (&source, &seeds, device))?;
    module.prepare(&dataset, conditions.keys())?;
    let (initial, frozen) = (columns_of(module.as_ref(), &own), module.weights().base().digest());

    let run = Mapping { base, conditions, spec, trains: trains(base, start), seeds, engine, progress, checkpoints };
    let measured = match spec.missing_genes {
        MissingGenes::LeftOut => Measured::new((&base.card, &base.tensors), extension, cells)?,
        MissingGenes::Zeros => None,
    };
    let (mapped, columns, local) = match measured {
        None => {
            let mapped = run.of(module.as_ref(), &dataset)?;
            (mapped, columns_of(module.as_ref(), &own), module.weights().local())
        }
        Some(measured) => {
            let narrow = |key: &ConditionKey| measured.narrow(&initial[key]);
            let starts = own.iter().map(|keys| keys.iter().map(narrow).collect()).collect::<Result<Vec<Vec<_>>>>()?;
            let starts: Vec<Vec<&Columns>> = starts.iter().map(|columns| columns.iter().collect()).collect();
            let source = |axis: usize| ConditionSource::Stored(&starts[axis]);
            let cells = cells.with_counts(&measured.counts);
            let (dataset, axes) = measured.blueprint.encode_to_grow(&cells, conditions, &base.card.layout)?;
            let part = build(&measured.blueprint, base, &measured.base, &axes, (&source, &run.seeds, device))?;
            let mapped = run.of(part.as_ref(), &dataset)?;
            let widen = |(key, trained): (ConditionKey, Columns)| {
                let columns = measured.widen(&trained, &initial[&key])?;
                Ok((key, columns))
            };
            let columns = columns_of(part.as_ref(), &own).into_iter().map(widen).collect::<Result<_>>()?;
            (mapped, columns, StateDict::new())
        }
    };
    if module.weights().base().digest() != frozen {
        return Err(Error::FrozenMoved);
    }
    let Mapped { history, fit, contributions, engine } = mapped;
    Ok(JointSurgery {
        columns,
        contributions,
        local,
        initial,
        history,
        frozen,
        fit,
        n_cells: dataset.n_cells(),
        deterministic: device.is_deterministic(),
        engine,
    })
}

/// The module of a base's tensors, over its whole panel or a part of it, with rows for the keys of every axis.
fn build<'s>(
    blueprint: &Blueprint,
    base: &Base,
    tensors: &StateDict,
    axes: &[GrownAxis],
    (source, seeds, device): (&dyn Fn(usize) -> ConditionSource<'s>, &Seeds, Device),
) -> Result<Box<dyn Module>> {
    let seed = seeds.of("columns", 0);
    let builder = Builder::new(Source::Stored(tensors), source(0), Trainable::Conditions, seed, device.to_tch());
    let mut builder = builder.after(n_conditions(base));
    for (at, axis) in (1..).zip(axes) {
        builder = builder.with_axis(axis.name.clone(), source(at)).sharing(axis.name.clone(), axis.n_shared);
    }
    blueprint.build(builder)
}

/// Whether columns are trained, and not only looked at.
fn trains(base: &Base, start: Start<'_>) -> bool {
    // Where nothing moves, the cells are evaluated and contribute all the same.
    base.card.layout.growth == Growth::Surgery && !matches!(start, Start::Untrained(_))
}

/// How cells are mapped.
struct Mapping<'a> {
    base: &'a Base,
    conditions: &'a CellConditions,
    spec: &'a TrainSpec,
    trains: bool,
    seeds: Seeds,
    engine: Engine,
    progress: &'a mut dyn Progress,
    checkpoints: &'a mut dyn CheckpointStore,
}

/// What comes of it, beside the module's tensors.
struct Mapped {
    history: Vec<EpochReport>,
    fit: BTreeMap<ConditionKey, Evaluation>,
    contributions: BTreeMap<ConditionKey, Vec<Contribution>>,
    engine: Engine,
}

impl Mapping<'_> {
    /// The mixture that draws the cells' latent states, where something is to draw them.
    fn drawn_to(&self, module: &dyn Module, pull: f64) -> Result<Option<Aggregate>> {
        if pull == 0.0 || !self.trains {
            return Ok(None);
        }
        let aggregate = Aggregate::of_base(&self.base.tensors)?;
        let embedder = module.as_embedder().filter(|embedder| embedder.is_drawn());
        match (aggregate, embedder) {
            (Some(aggregate), Some(_)) => Ok(Some(aggregate)),
            // What nobody asked for is left out where the reference has no place for it.
            (None, _) | (_, None) if self.spec.reference_pull.is_none() => Ok(None),
            (None, Some(_)) => Err(Error::Aggregate { detail: "it keeps none".to_owned() }),
            (_, None) => {
                let detail = format!("latent states of a `{}` are not drawn to others", self.base.card.model);
                Err(Error::Aggregate { detail })
            }
        }
    }

    /// Trains the rows of a module, and looks at the cells of each condition.
    fn of(self, module: &dyn Module, dataset: &Dataset<'_>) -> Result<Mapped> {
        let plan = TrainPlan::new(zoo::model(&self.base.card.model)?, Aim::ExactSurgery, self.spec, dataset.n_cells())?;
        let drawn_to = self.drawn_to(module, plan.reference_pull)?;
        let frozen = module.weights().base().digest();
        let trainer = Trainer::new(module, dataset, plan, self.seeds.clone(), Mode::Evaluation)?;
        let mut trainer = trainer.with_engine(self.engine);
        if let Some(aggregate) = drawn_to {
            trainer = trainer.drawing_to(aggregate);
        }
        let history = if self.trains { trainer.run(self.progress, self.checkpoints)? } else { Vec::new() };
        if module.weights().base().digest() != frozen {
            return Err(Error::FrozenMoved);
        }
        let (mut fit, mut contributions) = (BTreeMap::new(), BTreeMap::new());
        for (code, key) in self.conditions.keys().iter().enumerate() {
            let is_of_key = |&cell: &usize| dataset.conditions[cell] == code as i64;
            let cells: Vec<usize> = (0..dataset.n_cells()).filter(is_of_key).collect();
            let noise = SeededNoise::new(self.seeds.of("evaluation", 0));
            fit.insert(key.clone(), trainer.evaluate(&cells, 1.0, noise));
            // A base from before the model had a part takes none of it.
            let mut of_key = module.contributions(dataset, &cells)?;
            of_key.retain(|contribution| self.base.card.layout.parts.contains_key(&contribution.part));
            contributions.insert(key.clone(), of_key);
        }
        Ok(Mapped { history, fit, contributions, engine: trainer.engine() })
    }
}

impl<'a> Start<'a> {
    /// The columns of these keys, in their order; none where the spec says how they start.
    fn columns_of(self, keys: &[ConditionKey]) -> Result<Option<Vec<&'a Columns>>> {
        let (Self::At(columns) | Self::Untrained(columns)) = self else { return Ok(None) };
        let of_key = |key: &ConditionKey| columns.get(key).ok_or_else(|| Error::UnknownCondition { key: key.clone() });
        keys.iter().map(of_key).collect::<Result<_>>().map(Some)
    }
}

/// Conditions that a reference was trained on, as its card says.
fn n_conditions(base: &Base) -> usize {
    base.card.training.get("n_conditions").and_then(|n| n.as_u64()).unwrap_or_default() as usize
}

/// The columns of the keys of every axis, in the order of its rows.
fn columns_of(module: &dyn Module, axes: &[&[ConditionKey]]) -> BTreeMap<ConditionKey, Columns> {
    let rows = axes.iter().flat_map(|keys| keys.iter().enumerate());
    rows.map(|(code, key)| (key.clone(), module.weights().columns_on(key.section(), code))).collect()
}

/// Maps several conditions, as many at a time as rayon has threads. Each result is the one that [`surgery`] alone gives.
///
/// # Errors  the first error, in order of the queries
pub fn surgery_of_many(
    base: &Base,
    queries: &[Query<'_>],
    spec: &TrainSpec,
    compute: impl Into<Compute>,
    progress: &(dyn Fn(&ConditionKey, &EpochReport) -> Continue + Sync),
) -> Result<Vec<Surgery>> {
    let compute = compute.into();
    let map = |query: &Query<'_>| {
        let mut report = |epoch: &EpochReport| progress(&query.key, epoch);
        surgery(base, query, spec, compute, &mut report, &mut NoCheckpoints)
    };
    queries.par_iter().map(map).collect::<Vec<_>>().into_iter().collect()
}

impl Reference {
    /// This reference with a mapped condition.
    ///
    /// # Errors  [`Error::KnownCondition`]
    pub fn with(&self, key: ConditionKey, columns: Columns) -> Result<Self> {
        if self.columns.contains_key(&key) {
            return Err(Error::KnownCondition { key });
        }
        let mut grown = self.clone();
        grown.columns.insert(key, columns);
        Ok(grown)
    }
}
