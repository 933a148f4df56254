//! `classify_query`: types of cells, tables of prototypes, embeddings of conditions, a new type.

use archipelago_models::{
    nn::{Mode, Pass, Trainable, of_rows},
    zoo::scpoli::{
        ScpoliModule,
        classify::{Classified, NewType, Sureness, classify, scale},
    },
};
use ndarray::Array2;
use serde_json::Value;
use tch::Tensor;

use super::setup::{self, OneDraw};
use crate::{
    case::{self, Case, Report},
    native,
};

pub(super) fn is_one(name: &str) -> bool {
    name == "classify_query"
}

fn check(test: impl Fn(&Case, &ScpoliModule, &mut Report)) {
    case::run("scpoli", is_one, |case, report| {
        let _guard = tch::no_grad_guard();
        test(case, &setup::module(case, &case.group("param."), Trainable::Nothing, None), report);
    });
}

/// A draw of the cells' latent states, and their means.
fn latent(case: &Case, module: &ScpoliModule, noise: &str) -> (Array2<f32>, Tensor) {
    let mut noise = OneDraw(case.tensor(noise));
    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
    let inference = module.inference(&setup::cells(case, case.tensor("in.x")), &mut pass);
    (native::rows(&inference.z), inference.qz.mean)
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn predicted<'a>(found: &Classified, types: &[&'a str]) -> Vec<&'a str> {
    found.nearest.iter().map(|&at| types[at]).collect()
}

fn doubles(values: &[f64]) -> Tensor {
    Tensor::from_slice(values)
}

#[test]
fn types_of_cells() {
    check(|case, module, report| {
        let (sample, mean) = latent(case, module, "noise.classify");
        let all = case.tolerance("all");
        report.close(case, "latent.sample", &of_rows(sample.view()), all);
        report.close(case, "latent.mean", &mean, all);
        let types: Vec<&str> = module.levels().types().iter().map(String::as_str).collect();
        for (variant, p, sureness) in [
            ("default", 2.0, Sureness::Distance),
            ("nolog", 2.0, Sureness::Distance),
            ("scaled", 2.0, Sureness::Distance),
            ("p1", 1.0, Sureness::Distance),
            ("prob", 2.0, Sureness::Probability),
        ] {
            let mut found = classify(sample.view(), module.prototypes().mean(), p, sureness);
            if variant == "scaled" {
                scale(&mut found.sureness);
            }
            let name = |what: &str| format!("classify.{variant}.cell_type.{what}");
            report.close(case, &name("uncert"), &doubles(&found.sureness), all);
            report.close(case, &name("weighted_distances"), &of_rows(found.all.view()), all);
            let theirs = names(&case.json["results"][format!("{variant}.cell_type.preds")]);
            report.holds(&format!("{variant}: types"), predicted(&found, &types) == theirs);
        }
    });
}

#[test]
fn prototypes_and_embeddings_as_tables() {
    check(|case, module, report| {
        let all = case.tolerance("all");
        let types: Vec<&str> = module.levels().types().iter().map(String::as_str).collect();
        let (prototypes, results) = (module.prototypes(), &case.json["results"]);
        for (set, means) in [("labeled", prototypes.mean()), ("unlabeled", prototypes.unlabelled())] {
            report.close(case, &format!("prototypes_info.{set}.X"), means, all);
            let found = classify(native::rows(means).view(), prototypes.mean(), 2.0, Sureness::Distance);
            report.close(case, &format!("prototypes_info.{set}.cell_type_uncert"), &doubles(&found.sureness), all);
            let theirs = names(&results[format!("prototypes_info.{set}.obs")]["cell_type_pred"]);
            report.holds(&format!("{set}: types"), predicted(&found, &types) == theirs);
        }
        report.close(case, "conditional_embeddings.study", &module.embeddings().tables()[0], all);
    });
}

#[test]
fn a_new_type_of_clusters() {
    check(|case, module, report| {
        let all = case.tolerance("all");
        let told = &case.json["results"]["add_new_cell_type"];
        let indices: Vec<i64> =
            told["unlabeled_indices"].as_array().unwrap().iter().filter_map(Value::as_i64).collect();
        let clusters = module.prototypes().unlabelled().index_select(0, &Tensor::from_slice(&indices));
        let (sample, _) = latent(case, module, "noise.add_new_cell_type");
        let known = module.prototypes().mean();
        let new = NewType::of_clusters(&clusters, known, sample.view());
        let last = |name: &str| {
            let all = case.tensor(&format!("add_new_cell_type.prototypes_labeled.{name}"));
            all.get(all.size()[0] - 1)
        };
        report.tensors("mean of the new type", &new.mean, &last("mean"), all);
        report.tensors("covariance of the new type", &new.cov, &last("cov"), all);
        let (sample, _) = latent(case, module, "noise.classify_after_add");
        let candidates = Tensor::cat(&[known, &new.mean.unsqueeze(0)], 0);
        let found = classify(sample.view(), &candidates, 2.0, Sureness::Distance);
        report.close(case, "classify_after_add.uncert", &doubles(&found.sureness), all);
        let mut types: Vec<&str> = module.levels().types().iter().map(String::as_str).collect();
        types.push(told["name"].as_str().unwrap());
        let theirs = names(&case.json["results"]["classify_after_add.preds"]);
        report.holds("types with the new one", predicted(&found, &types) == theirs);
    });
}
