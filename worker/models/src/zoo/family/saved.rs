//! What the saved folders of all native models have in common.

use std::collections::BTreeMap;

use archipelago_common::{BaseCard, Columns, ConditionKey, Layout, Name, Section, StateDict};
use serde_json::{Value as Json, json};
use tch::Tensor;

use crate::{
    blueprint::Blueprint,
    data::LABELS,
    device::Device,
    error::Result,
    formats::scarches::SavedFolder,
    model::Module,
    nn::{Builder, ConditionSource, Source, Trainable, from_tch},
    reference::Reference,
    upstream::{self, Namespace},
};

/// The conditions of a saved model, in order of the codes.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for a model without conditions, [`Error::Common`](crate::Error::Common) if a name is too long or not text
pub fn conditions(saved: &SavedFolder, namespace: &Namespace) -> Result<Vec<ConditionKey>> {
    keys(saved.attributes.get("conditions_"), namespace)
}

/// The conditions that a list of names is, in its order.
///
/// # Errors  as [`conditions`]
pub fn keys(names: Option<&Json>, namespace: &Namespace) -> Result<Vec<ConditionKey>> {
    let names = names.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if names.is_empty() {
        return Err(SavedFolder::refuse("the model has no conditions: scArches cannot train or query such a model"));
    }
    let mut keys: Vec<ConditionKey> = Vec::with_capacity(names.len());
    for name in names {
        let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
        let key = ConditionKey::new(namespace.owner.clone(), namespace.dataset.clone(), name.clone())?;
        if keys.contains(&key) {
            return Err(SavedFolder::refuse(format!("two conditions are called `{name}`")));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// The reference of a saved model.
///
/// # Errors  [`Error::Import`](crate::Error::Import) where attributes and gene names disagree, tensors that do not fit the options
pub fn reference(model: &str, saved: &SavedFolder, blueprint: &Blueprint, keys: &[ConditionKey]) -> Result<Reference> {
    reference_of_genes(INPUT_DIM, model, saved, blueprint, keys)
}

/// The reference of a saved model whose number of genes is this attribute.
///
/// # Errors  as [`reference()`]
pub fn reference_of_genes(
    n_genes: &str,
    model: &str,
    saved: &SavedFolder,
    blueprint: &Blueprint,
    keys: &[ConditionKey],
) -> Result<Reference> {
    let batch_key = saved.attributes.get("condition_key_").and_then(Json::as_str).unwrap_or_default();
    let (axes, summaries) = (vec![], StateDict::new());
    reference_of(Saved { n_genes, model, saved, blueprint, keys, axes, batch_key, summaries })
}

/// What a saved model is made of.
pub struct Saved<'a> {
    /// The attribute that is the number of genes.
    pub n_genes: &'a str,
    /// Its name in the zoo.
    pub model: &'a str,
    /// Tensors, attributes and genes.
    pub saved: &'a SavedFolder,
    /// Options and fields.
    pub blueprint: &'a Blueprint,
    /// Conditions, in order of their codes.
    pub keys: &'a [ConditionKey],
    /// Further axes with their keys, in order of their codes.
    pub axes: Vec<(Name, Vec<ConditionKey>)>,
    /// The obs column of the conditions.
    pub batch_key: &'a str,
    /// What upstream keeps elsewhere than among its tensors.
    pub summaries: StateDict,
}

/// The reference of a saved model that has more than columns.
///
/// # Errors  as [`reference()`]
pub fn reference_of(saved: Saved<'_>) -> Result<Reference> {
    let Saved { n_genes: attribute, model, saved, blueprint, keys, axes, batch_key, summaries } = saved;
    let n_genes = saved.attributes.get(attribute).and_then(Json::as_u64);
    if n_genes != Some(saved.genes.len() as u64) {
        let expected = n_genes.map_or_else(|| "no number".to_owned(), |n| n.to_string());
        let detail = format!("there are {} gene names, and `{attribute}` is {expected}", saved.genes.len());
        return Err(SavedFolder::refuse(detail));
    }
    let training =
        BTreeMap::from([(SAVED_BY.to_owned(), json!("scArches")), ("n_conditions".to_owned(), keys.len().into())]);
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: model.to_owned(),
        config: blueprint.to_card_config(),
        genes: saved.genes.clone(),
        batch_key: batch_key.to_owned(),
        labels_key: blueprint.registry.obs_key(LABELS).map(str::to_owned),
        labels: blueprint.registry.labels().to_vec(),
        // Completed when the module is built.
        layout: Layout::plain(BTreeMap::new()),
        moves_embedding: blueprint.model.moves_embedding(),
        training,
        recipe: None,
    };
    assembled(card, blueprint, (keys, axes), &saved.tensors, &summaries)
}

/// The reference with these upstream tensors, of conditions and of the keys of further axes in order of their codes. Its card has no
/// layout yet.
///
/// # Errors  tensors that do not fit the options
pub fn assembled(
    card: BaseCard,
    blueprint: &Blueprint,
    (keys, axes): (&[ConditionKey], Vec<(Name, Vec<ConditionKey>)>),
    tensors: &StateDict,
    summaries: &StateDict,
) -> Result<Reference> {
    let build = |source, conditions, further: &[(Name, ConditionSource<'_>)]| -> Result<Box<dyn Module>> {
        let builder = Builder::new(source, conditions, Trainable::Nothing, [0; 32], tch::Device::Cpu);
        blueprint.build(further.iter().fold(builder, |builder, (name, keys)| builder.with_axis(name.clone(), *keys)))
    };
    let fresh: Vec<_> = axes.iter().map(|(name, keys)| (name.clone(), ConditionSource::Fresh(keys.len()))).collect();
    let layout = upstream::Layout::of(build(Source::Fresh, ConditionSource::Fresh(keys.len()), &fresh)?.weights());
    let (mut base, columns) = layout.split(tensors)?;
    summaries.iter().for_each(|(name, tensor)| drop(base.insert(name, tensor.clone())));
    // In the order in which a reference keeps them, whatever order they were saved in: the mean column is a sum.
    let (keys, columns) = sorted(keys, &columns);
    let of_axis = |(name, keys): &(Name, Vec<ConditionKey>)| -> Result<_> {
        let columns = layout.columns_on(&Section::Axis(name.clone()), tensors)?;
        let (keys, columns) = sorted(keys, &columns);
        Ok((name.clone(), keys, columns.into_iter().cloned().collect::<Vec<Columns>>()))
    };
    let axes = axes.iter().map(of_axis).collect::<Result<Vec<_>>>()?;
    let rows: Vec<Vec<&Columns>> = axes.iter().map(|(_, _, columns)| columns.iter().collect()).collect();
    let stored: Vec<_> =
        axes.iter().zip(&rows).map(|((name, _, _), rows)| (name.clone(), ConditionSource::Stored(rows))).collect();
    let module = build(Source::Stored(&base), ConditionSource::Stored(&columns), &stored)?;
    let layout = blueprint.layout(module.as_ref());
    let card = BaseCard { format: layout.card_format(), layout, ..card };
    let all_keys: Vec<ConditionKey> = keys.into_iter().chain(axes.into_iter().flat_map(|(_, keys, _)| keys)).collect();
    Ok(Reference::of_module(card, &all_keys, module.as_ref()))
}

/// Keys in their order, with their columns.
fn sorted<'a>(keys: &[ConditionKey], columns: &'a [Columns]) -> (Vec<ConditionKey>, Vec<&'a Columns>) {
    let sorted: BTreeMap<&ConditionKey, &Columns> = keys.iter().zip(columns).collect();
    sorted.into_iter().map(|(key, columns)| (key.clone(), columns)).unzip()
}

/// The tensors of a reference under upstream's names, conditions in order of their keys.
///
/// # Errors  tensors that do not fit the card
pub fn tensors(reference: &Reference) -> Result<StateDict> {
    let keys: Vec<ConditionKey> = reference.columns.keys().cloned().collect();
    let module = reference.module(&keys, Device::Cpu)?;
    let joined = upstream::Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.detach()));
    Ok(joined.iter().map(|(name, tensor): (&String, &Tensor)| (name.clone(), from_tch(tensor))).collect())
}

/// The attributes that every native model has.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for a reference without conditions
pub fn attributes(reference: &Reference) -> Result<BTreeMap<String, Json>> {
    let card = &reference.base.card;
    let key = if card.batch_key.is_empty() { "condition" } else { &card.batch_key };
    Ok(BTreeMap::from([
        ("condition_key_".to_owned(), json!(key)),
        ("conditions_".to_owned(), json!(names(reference, &Section::Condition)?)),
        (INPUT_DIM.to_owned(), json!(card.genes.len())),
        ("is_trained_".to_owned(), json!(true)),
    ]))
}

/// Names of the keys of an axis: bare where all are of one data set, whole keys otherwise.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for an axis without keys
pub fn names(reference: &Reference, section: &Section) -> Result<Vec<String>> {
    let keys: Vec<&ConditionKey> = reference.columns.keys().filter(|key| key.section() == section).collect();
    if keys.is_empty() {
        return Err(SavedFolder::refuse(
            "a reference without conditions cannot be saved: scArches needs one to query it",
        ));
    }
    let is_one_data_set =
        keys.windows(2).all(|pair| pair[0].owner() == pair[1].owner() && pair[0].dataset() == pair[1].dataset());
    let name = |key: &&ConditionKey| if is_one_data_set { key.batch().to_owned() } else { key.to_string() };
    Ok(keys.iter().map(name).collect())
}

/// The attribute that is the number of genes in most models.
pub const INPUT_DIM: &str = "input_dim_";
/// The fact that says where an imported model came from.
const SAVED_BY: &str = "saved_by";
