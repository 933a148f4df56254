//! Training under upstream's rules of surgery. The result is a new base: it cannot be merged with another site's.

use archipelago_common::{
    BaseCard, Columns, ConditionKey, StateDict, Tensor as Stored, progress::Progress, task::TrainSpec,
};

use super::upstream::{Flags, extend};
use crate::{
    blueprint::Blueprint,
    data::{CellConditions, Cells},
    device::{Device, Engine},
    error::Result,
    model::Module,
    nn::{Builder, ConditionSource, Mode, Source, Trainable, from_tch},
    reference::{Reference, Trained},
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
    let mut keys: Vec<ConditionKey> = reference.columns.keys().cloned().collect();
    let mut new: Vec<ConditionKey> =
        ask.conditions.keys().iter().filter(|key| !reference.columns.contains_key(key)).cloned().collect();
    new.sort();
    keys.extend(new);
    let code_of = |key: &ConditionKey| keys.iter().position(|known| known == key).expect("all keys are listed") as u32;
    let codes: Vec<u32> = ask.conditions.keys().iter().map(code_of).collect();
    let codes: Vec<u32> = ask.conditions.codes().iter().map(|&code| codes[code as usize]).collect();
    let blueprint = Blueprint::of_card(&reference.base.card)?;
    let dataset = blueprint.registry.encode(ask.cells, &codes, blueprint.n_genes)?;

    let seeds = Seeds::new(ask.spec.seed, "upstream surgery");
    let device = ask.device.to_tch();
    let fresh = ConditionSource::Fresh(keys.len());
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, seeds.of("weights", 0), device);
    let fresh = blueprint.build(builder)?;
    fresh.prepare(&dataset);

    let model = zoo::model(&reference.base.card.model)?;
    let (base, columns) = grow(reference, fresh.as_ref(), ask.placement, ask.device)?;
    let columns: Vec<_> = columns.iter().collect();
    let source = (Source::Stored(&base), ConditionSource::Stored(&columns));
    let rules = model.upstream_rules(&ask.flags);
    let builder = Builder::new(source.0, source.1, Trainable::Nothing, [0; 32], device).with_rules(&*rules);
    let module = blueprint.build(builder)?;
    let owned = rules.trainable(module.weights());

    let plan = TrainPlan::new(model, Aim::Reference, ask.spec, dataset.n_cells())?;
    let mut trainer = Trainer::new(module.as_ref(), &dataset, plan, seeds, Mode::Training)?.with_tensors(owned);
    let history = trainer.run(progress, checkpoints)?;
    let mut card = reference.base.card.clone();
    let (fact, value) = BaseCard::APPROXIMATE;
    card.training.insert(fact.to_owned(), value.into());
    Ok(Trained { reference: Reference::of_module(card, &keys, module.as_ref()), history, engine: Engine::Autograd })
}

/// The reference's tensors at the sizes of the fresh module's, new columns from the fresh one.
fn grow(
    reference: &Reference,
    fresh: &dyn Module,
    placement: Placement,
    device: Device,
) -> Result<(StateDict, Vec<Columns>)> {
    let known: Vec<ConditionKey> = reference.columns.keys().cloned().collect();
    match placement {
        Placement::OwnBlock => {
            let n_conditions = fresh.weights().n_conditions();
            let new = (known.len()..n_conditions).map(|code| fresh.weights().columns(code));
            Ok((reference.base.tensors.clone(), reference.columns.values().cloned().chain(new).collect()))
        }
        Placement::End => {
            let old = reference.module(&known, device)?;
            let grown = extend(&upstream_tensors(old.as_ref()), &upstream_tensors(fresh))?;
            let (base, columns) = Layout::of(fresh.weights()).split(&grown)?;
            let facts = (0..).map(|code| match known.get(code) {
                Some(key) => reference.columns[key].clone(),
                None => fresh.weights().columns(code),
            });
            Ok((base, columns.into_iter().zip(facts).map(|(columns, facts)| with_facts(columns, facts)).collect()))
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

fn upstream_tensors(module: &dyn Module) -> StateDict {
    let joined = Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.detach()));
    joined.iter().map(|(name, tensor)| -> (String, Stored) { (name.clone(), from_tch(tensor)) }).collect()
}
