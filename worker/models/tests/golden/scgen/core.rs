//! `ref*`: the evaluation pass, losses, gradients, optimiser steps.

use archipelago_models::{
    model::Module as _,
    nn::{Mode, Pass, Trainable},
    train::{AdamOptions, Decay, GradientUse, Optimiser},
    zoo::scgen::{ScgenLoss, ScgenModule},
};
use tch::{Kind, Tensor};

use super::setup::{self, Draws};
use crate::case::{self, Case};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("ref")
}

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

#[test]
fn evaluation_pass() {
    case::run("scgen", is_one, |case, report| {
        let module = setup::module(case, Trainable::Nothing);
        let (z, decoded, terms) = pass(case, &module, Mode::Evaluation, "noise.eval");
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
    });
}

#[test]
fn three_steps() {
    case::run("scgen", is_one, |case, report| {
        let module = setup::module(case, Trainable::Everything);
        let trainable = module.weights().iter().filter(|(_, weight)| weight.role.is_trainable());
        let owned = trainable.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
        let value = |name: &str| case.json["train"][name].as_f64().unwrap();
        let options =
            AdamOptions { rate: value("lr"), eps: value("eps"), weight_decay: value("weight_decay"), decay: Decay::L2 };
        let mut optimiser = Optimiser::new(options, &[], None, owned.collect::<Vec<_>>());
        for k in 1..=3 {
            let (_, _, terms) = pass(case, &module, Mode::Training, &format!("noise.step{k}"));
            let (total, loss) = (terms.total(kl_weight(case)), case.tolerance("loss"));
            report.close(case, &format!("loss.step{k}.mse"), &terms.error.mean(Kind::Float), loss);
            report.close(case, &format!("loss.step{k}.kl_sum"), &terms.kl.sum(Kind::Float), loss);
            report.close(case, &format!("loss.step{k}.loss"), &total, loss);
            optimiser.minimise(&total);
            if k == 1 {
                let ours = setup::upstream(&module, |tensor| Some(tensor.grad()).filter(Tensor::defined));
                report.group(case, "grad.step1.", &ours, "param.", |_| case.tolerance("grad"));
            }
            let ours = setup::upstream(&module, |tensor| Some(tensor.detach()));
            let tolerance = case.tolerance("params_after_steps");
            report.group(case, &format!("after.step{k}."), &ours, "param.", |_| tolerance);
        }
    });
}
