//! An ensemble as a reference: a base without tensors, and a member for each section.

use std::collections::BTreeMap;

use archipelago_common::{BaseCard, ConditionKey, Section, part::Member};
use ndarray::{Array2, Axis};

use super::{
    COORDINATES, SagenetConfig,
    config::NAME,
    member::{self, SectionNetworks},
    section::{OnEpoch, Partition, partitions, train_section},
};
use crate::{
    blueprint::Blueprint,
    data::{CellConditions, Cells, Dataset, Encoding, Registry, Slot, slot::Coordinates},
    device::Engine,
    error::{Error, Result},
    model::{Configured as _, Module},
    nn::{Builder, ConditionSource, Source, Trainable},
    parts,
    reference::{self, Reference, Training},
};

/// Partitions of a section that somebody has made, for the cells of each section in their order.
pub type Given = BTreeMap<ConditionKey, Vec<Partition>>;

/// A section that was learnt.
#[derive(Debug)]
pub struct Learnt {
    /// Its networks.
    pub networks: SectionNetworks,
    /// The partitions that they know.
    pub partitions: Vec<Partition>,
    /// Its cells, by their positions among all.
    pub cells: Vec<usize>,
}

/// An ensemble without a member, for sections like these: their genes, their kind of places.
///
/// # Errors  bad options, cells without places
pub fn empty(training: &Training<'_>) -> Result<Reference> {
    let configured = training.model.configure(training.options)?;
    let registry = Registry::of(&configured.fields(), training.cells)?;
    let blueprint = Blueprint { model: configured, registry, n_genes: training.genes.len() };
    let module = module(&blueprint)?;
    let layout = blueprint.layout(module.as_ref());
    let card = reference::card(training, &blueprint, layout, &[]);
    Ok(Reference::of_module(card, training.conditions.keys(), module.as_ref()))
}

/// An ensemble of networks that were trained elsewhere, on cells in a plane and on these genes.
///
/// # Errors  [`Error::Config`] for bad options, networks that do not fit them
pub fn of_networks(
    config: &SagenetConfig,
    genes: &[String],
    batch_key: &str,
    sections: &BTreeMap<ConditionKey, SectionNetworks>,
) -> Result<Reference> {
    let registry = Registry::default().with(COORDINATES, Encoding::Coordinates(PLANE)).of_model(&config.fields());
    let blueprint = Blueprint { model: Box::new(config.clone()), registry, n_genes: genes.len() };
    let module = module(&blueprint)?;
    let layout = blueprint.layout(module.as_ref());
    let keys: Vec<ConditionKey> = sections.keys().cloned().collect();
    let card = BaseCard {
        format: layout.card_format(),
        model: NAME.to_owned(),
        config: blueprint.to_card_config(),
        genes: genes.to_vec(),
        batch_key: batch_key.to_owned(),
        labels_key: None,
        labels: Vec::new(),
        layout,
        moves_embedding: blueprint.model.moves_embedding(),
        training: [(parts::OWN.to_owned(), parts::names(&keys))].into(),
        recipe: None,
    };
    let mut ensemble = Reference::of_module(card, &[], module.as_ref());
    for (key, networks) in sections {
        let member = networks.to_member();
        SectionNetworks::of_member(config, genes.len(), &member)?;
        ensemble.parts.insert(part_key(key), member);
    }
    Ok(ensemble)
}

/// What stands for an ensemble among modules; it has no tensors.
fn module(blueprint: &Blueprint) -> Result<Box<dyn Module>> {
    let none = ConditionSource::Fresh(0);
    blueprint.build(Builder::new(Source::Fresh, none, Trainable::Everything, [0; 32], tch::Device::Cpu))
}

/// The options of an ensemble.
///
/// # Errors  those of a card that cannot be read
pub fn config_of(ensemble: &Reference) -> Result<SagenetConfig> {
    let blueprint = Blueprint::of_card(&ensemble.base.card)?;
    SagenetConfig::parse(&blueprint.model.options())
}

/// The members of an ensemble, with their tags, in the order in which everybody adds them up.
///
/// # Errors  members that do not fit the ensemble's options and genes
pub fn members_of(ensemble: &Reference) -> Result<Vec<(String, SectionNetworks)>> {
    member::ensemble(&config_of(ensemble)?, ensemble.base.card.genes.len(), &ensemble.known_parts())
}

/// Learns sections, each by itself, and adds them to an ensemble. Each condition of the cells is a section.
///
/// # Errors  [`Error::KnownCondition`] for a section that is there already, and those of [`train_section`]
pub fn add_sections(
    ensemble: &mut Reference,
    cells: &Cells<'_>,
    conditions: &CellConditions,
    given: &Given,
    engine: Engine,
    progress: OnEpoch<'_>,
) -> Result<BTreeMap<ConditionKey, Learnt>> {
    let (config, blueprint) = (config_of(ensemble)?, Blueprint::of_card(&ensemble.base.card)?);
    let dataset = blueprint.encode(cells, conditions)?;
    let slot = blueprint.registry.slot(COORDINATES)?;
    let mut learnt = BTreeMap::new();
    for (code, key) in conditions.keys().iter().enumerate() {
        if ensemble.parts.contains_key(&part_key(key)) {
            return Err(Error::KnownCondition { key: key.clone() });
        }
        let is_of_section = |&cell: &usize| conditions.codes()[cell] as usize == code;
        let cells: Vec<usize> = (0..dataset.n_cells()).filter(is_of_section).collect();
        let partitions = match given.get(key) {
            Some(given) => given.clone(),
            None => partitions(places(&dataset, slot, &cells).view(), &config)?,
        };
        let told = |partition: &str, report: &_| progress(&format!("{}/{partition}", key.batch()), report);
        let networks = train_section(&config, &expression(&dataset, &cells), &partitions, engine, &told)?;
        learnt.insert(key.clone(), Learnt { networks, partitions, cells });
    }
    for (key, section) in &learnt {
        let member: Member = section.networks.to_member();
        ensemble.parts.insert(part_key(key), member);
    }
    Ok(learnt)
}

fn part_key(section: &ConditionKey) -> ConditionKey {
    section.clone().in_section(Section::Part(member::PART.parse().expect("the part's name is one")))
}

/// Places of some cells.
pub(super) fn places(dataset: &Dataset<'_>, slot: Slot<Coordinates>, cells: &[usize]) -> Array2<f32> {
    dataset.places(slot).select(Axis(0), cells)
}

/// Expression of some cells, `[n_cells, n_genes]`.
pub(super) fn expression(dataset: &Dataset<'_>, cells: &[usize]) -> Array2<f32> {
    let mut x = Array2::zeros((cells.len(), dataset.counts.n_cols()));
    for (mut row, &cell) in x.rows_mut().into_iter().zip(cells) {
        let (genes, values) = dataset.counts.row(cell);
        genes.iter().zip(values).for_each(|(&gene, &value)| row[gene as usize] = value);
    }
    x
}

/// Axes of the places that upstream's networks were trained with.
const PLANE: usize = 2;
