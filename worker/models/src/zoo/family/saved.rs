//! What the saved folders of all native models have in common.

use std::collections::BTreeMap;

use archipelago_common::{BaseCard, Columns, ConditionKey, Layout, StateDict};
use serde_json::{Value as Json, json};
use tch::Tensor;

use crate::{
    blueprint::Blueprint,
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
    let names = saved.attributes.get("conditions_").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
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
/// # Errors  as [`reference`]
pub fn reference_of_genes(
    attribute: &str,
    model: &str,
    saved: &SavedFolder,
    blueprint: &Blueprint,
    keys: &[ConditionKey],
) -> Result<Reference> {
    let n_genes = saved.attributes.get(attribute).and_then(Json::as_u64);
    if n_genes != Some(saved.genes.len() as u64) {
        let expected = n_genes.map_or_else(|| "no number".to_owned(), |n| n.to_string());
        let detail = format!("there are {} gene names, and `{attribute}` is {expected}", saved.genes.len());
        return Err(SavedFolder::refuse(detail));
    }
    let condition_key = saved.attributes.get("condition_key_").and_then(Json::as_str).unwrap_or_default();
    let training =
        BTreeMap::from([(SAVED_BY.to_owned(), json!("scArches")), ("n_conditions".to_owned(), keys.len().into())]);
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: model.to_owned(),
        config: blueprint.to_card_config(),
        genes: saved.genes.clone(),
        batch_key: condition_key.to_owned(),
        labels_key: None,
        labels: Vec::new(),
        // Completed when the module is built.
        layout: Layout::plain(BTreeMap::new()),
        moves_embedding: blueprint.model.moves_embedding(),
        training,
        recipe: None,
    };
    let build = |source, conditions| -> Result<Box<dyn Module>> {
        blueprint.build(Builder::new(source, conditions, Trainable::Nothing, [0; 32], tch::Device::Cpu))
    };
    let layout = upstream::Layout::of(build(Source::Fresh, ConditionSource::Fresh(keys.len()))?.weights());
    let (base, columns) = layout.split(&saved.tensors)?;
    // In the order in which a reference keeps them, whatever order they were saved in: the mean column is a sum.
    let sorted: BTreeMap<&ConditionKey, &Columns> = keys.iter().zip(&columns).collect();
    let (keys, columns): (Vec<ConditionKey>, Vec<&Columns>) = sorted.into_iter().map(|(k, c)| (k.clone(), c)).unzip();
    let module = build(Source::Stored(&base), ConditionSource::Stored(&columns))?;
    let layout = blueprint.layout(module.as_ref());
    let card = BaseCard { format: layout.card_format(), layout, ..card };
    Ok(Reference::of_module(card, &keys, module.as_ref()))
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
    if reference.columns.is_empty() {
        return Err(SavedFolder::refuse(
            "a reference without conditions cannot be saved: scArches needs one to query it",
        ));
    }
    let key = if card.batch_key.is_empty() { "condition" } else { &card.batch_key };
    Ok(BTreeMap::from([
        ("condition_key_".to_owned(), json!(key)),
        ("conditions_".to_owned(), json!(names(reference))),
        (INPUT_DIM.to_owned(), json!(card.genes.len())),
        ("is_trained_".to_owned(), json!(true)),
    ]))
}

/// The conditions' names: bare where all are of one data set, whole keys otherwise.
fn names(reference: &Reference) -> Vec<String> {
    let keys: Vec<&ConditionKey> = reference.columns.keys().collect();
    let is_one_data_set =
        keys.windows(2).all(|pair| pair[0].owner() == pair[1].owner() && pair[0].dataset() == pair[1].dataset());
    let name = |key: &&ConditionKey| if is_one_data_set { key.batch().to_owned() } else { key.to_string() };
    keys.iter().map(name).collect()
}

/// The attribute that is the number of genes in most models.
const INPUT_DIM: &str = "input_dim_";
/// The fact that says where an imported model came from.
const SAVED_BY: &str = "saved_by";
