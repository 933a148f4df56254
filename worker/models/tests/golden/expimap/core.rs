//! `ref_*`: the evaluation pass, losses, gradients, optimiser steps and the proximal steps after them.

use archipelago_common::task::Warmup;
use archipelago_models::{
    nn::{Mode, Pass},
    train::KlWarmup,
    zoo::{
        expimap::{ExpimapModule, Penalty},
        family::Output,
    },
};
use tch::{Kind, Tensor};

use super::setup::{self, Draws};
use crate::{
    case::{Case, Report},
    runner::native::{Owned, optimiser},
};

/// Compares everything that a pass without training gives.
pub(super) fn evaluation(case: &Case, module: &ExpimapModule, report: &mut Report) {
    let minibatch = setup::minibatch(case);
    let mut noise = Draws::of(case, "noise.eval");
    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
    let inference = module.inference(&minibatch, &mut pass);
    let totals = module.totals(&minibatch, &mut pass);
    let decoded = module.generative(&inference.z, &totals, &minibatch.covariates);
    let terms = module.loss_terms(&minibatch, &inference, &decoded);
    let theta = module.dispersion(&minibatch, &minibatch.covariates);
    let forward = case.tolerance("forward");
    report.close(case, "out.z_mean", &inference.qz.mean, forward);
    report.close(case, "out.z_log_var", &(&inference.qz.var - 1e-4).log(), forward);
    report.close(case, "out.z", &inference.z, forward);
    report.close(case, "out.decoder_linear", &decoded.linear, forward);
    match &decoded.output {
        Output::Values(values) => report.close(case, "out.recon_x", values, forward),
        Output::Rates(_) => report.holds(&format!("{}: no loss of expiMap has rates", case.name), false),
        Output::Counts { share, rate, .. } => {
            if case.find("out.dec_mean_gamma").is_some() {
                // Where nothing is multiplied by a total count, upstream calls the expected counts so.
                let is_share = module.config().last_layer() == archipelago_models::zoo::expimap::LastLayer::Softmax;
                report.close(case, "out.dec_mean_gamma", if is_share { share } else { rate }, forward);
            }
            report.close(case, "out.dec_mean", rate, forward);
            report.close(case, "out.dispersion", theta.as_ref().unwrap(), forward);
        }
    }
    let loss = case.tolerance("loss");
    report.close(case, "out.eval_recon_loss", &terms.reconstruction.mean(Kind::Float), loss);
    report.close(case, "out.eval_kl_loss", &terms.kl.mean(Kind::Float), loss);
    let zero = Tensor::from(0.0_f32);
    report.close(case, "out.eval_hsic_loss", terms.hsic.as_ref().unwrap_or(&zero), loss);
}

/// The loss of step `k`, compared with the case's.
pub(super) fn loss_of_step(case: &Case, module: &ExpimapModule, k: u32, report: &mut Report) -> Tensor {
    let minibatch = setup::minibatch(case);
    let mut noise = Draws::of(case, &format!("noise.step{k}"));
    let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
    let inference = module.inference(&minibatch, &mut pass);
    let totals = module.totals(&minibatch, &mut pass);
    let decoded = module.generative(&inference.z, &totals, &minibatch.covariates);
    let terms = module.loss_terms(&minibatch, &inference, &decoded);
    let (tolerance, warmup) = (case.tolerance("loss"), warmup(case).weight(k - 1, u64::from(k - 1)));
    let name = |term: &str| format!("loss.step{k}.{term}");
    let (recon, kl) = (terms.reconstruction.mean(Kind::Float), terms.kl.mean(Kind::Float));
    let hsic = terms.hsic.as_ref().map_or_else(|| Tensor::from(0.0_f32), Tensor::shallow_clone);
    let total = module.total(&terms, warmup);
    report.close(case, &name("alpha_kl"), &Tensor::from(warmup * module.config().alpha_kl), tolerance);
    report.close(case, &name("loss"), &total, tolerance);
    report.close(case, &name("unweighted_loss"), &(&recon + &kl + &hsic), tolerance);
    report.close(case, &name("recon_loss"), &recon, tolerance);
    report.close(case, &name("kl_loss"), &kl, tolerance);
    if case.find(&name("hsic_loss")).is_some() {
        report.close(case, &name("hsic_loss"), &hsic, tolerance);
    }
    total
}

/// How the share of the divergence's weight rises in a case; a step is an epoch of one iteration.
fn warmup(case: &Case) -> KlWarmup {
    let over_epochs = case.json["train"]["alpha_epoch_anneal"].as_u64();
    KlWarmup::new(over_epochs.map_or(Warmup::Off, |n| Warmup::over_epochs(n as u32)))
}

/// All steps of a case, everything compared on the way.
pub(super) fn steps(case: &Case, module: &ExpimapModule, owned: Owned, report: &mut Report) {
    let mut optimiser = optimiser(case, owned);
    let penalties = Penalty::all(module);
    let n_active = case.json["active_prox_ops"].as_object().unwrap().values().filter(|is| **is == true).count();
    report.holds(&format!("{}: {n_active} penalties", case.name), penalties.len() == n_active);
    for k in 1..=case.json["train"]["n_steps"].as_u64().unwrap() as u32 {
        let loss = loss_of_step(case, module, k, report);
        optimiser.minimise(&loss);
        let tolerance = case.tolerance("params_after_steps");
        if k == 1 {
            let ours = setup::gradients(module);
            report.group(case, "grad.step1.", &ours, "param.", |name| setup::gradient_tolerance(case, name));
        }
        let ours = setup::upstream(module);
        for (name, _) in case.group(&format!("before_prox.step{k}.")).iter() {
            report.close(case, &format!("before_prox.step{k}.{name}"), &ours[name], tolerance);
        }
        let mut thresholds = penalties.iter().map(|penalty| penalty.threshold(k - 1, 1e-3)).collect::<Vec<_>>();
        let theirs = case.group(&format!("prox.step{k}."));
        let mut expected: Vec<f64> =
            theirs.iter().map(|(name, t)| archipelago_models::nn::to_tch(name, t).unwrap().double_value(&[])).collect();
        [&mut thresholds, &mut expected].into_iter().for_each(|all| all.sort_by(f64::total_cmp));
        let is_close = thresholds.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-12 + 1e-9 * b);
        report.holds(&format!("{}: thresholds {thresholds:?}, {expected:?}", case.name), is_close);
        penalties.iter().for_each(|penalty| penalty.apply(k - 1, 1e-3));
        if case.find(&format!("after.step{k}.encoder.FC.L0.cond_L.weight")).is_some() {
            report.group(case, &format!("after.step{k}."), &setup::upstream(module), "param.", |_| tolerance);
        }
        let active = case.json["nonzero_terms_after_step"][k as usize - 1].clone();
        let what = format!("{}: active terms after step {k}", case.name);
        report.holds(&what, active == serde_json::json!(module.active_terms()));
    }
}
