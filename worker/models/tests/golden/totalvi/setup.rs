//! Modules and minibatches as a case describes them.

use archipelago_common::{Columns, StateDict, Tensor as Stored};
use archipelago_models::{
    data::{Encoding, Minibatch, Panel, Registry, Values},
    formats::upstream::Layout,
    model::Module as _,
    nn::{Builder, ConditionSource, LayerRules, Source, Trainable},
    zoo::totalvi::{PROTEINS, TotalviConfig, TotalviModule},
};
use tch::Device;

use crate::{
    case::Case,
    scvi::setup::{minibatch_of, n_conditions},
};

/// Options of a case.
pub(crate) fn config(case: &Case) -> TotalviConfig {
    let options = case.json["constructor"].as_object().unwrap();
    TotalviConfig::parse(&options.iter().map(|(name, value)| (name.clone(), value.clone())).collect()).unwrap()
}

fn registry(case: &Case) -> Registry {
    let names = (0..n_proteins(case)).map(|i| format!("p{i}")).collect();
    let panel = Panel { names, values: Values::Counts, may_lack: true };
    Registry::default().with(PROTEINS, Encoding::Matrix(panel))
}

fn n_proteins(case: &Case) -> usize {
    case.tensor("input/proteins").size()[1] as usize
}

/// The stored minibatch.
pub(crate) fn minibatch(case: &Case) -> Minibatch {
    minibatch_of(case, "input", &registry(case))
}

pub(crate) fn build(case: &Case, builder: Builder<'_>) -> TotalviModule {
    let n_genes = case.tensor("input/x").size()[1] as usize;
    TotalviModule::new(config(case), &registry(case), n_genes, builder).unwrap()
}

/// Base and columns that the tensors under a prefix are in our layout, with the case's mask of measured proteins.
pub(crate) fn split(case: &Case, prefix: &str) -> (StateDict, Vec<Columns>) {
    let fresh = ConditionSource::Fresh(n_conditions(case, prefix));
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [0; 32], Device::Cpu);
    let module = build(case, builder);
    let (base, mut columns) = Layout::of(module.weights()).split(&case.group(prefix)).unwrap();
    for (code, columns) in columns.iter_mut().enumerate() {
        columns.0.insert("protein_measured.condition", measured(case, code));
    }
    (base, columns)
}

/// Which proteins were measured in a batch: all, where the case has no mask of it.
fn measured(case: &Case, code: usize) -> Stored {
    let n_proteins = n_proteins(case);
    let flags: Vec<f32> = match case.json["protein_batch_mask"].get(code.to_string()) {
        Some(flags) => flags.as_array().unwrap().iter().map(|flag| flag.as_f64().unwrap() as f32).collect(),
        None => vec![1.0; n_proteins],
    };
    Stored::from_f32(&[n_proteins], &flags)
}

/// The module of the tensors under a prefix.
pub(crate) fn module(case: &Case, prefix: &str, trainable: Trainable, rules: Option<&dyn LayerRules>) -> TotalviModule {
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
