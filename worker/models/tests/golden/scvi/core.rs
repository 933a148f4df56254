//! `core_*`: evaluation and training passes, gradients, optimiser steps, public results.

use archipelago_models::{
    losses::LossTerms,
    model::{CountModel as _, Embedder as _, Module},
    nn::{Mode, Pass, Trainable},
    results::{ExpressionAsk, LibraryAsk, expression_of},
    train::{Adam, AdamOptions, Decay, GradientUse},
    zoo::scvi::{Generative, Inference, ScviModule},
};
use serde_json::Value;
use tch::Tensor;

use super::setup;
use crate::{
    case::{self, Case, Report, Tolerance},
    noise::{FixedNoise, Masks},
};

pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with("core_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("scvi", is_one, test);
}

/// Compares inference, generative and loss terms of one pass with the tensors under `{group}/`; gives the loss.
pub(crate) fn forward(
    case: &Case,
    group: &str,
    module: &ScviModule,
    mode: Mode,
    masks: Masks,
    report: &mut Report,
) -> Tensor {
    let minibatch = setup::minibatch(case);
    let mut noise = FixedNoise::of_prefix(case, "noise/".to_owned(), masks);
    let mut pass = Pass { mode, noise: &mut noise };
    let inference = module.inference(&minibatch, None, &mut pass);
    let covariates = &minibatch.covariates;
    let out = module.generative(&inference.z, &inference.library, &minibatch, covariates, &mut pass);
    let terms = module.loss_terms(&minibatch, &inference, &out);
    compare_network(case, group, &inference, &out, report);
    let per_cell = case.tolerance("loss_per_cell");
    let mut compare =
        |name: &str, ours: &Tensor| compare(case, &format!("{group}/{name}"), Some(ours), per_cell, report);
    let zeros = terms.kl_z.zeros_like();
    compare("reconstruction_loss", &terms.reconstruction);
    compare("kl_divergence_z", &terms.kl_z);
    compare("kl_divergence_l", terms.kl_l.as_ref().unwrap_or(&zeros));
    let weight = case.json["kl_weight"].as_f64().unwrap();
    let loss = LossTerms::new(terms.reconstruction, &terms.kl_z, terms.kl_l.as_ref(), weight).loss;
    compare("loss", &loss);
    loss
}

/// Compares what encoders and decoder say with the tensors under `{group}/`.
pub(crate) fn compare_network(case: &Case, group: &str, inference: &Inference, out: &Generative, report: &mut Report) {
    let forward = case.tolerance("forward");
    let ql = inference.ql.as_ref();
    for (name, ours) in [
        ("qz_mean", Some(&inference.qz.mean)),
        ("qz_var", Some(&inference.qz.var)),
        ("z", Some(&inference.z)),
        ("library", Some(&inference.library)),
        ("ql_mean", ql.map(|ql| &ql.mean)),
        ("ql_var", ql.map(|ql| &ql.var)),
        ("px_scale", Some(&out.px_scale)),
        ("px_rate", Some(&out.px.rate)),
        ("px_r", out.px.r.as_ref()),
        ("px_dropout", out.px.dropout.as_ref()),
    ] {
        compare(case, &format!("{group}/{name}"), ours, forward, report);
    }
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
    let value = |name: &str| options[name].as_f64().unwrap();
    let (rate, eps, weight_decay) = (value("lr"), value("eps"), value("weight_decay"));
    Adam::new(AdamOptions { rate, eps, weight_decay, decay: Decay::L2 }, tensors)
}

/// Steps on the same minibatch with the same noise; the loss is the case's.
pub(crate) fn step(case: &Case, module: &ScviModule, adam: &mut Adam, n_steps: usize) {
    let weight = case.json["kl_weight"].as_f64().unwrap();
    for _ in 0..n_steps {
        let mut noise = FixedNoise::new(case);
        let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
        adam.minimise(&module.loss(&setup::minibatch(case), weight, &mut pass).loss);
    }
}

pub(crate) fn all_tensors(module: &dyn Module) -> Vec<(String, Tensor, GradientUse)> {
    let trainable = module.weights().iter().filter(|(_, weight)| weight.role.is_trainable());
    trainable.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied)).collect()
}

#[test]
fn evaluation_pass() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Nothing, None);
        let _loss = forward(case, "eval", &module, Mode::Evaluation, Masks::Off, report);
    });
}

#[test]
fn training_pass_and_gradients() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Everything, None);
        forward(case, "train", &module, Mode::Training, Masks::Off, report).backward();
        let ours = setup::gradients(&module);
        report.group(case, "grad/", &ours, "param/", |name| with_noise_floor(case, "grad", name));
    });
}

#[test]
fn training_pass_with_dropout() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Everything, None);
        forward(case, "drop", &module, Mode::Training, Masks::Stored, report).backward();
        let ours = setup::gradients(&module);
        report.group(case, "dropgrad/", &ours, "param/", |name| with_noise_floor(case, "grad", name));
    });
}

#[test]
fn optimiser_steps() {
    check(|case, report| {
        for n_steps in [1, 3] {
            let module = setup::module(case, "param/", Trainable::Everything, None);
            let mut adam = adam(&case.json["optimiser"], all_tensors(&module));
            step(case, &module, &mut adam, n_steps);
            let ours = setup::upstream(&module);
            report.group(case, &format!("step{n_steps}/"), &ours, "param/", |_| case.tolerance("step"));
        }
    });
}

#[test]
fn public_results() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Nothing, None);
        let minibatch = setup::minibatch(case);
        let (forward, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
        let posterior = module.posterior(&minibatch, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/latent_qzm", &posterior.mean, forward);
        report.close(case, "api/latent_qzv", &posterior.var, forward);
        let terms = module.loss(&minibatch, 1.0, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/elbo_per_cell", &-(&terms.reconstruction + &terms.kl_local), per_cell);
        report.close(case, "api/reconstruction_error_per_cell", &terms.reconstruction, per_cell);
        let mut expression = |name: &str, transform: &[i64], library| {
            let ask = ExpressionAsk { transform: transform.to_vec(), library, n_samples: 1 };
            let ours = expression_of(&module, &minibatch, &ask, &mut evaluation(&mut FixedNoise::new(case)));
            report.close(case, name, &ours, forward);
        };
        expression("api/normalized_expression", &[], LibraryAsk::Scaled(1.0));
        expression("api/normalized_expression_1e4", &[], LibraryAsk::Scaled(1e4));
        expression("api/normalized_expression_latent", &[], LibraryAsk::Latent);
        expression("api/normalized_expression_to_batch1", &[1], LibraryAsk::Scaled(1.0));
        expression("api/normalized_expression_to_batch0_and_2", &[0, 2], LibraryAsk::Scaled(1.0));
        let n_samples = case.json["marginal_ll_samples"].as_u64().unwrap();
        let weights: Vec<Tensor> = (0..n_samples)
            .map(|i| {
                let mut noise = FixedNoise::of_prefix(case, format!("noise/mc{i}_"), Masks::Off);
                module.log_importance_weight(&minibatch, &mut evaluation(&mut noise))
            })
            .collect();
        let marginal = Tensor::stack(&weights, 0).logsumexp([0_i64].as_slice(), false) - (n_samples as f64).ln();
        report.close(case, "api/marginal_ll_per_cell", &marginal, per_cell);
    });
}

pub(crate) fn evaluation<'a>(noise: &'a mut FixedNoise<'_>) -> Pass<'a> {
    Pass { mode: Mode::Evaluation, noise }
}
