//! scPoli in scArches' files: which attribute is which option, and the prototypes, which stand among the attributes.

use archipelago_common::{Name, Section, StateDict, Tensor};
use serde_json::{Map, Value as Json, json};

use super::{Injected, Levels, Scpoli, ScpoliConfig, config, levels, prototypes};
use crate::{
    blueprint::Blueprint,
    data::{Encoding, LabelNames, OBS, Registry},
    error::Result,
    formats::{
        pickle::CLASS,
        scarches::{SavedFolder, json_of, tensor_of},
    },
    model::Config,
    reference::Reference,
    upstream::{Namespace, ScarchesModel},
    zoo::family::saved::{self, Saved},
};

impl ScarchesModel for Scpoli {
    fn class(&self) -> &'static str {
        "scPoli"
    }

    fn told_by(&self) -> &'static [&'static str] {
        &["condition_keys_", "embedding_dims_"]
    }

    fn to_reference(&self, saved: &SavedFolder, namespace: &Namespace) -> Result<Reference> {
        let (mut options, condition_keys) = (options(saved), texts(saved.attributes.get("condition_keys_")));
        if condition_keys.len() > 1 {
            options.insert("condition_keys".to_owned(), json!(condition_keys));
        }
        let config = ScpoliConfig::parse(&options)?;
        let registry = config.condition_keys.iter().fold(registry(saved, &config), |registry, key| {
            registry.with(key.as_str(), Encoding::Axis).found_at(key.as_str(), Some(format!("{OBS}{key}")))
        });
        let summaries = summaries(saved, &registry, config.latent_dim)?;
        let of_key = |key: &str| saved.attributes.get("conditions_").and_then(|conditions| conditions.get(key));
        let (conditions, axes) = match condition_keys.as_slice() {
            [one] => (saved::keys(of_key(one), namespace)?, vec![]),
            several => {
                let axis = |key: &String| -> Result<_> {
                    let name: Name = key.parse()?;
                    let section = Section::Axis(name.clone());
                    let keys = saved::keys(of_key(key), namespace)?;
                    Ok((name, keys.into_iter().map(|key| key.in_section(section.clone())).collect()))
                };
                let combined = saved.attributes.get("conditions_combined_");
                (saved::keys(combined, namespace)?, several.iter().map(axis).collect::<Result<_>>()?)
            }
        };
        let blueprint = Blueprint { model: Box::new(config), registry, n_genes: saved.genes.len() };
        let batch_key = condition_keys.join(BETWEEN);
        saved::reference_of(Saved {
            n_genes: saved::INPUT_DIM,
            model: config::NAME,
            saved,
            blueprint: &blueprint,
            keys: &conditions,
            axes,
            batch_key: &batch_key,
            summaries,
        })
    }

    fn to_saved(&self, reference: &Reference) -> Result<SavedFolder> {
        let card = &reference.base.card;
        let blueprint = Blueprint::of_card(card)?;
        let config = ScpoliConfig::parse(&blueprint.model.options())?;
        let mut attributes = saved::attributes(reference)?;
        let key = attributes.remove("condition_key_").unwrap_or_default();
        let combined = attributes["conditions_"].clone();
        let (keys, conditions) = match further_axes(reference).as_slice() {
            [] => (json!([key]), json!({ key.as_str().unwrap_or_default(): combined.clone() })),
            axes => {
                let mut conditions = Map::new();
                for axis in axes {
                    conditions.insert(axis.to_string(), json!(saved::names(reference, &Section::Axis(axis.clone()))?));
                }
                (json!(axes.iter().map(ToString::to_string).collect::<Vec<_>>()), Json::Object(conditions))
            }
        };
        let prototypes = Attributes::of(reference, &blueprint)?;
        let unknown: Vec<&String> = [&config.unlabeled_category].into_iter().chain(&config.unknown_ct_names).collect();
        let dims: Vec<usize> = match (config.embedding_dims.as_slice(), further_axes(reference).len()) {
            ([one], n) => vec![*one; n.max(1)],
            (several, _) => several.to_vec(),
        };
        let own = [
            ("condition_keys", keys),
            ("conditions", conditions),
            ("conditions_combined", combined),
            ("hidden_layer_sizes", json!(config.hidden(card.genes.len()))),
            ("latent_dim", json!(config.latent_dim)),
            ("embedding_dims", json!(dims)),
            ("embedding_max_norm", json!(config.embedding_max_norm)),
            ("inject_condition", json!(injected(config.inject_condition))),
            ("dr_rate", json!(config.dr_rate)),
            ("recon_loss", json!(config.recon_loss)),
            ("use_bn", json!(config.use_bn)),
            ("use_ln", json!(config.use_ln)),
            ("prototype_training", json!(config.prototype_training)),
            ("unlabeled_prototype_training", json!(config.unlabeled_prototype_training)),
            ("cell_type_keys", prototypes.keys),
            ("cell_types", prototypes.types),
            ("prototypes_labeled", prototypes.labelled),
            ("prototypes_unlabeled", prototypes.unlabelled),
            ("unknown_ct_names", json!(unknown)),
            ("labeled_indices", json!([])),
            ("share_metadata", json!(true)),
            ("obs_metadata", json!({ CLASS: "pandas.core.frame.DataFrame" })),
            // Stored there, and used by nothing.
            ("use_mmd", json!(false)),
            ("mmd_on", json!("z")),
            ("mmd_boundary", Json::Null),
            ("beta", json!(1)),
        ];
        attributes.extend(own.map(|(name, value)| (format!("{name}_"), value)));
        Ok(SavedFolder::new(saved::tensors(reference)?, attributes, card.genes.clone()))
    }
}

/// The options among the attributes; what is not there has its default.
fn options(saved: &SavedFolder) -> Config {
    let given = |name: &str| saved.attributes.get(&format!("{name}_")).filter(|value| !value.is_null()).cloned();
    let mut options: Config = PLAIN.iter().filter_map(|&name| Some((name.to_owned(), given(name)?))).collect();
    if let Some(injected) = given("inject_condition") {
        let has = |part: &str| texts(Some(&injected)).iter().any(|text| text == part);
        let word = match (has("encoder"), has("decoder")) {
            (true, true) => "both",
            (true, false) => "encoder",
            (false, true) => "decoder",
            (false, false) => "none",
        };
        options.insert("inject_condition".to_owned(), word.into());
    }
    if let [first, others @ ..] = texts(saved.attributes.get("unknown_ct_names_")).as_slice() {
        options.insert("unlabeled_category".to_owned(), first.clone().into());
        options.insert("unknown_ct_names".to_owned(), others.into());
    }
    options
}

/// Options that are attributes as they are.
const PLAIN: &[&str] = &[
    "hidden_layer_sizes",
    "latent_dim",
    "embedding_dims",
    "embedding_max_norm",
    "dr_rate",
    "recon_loss",
    "use_bn",
    "use_ln",
    "prototype_training",
    "unlabeled_prototype_training",
];

fn injected(injected: Injected) -> Vec<&'static str> {
    let parts = [(injected.in_encoder(), "encoder"), (injected.in_decoder(), "decoder")];
    parts.into_iter().filter(|(is_in, _)| *is_in).map(|(_, part)| part).collect()
}

/// The types of each level, in the order of upstream's table.
fn registry(saved: &SavedFolder, config: &ScpoliConfig) -> Registry {
    let table = saved.orders.get("cell_types_").map(Vec::as_slice).unwrap_or_default();
    let keys_of = |name: &String| texts(saved.attributes.get("cell_types_").and_then(|types| types.get(name)));
    let levels = texts(saved.attributes.get("cell_type_keys_"));
    levels.iter().zip(levels::FIELDS).fold(Registry::default(), |registry, (key, field)| {
        let names: Vec<String> = table.iter().filter(|name| keys_of(name).contains(key)).cloned().collect();
        let labels = LabelNames { names, unlabelled: Some(config.unlabeled_category.clone()) };
        registry.with(field, Encoding::Labels(labels)).found_at(field, Some(format!("{OBS}{key}")))
    })
}

/// The prototypes among the attributes, types in our order.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for prototypes that do not fit the types, or are no numbers
fn summaries(saved: &SavedFolder, registry: &Registry, n_latent: usize) -> Result<StateDict> {
    let levels = Levels::new(registry)?;
    let table = saved.orders.get("cell_types_").map(Vec::as_slice).unwrap_or_default();
    let tensor = |set: &str, part: &str| {
        saved.attributes.get(set).and_then(|set| set.get(part)).filter(|value| !value.is_null()).map(tensor_of)
    };
    let refuse = |detail: String| SavedFolder::refuse(format!("prototypes: {detail}"));
    let numbers = |tensor: Option<Tensor>, row: usize, n_rows: Option<usize>| -> Result<(usize, Vec<f32>)> {
        let tensor = tensor.ok_or_else(|| refuse("they are no tensor".to_owned()))?;
        let n = tensor.shape().first().copied().unwrap_or_default();
        let values = tensor.to_f32("prototypes")?;
        if values.len() != n * row || n_rows.is_some_and(|expected| n != expected) {
            let expected = n_rows.map_or_else(|| format!("{row} numbers each"), |n| format!("{n} of {row} numbers"));
            return Err(refuse(format!("they are of the shape {:?}, expected {expected}", tensor.shape())));
        }
        Ok((n, values))
    };
    let mut out = StateDict::new();
    let n_types = levels.types().len();
    let (mut n_cells, mut means) = (vec![0.0_f32; n_types], vec![0.0_f32; n_types * n_latent]);
    let mut covs = vec![0.0_f32; n_types * n_latent * n_latent];
    if let Some(found) = tensor("prototypes_labeled_", "mean") {
        let (_, theirs) = numbers(found, n_latent, Some(table.len()))?;
        if theirs.iter().any(|value| !value.is_finite()) {
            return Err(refuse("a mean is not a number".to_owned()));
        }
        let their_covs = match tensor("prototypes_labeled_", "cov") {
            Some(found) => numbers(found, n_latent * n_latent, Some(table.len()))?.1,
            None => vec![0.0; table.len() * n_latent * n_latent],
        };
        for (code, name) in levels.types().iter().enumerate() {
            let at = table.iter().position(|known| known == name).expect("types are those of the table");
            // How many cells a prototype is of is not saved.
            n_cells[code] = 1.0;
            copy(&mut means, code, &theirs, at, n_latent);
            copy(&mut covs, code, &their_covs, at, n_latent * n_latent);
        }
        // A type of one cell has no covariance: not a number there.
        covs.iter_mut().filter(|value| !value.is_finite()).for_each(|value| *value = 0.0);
    }
    out.insert(prototypes::N, Tensor::from_f32(&[n_types], &n_cells));
    out.insert(prototypes::MEAN, Tensor::from_f32(&[n_types, n_latent], &means));
    out.insert(prototypes::COV, Tensor::from_f32(&[n_types, n_latent, n_latent], &covs));
    let (n_clusters, clusters) = match tensor("prototypes_unlabeled_", "mean") {
        Some(found) => numbers(found, n_latent, None)?,
        None => (0, vec![]),
    };
    out.insert(prototypes::UNLABELLED, Tensor::from_f32(&[n_clusters, n_latent], &clusters));
    Ok(out)
}

fn copy(to: &mut [f32], row: usize, from: &[f32], at: usize, width: usize) {
    to[row * width..(row + 1) * width].copy_from_slice(&from[at * width..(at + 1) * width]);
}

/// What a reference says of types, as attributes.
struct Attributes {
    keys: Json,
    types: Json,
    labelled: Json,
    unlabelled: Json,
}

impl Attributes {
    /// Types are written in name order, in which dicts are written; those without a prototype cannot be said there.
    fn of(reference: &Reference, blueprint: &Blueprint) -> Result<Self> {
        let (registry, levels) = (&blueprint.registry, Levels::new(&blueprint.registry)?);
        let tensor = |name: &str| -> Result<(Vec<usize>, Vec<f32>)> {
            let tensor = reference.base.tensors.require("the base", name)?;
            Ok((tensor.shape().to_vec(), tensor.to_f32(name)?))
        };
        let n_cells = tensor(prototypes::N)?.1;
        let mut order: Vec<usize> = (0..levels.types().len()).filter(|&code| n_cells[code] > 0.0).collect();
        order.sort_by_key(|&code| &levels.types()[code]);
        let key_of = |field: &str| registry.obs_key(field).unwrap_or(field).to_owned();
        let keys: Vec<String> = levels.names().map(key_of).collect();
        let of_levels = |code: usize| -> Vec<&String> {
            (0..keys.len()).filter(|&level| levels.of_level(level).contains(&(code as i64))).map(|l| &keys[l]).collect()
        };
        let types: Map<String, Json> =
            order.iter().map(|&code| (levels.types()[code].clone(), json!(of_levels(code)))).collect();
        let rows = |name: &str| -> Result<Json> {
            let (mut shape, values) = tensor(name)?;
            let width: usize = shape[1..].iter().product();
            let rows: Vec<f32> =
                order.iter().flat_map(|&code| &values[code * width..(code + 1) * width]).copied().collect();
            shape[0] = order.len();
            Ok(json_of(&Tensor::from_f32(&shape, &rows)))
        };
        let labelled = match order.is_empty() {
            true => json!({ "mean": null, "cov": null }),
            false => json!({ "mean": rows(prototypes::MEAN)?, "cov": rows(prototypes::COV)? }),
        };
        let (shape, clusters) = tensor(prototypes::UNLABELLED)?;
        let unlabelled = if shape[0] == 0 { Json::Null } else { json_of(&Tensor::from_f32(&shape, &clusters)) };
        let keys = if keys.is_empty() { Json::Null } else { json!(keys) };
        Ok(Self { keys, types: Json::Object(types), labelled, unlabelled: json!({ "mean": unlabelled }) })
    }
}

fn further_axes(reference: &Reference) -> Vec<Name> {
    let axes = reference.base.card.layout.axes.iter();
    axes.filter_map(|axis| match &axis.section {
        Section::Axis(name) => Some(name.clone()),
        Section::Condition | Section::Part(_) => None,
    })
    .collect()
}

fn texts(list: Option<&Json>) -> Vec<String> {
    let items = list.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Between the names of several keys.
const BETWEEN: &str = ",";
