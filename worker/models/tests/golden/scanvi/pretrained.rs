//! A start from a trained scVI: every tensor of it is taken over.

use archipelago_common::{Columns, StateDict};
use archipelago_models::{
    model::Module as _,
    nn::{Builder, ConditionSource, Source, Trainable, from_tch},
    upstream::Layout,
    zoo::scvi::ScviModule,
};
use tch::Device;

use super::{Scanvi, config, registry};
use crate::{
    case::{self, Case},
    runner::{Golden as _, upstream},
};

/// Base and columns of the scVI model that the case starts from.
fn source(case: &Case) -> (StateDict, Vec<Columns>) {
    let (registry, n_genes) = (registry(case), case.n_genes());
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(3), Trainable::Nothing, [0; 32], Device::Cpu);
    let module = ScviModule::new(config(case).scvi, &registry, n_genes, builder).unwrap();
    Layout::of(module.weights()).split(&case.group("scvi/")).unwrap()
}

#[test]
fn every_tensor_of_the_source_is_taken_over_and_the_others_start_fresh() {
    case::run(
        "scanvi",
        |name| name == "core_tutorial_from_scvi",
        |case, report| {
            let (base, columns) = source(case);
            let columns: Vec<&Columns> = columns.iter().collect();
            let conditions = ConditionSource::Stored(&columns);
            let builder = |seed| {
                Builder::new(Source::Pretrained(&base), conditions, Trainable::Everything, [seed; 32], Device::Cpu)
            };
            let module = Scanvi::build(case, builder(1));
            let (scvi, expected) = (case.group("scvi/"), case.group("from_scvi/"));
            let other = upstream(&Scanvi::build(case, builder(2)));
            for (name, tensor) in upstream(&module) {
                let ours = from_tch(&tensor);
                if scvi.get(&name).is_some() || name == "y_prior" {
                    report.holds(&format!("{name} is taken over"), Some(&ours) == expected.get(&name));
                } else {
                    let theirs = expected.get(&name).map(|tensor| tensor.spec());
                    report.holds(&format!("{name} has upstream's shape"), Some(ours.spec()) == theirs);
                    report.holds(&format!("{name} is fresh"), ours != from_tch(&other[&name]));
                }
            }
            report.holds("all names are upstream's", module.weights().iter().count() > base.iter().count());
        },
    );
}
