//! Modules and minibatches as a case describes them.

use archipelago_common::{Columns, StateDict};
use archipelago_models::{
    data::{Covariates, Minibatch, Registry},
    model::Module as _,
    nn::{Builder, ConditionSource, LayerRules, Source, Trainable},
    upstream::Layout,
    zoo::trvae::{TrvaeConfig, TrvaeModule},
};
use tch::{Device, Tensor};

use crate::case::{Case, Tolerance};
pub(super) use crate::noise::OneDraw;

/// Options of a case; those of a constructor that name data are none of the network's.
pub(super) fn config(case: &Case) -> TrvaeConfig {
    let given = case.json["constructor"].as_object().cloned().unwrap_or_default();
    let of_network = given.into_iter().filter(|(name, _)| !["condition_key", "conditions"].contains(&name.as_str()));
    TrvaeConfig::parse(&of_network.collect()).unwrap()
}

/// The stored minibatch.
pub(super) fn minibatch(case: &Case) -> Minibatch {
    minibatch_of(case.tensor("in.x"), case.tensor("in.batch"))
}

/// Cells of these conditions.
pub(super) fn minibatch_of(x: Tensor, condition: Tensor) -> Minibatch {
    let covariates = Covariates { condition, axes: vec![], categorical: vec![] };
    Minibatch::of_tensors(&Registry::default(), x, covariates, |_| unreachable!("no field is registered"))
}

/// Base and columns that upstream's tensors are in our layout.
pub(super) fn split(config: &TrvaeConfig, upstream: &StateDict) -> (StateDict, Vec<Columns>) {
    let n_conditions = upstream.require("case", "encoder.FC.L0.cond_L.weight").unwrap().shape()[1];
    let fresh = ConditionSource::Fresh(n_conditions);
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [0; 32], Device::Cpu);
    let module = TrvaeModule::new(config.clone(), n_genes(upstream), builder).unwrap();
    Layout::of(module.weights()).split(upstream).unwrap()
}

/// The module of upstream's tensors.
pub(super) fn module(
    config: &TrvaeConfig,
    upstream: &StateDict,
    trainable: Trainable,
    rules: Option<&dyn LayerRules>,
) -> TrvaeModule {
    let (base, columns) = split(config, upstream);
    let columns: Vec<&Columns> = columns.iter().collect();
    let conditions = ConditionSource::Stored(&columns);
    let builder = Builder::new(Source::Stored(&base), conditions, trainable, [0; 32], Device::Cpu);
    let builder = match rules {
        Some(rules) => builder.with_rules(rules),
        None => builder,
    };
    TrvaeModule::new(config.clone(), n_genes(upstream), builder).unwrap()
}

fn n_genes(upstream: &StateDict) -> usize {
    upstream.require("case", "encoder.FC.L0.expr_L.weight").unwrap().shape()[1]
}

/// The gradient of a bias that feeds batch norm is rounding noise.
pub(super) fn gradient_tolerance(case: &Case, name: &str) -> Tolerance {
    let stated = case.tolerance("grad");
    let feeds_norm = name.ends_with(".bias") && name.contains(".FC.L") && config(case).use_bn;
    if feeds_norm { Tolerance { atol: 1e-4, ..stated } } else { stated }
}
