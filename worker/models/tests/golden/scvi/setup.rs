//! Modules and minibatches as a case describes them.

use std::collections::BTreeMap;

use archipelago_common::{Columns, StateDict};
use archipelago_models::{
    data::{
        CATEGORICAL, CONTINUOUS, Covariates, Encoding, LABELS, LabelNames, Minibatch, Range, Registry, SIZE_FACTOR,
    },
    formats::upstream::Layout,
    model::Module,
    nn::{Builder, ConditionSource, LayerRules, Source, Trainable},
    zoo::scvi::{ScviConfig, ScviModule},
};
use tch::{Device, Tensor};

use crate::case::Case;

/// Options of a case.
pub(crate) fn config(case: &Case) -> ScviConfig {
    let options = case.json["constructor"].as_object().unwrap();
    ScviConfig::parse(&options.iter().map(|(name, value)| (name.clone(), value.clone())).collect()).unwrap()
}

/// Number of conditions that the tensors under a prefix are made for.
pub(crate) fn n_conditions(case: &Case, prefix: &str) -> usize {
    let all = case.json["batch_codes"].as_array().map(Vec::len).or(case.json["n_batch"].as_u64().map(|n| n as usize));
    let reference = case.json["reference_batches"].as_array().map(Vec::len);
    if prefix == "ref/" { reference.unwrap() } else { all.unwrap() }
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("c{i}")).collect()
}

/// The registry of a case, with the sizes that its tensors show.
pub(crate) fn registry(case: &Case) -> Registry {
    let setup = &case.json["setup"];
    let keys = |key: &str| -> Vec<String> {
        let names = setup[key].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let mut sizes: Vec<i64> = match case.find("input/cat_covs") {
        Some(codes) => (0..codes.size()[1]).map(|i| codes.select(1, i).max().int64_value(&[]) + 1).collect(),
        None => Vec::new(),
    };
    let continuous = keys("continuous_covariate_keys");
    if let Some(last) = sizes.len().checked_sub(1) {
        let width = case.tensor("param/decoder.px_decoder.fc_layers.Layer 0.0.weight").size()[1];
        let data = config(case).n_latent as i64 + continuous.len() as i64 + n_conditions(case, "param/") as i64;
        sizes[last] = width - data - sizes[..last].iter().sum::<i64>();
    }
    let categorical = keys("categorical_covariate_keys").into_iter().zip(&sizes).map(|(k, &n)| (k, names(n as usize)));
    let px_r = case.find("param/px_r").filter(|px_r| px_r.dim() == 2).map_or(0, |px_r| px_r.size()[1] as usize);
    let mut registry = Registry::default();
    if px_r > 0 {
        registry = registry.with(LABELS, Encoding::Labels(LabelNames { names: names(px_r), unlabelled: None }));
    }
    if !sizes.is_empty() {
        registry = registry.with(CATEGORICAL, Encoding::Categories(categorical.collect()));
    }
    if !continuous.is_empty() {
        registry = registry.with(CONTINUOUS, Encoding::Numbers(continuous));
    }
    match setup["size_factor_key"].is_string() {
        true => registry.with(SIZE_FACTOR, Encoding::Number(Range::Positive)),
        false => registry,
    }
}

/// The stored minibatch.
pub(crate) fn minibatch(case: &Case) -> Minibatch {
    minibatch_of(case, "input", &registry(case))
}

/// The minibatch stored under a prefix, with the fields of a registry.
pub(crate) fn minibatch_of(case: &Case, prefix: &str, registry: &Registry) -> Minibatch {
    let find = |name: &str| case.find(&format!("{prefix}/{name}"));
    let codes = |name: &str| find(name).map(|codes| codes.squeeze_dim(1));
    let categorical = find("cat_covs").map_or(Vec::new(), |c| (0..c.size()[1]).map(|i| c.select(1, i)).collect());
    let covariates = Covariates { condition: codes("batch").unwrap(), categorical };
    let field = |name: &str| match name {
        LABELS => codes("labels"),
        CONTINUOUS => find("cont_covs"),
        other => find(other),
    };
    let x = case.tensor(&format!("{prefix}/x"));
    Minibatch::of_tensors(registry, x, covariates, |name| field(name).unwrap_or_else(|| panic!("no {prefix}/{name}")))
}

/// Base and columns that the tensors under a prefix are in our layout.
pub(crate) fn split(case: &Case, prefix: &str) -> (StateDict, Vec<Columns>) {
    let fresh = ConditionSource::Fresh(n_conditions(case, prefix));
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [0; 32], Device::Cpu);
    let module = build(case, builder);
    Layout::of(module.weights()).split(&case.group(prefix)).unwrap()
}

/// The module of the tensors under a prefix.
pub(crate) fn module(case: &Case, prefix: &str, trainable: Trainable, rules: Option<&dyn LayerRules>) -> ScviModule {
    let (base, columns) = split(case, prefix);
    let columns: Vec<&Columns> = columns.iter().collect();
    let conditions = ConditionSource::Stored(&columns);
    let builder = Builder::new(Source::Stored(&base), conditions, trainable, [0; 32], Device::Cpu);
    build(
        case,
        match rules {
            Some(rules) => builder.with_rules(rules),
            None => builder,
        },
    )
}

pub(crate) fn build(case: &Case, builder: Builder<'_>) -> ScviModule {
    let n_genes = case.tensor("input/x").size()[1] as usize;
    ScviModule::new(config(case), &registry(case), n_genes, builder).unwrap()
}

/// A module's tensors under upstream's names.
pub(crate) fn upstream(module: &dyn Module) -> BTreeMap<String, Tensor> {
    Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.detach()))
}

/// Tensors by our names under upstream's.
pub(crate) fn joined(module: &dyn Module, tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let ours = |name: &str, _: &Tensor| tensors.get(name).map(Tensor::shallow_clone);
    Layout::of(module.weights()).join(module.weights(), ours)
}

/// The gradients of a module's tensors under upstream's names.
pub(crate) fn gradients(module: &dyn Module) -> BTreeMap<String, Tensor> {
    Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.grad()).filter(Tensor::defined))
}
