//! Modules and minibatches as a case describes them.

use archipelago_common::{Columns, StateDict};
use archipelago_models::{
    data::{Encoding, LABELS, LabelNames, Minibatch, Registry},
    formats::upstream::Layout,
    model::Module as _,
    nn::{Builder, ConditionSource, LayerRules, Source, Trainable},
    zoo::scanvi::{ScanviConfig, ScanviModule},
};
use tch::Device;

use crate::{case::Case, scvi::setup as scvi};

/// Options of a case.
pub(crate) fn config(case: &Case) -> ScanviConfig {
    let options = case.json["constructor"].as_object().unwrap();
    let options = options.iter().map(|(name, value)| (name.clone(), value.clone()));
    let ratio = ("classification_ratio".to_owned(), case.json["classification_ratio"].clone());
    ScanviConfig::parse(&options.chain([ratio]).collect()).unwrap()
}

/// The registry of a case: its labels without the category of unlabelled cells, which is the last one.
pub(crate) fn registry(case: &Case) -> Registry {
    let names = case.json["label_categories"].as_array().unwrap();
    let mut names: Vec<String> = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let unlabelled = names.pop();
    Registry::default().with(LABELS, Encoding::Labels(LabelNames { names, unlabelled }))
}

/// Number of conditions that the tensors under a prefix are made for.
fn n_conditions(case: &Case, prefix: &str) -> usize {
    let first = case.tensor(&format!("{prefix}decoder.px_decoder.fc_layers.Layer 0.0.weight"));
    first.size()[1] as usize - config(case).scvi.n_latent
}

/// The stored minibatch of all cells.
pub(crate) fn minibatch(case: &Case) -> Minibatch {
    scvi::minibatch_of(case, "input", &registry(case))
}

/// The stored minibatch of labelled cells, where the case has some.
pub(crate) fn labelled(case: &Case) -> Option<Minibatch> {
    case.find("input_labelled/x").map(|_| scvi::minibatch_of(case, "input_labelled", &registry(case)))
}

/// Base and columns that the tensors under a prefix are in our layout.
pub(crate) fn split(case: &Case, prefix: &str) -> (StateDict, Vec<Columns>) {
    let fresh = ConditionSource::Fresh(n_conditions(case, prefix));
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [0; 32], Device::Cpu);
    let module = build(case, builder);
    Layout::of(module.weights()).split(&case.group(prefix)).unwrap()
}

/// The module of the tensors under a prefix.
pub(crate) fn module(case: &Case, prefix: &str, trainable: Trainable, rules: Option<&dyn LayerRules>) -> ScanviModule {
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

pub(crate) fn build(case: &Case, builder: Builder<'_>) -> ScanviModule {
    let n_genes = case.tensor("input/x").size()[1] as usize;
    ScanviModule::new(config(case), &registry(case), n_genes, builder).unwrap()
}
