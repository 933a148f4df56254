//! Modules and minibatches as a case describes them.

use std::collections::BTreeMap;

use archipelago_common::{Columns, Name, Section, StateDict, Tensor as Stored};
use archipelago_models::{
    Config,
    data::{Covariates, Encoding, LABELS, LabelNames, Minibatch, Registry},
    model::Module as _,
    nn::{Builder, ConditionSource, LayerRules, Source, Trainable, from_tch},
    upstream::Layout,
    zoo::scpoli::{ScpoliConfig, ScpoliModule},
};
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::case::Case;
pub(super) use crate::{
    noise::OneDraw,
    runner::{gradients, upstream},
};

/// Fields of levels, in order.
const LEVELS: [&str; 2] = [LABELS, "labels_2"];

/// Options of a case: of its constructor where it has one, else what it says at its top; and of its training.
pub(super) fn config(case: &Case) -> ScpoliConfig {
    let given = |name: &str| {
        let of_constructor = &case.json["constructor"][name];
        if of_constructor.is_null() { case.json[name].clone() } else { of_constructor.clone() }
    };
    let mut options = Config::new();
    for name in
        ["hidden_layer_sizes", "dr_rate", "recon_loss", "use_bn", "use_ln", "embedding_dims", "embedding_max_norm"]
    {
        options.insert(name.to_owned(), given(name));
    }
    let latent = case
        .group("param.")
        .get("encoder.mean_encoder.bias")
        .or(case.group("ref.").get("encoder.mean_encoder.bias"))
        .map(|bias| bias.shape()[0]);
    options.insert("latent_dim".to_owned(), json!(latent));
    let axes = axes(case);
    if !axes.is_empty() {
        options.insert("condition_keys".to_owned(), json!(axes));
    }
    if let Some(injected) = given("inject_condition").as_array() {
        let both = injected.len() == 2;
        options.insert("inject_condition".to_owned(), if both { json!("both") } else { injected[0].clone() });
    }
    let train = &case.json["train"];
    for name in [
        "eta",
        "p_prototype_loss",
        "unlabeled_weight",
        "clustering_res",
        "n_clusters",
        "pretraining_epochs",
        "prototype_training",
        "clustering",
    ] {
        options.insert(name.to_owned(), train[name].clone());
    }
    options.retain(|_, value| !value.is_null());
    // The federated cases say the one option that they have at their top; embeddings have the width of the table.
    options.entry("eta".to_owned()).or_insert(if case.json["eta"].is_null() {
        json!(1.0)
    } else {
        case.json["eta"].clone()
    });
    options.entry("embedding_dims".to_owned()).or_insert(json!([3]));
    options.entry("dr_rate".to_owned()).or_insert(json!(0.0));
    ScpoliConfig::parse(&options).unwrap()
}

/// Types of each level, in order of their codes.
fn levels(case: &Case) -> Vec<(String, Vec<String>)> {
    let codes: BTreeMap<i64, String> = match case.json["cell_type_encoder"].as_object() {
        Some(codes) => codes.iter().map(|(name, code)| (code.as_i64().unwrap(), name.clone())).collect(),
        None => (0..n_types(case)).map(|code| (code, format!("t{code}"))).collect(),
    };
    let keys_of = |name: &str| -> Vec<String> {
        let keys = &case.json["constructor"]["cell_types"][name];
        let keys = if keys.is_null() { &case.json["cell_types"][name] } else { keys };
        keys.as_array().map_or(vec!["cell_type".to_owned()], |keys| keys.iter().map(text).collect())
    };
    let mut levels: Vec<(String, Vec<String>)> = Vec::new();
    for name in codes.iter().filter(|(code, _)| **code >= 0).map(|(_, name)| name) {
        for key in keys_of(name) {
            match levels.iter_mut().find(|(known, _)| *known == key) {
                Some((_, names)) => names.push(name.clone()),
                None => levels.push((key, vec![name.clone()])),
            }
        }
    }
    levels
}

/// Types of a case that does not name them.
fn n_types(case: &Case) -> i64 {
    case.find("ref.prototypes_labeled.mean").map_or(0, |means| means.size()[0])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

pub(super) fn registry(case: &Case) -> Registry {
    let levels = levels(case).into_iter().zip(LEVELS);
    levels.fold(Registry::default(), |registry, ((_, names), field)| {
        registry.with(field, Encoding::Labels(LabelNames { names, unlabelled: Some("?".to_owned()) }))
    })
}

/// The keys of a case that has several.
fn axes(case: &Case) -> Vec<Name> {
    let keys = case.json["constructor"]["condition_keys"].as_array().cloned().unwrap_or_default();
    if keys.len() < 2 { vec![] } else { keys.iter().map(|key| text(key).parse().unwrap()).collect() }
}

/// The stored cells.
pub(super) fn minibatch(case: &Case) -> Minibatch {
    let codes = case.tensor("in.batch");
    let n_cells = codes.size()[0];
    let condition = case.find("in.combined_batch").unwrap_or_else(|| codes.select(1, 0));
    minibatch_of(case, (0, n_cells), condition)
}

/// Cells without types, whose conditions are the stored ones where there are some.
pub(super) fn cells(case: &Case, x: Tensor) -> Minibatch {
    let n_cells = x.size()[0];
    let zeros = || Tensor::zeros([n_cells], (tch::Kind::Int64, Device::Cpu));
    let condition = case.find("in.batch").map_or_else(zeros, |codes| codes.select(1, 0));
    let covariates = Covariates { condition, axes: vec![], categorical: vec![] };
    Minibatch::of_tensors(&registry(case), x, covariates, |_| zeros())
}

/// Some rows of the stored cells, of these conditions.
pub(super) fn minibatch_of(case: &Case, (start, n): (i64, i64), condition: Tensor) -> Minibatch {
    let rows = |tensor: Tensor| tensor.narrow(0, start, n);
    let codes = case.find("in.batch").map(rows);
    let axes = (0..axes(case).len()).map(|key| codes.as_ref().unwrap().select(1, key as i64)).collect();
    let covariates = Covariates { condition, axes, categorical: vec![] };
    let (registry, levels) = (registry(case), levels(case));
    let types = case.find("in.celltypes").map(rows);
    let is_labelled = case.find("in.labeled").map(|labelled| rows(labelled).reshape(-1).eq(1.0));
    let field = |name: &str| {
        let level = LEVELS.iter().position(|level| *level == name).unwrap();
        let names = &levels[level].1;
        let codes = types.as_ref().map(|types| types.select(1, level as i64));
        // The codes of a case are those of the table of all types; the field has those of its level.
        let none = Tensor::full([n], names.len() as i64, (tch::Kind::Int64, Device::Cpu));
        let Some(codes) = codes else { return none };
        let own = names.iter().enumerate().fold(none.shallow_clone(), |own, (code, name)| {
            let of_table = case.json["cell_type_encoder"][name].as_i64().unwrap_or(code as i64);
            own.masked_fill(&codes.eq(of_table), code as i64)
        });
        own.where_self(is_labelled.as_ref().unwrap(), &none)
    };
    Minibatch::of_tensors(&registry, rows(case.tensor("in.x")), covariates, field)
}

/// What upstream's tensors are in our layout: the base, the columns of conditions, and those of each further key.
pub(super) fn split(case: &Case, upstream: &StateDict) -> (StateDict, Vec<Columns>, Vec<Vec<Columns>>) {
    let n_rows = |name: &str, dim: usize| upstream.get(name).map_or(0, |tensor| tensor.shape()[dim]);
    let axes = axes(case);
    let n_conditions = match n_rows("theta", 1) {
        0 => n_rows("embeddings.0.weight", 0),
        n => n,
    };
    let fresh = ConditionSource::Fresh(n_conditions);
    let mut builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [0; 32], Device::Cpu);
    for (i, axis) in axes.iter().enumerate() {
        let n_keys = n_rows(&format!("embeddings.{i}.weight"), 0);
        builder = builder.with_axis(axis.clone(), ConditionSource::Fresh(n_keys));
    }
    let module = ScpoliModule::new(config(case), &registry(case), n_genes(upstream), builder).unwrap();
    let layout = Layout::of(module.weights());
    let (mut base, columns) = layout.split(upstream).unwrap();
    let further = axes.into_iter().map(|axis| layout.columns_on(&Section::Axis(axis), upstream).unwrap()).collect();
    prototypes(case, module.config().latent_dim).into_iter().for_each(|(name, tensor)| drop(base.insert(name, tensor)));
    (base, columns, further)
}

/// The prototypes of the reference, where a case has some; a count that is not known is one.
fn prototypes(case: &Case, n_latent: usize) -> Vec<(String, Stored)> {
    let find = |name: &str| case.find(&format!("ref.{name}")).or_else(|| case.find(name));
    let mean = find("prototypes_labeled.mean").unwrap_or_else(|| Tensor::zeros([0, n_latent as i64], FLOATS));
    let n_types = mean.size()[0];
    let square = [n_types, n_latent as i64, n_latent as i64];
    let cov = find("prototypes_labeled.cov").unwrap_or_else(|| Tensor::zeros(square, FLOATS));
    let clusters = find("prototypes_unlabeled.mean").unwrap_or_else(|| Tensor::zeros([0, n_latent as i64], FLOATS));
    [
        ("labeled.n", Tensor::ones([n_types], FLOATS)),
        ("labeled.mean", mean),
        ("labeled.cov", cov),
        ("unlabeled.mean", clusters),
    ]
    .map(|(name, tensor)| (format!("prototypes.{name}"), from_tch(&tensor)))
    .into()
}

const FLOATS: (tch::Kind, Device) = (tch::Kind::Float, Device::Cpu);

/// The module of upstream's tensors.
pub(super) fn module(
    case: &Case,
    upstream: &StateDict,
    trainable: Trainable,
    rules: Option<&dyn LayerRules>,
) -> ScpoliModule {
    let (base, columns, further) = split(case, upstream);
    let columns: Vec<&Columns> = columns.iter().collect();
    let further: Vec<Vec<&Columns>> = further.iter().map(|columns| columns.iter().collect()).collect();
    let conditions = ConditionSource::Stored(&columns);
    let mut builder = Builder::new(Source::Stored(&base), conditions, trainable, [0; 32], Device::Cpu);
    for (axis, columns) in axes(case).into_iter().zip(&further) {
        builder = builder.with_axis(axis, ConditionSource::Stored(columns));
    }
    if let Some(rules) = rules {
        builder = builder.with_rules(rules);
    }
    ScpoliModule::new(config(case), &registry(case), n_genes(upstream), builder).unwrap()
}

fn n_genes(upstream: &StateDict) -> usize {
    upstream.require("case", "encoder.FC.L0.expr_L.weight").unwrap().shape()[1]
}
