//! `surgery_*`: upstream's surgery to the letter: grown tensors, masks, gradients, steps, the outcome of every flag. `query_*`: steps as
//! `train()` of a query model takes them.

use std::collections::BTreeMap;

use archipelago_models::{
    model::Module,
    nn::{LayerRules as _, Mode, Trainable, from_tch},
    surgery::upstream::{Flags, UpstreamRules as _, extend},
    train::GradientUse,
    upstream::Layout,
    zoo::family::masks::{Masks as Rules, Outcome, Takes, takes},
};
use serde_json::Value;
use tch::Tensor;

use super::{Golden, build_stored, core, gradients, module, upstream};
use crate::{
    case::{self, Case, Report},
    noise::Masks,
};

pub(crate) fn is_one<G: Golden>(name: &str) -> bool {
    (name.starts_with("surgery_") && !G::has_own_test(name)) || is_query(name)
}

/// Whether a case says what `train()` makes of the query model of another case.
fn is_query(name: &str) -> bool {
    name.starts_with("query_")
}

fn check<G: Golden>(test: impl Fn(&Case, &mut Report)) {
    case::run(G::MODEL, |name| is_one::<G>(name) && !is_query(name), test);
}

/// The query model right after surgery with default flags, and what its optimiser owns.
fn query_model<G: Golden>(case: &Case) -> (G::Module, Vec<(String, Tensor, GradientUse)>) {
    let module = build_stored::<G>(case, Trainable::Nothing, Some(&Rules::default()));
    let owned = Rules::default().trainable(module.weights());
    (module, owned)
}

pub(crate) fn tensors_grow_as_upstream_grows_them<G: Golden>() {
    check::<G>(|case, report| {
        let (reference, expected) = (case.group("ref/"), case.group("param/"));
        // The fresh tensors of the fixture are known only in the columns that were taken from them.
        let grown = extend(&reference, &expected).unwrap();
        report.holds(&format!("{}: grown tensors", case.name), grown == expected);
    });
}

pub(crate) fn split_and_join_lose_nothing<G: Golden>() {
    check::<G>(|case, report| {
        let expected = case.group("param/");
        for (name, ours) in upstream(&module::<G>(case, Trainable::Nothing)) {
            report.holds(&format!("{}: {name}", case.name), Some(&from_tch(&ours)) == expected.get(&name));
        }
    });
}

pub(crate) fn passes_and_results_after_surgery<G: Golden>() {
    check::<G>(|case, report| {
        let (module, _) = query_model::<G>(case);
        let _loss = core::compare_pass::<G>(case, "eval", &module, Mode::Evaluation, Masks::Off, report);
        if !case.group("api/").is_empty() {
            G::compare_results(case, &module, report);
        }
        let _loss = core::compare_pass::<G>(case, "train", &module, Mode::Training, Masks::Off, report);
    });
}

pub(crate) fn gradients_after_masking<G: Golden>() {
    check::<G>(|case, report| {
        let (module, owned) = query_model::<G>(case);
        core::compare_pass::<G>(case, "train", &module, Mode::Training, Masks::Off, report).backward();
        mask_gradients(&owned);
        let ours = gradients(&module);
        report.group(case, "grad/", &ours, "param/", |name| core::with_noise_floor(case, "grad", name));
    });
}

/// Zeros the gradients that the optimiser does not use.
fn mask_gradients(owned: &[(String, Tensor, GradientUse)]) {
    for (_, tensor, _) in owned.iter().filter(|(_, _, gradient)| *gradient == GradientUse::Masked) {
        let gradient = tensor.grad();
        if gradient.defined() {
            let _zeros = gradient.shallow_clone().zero_();
        }
    }
}

pub(crate) fn steps_with_and_without_weight_decay<G: Golden>() {
    check::<G>(|case, report| {
        for (prefix, options, n_steps) in
            [("step1/", "optimiser", 1), ("step3/", "optimiser", 3), ("wdstep3/", "optimiser_wdstep", 3)]
        {
            let (module, owned) = query_model::<G>(case);
            core::step::<G>(case, &module, &mut core::adam(&case.json[options], owned), (Mode::Training, n_steps));
            report.group(case, prefix, &upstream(&module), "param/", |_| case.tolerance("step"));
        }
    });
}

/// Steps in the mode that the public methods train in: those of `surgery_*` were taken by hand, in training mode.
pub(crate) fn steps_of_train<G: Golden>() {
    case::run(G::MODEL, is_query, |query, report| {
        let of = query.json["of"].as_str().unwrap();
        let Case { json, mut tensors, .. } = case::find(G::MODEL, of).unwrap();
        query.tensors.iter().for_each(|(name, tensor)| drop(tensors.insert(name, tensor.clone())));
        let case = Case { name: query.name.clone(), json, tensors };
        let mode = Rules::default().mode();
        let trains = query.json["trains"].as_bool().unwrap();
        report.holds(&format!("{}: steps run in {mode:?}", case.name), trains == (mode == Mode::Training));
        for n_steps in [1, 3] {
            let (module, owned) = query_model::<G>(&case);
            core::step::<G>(&case, &module, &mut core::adam(&case.json["optimiser"], owned), (mode, n_steps));
            report.group(&case, &format!("query{n_steps}/"), &upstream(&module), "param/", |_| case.tolerance("step"));
        }
    });
}

/// Compares what the optimiser may move with `mask/`.
pub(crate) fn masks<G: Golden>() {
    check::<G>(|case, report| {
        let (module, owned) = query_model::<G>(case);
        let passes: BTreeMap<&str, f64> = owned
            .iter()
            .map(|(name, _, gradient)| (name.as_str(), if *gradient == GradientUse::Applied { 1.0 } else { 0.0 }))
            .collect();
        let mask = |name: &str, tensor: &Tensor| Some(tensor.full_like(passes.get(name).copied().unwrap_or(0.0)));
        let ours = Layout::of(module.weights()).join(module.weights(), mask);
        let exact = case::Tolerance { rtol: 0.0, atol: 0.0 };
        let takes = takes_of(&module);
        for (name, _) in case.group("mask/").iter() {
            let full = format!("mask/{name}");
            match ours.get(name) {
                Some(mask) => report.close(case, &full, mask, exact),
                None => {
                    let outcome = Rules::default().outcome(name, takes(name));
                    let mask = mask_of(outcome, &case.tensor(&full), n_covariate_columns(&module, name));
                    report.close(case, &full, &mask, exact);
                }
            }
        }
    });
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

/// Compares the rules with the case's table of every flag.
pub(crate) fn every_freeze_flag<G: Golden>() {
    check::<G>(|case, report| {
        let module = module::<G>(case, Trainable::Nothing);
        let takes = takes_of(&module);
        for (row, entry) in case.json["freeze_flag_table"].as_object().unwrap() {
            let flags = Rules(flags(&entry["flags"]));
            for (name, expected) in entry["parameters"].as_object().unwrap() {
                let outcome = flags.outcome(name, takes(name));
                let width = case.tensor(&format!("param/{name}")).size().last().copied().unwrap();
                let what = format!("{}: {row}: {name}: {outcome:?}, expected {expected}", case.name);
                report.holds(&what, describes(expected, outcome, width, n_covariate_columns(&module, name)));
            }
            for (layer, expected) in entry["batchnorm"].as_object().unwrap() {
                let momentum = flags.momentum(layer);
                report
                    .holds(&format!("{}: {row}: {layer}", case.name), Some(momentum) == expected["momentum"].as_f64());
            }
            for (layer, expected) in entry["dropout_p"].as_object().unwrap() {
                let rate = flags.dropout(layer, G::dropout_rate(case));
                report.holds(&format!("{}: {row}: {layer}", case.name), Some(rate) == expected.as_f64());
            }
        }
        let listed: Vec<&str> =
            case.json["trainable"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        for (name, _) in case.group("param/").iter().filter(|(name, _)| case.find(&format!("mask/{name}")).is_some()) {
            let enabled = Rules::default().outcome(name, takes(name)) != Outcome::Frozen;
            report.holds(&format!("{}: {name} in the optimiser", case.name), enabled == listed.contains(&name));
        }
    });
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
