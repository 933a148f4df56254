//! `surgery_*`: upstream's surgery to the letter: grown tensors, masks, gradients, steps, the outcome of every flag.

use std::collections::BTreeMap;

use archipelago_models::{
    formats::upstream::Layout,
    model::Module,
    nn::{Mode, Trainable, from_tch},
    surgery::upstream::{Flags, Outcome, Takes, extend, takes},
    train::GradientUse,
    zoo::scvi::ScviModule,
};
use serde_json::Value;
use tch::Tensor;

use super::{core, setup};
use crate::{
    case::{self, Case, Report},
    noise::Masks,
};

pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with("surgery_") && name != super::separability::NAME
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("scvi", is_one, test);
}

/// The query model right after surgery with default flags, and what its optimiser owns.
fn query_model(case: &Case) -> (ScviModule, Vec<(String, Tensor, GradientUse)>) {
    let module = setup::module(case, "param/", Trainable::Nothing, Some(&Flags::default()));
    let owned = Flags::default().trainable(module.weights());
    (module, owned)
}

#[test]
fn tensors_grow_as_upstream_grows_them() {
    check(|case, report| {
        let (reference, expected) = (case.group("ref/"), case.group("param/"));
        // The fresh tensors of the fixture are known only in the columns that were taken from them.
        let grown = extend(&reference, &expected).unwrap();
        report.holds(&format!("{}: grown tensors", case.name), grown == expected);
    });
}

#[test]
fn split_and_join_lose_nothing() {
    check(|case, report| {
        check_split(case, &setup::module(case, "param/", Trainable::Nothing, None), report);
    });
}

/// The module of a case joins to the very tensors that it was split from.
pub(crate) fn check_split(case: &Case, module: &dyn Module, report: &mut Report) {
    let expected = case.group("param/");
    for (name, ours) in setup::upstream(module) {
        report.holds(&format!("{}: {name}", case.name), Some(&from_tch(&ours)) == expected.get(&name));
    }
}

#[test]
fn forward_passes_after_surgery() {
    check(|case, report| {
        let (module, _) = query_model(case);
        let _loss = core::forward(case, "eval", &module, Mode::Evaluation, Masks::Off, report);
        let _loss = core::forward(case, "train", &module, Mode::Training, Masks::Off, report);
    });
}

#[test]
fn gradients_after_masking() {
    check(|case, report| {
        let (module, owned) = query_model(case);
        core::forward(case, "train", &module, Mode::Training, Masks::Off, report).backward();
        mask_gradients(&owned);
        let ours = setup::gradients(&module);
        report.group(case, "grad/", &ours, "param/", |name| core::with_noise_floor(case, "grad", name));
    });
}

/// Zeros the gradients that the optimiser does not use.
pub(crate) fn mask_gradients(owned: &[(String, Tensor, GradientUse)]) {
    for (_, tensor, _) in owned.iter().filter(|(_, _, gradient)| *gradient == GradientUse::Masked) {
        let gradient = tensor.grad();
        if gradient.defined() {
            let _zeros = gradient.shallow_clone().zero_();
        }
    }
}

#[test]
fn masks() {
    check(|case, report| {
        let (module, owned) = query_model(case);
        check_masks(case, &module, &owned, report);
    });
}

/// Compares what the optimiser may move with `mask/`.
pub(crate) fn check_masks(
    case: &Case,
    module: &dyn Module,
    owned: &[(String, Tensor, GradientUse)],
    report: &mut Report,
) {
    let passes: BTreeMap<&str, f64> = owned
        .iter()
        .map(|(name, _, gradient)| (name.as_str(), if *gradient == GradientUse::Applied { 1.0 } else { 0.0 }))
        .collect();
    let mask = |name: &str, tensor: &Tensor| Some(tensor.full_like(passes.get(name).copied().unwrap_or(0.0)));
    let ours = Layout::of(module.weights()).join(module.weights(), mask);
    let exact = case::Tolerance { rtol: 0.0, atol: 0.0 };
    let takes = takes_of(module);
    for (name, _) in case.group("mask/").iter() {
        let full = format!("mask/{name}");
        match ours.get(name) {
            Some(mask) => report.close(case, &full, mask, exact),
            None => {
                let outcome = Flags::default().outcome(name, takes(name));
                let mask = mask_of(outcome, &case.tensor(&full), n_covariate_columns(module, name));
                report.close(case, &full, &mask, exact);
            }
        }
    }
}

/// The mask of an upstream tensor that our module does not hold.
fn mask_of(outcome: Outcome, like: &Tensor, n_columns: i64) -> Tensor {
    let mask = Tensor::zeros_like(like);
    match outcome {
        Outcome::Frozen | Outcome::Masked => mask,
        Outcome::Trained => mask.ones_like(),
        Outcome::CovariateColumns => {
            let width = mask.size().last().copied().unwrap();
            let _ = mask.narrow(-1, width - n_columns, n_columns).fill_(1);
            mask
        }
    }
}

/// Which layers take covariates. The head for zero inflation, which a module without it does not hold, takes what the other
/// head of genes takes.
fn takes_of(module: &dyn Module) -> impl Fn(&str) -> Takes + use<> {
    let layout = Layout::of(module.weights());
    let known: BTreeMap<String, Takes> = layout.iter().map(|(name, parts)| (name.to_owned(), takes(parts))).collect();
    move |name| known.get(name).or_else(|| known.get(&like(name))).copied().unwrap_or(Takes::DataOnly)
}

/// The tensor that has the covariates of another, which our module does not hold.
fn like(name: &str) -> String {
    name.replace("px_dropout_decoder_gene", "px_scale_decoder")
}

#[test]
fn three_steps_with_and_without_weight_decay() {
    check(|case, report| {
        for (prefix, options) in [("step3/", "optimiser"), ("wdstep3/", "optimiser_wdstep")] {
            let (module, owned) = query_model(case);
            core::step(case, &module, &mut core::adam(&case.json[options], owned), 3);
            let ours = setup::upstream(&module);
            report.group(case, prefix, &ours, "param/", |_| case.tolerance("step"));
        }
    });
}

#[test]
fn every_freeze_flag() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Nothing, None);
        check_flags(case, &module, setup::config(case).dropout_rate, report);
    });
}

/// Compares the rules with the case's table of every flag.
pub(crate) fn check_flags(case: &Case, module: &dyn Module, dropout_rate: f64, report: &mut Report) {
    let takes = takes_of(module);
    for (row, entry) in case.json["freeze_flag_table"].as_object().unwrap() {
        let flags = flags(&entry["flags"]);
        for (name, expected) in entry["parameters"].as_object().unwrap() {
            let outcome = flags.outcome(name, takes(name));
            let width = case.tensor(&format!("param/{name}")).size().last().copied().unwrap();
            let what = format!("{}: {row}: {name}: {outcome:?}, expected {expected}", case.name);
            report.holds(&what, describes(expected, outcome, width, n_covariate_columns(module, name)));
        }
        for (layer, expected) in entry["batchnorm"].as_object().unwrap() {
            let momentum = archipelago_models::nn::LayerRules::momentum(&flags, layer);
            report.holds(&format!("{}: {row}: {layer}", case.name), Some(momentum) == expected["momentum"].as_f64());
        }
        for (layer, expected) in entry["dropout_p"].as_object().unwrap() {
            let rate = archipelago_models::nn::LayerRules::dropout(&flags, layer, dropout_rate);
            report.holds(&format!("{}: {row}: {layer}", case.name), Some(rate) == expected.as_f64());
        }
    }
    let listed: Vec<&str> = case.json["trainable"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    for (name, _) in case.group("param/").iter().filter(|(name, _)| case.find(&format!("mask/{name}")).is_some()) {
        let enabled = Flags::default().outcome(name, takes(name)) != Outcome::Frozen;
        report.holds(&format!("{}: {name} in the optimiser", case.name), enabled == listed.contains(&name));
    }
}

fn n_covariate_columns(module: &dyn Module, name: &str) -> i64 {
    let layout = Layout::of(module.weights());
    let parts_of = |name: &str| layout.iter().find(|(upstream, _)| *upstream == name).map(|(_, parts)| parts.to_vec());
    let parts = parts_of(name).or_else(|| parts_of(&like(name))).unwrap_or_default();
    parts.iter().skip(1).map(|part| part.n_columns).sum()
}

fn describes(expected: &Value, outcome: Outcome, width: i64, n_columns: i64) -> bool {
    match (expected.as_str(), outcome) {
        (Some(text), Outcome::Frozen) => text.starts_with("frozen"),
        (Some(text), Outcome::Masked) => text.contains("masked to zero everywhere"),
        (Some(text), Outcome::Trained) => text == "all entries",
        (None, Outcome::CovariateColumns) => {
            let columns: Vec<i64> =
                expected["trainable_columns"].as_array().unwrap().iter().map(|c| c.as_i64().unwrap()).collect();
            expected["of"].as_i64() == Some(width) && columns == (width - n_columns..width).collect::<Vec<_>>()
        }
        _ => false,
    }
}

fn flags(given: &Value) -> Flags {
    let mut flags = Flags::default();
    for (name, value) in given.as_object().unwrap() {
        let field = match name.as_str() {
            "unfrozen" => &mut flags.unfrozen,
            "freeze_dropout" => &mut flags.freeze_dropout,
            "freeze_expression" => &mut flags.freeze_expression,
            "freeze_decoder_first_layer" => &mut flags.freeze_decoder_first_layer,
            "freeze_batchnorm_encoder" => &mut flags.freeze_batchnorm_encoder,
            "freeze_batchnorm_decoder" => &mut flags.freeze_batchnorm_decoder,
            "freeze_classifier" => &mut flags.freeze_classifier,
            other => panic!("unknown flag `{other}`"),
        };
        *field = value.as_bool().unwrap();
    }
    flags
}
