//! A condition's columns as an adaptor, the two files that scArches' users hand each other, and back.

use std::collections::BTreeMap;

use archipelago_common::{Columns, ConditionKey, StateDict, Tensor};
use serde_json::{Value as Json, json};

use crate::{
    error::{Error, Result},
    formats::scarches::adaptor::Adaptor,
    reference::Reference,
};

/// What of a model's options an adaptor must share with the model it is attached to.
const SHARED: [&str; 3] = ["hidden_layer_sizes", "latent_dim", "recon_loss"];

/// The columns of a condition, under the condition's bare name.
///
/// # Errors  [`Error::UnknownCondition`]
pub fn adaptor_of(reference: &Reference, key: &ConditionKey) -> Result<Adaptor> {
    let columns = reference.columns.get(key).ok_or_else(|| Error::UnknownCondition { key: key.clone() })?;
    let mut out = StateDict::new();
    for (name, column) in columns.0.iter() {
        out.insert(upstream_name(name), reshaped(name, column, [column.shape(), &[1]].concat())?);
    }
    Ok(Adaptor { condition: key.batch().to_owned(), columns: out, model: model_of(reference) })
}

/// The columns that an adaptor holds for a reference. Gene names are for the reader to compare ([`shared_genes`]): columns of layers do
/// not depend on them, those of dispersions do.
///
/// # Errors  [`Error::Adaptor`] saying what does not fit
pub fn columns_of(reference: &Reference, adaptor: &Adaptor) -> Result<Columns> {
    let refuse = |detail: String| Err(Error::Adaptor { detail });
    let own = model_of(reference);
    for name in SHARED {
        let (found, expected) = (adaptor.model.get(name).unwrap_or(&Json::Null), &own[name]);
        if found != expected {
            return refuse(format!("its model's `{name}` is {found}, expected {expected}"));
        }
    }
    let mut columns = Columns::default();
    for (name, spec) in &reference.base.card.layout.columns() {
        let upstream = upstream_name(name);
        let column = adaptor.columns.require("the adaptor", &upstream)?;
        if column.shape() != [&spec.shape[..], &[1]].concat() || column.dtype() != spec.dtype {
            return refuse(format!("`{upstream}` is {}, expected a column of {spec}", column.spec()));
        }
        columns.0.insert(name.clone(), reshaped(name, column, spec.shape.clone())?);
    }
    if adaptor.columns.len() != columns.0.len() {
        let names: Vec<&str> = adaptor.columns.iter().map(|(name, _)| name).collect();
        return refuse(format!("it has columns of {}, more than the reference's layers take", names.join(", ")));
    }
    Ok(columns)
}

/// Share of the reference's genes that stand at the same place in the adaptor's model.
pub fn shared_genes(reference: &Reference, adaptor: &Adaptor) -> f64 {
    let own = &reference.base.card.genes;
    let names = adaptor.model.get(Adaptor::GENES).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let n_same = own.iter().zip(names).filter(|(own, name)| name.as_str() == Some(own)).count();
    n_same as f64 / own.len().max(1) as f64
}

/// What an adaptor says of its model.
fn model_of(reference: &Reference) -> BTreeMap<String, Json> {
    let card = &reference.base.card;
    let option = |name: &str| card.config.get(name).cloned().unwrap_or(Json::Null);
    let shared = SHARED.map(|name| (name.to_owned(), option(name)));
    shared.into_iter().chain([(Adaptor::GENES.to_owned(), json!(card.genes))]).collect()
}

fn upstream_name(name: &str) -> String {
    name.strip_suffix(".condition").unwrap_or(name).to_owned()
}

fn reshaped(name: &str, tensor: &Tensor, shape: Vec<usize>) -> Result<Tensor> {
    Ok(Tensor::new(name, tensor.dtype(), shape, tensor.bytes().to_vec())?)
}
