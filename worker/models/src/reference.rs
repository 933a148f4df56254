//! References: trained models as values that travel.

use std::collections::BTreeMap;

use archipelago_common::{
    Base, BaseCard, Columns, ConditionKey, Layout, Name, Section, StateDict,
    layout::Rule,
    part::{Member, pooled},
    pool::Pool,
    progress::{EpochReport, Progress},
    task::TrainSpec,
};
use ndarray::Array2;
use tch::Tensor;

use crate::{
    aggregate::Aggregate,
    blueprint::Blueprint,
    data::{CellConditions, Cells, Dataset, LABELS, Minibatches, Names, Registry},
    device::{Compute, Device, Engine, OneThread},
    error::{Error, Result},
    fast::{Autoencoder, Purpose},
    kept,
    model::{Config, Embedder, Model, Module, Moments},
    nn::{
        Builder, ConditionSource, Mode, Pass, Posterior, SeededNoise, Source, Trainable, from_tch, mean_name,
        shared_name, to_tch,
    },
    parts::{self, Parts},
    start,
    train::{
        Aim, CheckpointStore, EVALUATION_MINIBATCH, Evaluation, FurtherOptions, Seeds, TrainPlan, Trainer, evaluate,
    },
    zoo,
};

/// A base and the columns of every condition mapped onto it.
#[derive(Clone, PartialEq, Debug)]
pub struct Reference {
    /// The frozen part.
    pub base: Base,
    /// The part that conditions own.
    pub columns: BTreeMap<ConditionKey, Columns>,
    /// The members of parts, where the model has some.
    pub parts: BTreeMap<ConditionKey, Member>,
    /// Tensors that the site keeps for itself, by the condition with which they were trained. In no version and on no wire.
    pub local: BTreeMap<ConditionKey, StateDict>,
}

/// A reference that has just been trained.
#[derive(Clone, PartialEq, Debug)]
pub struct Trained {
    /// The result.
    pub reference: Reference,
    /// One report per epoch.
    pub history: Vec<EpochReport>,
    /// Who computed.
    pub engine: Engine,
}

/// What a reference is trained on and called.
#[derive(Clone, Copy)]
pub struct Training<'a> {
    /// A model of the zoo.
    pub model: &'a dyn Model,
    /// The model's options; what is left out takes its default.
    pub options: &'a Config,
    /// The gene panel: names of the counts' columns.
    pub genes: &'a [String],
    /// The cells.
    pub cells: &'a Cells<'a>,
    /// The condition of each cell.
    pub conditions: &'a CellConditions,
    /// The obs column that held the batch.
    pub batch_key: &'a str,
    /// How to train.
    pub spec: &'a TrainSpec,
    /// What a training that no task asks for can be told beyond that.
    pub further: &'a FurtherOptions,
    /// Where and how to compute.
    pub compute: Compute,
}

/// Posterior means and variances of cells.
#[derive(Clone, PartialEq, Debug)]
pub struct Latent {
    /// Latent representation, `[n_cells, n_latent]`: the posterior mean (for a logistic normal, the mean of its softmax).
    pub mean: Array2<f32>,
    /// Posterior variance, `[n_cells, n_latent]`, where it was wanted.
    pub var: Option<Array2<f32>>,
    /// Who computed.
    pub engine: Engine,
}

/// Trains a reference. Each condition of the cells becomes one of the reference.
///
/// # Errors  bad options or data, [`Error::Cancelled`], [`Error::Diverged`]
pub fn train_reference(
    training: &Training<'_>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    train(training, None, progress, checkpoints)
}

/// Trains a reference, from fresh tensors or from those of a pretrained one.
pub(crate) fn train(
    training: &Training<'_>,
    pretrained: Option<&Reference>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    // One order of every sum that libtorch computes: one seed, one result. The kernels use all threads and have that by themselves.
    let _one_thread = OneThread::new();
    let configured = training.model.configure(training.options)?;
    let registry = Registry::of(&configured.fields(), training.cells)?;
    let blueprint = Blueprint { model: configured, registry, n_genes: training.genes.len() };
    let dataset = blueprint.encode(training.cells, training.conditions)?;

    let seeds = Seeds::new(training.spec.seed, "reference").as_upstream();
    let n_conditions = training.conditions.keys().len();
    let columns = pretrained.map(|reference| reference.columns_of(training.conditions.keys())).transpose()?;
    let (source, conditions) = match (pretrained, &columns) {
        (Some(reference), Some(columns)) => {
            (Source::Pretrained(&reference.base.tensors), ConditionSource::Stored(columns))
        }
        _ => (Source::Fresh, ConditionSource::Fresh(n_conditions)),
    };
    let seed = seeds.of("weights", 0);
    let mut builder = Builder::new(source, conditions, Trainable::Everything, seed, training.compute.device.to_tch());
    for ((axis, _), cells) in blueprint.axes().into_iter().zip(training.conditions.further()) {
        builder = builder.with_axis(axis, ConditionSource::Fresh(cells.keys().len()));
    }
    let module = blueprint.build(builder)?;
    let order = blueprint.model.upstream_start(&blueprint.registry, blueprint.n_genes, n_conditions);
    if let Some(order) = order.filter(|order| start::is_known(order)) {
        let taken_over = pretrained.map(|reference| &reference.base.tensors);
        start::apply(&order, module.weights(), seeds.numpy(), taken_over)?;
    }
    module.prepare(&dataset, training.conditions.keys())?;

    let aim = if pretrained.is_some() { Aim::FromPretrained } else { Aim::Reference };
    let plan = TrainPlan::new(training.model, aim, training.spec, dataset.n_cells())?.with(training.further)?;
    let trainer = Trainer::new(module.as_ref(), &dataset, plan, seeds, Mode::Training)?;
    let mut trainer = trainer.with_engine(training.compute.engine);
    // A model may have no tensors, and all that its references hold are parts.
    let learns = module.weights().iter().any(|(_, weight)| weight.tensor.requires_grad());
    let history = if learns { trainer.run(progress, checkpoints)? } else { Vec::new() };
    let keys = training.conditions.all_keys();
    let mut layout = blueprint.layout(module.as_ref());
    share(&mut layout, &blueprint, &keys);
    let card = card(training, &blueprint, layout, &history);
    let mut reference = Reference::of_module(card, &keys, module.as_ref());
    reference.keep_aggregate(module.as_ref(), &dataset, training.spec.seed, training.compute)?;
    for (code, key) in training.conditions.keys().iter().enumerate() {
        let cells = training.conditions.codes().iter().enumerate().filter(|(_, of)| **of as usize == code);
        let cells: Vec<usize> = cells.map(|(cell, _)| cell).collect();
        for contribution in module.contributions(&dataset, &cells)? {
            reference.parts.insert(key.clone().in_section(Section::Part(contribution.part)), contribution.value);
        }
    }
    Ok(Trained { reference, history, engine: trainer.engine() })
}

pub(crate) fn card(
    training: &Training<'_>,
    blueprint: &Blueprint,
    layout: Layout,
    history: &[EpochReport],
) -> BaseCard {
    let mut facts = BTreeMap::from([
        ("n_cells".to_owned(), training.cells.n_cells().into()),
        ("n_conditions".to_owned(), training.conditions.keys().len().into()),
        ("seed".to_owned(), training.spec.seed.into()),
        ("epochs".to_owned(), history.len().into()),
    ]);
    if let Some(last) = history.last() {
        facts.insert("final_loss".to_owned(), for_json(last.loss).into());
    }
    if !layout.parts.is_empty() {
        facts.insert(parts::OWN.to_owned(), parts::names(training.conditions.keys()));
    }
    BaseCard {
        format: layout.card_format(),
        model: training.model.card().name.to_owned(),
        config: blueprint.to_card_config(),
        genes: training.genes.to_vec(),
        batch_key: training.batch_key.to_owned(),
        labels_key: blueprint.registry.obs_key(LABELS).map(str::to_owned),
        labels: blueprint.registry.labels().to_vec(),
        layout,
        moves_embedding: blueprint.model.moves_embedding(),
        training: facts,
        recipe: None,
    }
}

/// A number to fifteen digits: so many come back from JSON to the bit, and a card keeps its digest.
fn for_json(number: f64) -> f64 {
    format!("{number:.14e}").parse().unwrap_or(number)
}

/// The keys of a new base that queries share with it: those of its axes whose names are everybody's.
pub(crate) fn share(layout: &mut Layout, blueprint: &Blueprint, keys: &[ConditionKey]) {
    for (name, _) in blueprint.axes().into_iter().filter(|(_, names)| *names == Names::Common) {
        let section = Section::Axis(name);
        if let Some(axis) = layout.axes.iter_mut().find(|axis| axis.section == section) {
            axis.shared = keys.iter().filter(|key| *key.section() == section).cloned().collect();
        }
    }
}

/// What versions over a base hold, and what each tensor is. The card says it since its format 2; of an earlier one the model is
/// asked, so that a fact is a fact there too.
///
/// # Errors  [`Error::UnknownModel`], tensors that do not fit the card
pub fn layout_of(base: &Base) -> Result<Layout> {
    if base.card.format > BaseCard::PLAIN_FORMAT {
        return Ok(base.card.layout.clone());
    }
    zoo_layout(base)
}

/// The layout that the zoo gives a reference with this card's options and these tensors, whatever its card declares. What a card
/// can have beside it are names that axes share, and the parts of a tree.
///
/// # Errors  [`Error::UnknownModel`], tensors that do not fit the card
pub fn zoo_layout(base: &Base) -> Result<Layout> {
    let blueprint = Blueprint::of_card(&base.card)?;
    let source = (Source::Stored(&base.tensors), ConditionSource::Mean(1));
    let mut builder = Builder::new(source.0, source.1, Trainable::Nothing, [0; 32], tch::Device::Cpu);
    for (axis, _) in blueprint.axes() {
        let declared = base.card.layout.axis(&Section::Axis(axis.clone()));
        let n_shared = declared.map_or(0, |declared| declared.shared.len());
        builder = builder.with_axis(axis.clone(), ConditionSource::Mean(1)).sharing(axis, n_shared);
    }
    Ok(blueprint.layout(blueprint.build(builder)?.as_ref()))
}

/// The columns that a base keeps of the keys that queries share with it.
fn shared_columns(base: &Base) -> Result<BTreeMap<ConditionKey, Columns>> {
    let mut columns: BTreeMap<ConditionKey, Columns> = BTreeMap::new();
    for axis in base.card.layout.axes.iter().filter(|axis| !axis.shared.is_empty()) {
        for name in axis.tensors.keys() {
            let rows = to_tch(name, base.tensors.require("the base", &shared_name(name))?)?;
            if rows.size().first() != Some(&(axis.shared.len() as i64)) {
                let (found, expected) = (format!("{:?}", rows.size()), format!("{} rows", axis.shared.len()));
                return Err(Error::TensorShape { name: shared_name(name), found, expected });
            }
            for (code, key) in axis.shared.iter().enumerate() {
                columns.entry(key.clone()).or_default().0.insert(name, from_tch(&rows.get(code as i64)));
            }
        }
    }
    Ok(columns)
}

impl Reference {
    /// Takes a module apart into what is frozen and what keys own, given those of each axis in the order of its rows. The base also
    /// keeps the mean row of the keys it was trained on, as a start for new ones, and the rows of keys that queries share.
    pub fn of_module(card: BaseCard, keys: &[ConditionKey], module: &dyn Module) -> Self {
        let weights = module.weights();
        let mut tensors = weights.base();
        for (name, weight) in weights.iter().filter(|(_, weight)| weight.role.is_per_condition()) {
            let mean = weight.tensor.detach().mean_dim([0_i64].as_slice(), false, weight.tensor.kind());
            tensors.insert(mean_name(name), from_tch(&mean));
            if card.layout.axis(&weight.section).is_some_and(|axis| !axis.shared.is_empty()) {
                tensors.insert(shared_name(name), from_tch(&weight.tensor));
            }
        }
        let mut codes: BTreeMap<&Section, usize> = BTreeMap::new();
        let mut columns = BTreeMap::new();
        for key in keys {
            let code = codes.entry(key.section()).or_default();
            columns.insert(key.clone(), weights.columns_on(key.section(), *code));
            *code += 1;
        }
        Self { base: Base { card, tensors }, columns, parts: BTreeMap::new(), local: BTreeMap::new() }
    }

    /// A base with what it keeps itself: the columns of the keys that queries share with it, and of no others.
    ///
    /// # Errors  [`Error::Common`] for a base without rows that its card speaks of
    pub fn of_base(base: Base) -> Result<Self> {
        let columns = shared_columns(&base)?;
        Ok(Self { base, columns, parts: BTreeMap::new(), local: BTreeMap::new() })
    }

    /// The members of a pool added up; none where the model has no such pool.
    ///
    /// # Errors  [`Error::Common`] for a sum out of range
    pub fn pooled(&self, part: &Name) -> Result<Option<Pool>> {
        let section = Section::Part(part.clone());
        let Some(rule @ Rule::Pool { .. }) = self.base.card.layout.rule(&section) else { return Ok(None) };
        let members = self.parts.iter().filter(|(key, _)| *key.section() == section);
        Ok(Some(pooled(rule, members.map(|(_, member)| member))?))
    }

    /// Builds the module for evaluation with these keys, those of each axis in this order.
    ///
    /// # Errors  [`Error::UnknownCondition`], or tensors that do not fit the card; [`Error::SeveralLocal`] for conditions that were
    /// trained each with tensors of its own
    pub fn module(&self, keys: &[ConditionKey], device: Device) -> Result<Box<dyn Module>> {
        let kept = shared_columns(&self.base)?;
        let on_axis = |section: &Section| {
            let keys: Vec<ConditionKey> = keys.iter().filter(|key| key.section() == section).cloned().collect();
            self.columns_among(&keys, &kept)
        };
        let conditions = on_axis(&Section::Condition)?;
        let axes = self.base.card.layout.axes.iter().filter_map(|axis| match &axis.section {
            Section::Axis(name) => Some((name, &axis.section)),
            Section::Condition | Section::Part(_) => None,
        });
        let further = axes.map(|(name, section)| Ok((name, on_axis(section)?))).collect::<Result<Vec<_>>>()?;
        let source = (Source::Stored(&self.base.tensors), ConditionSource::Stored(&conditions));
        let mut builder = Builder::new(source.0, source.1, Trainable::Nothing, [0; 32], device.to_tch());
        for (name, columns) in &further {
            builder = builder.with_axis((*name).clone(), ConditionSource::Stored(columns));
        }
        let kept = self.kept_for(keys)?;
        match kept.is_empty() {
            false => Blueprint::with_kept(&self.base.card, &kept)?.build(builder.with_local(&kept)),
            true => Blueprint::of_card(&self.base.card)?.build(builder),
        }
    }

    /// What the module of these keys has beside base and columns: what the site keeps, and what sites have contributed of theirs.
    fn kept_for(&self, keys: &[ConditionKey]) -> Result<StateDict> {
        let mut kept = self.local_of(keys)?.cloned().unwrap_or_default();
        let parts = zoo::model(&self.base.card.model)?.kept_parts();
        let conditions: Vec<&ConditionKey> = keys.iter().filter(|key| *key.section() == Section::Condition).collect();
        for (key, member) in &self.parts {
            let (Section::Part(part), Member::Tensors(tensors)) = (key.section(), member) else { continue };
            let condition = key.clone().in_section(Section::Condition);
            // The site that contributed it has it already.
            if parts.contains(&part.as_str()) && !self.local.contains_key(&condition) {
                kept::named(&condition, tensors, &conditions)
                    .for_each(|(name, tensor)| drop(kept.insert(name, tensor)));
            }
        }
        Ok(kept)
    }

    /// What a site keeps for these conditions. Other conditions of the reference are seen through it too, where it is all there is: what a
    /// site adds to the model, it adds for all its cells.
    fn local_of(&self, keys: &[ConditionKey]) -> Result<Option<&StateDict>> {
        let own: Vec<&StateDict> = keys.iter().filter_map(|key| self.local.get(key)).collect();
        let all = if own.is_empty() { self.local.values().collect() } else { own };
        let mut kept = all.into_iter().filter(|local| !local.is_empty());
        let first = kept.next();
        if kept.all(|local| Some(local) == first) { Ok(first) } else { Err(Error::SeveralLocal) }
    }

    /// The columns of these conditions, in this order.
    fn columns_of(&self, keys: &[ConditionKey]) -> Result<Vec<&Columns>> {
        const NONE: &BTreeMap<ConditionKey, Columns> = &BTreeMap::new();
        self.columns_among(keys, NONE)
    }

    /// The columns of these keys, in this order, or those that the base keeps of them. Where keys own nothing, every one is known.
    fn columns_among<'a>(
        &'a self,
        keys: &[ConditionKey],
        kept: &'a BTreeMap<ConditionKey, Columns>,
    ) -> Result<Vec<&'a Columns>> {
        const NOTHING: &Columns = &Columns(StateDict::new());
        let owns_nothing =
            |key: &ConditionKey| self.base.card.layout.axis(key.section()).is_none_or(|axis| axis.tensors.is_empty());
        let of_key = |key: &ConditionKey| match self.columns.get(key).or_else(|| kept.get(key)) {
            Some(columns) => Ok(columns),
            None if owns_nothing(key) => Ok(NOTHING),
            None => Err(Error::UnknownCondition { key: key.clone() }),
        };
        keys.iter().map(of_key).collect()
    }

    /// Encodes cells as the reference's covariates are.
    ///
    /// # Errors  data that the reference does not know or cannot take
    pub fn encode<'a>(&self, cells: &Cells<'a>, conditions: &CellConditions) -> Result<Dataset<'a>> {
        let blueprint = Blueprint::of_card(&self.base.card)?;
        if cells.minified.is_some() && blueprint.model.learns_library() {
            return Err(Error::Minified { what: "a model that learns the library size" });
        }
        blueprint.encode(cells, conditions)
    }

    /// The latent representation of cells, without variances.
    ///
    /// # Errors  conditions or data that the reference does not know
    pub fn latent(
        &self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        compute: impl Into<Compute>,
    ) -> Result<Latent> {
        self.moments(cells, conditions, Moments::Mean, compute)
    }

    /// The latent representation of cells, with what is wanted of it.
    ///
    /// # Errors  conditions or data that the reference does not know
    pub fn moments(
        &self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        moments: Moments,
        compute: impl Into<Compute>,
    ) -> Result<Latent> {
        let dataset = self.encode(cells, conditions)?;
        let compute = compute.into();
        let module = self.module(&conditions.all_keys(), compute.device)?;
        self.embed(module.as_ref(), &dataset, moments, compute)
    }

    /// Keeps in the base where these cells of the reference lie, for surgery to draw a query there; gives the number of clusters.
    ///
    /// # Errors  [`Error::Aggregate`] for a model that surgery draws nowhere, or too few cells; conditions or data that the reference
    /// does not know
    pub fn aggregate(
        &mut self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        seed: u64,
        compute: impl Into<Compute>,
    ) -> Result<usize> {
        let dataset = self.encode(cells, conditions)?;
        let compute = compute.into();
        let module = self.module(&conditions.all_keys(), compute.device)?;
        let model = &self.base.card.model;
        if !module.as_embedder().is_some_and(Embedder::is_drawn) {
            return Err(Error::Aggregate { detail: format!("latent states of this `{model}` are drawn nowhere") });
        }
        let n_clusters = self.keep_aggregate(module.as_ref(), &dataset, seed, compute)?;
        let too_few = || Error::Aggregate { detail: format!("{} cells are too few for a cluster", dataset.n_cells()) };
        n_clusters.ok_or_else(too_few)
    }

    /// Keeps where the cells lie, if surgery can draw to them; gives the number of clusters.
    fn keep_aggregate(
        &mut self,
        module: &dyn Module,
        dataset: &Dataset<'_>,
        seed: u64,
        compute: Compute,
    ) -> Result<Option<usize>> {
        if !module.as_embedder().is_some_and(Embedder::is_drawn) {
            return Ok(None);
        }
        let latent = self.embed(module, dataset, Moments::MeanAndVariance, compute)?;
        let Some(vars) = latent.var else { return Ok(None) };
        let aggregate = Aggregate::of_cells(latent.mean.view(), vars.view(), seed)?;
        Ok(aggregate.map(|aggregate| {
            aggregate.keep_in(&mut self.base.tensors);
            // The broad one is none of them.
            aggregate.components().len() - 1
        }))
    }

    /// Where mapped cells lie among those of the reference: their latent representation, moved where the model moves it by the
    /// reference's parts.
    ///
    /// # Errors  conditions or data that the reference does not know, and those of [`Module::place`]
    pub fn mapped(
        &self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        moments: Moments,
        compute: impl Into<Compute>,
    ) -> Result<Latent> {
        let dataset = self.encode(cells, conditions)?;
        let compute = compute.into();
        let module = self.module(&conditions.all_keys(), compute.device)?;
        let latent = self.embed(module.as_ref(), &dataset, moments, compute)?;
        Ok(Latent { mean: module.place(latent.mean, &dataset, &self.known_parts())?, ..latent })
    }

    /// The parts that it holds, with those of its own cells told apart.
    pub fn known_parts(&self) -> Parts {
        Parts::new(&self.base.card, self.parts.clone())
    }

    fn embed(
        &self,
        module: &dyn Module,
        dataset: &Dataset<'_>,
        moments: Moments,
        Compute { device: _, engine }: Compute,
    ) -> Result<Latent> {
        let _one_thread = OneThread::new();
        let (mean, var, engine) = match fast_engine(module, dataset, Purpose::Embed(moments), engine) {
            Some(mut fast) => {
                let (mean, var) = fast.embed();
                let array = |values: Vec<f32>| {
                    let shape = (dataset.n_cells(), values.len() / dataset.n_cells());
                    Array2::from_shape_vec(shape, values).expect("every cell has as many dimensions")
                };
                (array(mean), array(var), engine)
            }
            None => {
                let (mean, var) = latent(self.embedder(module)?, dataset);
                (mean, var, Engine::Autograd)
            }
        };
        Ok(Latent { mean, var: (moments == Moments::MeanAndVariance).then_some(var), engine })
    }

    /// Means and variances of the posterior of cells, with means as the encoder gives them: for a logistic normal before the softmax.
    ///
    /// # Errors  conditions or data that the reference does not know
    pub fn posterior(
        &self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        device: Device,
    ) -> Result<(Array2<f32>, Array2<f32>)> {
        let _one_thread = OneThread::new();
        let dataset = self.encode(cells, conditions)?;
        let module = self.module(&conditions.all_keys(), device)?;
        Ok(of_cells(self.embedder(module.as_ref())?, &dataset, |posterior, _| posterior.mean.shallow_clone()))
    }

    pub(crate) fn embedder<'a>(&self, module: &'a dyn Module) -> Result<&'a dyn Embedder> {
        module.as_embedder().ok_or_else(|| Error::NotEmbedder { model: self.base.card.model.clone() })
    }

    /// Negative ELBO and reconstruction error, means over cells in nats, with noise of this seed.
    ///
    /// # Errors  conditions or data that the reference does not know
    pub fn evaluate(
        &self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        seed: u64,
        compute: impl Into<Compute>,
    ) -> Result<Evaluation> {
        if cells.minified.is_some() {
            return Err(Error::Minified { what: "the ELBO" });
        }
        let Compute { device, engine } = compute.into();
        let _one_thread = OneThread::new();
        let dataset = self.encode(cells, conditions)?;
        let module = self.module(&conditions.all_keys(), device)?;
        let mut noise = SeededNoise::new(Seeds::new(seed, "evaluation").of("noise", 0));
        let cells: Vec<usize> = (0..dataset.n_cells()).collect();
        Ok(match fast_engine(module.as_ref(), &dataset, Purpose::Evaluate, engine) {
            Some(mut fast) => Evaluation::of_sums(&fast.evaluate(&cells, 1.0, &mut noise), cells.len()),
            None => {
                let minibatches = Minibatches::new(&dataset, module.weights().device());
                evaluate(module.as_ref(), &minibatches, &cells, 1.0, noise)
            }
        })
    }
}

/// The module inside the kernels, with nothing that trains, where they are asked for and know it.
fn fast_engine<'a>(
    module: &'a dyn Module,
    dataset: &'a Dataset<'a>,
    purpose: Purpose,
    engine: Engine,
) -> Option<Autoencoder<'a>> {
    if engine == Engine::Autograd {
        return None;
    }
    Autoencoder::new(module, dataset, purpose, &|_| false)
        .inspect_err(|why| tracing::info!(%why, ?purpose, "cells go through libtorch"))
        .ok()
}

/// The latent representation of encoded cells, and its variance.
pub fn latent(embedder: &dyn Embedder, dataset: &Dataset<'_>) -> (Array2<f32>, Array2<f32>) {
    of_cells(embedder, dataset, |posterior, pass| embedder.latent_mean(posterior, pass))
}

fn of_cells(
    embedder: &dyn Embedder,
    dataset: &Dataset<'_>,
    mean_of: impl Fn(&Posterior, &mut Pass<'_>) -> Tensor,
) -> (Array2<f32>, Array2<f32>) {
    let _guard = tch::no_grad_guard();
    let cells: Vec<usize> = (0..dataset.n_cells()).collect();
    let mut noise = SeededNoise::new(Seeds::new(0, "latent").of("noise", 0));
    let (mut means, mut vars) = (Vec::new(), Vec::new());
    for cells in cells.chunks(EVALUATION_MINIBATCH) {
        let minibatch = dataset.minibatch(cells, embedder.weights().device());
        let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
        let posterior = embedder.posterior(&minibatch, &mut pass);
        means.push(mean_of(&posterior, &mut pass));
        vars.push(posterior.var);
    }
    (to_array(&Tensor::cat(&means, 0)), to_array(&Tensor::cat(&vars, 0)))
}

/// A matrix of 32-bit floats as an array.
pub(crate) fn to_array(tensor: &Tensor) -> Array2<f32> {
    let (rows, columns) = tensor.size2().expect("a matrix has two dimensions");
    let values = from_tch(tensor).to_f32("matrix").expect("models compute in 32-bit floats");
    Array2::from_shape_vec((rows as usize, columns as usize), values).expect("sizes are the tensor's own")
}

#[cfg(test)]
mod tests {
    use super::for_json;

    #[test]
    fn a_number_of_a_card_comes_back_from_json_to_the_bit() {
        let there_and_back =
            |number: f64| -> f64 { serde_json::from_str(&serde_json::to_string(&number).unwrap()).unwrap() };
        let numbers = || (1..20_000).map(|i| 1000.0 * f64::from(i).sqrt().sin() + 0.1 * f64::from(i).cbrt());
        assert!(numbers().any(|number| there_and_back(number) != number), "the last bit is lost without it");
        for number in numbers() {
            let kept = for_json(number);
            assert_eq!(there_and_back(kept).to_bits(), kept.to_bits());
            assert!((kept - number).abs() <= 1e-14 * number.abs(), "{number}");
        }
        assert!(for_json(f64::NAN).is_nan());
    }
}
