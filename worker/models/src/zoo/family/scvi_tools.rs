//! What the models of scvi-tools have in common: from a saved model to a reference, and back.

use std::collections::BTreeMap;

use archipelago_common::{BaseCard, Columns, ConditionKey, StateDict};
use tch::Tensor;

use crate::{
    blueprint::Blueprint,
    data::{
        CATEGORICAL, CONTINUOUS, Encoding, Field, LABELS, LabelNames, OBS, Range, Registry, SIZE_FACTOR, Values, slot,
    },
    device::Device,
    error::{Error, Result},
    formats::{
        pickle::Scalar,
        scvi_tools::{CategoricalField, Indices, SETUP_ANNDATA, SavedModel, SavedRegistry, VarNames},
    },
    model::{Config, Model, Module},
    nn::{Builder, ConditionSource, Role, Source, Trainable, from_tch, to_tch},
    options::OptionCard,
    reference::Reference,
    upstream::{Class, Layout, Named, Namespace, Part, PartKind},
};

/// What models take of a cell, labels and further modalities apart.
pub(in crate::zoo) fn fields_of_counts() -> [Field; 4] {
    [Field::rna(Values::Counts), Field::categorical(), Field::continuous(), Field::size_factor()]
}

/// The constructor arguments that are options of ours.
pub(in crate::zoo) fn given_options(saved: &SavedModel, options: &[OptionCard]) -> Config {
    let given = |option: &OptionCard| {
        let saved_value = saved.init_params.get(option.name);
        let value = saved_value.or_else(|| saved.chosen.get(option.name)).filter(|value| !value.is_null())?;
        Some((option.name.to_owned(), value.clone()))
    };
    options.iter().filter_map(given).collect()
}

/// The reference of any saved model.
pub(in crate::zoo) fn import(
    model: &dyn Model,
    class: &Class,
    saved: &SavedModel,
    blueprint: &Blueprint,
    namespace: &Namespace,
    facts: &[Columns],
) -> Result<Reference> {
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: model.card().name.to_owned(),
        config: blueprint.to_card_config(),
        genes: saved.genes().to_vec(),
        batch_key: saved.registry.batch.key.clone(),
        labels_key: blueprint.registry.obs_key(LABELS).map(str::to_owned),
        labels: blueprint.registry.labels().to_vec(),
        // Completed when the module is built.
        layout: archipelago_common::Layout::plain(BTreeMap::new()),
        moves_embedding: blueprint.model.moves_embedding(),
        training: provenance(saved, class),
        recipe: None,
    };
    reference(blueprint, card, &conditions(saved, namespace)?, saved, facts)
}

/// The condition of each batch, in order of the codes.
fn conditions(saved: &SavedModel, namespace: &Namespace) -> Result<Vec<ConditionKey>> {
    let mut keys: Vec<ConditionKey> = Vec::new();
    for category in &saved.registry.batch.categories {
        let name = CategoricalField::name(category)
            .ok_or_else(|| saved.refuse("a category is NaN, which stands for a missing value"))?;
        let key = namespace.condition(&name)?;
        if keys.contains(&key) {
            return Err(saved.refuse(format!("two batches are called `{name}`")));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(saved.refuse("the registry has no batch"));
    }
    Ok(keys)
}

/// The saved model of any reference; `options` are those of the constructor.
pub(in crate::zoo) fn export(
    class: &Class,
    mut options: Config,
    registry: &Registry,
    reference: &Reference,
) -> Result<SavedModel> {
    let card = &reference.base.card;
    if reference.columns.is_empty() {
        let detail = "a reference without conditions cannot be saved: scvi-tools knows no model without batches";
        return Err(Error::Import { file: class.name.into(), detail: detail.to_owned() });
    }
    options.remove(BATCH_NORM_AFFINE);
    let keys: Vec<_> = reference.columns.keys().cloned().collect();
    let module = reference.module(&keys, Device::Cpu)?;
    let offsets = module.weights().iter().filter(|(_, weight)| weight.role == Role::ConditionOffset);
    for (name, offset) in offsets {
        if let Some(key) = keys
            .iter()
            .enumerate()
            .find(|(code, _)| offset.tensor.get(*code as i64).count_nonzero(None).int64_value(&[]) > 0)
        {
            let detail = format!(
                "condition `{}` adds to `{}`, which scvi-tools has once for all conditions; only what was mapped with \
                 `batch_norm_affine` shared can be saved there",
                key.1,
                name.trim_end_matches(".condition")
            );
            return Err(Error::Import { file: class.name.into(), detail });
        }
    }
    let state_dict = upstream_tensors(module.as_ref());
    let column = |key: &str, names: &[String]| CategoricalField {
        key: key.to_owned(),
        categories: names.iter().cloned().map(Scalar::Text).collect(),
    };
    let categorical = registry.remembered::<slot::Categories>(CATEGORICAL).cloned().unwrap_or_default();
    let continuous = registry.remembered::<slot::Numbers>(CONTINUOUS).cloned().unwrap_or_default();
    Ok(SavedModel {
        version: WRITTEN_VERSION.parse().expect("it is a version"),
        model_name: Some(class.name.to_owned()),
        state_dict,
        var_names: VarNames::Flat(card.genes.clone()),
        init_params: class.arguments(options),
        chosen: BTreeMap::new(),
        registry: SavedRegistry {
            setup_method: SETUP_ANNDATA.to_owned(),
            n_cells: card.training.get("n_cells").and_then(serde_json::Value::as_u64),
            genes: card.genes.clone(),
            batch: batches(reference),
            labels: card.labels_key.as_ref().map(|key| column(key, &card.labels)).unwrap_or_default(),
            size_factor_key: registry
                .get(SIZE_FACTOR)
                .map(|_| registry.obs_key(SIZE_FACTOR).unwrap_or(SIZE_FACTOR_KEY).to_owned()),
            categorical_covariates: categorical.iter().map(|(key, names)| column(key, names)).collect(),
            continuous_covariates: continuous,
            ..SavedRegistry::default()
        },
        unlabeled_category: None,
        is_trained: true,
        indices: Indices::default(),
    })
}

/// The registry as models use it. `labels` are those that the model encodes, if it does.
///
/// # Errors  [`Error::Import`] if two categorical covariates have one name
pub(in crate::zoo) fn data_registry(saved: &SavedModel, labels: LabelNames) -> Result<Registry> {
    let SavedRegistry { categorical_covariates, continuous_covariates, size_factor_key, .. } = &saved.registry;
    let mut categorical = BTreeMap::new();
    for covariate in categorical_covariates {
        if categorical.insert(covariate.key.clone(), covariate.names()).is_some() {
            return Err(saved.refuse(format!("two categorical covariates are called `{}`", covariate.key)));
        }
    }
    let mut registry = Registry::default();
    if !labels.names.is_empty() || labels.unlabelled.is_some() {
        let key = Some(format!("{OBS}{}", saved.registry.labels.key));
        registry = registry.with(LABELS, Encoding::Labels(labels)).found_at(LABELS, key);
    }
    if !categorical_covariates.is_empty() {
        registry = registry.with(CATEGORICAL, Encoding::Categories(categorical));
    }
    if !continuous_covariates.is_empty() {
        registry = registry.with(CONTINUOUS, Encoding::Numbers(continuous_covariates.clone()));
    }
    if let Some(key) = size_factor_key {
        registry = registry.with(SIZE_FACTOR, Encoding::Number(Range::Positive));
        registry = registry.found_at(SIZE_FACTOR, Some(format!("{OBS}{key}")));
    }
    Ok(registry)
}

/// The reference with the tensors of a saved model. `facts` are what upstream keeps of conditions elsewhere, in order of the codes.
///
/// # Errors  tensors that do not fit the card
fn reference(
    blueprint: &Blueprint,
    card: BaseCard,
    keys: &[ConditionKey],
    saved: &SavedModel,
    facts: &[Columns],
) -> Result<Reference> {
    let build = |source, conditions| {
        blueprint.build(Builder::new(source, conditions, Trainable::Nothing, [0; 32], tch::Device::Cpu))
    };
    let fresh = build(Source::Fresh, ConditionSource::Fresh(keys.len()))?;
    let layout = Layout::of(fresh.weights());
    let (base, mut columns) = layout.split(&in_name_order(saved, &layout)?)?;
    for (name, offset) in fresh.weights().iter().filter(|(_, weight)| weight.role == Role::ConditionOffset) {
        let of_code = |code: usize| from_tch(&offset.tensor.get(code as i64));
        columns.iter_mut().enumerate().for_each(|(code, columns)| drop(columns.0.insert(name, of_code(code))));
    }
    for (columns, facts) in columns.iter_mut().zip(facts) {
        facts.0.iter().for_each(|(name, fact)| drop(columns.0.insert(name, fact.clone())));
    }
    let columns: Vec<&Columns> = columns.iter().collect();
    let module = build(Source::Stored(&base), ConditionSource::Stored(&columns))?;
    let layout = blueprint.layout(module.as_ref());
    let card = BaseCard { format: layout.card_format(), layout, ..card };
    Ok(Reference::of_module(card, keys, module.as_ref()))
}

/// The tensors of a saved model, with the columns of categorical covariates in name order, the order of our blocks. Upstream has them in the
/// order in which the covariates were registered.
///
/// # Errors  a missing tensor
fn in_name_order(saved: &SavedModel, layout: &Layout) -> Result<StateDict> {
    let mut tensors = saved.state_dict.clone();
    let (mut blocks, mut end) = (BTreeMap::new(), 0);
    for covariate in &saved.registry.categorical_covariates {
        // One of a single category has no column.
        let n_columns = Some(covariate.categories.len() as i64).filter(|n| *n > 1).unwrap_or(0);
        blocks.insert(&covariate.key, end..end + n_columns);
        end += n_columns;
    }
    let sorted: Vec<i64> = blocks.into_values().flatten().collect();
    if sorted.is_sorted() {
        return Ok(tensors);
    }
    let takes_categories = |parts: &[Part]| parts.iter().any(|part| part.kind == PartKind::Categories);
    for (name, _) in layout.iter().filter(|(_, parts)| takes_categories(parts)) {
        let whole = to_tch(name, tensors.require("the model file", name)?)?;
        // They are the last columns. A tensor too narrow for them is refused by its width.
        let first = whole.size().last().map_or(0, |width| width - end);
        if first >= 0 {
            let order: Vec<i64> = (0..first).chain(sorted.iter().map(|column| first + column)).collect();
            tensors.insert(name.to_owned(), from_tch(&whole.index_select(-1, &Tensor::from_slice(&order))));
        }
    }
    Ok(tensors)
}

/// A module's tensors under upstream's names.
///
/// A covariate of a single category has no column upstream: the column of a lone condition is added to the bias.
fn upstream_tensors(module: &dyn Module) -> StateDict {
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
fn batches(reference: &Reference) -> CategoricalField {
    let card = &reference.base.card;
    let keys: Vec<&ConditionKey> = reference.columns.keys().collect();
    if CategoricalField::is_made_up(&card.batch_key) && keys.len() == 1 {
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
fn provenance(saved: &SavedModel, class: &Class) -> BTreeMap<String, serde_json::Value> {
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
    let unknown = saved.init_params.iter().filter(|(name, _)| !class.takes(name));
    let unknown: serde_json::Map<_, _> = unknown.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    if !unknown.is_empty() {
        facts.insert("unknown_arguments".to_owned(), unknown.into());
    }
    facts
}

/// The fact that the batches of the saved model were numbers: `true` for integers, or [`FLOATS`].
const NUMBERED_BATCHES: &str = "numbered_batches";
const FLOATS: &str = "floats";
/// The version whose numbers ours are.
const WRITTEN_VERSION: &str = "1.4.2";
/// The option of ours that no model of upstream has.
pub(in crate::zoo) const BATCH_NORM_AFFINE: &str = "batch_norm_affine";
/// The obs column of size factors in exported models whose reference does not say what it was called.
const SIZE_FACTOR_KEY: &str = "size_factor";
/// Options of modules that constructors pass on.
pub(in crate::zoo) const OF_MODULES: &[&str] = &[
    "batch_representation",
    "classifier_parameters",
    "deeply_inject_covariates",
    "dropout_rate_decoder",
    "dropout_rate_encoder",
    "encode_covariates",
    "extra_decoder_kwargs",
    "latent_distribution",
    "log_variational",
    "n_hidden",
    "n_hidden_decoder",
    "n_hidden_encoder",
    "n_layers_decoder",
    "n_layers_encoder",
    "use_batch_norm",
    "use_layer_norm",
    "use_observed_lib_size",
    "use_size_factor_key",
    "y_prior",
];
