//! What the network says in an evaluation pass, and the terms of its loss in training.

use archipelago_common::task::Warmup;
use archipelago_models::{
    nn::{Mode, Pass},
    train::KlWarmup,
    zoo::trvae::{TrvaeLoss, TrvaeModule},
};
use tch::{Kind, Tensor};

use super::setup::{self, OneDraw};
use crate::{
    case::{Case, Report},
    native,
};

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
    if theta.is_some() {
        let totals = minibatch.x.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        report.close(case, "in.sizefactor", &totals, forward);
    }
}

fn mmd_of(terms: &TrvaeLoss) -> Tensor {
    terms.mmd.as_ref().map_or_else(|| Tensor::from(0.0_f32), Tensor::shallow_clone)
}

/// The loss of step `k`, compared with the case's.
pub(super) fn loss_of_step(case: &Case, module: &TrvaeModule, k: u32, report: &mut Report) -> Tensor {
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
    KlWarmup { over: over_epochs.or(over_steps).unwrap_or(Warmup::Off), min: 0.0, max, period: None }
}
