//! What the network says in an evaluation pass, and the terms of its loss in training.

use archipelago_models::{
    nn::{Mode, Pass},
    zoo::scgen::{ScgenLoss, ScgenModule},
};
use tch::{Kind, Tensor};

use super::setup::Draws;
use crate::case::{Case, Report};

/// What a pass over the case's cells gives: latent states, expression, loss.
fn pass(case: &Case, module: &ScgenModule, mode: Mode, noise: &str) -> (Tensor, Tensor, ScgenLoss) {
    let x = case.tensor("in.x");
    let mut noise = Draws::of(vec![case.tensor(noise)]);
    let mut pass = Pass { mode, noise: &mut noise };
    let qz = module.encode(&x, &mut pass);
    let z = qz.sample(&pass.noise.normal("z", &qz.mean.size(), qz.mean.device()));
    let decoded = module.decode(&z, &mut pass);
    let terms = module.loss_terms(&x, &qz, &decoded);
    (z, decoded, terms)
}

fn kl_weight(case: &Case) -> f64 {
    case.json["train"]["kl_weight"].as_f64().unwrap()
}

/// Compares everything that a pass without training gives.
pub(super) fn evaluation(case: &Case, module: &ScgenModule, report: &mut Report) {
    let (z, decoded, terms) = pass(case, module, Mode::Evaluation, "noise.eval");
    let x = case.tensor("in.x");
    let mut none = Draws::of(vec![]);
    let qz = module.encode(&x, &mut Pass { mode: Mode::Evaluation, noise: &mut none });
    let (forward, loss) = (case.tolerance("forward"), case.tolerance("loss"));
    report.close(case, "out.z_mean", &qz.mean, forward);
    report.close(case, "out.z_log_var", &qz.var.log(), forward);
    report.close(case, "out.z", &z, forward);
    report.close(case, "out.x_hat", &decoded, forward);
    report.close(case, "out.mse_mean", &terms.error.mean(Kind::Float), loss);
    report.close(case, "out.kl_sum", &terms.kl.sum(Kind::Float), loss);
    report.close(case, "out.loss", &terms.total(kl_weight(case)), loss);
}

/// The loss of step `k`, compared with the case's.
pub(super) fn loss_of_step(case: &Case, module: &ScgenModule, k: u32, report: &mut Report) -> Tensor {
    let (_, _, terms) = pass(case, module, Mode::Training, &format!("noise.step{k}"));
    let (total, loss) = (terms.total(kl_weight(case)), case.tolerance("loss"));
    report.close(case, &format!("loss.step{k}.mse"), &terms.error.mean(Kind::Float), loss);
    report.close(case, &format!("loss.step{k}.kl_sum"), &terms.kl.sum(Kind::Float), loss);
    report.close(case, &format!("loss.step{k}.loss"), &total, loss);
    total
}
