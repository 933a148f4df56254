//! What the conversion of any saved model to a reference, and back, is made of.

use std::{collections::BTreeMap, path::PathBuf};

use archipelago_anndata::names;
use archipelago_common::{BaseCard, Columns, ConditionKey, Name, SiteId, StateDict};
use tch::Tensor;

use super::{CategoricalField, SavedModel, SavedRegistry, read::MODEL, registry::INTERNAL};
use crate::{
    blueprint::Blueprint,
    data::{CATEGORICAL, CONTINUOUS, Encoding, LABELS, LabelNames, OBS, Range, Registry, SIZE_FACTOR},
    error::{Error, Result},
    formats::{
        pickle::Scalar,
        upstream::{Layout, Named, PartKind},
    },
    model::Module,
    nn::{Builder, ConditionSource, Source, Trainable, from_tch},
    reference::Reference,
};

/// Whose conditions the batches of an imported model become: `owner/dataset/batch`.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// The operator or site that publishes the reference.
    pub owner: SiteId,
    /// The data set it was trained on.
    pub dataset: Name,
}

impl Namespace {
    /// The condition of each batch, in order of the codes.
    ///
    /// # Errors  [`Error::Import`] if two batches have one name as text, [`Error::Common`] if a name is too long or not text
    pub(super) fn conditions(&self, batch: &CategoricalField) -> Result<Vec<ConditionKey>> {
        let mut keys: Vec<ConditionKey> = Vec::new();
        for category in &batch.categories {
            let name = name(category)?;
            let key = ConditionKey::new(self.owner.clone(), self.dataset.clone(), &name)?;
            if keys.contains(&key) {
                return Err(refuse(format!("two batches are called `{name}`")));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(refuse("the registry has no batch"));
        }
        Ok(keys)
    }
}

/// An error about a saved model that was read.
pub(super) fn refuse(detail: impl Into<String>) -> Error {
    Error::Import { file: PathBuf::from(MODEL), detail: detail.into() }
}

/// The registry as models use it. `labels` are those that the model encodes, if it does.
///
/// # Errors  [`Error::Import`] if categorical covariates are not in name order, the order of our blocks
pub(super) fn data_registry(saved: &SavedRegistry, labels: LabelNames) -> Result<Registry> {
    if !saved.categorical_covariates.is_sorted_by(|a, b| a.key < b.key) {
        let keys: Vec<&str> = saved.categorical_covariates.iter().map(|covariate| covariate.key.as_str()).collect();
        return Err(refuse(format!("categorical covariates are {}, expected in name order", keys.join(", "))));
    }
    let categorical = saved.categorical_covariates.iter().map(|covariate| (covariate.key.clone(), texts(covariate)));
    let mut registry = Registry::default();
    if !labels.names.is_empty() || labels.unlabelled.is_some() {
        let key = Some(format!("{OBS}{}", saved.labels.key));
        registry = registry.with(LABELS, Encoding::Labels(labels)).found_at(LABELS, key);
    }
    if !saved.categorical_covariates.is_empty() {
        registry = registry.with(CATEGORICAL, Encoding::Categories(categorical.collect()));
    }
    if !saved.continuous_covariates.is_empty() {
        registry = registry.with(CONTINUOUS, Encoding::Numbers(saved.continuous_covariates.clone()));
    }
    if let Some(key) = &saved.size_factor_key {
        registry = registry.with(SIZE_FACTOR, Encoding::Number(Range::Positive));
        registry = registry.found_at(SIZE_FACTOR, Some(format!("{OBS}{key}")));
    }
    Ok(registry)
}

/// Categories by their names.
pub(super) fn texts(field: &CategoricalField) -> Vec<String> {
    field.categories.iter().map(|category| name(category).unwrap_or_else(|_| category.to_string())).collect()
}

/// The name of a category as a column of its type is named when a file of cells is read.
fn name(category: &Scalar) -> Result<String> {
    match category {
        Scalar::Float(number) => {
            names::of_number(*number).ok_or_else(|| refuse("a category is NaN, which stands for a missing value"))
        }
        other => Ok(other.to_string()),
    }
}

/// The reference with these upstream tensors. `facts` are what upstream keeps of conditions elsewhere, in order of the codes.
///
/// # Errors  tensors that do not fit the card
pub(super) fn reference(
    blueprint: &Blueprint,
    card: BaseCard,
    keys: &[ConditionKey],
    tensors: &StateDict,
    facts: &[Columns],
) -> Result<Reference> {
    let build = |source, conditions| {
        blueprint.build(Builder::new(source, conditions, Trainable::Nothing, [0; 32], tch::Device::Cpu))
    };
    let layout = Layout::of(build(Source::Fresh, ConditionSource::Fresh(keys.len()))?.weights());
    let (base, mut columns) = layout.split(tensors)?;
    for (columns, facts) in columns.iter_mut().zip(facts) {
        facts.0.iter().for_each(|(name, fact)| drop(columns.0.insert(name, fact.clone())));
    }
    let columns: Vec<&Columns> = columns.iter().collect();
    let module = build(Source::Stored(&base), ConditionSource::Stored(&columns))?;
    let layout = blueprint.model.layout(module.weights().layout());
    let card = BaseCard { format: layout.card_format(), layout, ..card };
    Ok(Reference::of_module(card, keys, module.as_ref()))
}

/// A module's tensors under upstream's names.
///
/// A covariate of a single category has no column upstream: the column of a lone condition is added to the bias.
pub(super) fn upstream_tensors(module: &dyn Module) -> StateDict {
    let weights = module.weights();
    let layout = Layout::of(weights);
    let mut tensors = layout.join(weights, |_, tensor| Some(tensor.detach()));
    if weights.n_conditions() == 1 {
        for (name, parts) in layout.iter().filter(|(_, parts)| parts.len() > 1) {
            let mut before = 0;
            for part in parts {
                if part.kind == PartKind::Conditions {
                    let column =
                        weights.get(&part.name).expect("the layout is of these weights").detach().squeeze_dim(0);
                    fold_column(&mut tensors, name, before, &column);
                }
                before += part.n_columns;
            }
        }
    }
    tensors.iter().map(|(name, tensor)| (name.clone(), from_tch(tensor))).collect()
}

fn fold_column(tensors: &mut Named, name: &str, position: i64, column: &Tensor) {
    let whole = &tensors[name];
    let after = whole.size()[1] - position - 1;
    let rest = Tensor::cat(&[whole.narrow(1, 0, position), whole.narrow(1, position + 1, after)], 1);
    let bias = name.strip_suffix("weight").map(|stem| format!("{stem}bias")).expect("columns stand in a weight");
    let sum = &tensors[&bias] + column;
    tensors.insert(name.to_owned(), rest);
    tensors.insert(bias, sum);
}

/// The batches of a reference: bare names where all conditions are of one data set, whole keys otherwise. Numbers are
/// numbers again where they were in the saved model, as scvi-tools tells `1` from `"1"`.
pub(super) fn batches(reference: &Reference) -> CategoricalField {
    let card = &reference.base.card;
    let keys: Vec<&ConditionKey> = reference.columns.keys().collect();
    if card.batch_key.starts_with(INTERNAL) && keys.len() == 1 {
        return CategoricalField::default();
    }
    let data_set = |key: &ConditionKey| (key.owner().clone(), key.dataset().clone());
    let is_one_data_set = keys.windows(2).all(|pair| data_set(pair[0]) == data_set(pair[1]));
    let name = |key: &&ConditionKey| if is_one_data_set { key.batch().to_owned() } else { key.to_string() };
    let names: Vec<String> = keys.iter().map(name).collect();
    let number: fn(&String) -> Option<Scalar> = match card.training.get(NUMBERED_BATCHES) {
        Some(kind) if kind == FLOATS => |name| name.parse().ok().map(Scalar::Float),
        Some(_) => |name| name.parse().ok().map(Scalar::Int),
        None => |_| None,
    };
    let numbers: Option<Vec<Scalar>> = names.iter().map(number).collect();
    let categories = numbers.unwrap_or_else(|| names.into_iter().map(Scalar::Text).collect());
    CategoricalField { key: card.batch_key.clone(), categories }
}

/// Facts that a card keeps of where an imported model came from; unknown constructor arguments among them.
pub(super) fn provenance(saved: &SavedModel) -> BTreeMap<String, serde_json::Value> {
    let mut facts = BTreeMap::from([("scvi_tools_version".to_owned(), saved.version.to_string().into())]);
    if let Some(n_cells) = saved.registry.n_cells {
        facts.insert("n_cells".to_owned(), n_cells.into());
    }
    let batches = &saved.registry.batch.categories;
    if batches.iter().all(|category| matches!(category, Scalar::Int(_))) {
        facts.insert(NUMBERED_BATCHES.to_owned(), true.into());
    } else if batches.iter().all(|category| matches!(category, Scalar::Float(_))) {
        facts.insert(NUMBERED_BATCHES.to_owned(), FLOATS.into());
    }
    let unknown = saved.unknown_arguments().into_iter().map(|name| (name.to_owned(), saved.init_params[name].clone()));
    let unknown: serde_json::Map<_, _> = unknown.collect();
    if !unknown.is_empty() {
        facts.insert("unknown_arguments".to_owned(), unknown.into());
    }
    facts
}

/// The fact that the batches of the saved model were numbers: `true` for integers, or [`FLOATS`].
const NUMBERED_BATCHES: &str = "numbered_batches";
const FLOATS: &str = "floats";
