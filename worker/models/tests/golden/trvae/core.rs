//! `ref_*`: the evaluation pass, losses, gradients, optimiser steps.

use archipelago_common::task::Warmup;
use archipelago_models::{
    model::Module as _,
    nn::{Mode, Pass, Trainable},
    train::{AdamOptions, Decay, GradientUse, KlWarmup, Optimiser},
    zoo::trvae::{TrvaeLoss, TrvaeModule},
};
use tch::{Kind, Tensor};

use super::setup::{self, OneDraw};
use crate::{
    case::{self, Case, Report},
    native,
};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("ref_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("trvae", is_one, test);
}

/// Compares everything that a pass without training gives.
pub(super) fn evaluation(case: &Case, module: &TrvaeModule, report: &mut Report) {
    let minibatch = setup::minibatch(case);
    let mut noise = OneDraw(case.tensor("noise.eval"));
    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
    let inference = module.inference(&minibatch, &mut pass);
    let totals = case.tensor("in.sizefactor").unsqueeze(1);
    let decoded = module.generative(&inference.z, &totals, &minibatch.covariates, &mut pass);
    let terms = module.loss_terms(&minibatch, &inference, &decoded);
    let theta = module.dispersion(&minibatch, &minibatch.covariates);
    let forward = case.tolerance("forward");
    report.close(case, "out.z_mean", &inference.qz.mean, forward);
    report.close(case, "out.z_var", &inference.qz.var, forward);
    report.close(case, "out.z_log_var", &(&inference.qz.var - 1e-4).log(), forward);
    report.close(case, "out.z", &inference.z, forward);
    report.close(case, "out.get_latent_sample", &inference.z, forward);
    report.close(case, "out.y1", &decoded.first, forward);
    native::output(case, &decoded.output, theta.as_ref(), report);
    let per_entry = decoded.output.loss_per_entry(&minibatch.x, theta.as_ref());
    report.close(case, "out.recon_per_entry", &per_entry, forward);
    let loss = case.tolerance("loss");
    report.close(case, "out.eval_recon_loss", &terms.reconstruction.mean(Kind::Float), loss);
    report.close(case, "out.eval_kl_loss", &terms.kl.mean(Kind::Float), loss);
    report.close(case, "out.eval_mmd_loss", &mmd_of(&terms), loss);
}

fn mmd_of(terms: &TrvaeLoss) -> Tensor {
    terms.mmd.as_ref().map_or_else(|| Tensor::from(0.0_f32), Tensor::shallow_clone)
}

/// The loss of step `k`, compared with the case's.
fn loss_of_step(case: &Case, module: &TrvaeModule, k: u32, report: &mut Report) -> Tensor {
    let minibatch = setup::minibatch(case);
    let mut noise = OneDraw(case.tensor(&format!("noise.step{k}")));
    let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
    let inference = module.inference(&minibatch, &mut pass);
    let totals = case.tensor("in.sizefactor").unsqueeze(1);
    let decoded = module.generative(&inference.z, &totals, &minibatch.covariates, &mut pass);
    let terms = module.loss_terms(&minibatch, &inference, &decoded);
    let (tolerance, alpha) = (case.tolerance("loss"), warmup(case).weight(k - 1, u64::from(k - 1)));
    let name = |term: &str| format!("loss.step{k}.{term}");
    let (recon, kl, mmd) = (terms.reconstruction.mean(Kind::Float), terms.kl.mean(Kind::Float), mmd_of(&terms));
    let total = terms.total(alpha);
    report.close(case, &name("alpha"), &Tensor::from(alpha), tolerance);
    report.close(case, &name("loss"), &total, tolerance);
    report.close(case, &name("unweighted_loss"), &(&recon + &kl + &mmd), tolerance);
    report.close(case, &name("recon_loss"), &recon, tolerance);
    report.close(case, &name("kl_loss"), &kl, tolerance);
    if case.find(&name("mmd_loss")).is_some() {
        report.close(case, &name("mmd_loss"), &mmd, tolerance);
    }
    total
}

/// How the weight of the divergence rises in a case; a step is an epoch of one iteration.
fn warmup(case: &Case) -> KlWarmup {
    let train = &case.json["train"];
    let number = |name: &str| train[name].as_u64();
    let max = train["alpha_kl"].as_f64().unwrap_or(1.0);
    let over_epochs = number("alpha_epoch_anneal").map(|n| Warmup::over_epochs(n as u32));
    let over_steps = number("alpha_iter_anneal").map(Warmup::over_steps);
    KlWarmup { over: over_epochs.or(over_steps).unwrap_or(Warmup::Off), min: 0.0, max }
}

/// The optimiser that a case describes.
pub(super) fn optimiser(case: &Case, tensors: Vec<(String, Tensor, GradientUse)>) -> Optimiser {
    let train = &case.json["train"];
    let value = |name: &str| train[name].as_f64().unwrap();
    let (rate, eps, weight_decay) = (value("lr"), value("eps"), value("weight_decay"));
    Optimiser::new(
        AdamOptions { rate, eps, weight_decay, decay: Decay::L2 },
        &[],
        train["clip_value"].as_f64(),
        tensors,
    )
}

/// Three steps of training, everything compared on the way.
pub(super) fn steps(case: &Case, module: &TrvaeModule, owned: Vec<(String, Tensor, GradientUse)>, report: &mut Report) {
    let mut optimiser = optimiser(case, owned);
    for k in 1..=3 {
        let loss = loss_of_step(case, module, k, report);
        optimiser.minimise(&loss);
        if k == 1 {
            let ours = setup::gradients(module);
            report.group(case, "grad.step1.", &ours, "param.", |name| setup::gradient_tolerance(case, name));
        }
        let ours = setup::upstream(module);
        let tolerance = case.tolerance("params_after_steps");
        report.group(case, &format!("after.step{k}."), &ours, "param.", |_| tolerance);
    }
}

#[test]
fn evaluation_pass() {
    check(|case, report| {
        let module = setup::module(&setup::config(case), &case.group("param."), Trainable::Nothing, None);
        evaluation(case, &module, report);
        if setup::config(case).recon_loss.likelihood().is_some() {
            let totals = setup::minibatch(case).x.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
            report.close(case, "in.sizefactor", &totals, case.tolerance("forward"));
        }
    });
}

#[test]
fn three_steps() {
    check(|case, report| {
        let module = setup::module(&setup::config(case), &case.group("param."), Trainable::Everything, None);
        let trainable = module.weights().iter().filter(|(_, weight)| weight.role.is_trainable());
        let owned = trainable.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
        let owned = owned.collect();
        steps(case, &module, owned, report);
    });
}
