//! Training under upstream's rules of surgery. The result is a new base: it cannot be merged with another site's.

use archipelago_common::{
    BaseCard, Columns, ConditionKey, StateDict, Tensor as Stored, progress::Progress, task::TrainSpec,
};

use super::upstream::{Flags, extend};
use crate::{
    blueprint::Blueprint,
    data::{CellConditions, Cells},
    device::{Device, Engine},
    error::{Error, Result},
    extension::Extension,
    model::Module,
    nn::{Builder, ConditionSource, Mode, Role, Source, Trainable, from_tch},
    reference::{Reference, Trained, share},
    train::{Aim, CheckpointStore, Seeds, TrainPlan, Trainer},
    upstream::Layout,
    zoo,
};

/// Where the columns of new conditions stand in upstream's matrices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// Behind the columns of the other conditions: each column keeps its meaning.
    #[default]
    OwnBlock,
    /// At the very end, as upstream: with further categorical covariates old columns change their meaning.
    End,
}

/// What upstream's surgery is asked for.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamSurgery<'a> {
    /// The query cells.
    pub cells: &'a Cells<'a>,
    /// The condition of each; known ones keep their columns, new ones get fresh ones.
    pub conditions: &'a CellConditions,
    /// What is added to the model.
    pub extension: &'a Extension,
    /// How to train.
    pub spec: &'a TrainSpec,
    /// What is frozen.
    pub flags: Flags,
    /// Where new columns stand.
    pub placement: Placement,
    /// Where to compute.
    pub device: Device,
}

/// Maps query cells as scvi-tools does: all conditions together, with everything that its flags release. The card of the result
/// says `approximate`.
///
/// # Errors  data that do not fit, [`crate::Error::Cancelled`], [`crate::Error::Diverged`]
pub fn upstream_surgery(
    reference: &Reference,
    ask: &UpstreamSurgery<'_>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    let mut blueprint = Blueprint::grown(&reference.base.card, ask.extension)?;
    blueprint.registry = blueprint.registry.grown_by(ask.cells);
    blueprint.check_axes(ask.conditions)?;
    let axes: Vec<GrownTable> = std::iter::once(ask.conditions)
        .chain(ask.conditions.further())
        .map(|cells| GrownTable::new(reference, cells))
        .collect();
    let (conditions, further) = axes.split_first().expect("conditions are the first axis");
    let dataset = blueprint.registry.encode(ask.cells, &conditions.codes, blueprint.n_genes)?;
    let codes = |table: &GrownTable| table.codes.iter().map(|&code| i64::from(code)).collect::<Vec<_>>();
    let dataset = further.iter().try_fold(dataset, |cells, table| cells.with_codes(&codes(table)))?;

    let seeds = Seeds::new(ask.spec.seed, "upstream surgery");
    let device = ask.device.to_tch();
    let names = || blueprint.axes().into_iter().map(|(name, _)| name);
    let fresh = ConditionSource::Fresh(conditions.keys.len());
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, seeds.of("weights", 0), device);
    let fresh = names()
        .zip(further)
        .fold(builder, |builder, (name, table)| builder.with_axis(name, ConditionSource::Fresh(table.keys.len())));
    let fresh = blueprint.build(fresh)?;
    fresh.prepare(&dataset, &conditions.keys)?;

    let model = zoo::model(&reference.base.card.model)?;
    let (base, columns) = grow(reference, conditions, fresh.as_ref(), ask.placement, ask.device)?;
    let base = blueprint.model.enlarged(&base, &fresh.weights().base())?;
    let columns: Vec<_> = columns.iter().collect();
    let of_axes: Vec<Vec<Columns>> = further.iter().map(|table| table.columns(reference, fresh.as_ref())).collect();
    let of_axes: Vec<Vec<&Columns>> = of_axes.iter().map(|columns| columns.iter().collect()).collect();
    let source = (Source::Stored(&base), ConditionSource::Stored(&columns));
    let no_surgery = || Error::NoUpstreamSurgery { model: reference.base.card.model.clone() };
    let rules = model.upstream_rules(&ask.flags).ok_or_else(no_surgery)?;
    let builder = Builder::new(source.0, source.1, Trainable::Nothing, [0; 32], device).with_rules(&*rules);
    let builder = names()
        .zip(&of_axes)
        .fold(builder, |builder, (name, columns)| builder.with_axis(name, ConditionSource::Stored(columns)));
    let module = blueprint.build(builder)?;
    let owned = rules.trainable(module.weights());

    let plan = TrainPlan::new(model, Aim::Reference, ask.spec, dataset.n_cells())?;
    let mut trainer = Trainer::new(module.as_ref(), &dataset, plan, seeds, rules.mode())?.with_tensors(owned);
    let history = trainer.run(progress, checkpoints)?;
    let mut card = reference.base.card.clone();
    let (fact, value) = BaseCard::APPROXIMATE;
    card.training.insert(fact.to_owned(), value.into());
    card.training.insert(TRAIN_MODE.to_owned(), (rules.mode() == Mode::Training).into());
    card.config = blueprint.to_card_config();
    card.labels = blueprint.registry.labels().to_vec();
    let keys: Vec<ConditionKey> = axes.into_iter().flat_map(|table| table.keys).collect();
    share(&mut card.layout, &blueprint, &keys);
    Ok(Trained { reference: Reference::of_module(card, &keys, module.as_ref()), history, engine: Engine::Autograd })
}

/// The keys of one axis once a query has come to those of the reference.
struct GrownTable {
    /// Those of the reference, then the new ones, each in their order.
    keys: Vec<ConditionKey>,
    /// Code of each cell.
    codes: Vec<u32>,
}

impl GrownTable {
    fn new(reference: &Reference, cells: &CellConditions) -> Self {
        let section = cells.keys().first().map(ConditionKey::section).cloned().unwrap_or_default();
        let known = reference.columns.keys().filter(|key| *key.section() == section);
        let mut keys: Vec<ConditionKey> = known.cloned().collect();
        let is_new = |key: &&ConditionKey| !reference.columns.contains_key(key);
        let mut new: Vec<ConditionKey> = cells.keys().iter().filter(is_new).cloned().collect();
        new.sort();
        keys.extend(new);
        let code_of =
            |key: &ConditionKey| keys.iter().position(|known| known == key).expect("all keys are listed") as u32;
        let codes: Vec<u32> = cells.keys().iter().map(code_of).collect();
        let codes = cells.codes().iter().map(|&code| codes[code as usize]).collect();
        Self { keys, codes }
    }

    /// Columns of all keys: new ones from the fresh module.
    fn columns(&self, reference: &Reference, fresh: &dyn Module) -> Vec<Columns> {
        let of_key = |(code, key): (usize, &ConditionKey)| match reference.columns.get(key) {
            Some(columns) => columns.clone(),
            None => fresh.weights().columns_on(key.section(), code),
        };
        self.keys.iter().enumerate().map(of_key).collect()
    }
}

/// The reference's tensors at the sizes of the fresh module's, new columns from the fresh one.
fn grow(
    reference: &Reference,
    conditions: &GrownTable,
    fresh: &dyn Module,
    placement: Placement,
    device: Device,
) -> Result<(StateDict, Vec<Columns>)> {
    let is_alone = fresh.weights().layout().axes.len() < 2;
    match placement {
        // The rows of a further axis stand in a table of their own, whose end is the end.
        Placement::End if is_alone => {
            let known: Vec<ConditionKey> = reference.columns.keys().cloned().collect();
            let old = reference.module(&known, device)?;
            let grown = extend(&upstream_tensors(old.as_ref()), &upstream_tensors(fresh))?;
            let (mut base, columns) = Layout::of(fresh.weights()).split(&grown)?;
            // What was computed from the reference's cells is none of upstream's tensors.
            let summaries = old.weights().iter().filter(|(_, weight)| weight.role == Role::Summary);
            summaries.for_each(|(name, weight)| drop(base.insert(name, from_tch(&weight.tensor))));
            let facts = (0..).map(|code| match known.get(code) {
                Some(key) => reference.columns[key].clone(),
                None => fresh.weights().columns(code),
            });
            Ok((base, columns.into_iter().zip(facts).map(|(columns, facts)| with_facts(columns, facts)).collect()))
        }
        Placement::OwnBlock | Placement::End => {
            Ok((reference.base.tensors.clone(), conditions.columns(reference, fresh)))
        }
    }
}

/// Columns and what upstream does not keep among its tensors.
fn with_facts(mut columns: Columns, facts: Columns) -> Columns {
    for (name, fact) in facts.0.iter() {
        if columns.0.get(name).is_none() {
            columns.0.insert(name, fact.clone());
        }
    }
    columns
}

/// The fact that says in which mode the steps of a surgery ran.
const TRAIN_MODE: &str = "train_mode";

fn upstream_tensors(module: &dyn Module) -> StateDict {
    let joined = Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.detach()));
    joined.iter().map(|(name, tensor)| -> (String, Stored) { (name.clone(), from_tch(tensor)) }).collect()
}
