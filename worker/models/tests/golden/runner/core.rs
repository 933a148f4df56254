//! `core_*`: evaluation and training passes, gradients, optimiser steps, public results.

use archipelago_models::{
    model::Module,
    nn::{Mode, Pass, Trainable},
    train::{Adam, AdamOptions, Decay, GradientUse},
};
use serde_json::Value;
use tch::Tensor;

use super::{Golden, PASSES, gradients, module, upstream};
use crate::{
    case::{self, Case, Report, Tolerance},
    noise::{FixedNoise, Masks},
};

pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with("core_")
}

fn check<G: Golden>(test: impl Fn(&Case, &mut Report)) {
    case::run(G::MODEL, is_one, test);
}

pub(crate) fn evaluation_pass<G: Golden>() {
    check::<G>(|case, report| {
        let module = module::<G>(case, Trainable::Nothing);
        let _loss = compare_pass::<G>(case, "eval", &module, Mode::Evaluation, Masks::Off, report);
    });
}

pub(crate) fn training_pass_and_gradients<G: Golden>() {
    check::<G>(|case, report| compare_gradients::<G>(case, PASSES[0], report));
}

pub(crate) fn training_pass_with_dropout<G: Golden>() {
    let has_masks = |case: &Case| !case.group(PASSES[1].1).is_empty();
    case::run_those(
        G::MODEL,
        |case| is_one(&case.name) && has_masks(case),
        |case, report| {
            compare_gradients::<G>(case, PASSES[1], report);
        },
    );
}

fn compare_gradients<G: Golden>(case: &Case, pass: (&str, &str, Masks), report: &mut Report) {
    let (group, prefix, masks) = pass;
    let module = module::<G>(case, Trainable::Everything);
    compare_pass::<G>(case, group, &module, Mode::Training, masks, report).backward();
    report.group(case, prefix, &gradients(&module), "param/", |name| with_noise_floor(case, "grad", name));
}

pub(crate) fn optimiser_steps<G: Golden>() {
    check::<G>(|case, report| {
        for n_steps in [1, 3] {
            let module = module::<G>(case, Trainable::Everything);
            let mut adam = adam(&case.json["optimiser"], all_tensors(&module));
            step::<G>(case, &module, &mut adam, (Mode::Training, n_steps));
            report.group(case, &format!("step{n_steps}/"), &upstream(&module), "param/", |_| case.tolerance("step"));
        }
    });
}

pub(crate) fn public_results<G: Golden>() {
    check::<G>(|case, report| G::compare_results(case, &module::<G>(case, Trainable::Nothing), report));
}

/// Compares one pass with the tensors under `{group}/`; gives the loss.
pub(super) fn compare_pass<G: Golden>(
    case: &Case,
    group: &str,
    module: &G::Module,
    mode: Mode,
    masks: Masks,
    report: &mut Report,
) -> Tensor {
    let mut noise = FixedNoise::of_prefix(case, "noise/".to_owned(), masks);
    G::compare_pass(case, group, module, &mut Pass { mode, noise: &mut noise }, report)
}

/// Steps in a mode, on the same minibatch with the same noise.
pub(super) fn step<G: Golden>(case: &Case, module: &G::Module, adam: &mut Adam, (mode, n_steps): (Mode, usize)) {
    for _ in 0..n_steps {
        let mut noise = FixedNoise::new(case);
        adam.minimise(&G::loss(case, module, &mut Pass { mode, noise: &mut noise }));
    }
}

/// The weight of the KL term in a case's losses.
pub(crate) fn kl_weight(case: &Case) -> f64 {
    case.json["kl_weight"].as_f64().unwrap()
}

/// Compares a tensor that the case may or may not have.
pub(crate) fn compare(case: &Case, name: &str, ours: Option<&Tensor>, tolerance: Tolerance, report: &mut Report) {
    match (case.find(name), ours) {
        (Some(theirs), Some(ours)) => {
            let ours = ours.expand_as(&theirs.reshape(ours_shape(&theirs, ours)));
            report.close(case, name, &ours, tolerance);
        }
        (Some(_), None) => report.holds(&format!("{}: nothing to compare with {name}", case.name), false),
        (None, _) => {}
    }
}

/// A dispersion per gene is one row here and one row per cell there.
fn ours_shape(theirs: &Tensor, ours: &Tensor) -> Vec<i64> {
    if theirs.numel() == ours.numel() { ours.size() } else { theirs.size() }
}

/// Tolerance of one tensor: the gradient of a bias that feeds batch norm is rounding noise.
pub(crate) fn with_noise_floor(case: &Case, kind: &str, name: &str) -> Tolerance {
    let stated = case.tolerance(kind);
    let norm = name.strip_suffix(".0.bias").map(|layer| format!("param/{layer}.1.running_mean"));
    let feeds_norm = norm.is_some_and(|norm| case.find(&norm).is_some());
    if feeds_norm && kind == "grad" { Tolerance { atol: 1e-4, ..stated } } else { stated }
}

/// The optimiser that a case describes.
pub(crate) fn adam(options: &Value, tensors: Vec<(String, Tensor, GradientUse)>) -> Adam {
    Adam::new(adam_options(options), tensors)
}

pub(crate) fn adam_options(options: &Value) -> AdamOptions {
    let value = |name: &str| options[name].as_f64().unwrap();
    let (rate, eps, weight_decay) = (value("lr"), value("eps"), value("weight_decay"));
    AdamOptions { rate, eps, weight_decay, decay: Decay::L2 }
}

pub(crate) fn all_tensors(module: &dyn Module) -> Vec<(String, Tensor, GradientUse)> {
    let trainable = module.weights().iter().filter(|(_, weight)| weight.role.is_trainable());
    trainable.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied)).collect()
}

/// A pass in evaluation mode.
pub(crate) fn evaluation<'a>(noise: &'a mut FixedNoise<'_>) -> Pass<'a> {
    Pass { mode: Mode::Evaluation, noise }
}
