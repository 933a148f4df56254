//! `core_*`: evaluation and training passes, gradients, optimiser steps, predictions.

use archipelago_models::{
    model::{Embedder as _, LabelModel as _, Module as _, PredictFrom},
    nn::{Mode, Pass, Trainable},
    train::Adam,
    zoo::scanvi::ScanviModule,
};
use tch::{Kind, Tensor};

use super::setup;
use crate::{
    case::{self, Case, Report},
    noise::FixedNoise,
    scvi::{
        core::{adam, all_tensors, compare, compare_network, evaluation, with_noise_floor},
        setup as scvi,
    },
};

pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with("core_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("scanvi", is_one, test);
}

/// Compares one pass, labelled cells included, with the tensors under `{group}/`; gives the loss.
pub(crate) fn forward(case: &Case, group: &str, module: &ScanviModule, mode: Mode, report: &mut Report) -> Tensor {
    let minibatch = setup::minibatch(case);
    let mut noise = FixedNoise::new(case);
    let mut pass = Pass { mode, noise: &mut noise };
    let inference = module.scvi().inference(&minibatch, None, &mut pass);
    let (z, library) = (&inference.z, &inference.library);
    let out = module.scvi().generative(z, library, &minibatch, &minibatch.covariates, &mut pass);
    compare_network(case, group, &inference, &out, report);

    let over = module.over_labels(&inference.qz, &inference.z, &mut pass);
    let terms = module.scvi().loss_terms(&minibatch, &inference, &out);
    let (values, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
    let mut check = |name: &str, ours: &Tensor, tolerance| {
        compare(case, &format!("{group}/{name}"), Some(ours), tolerance, report);
    };
    check("comp/probs", &over.probabilities, values);
    check("comp/qz2_mean", &over.qz2.mean, values);
    check("comp/qz2_var", &over.qz2.var, values);
    check("comp/pz1_mean", &over.pz1.mean, values);
    check("comp/pz1_var", &over.pz1.var, values);
    check("comp/neg_log_p_z1_given_z2_y", &over.negative_log_pz1, per_cell);
    check("comp/log_q_z1", &over.log_qz1, per_cell);
    check("comp/kl_z2", &over.kl_z2, per_cell);
    check("comp/kl_y", &over.kl_y, per_cell);
    check("comp/reconstruction_px", &terms.reconstruction, per_cell);
    let terms = module.terms(terms, &over, case.json["kl_weight"].as_f64().unwrap());
    check("total_reconstruction_loss", &terms.reconstruction, per_cell);
    check("total_kl_local", &terms.kl_local, per_cell);
    let loss = match setup::labelled(case) {
        None => terms.loss,
        Some(labelled) => {
            let loss = module.label_loss(&labelled, &mut pass);
            check("classification_loss", &(&loss / case.json["classification_ratio"].as_f64().unwrap()), per_cell);
            terms.loss + loss
        }
    };
    check("loss", &loss, per_cell);
    loss
}

/// Steps on the same minibatches with the same noise; the loss is the case's.
pub(crate) fn step(case: &Case, module: &ScanviModule, adam: &mut Adam, n_steps: usize) {
    let weight = case.json["kl_weight"].as_f64().unwrap();
    for _ in 0..n_steps {
        let mut noise = FixedNoise::new(case);
        let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
        let mut loss = module.loss(&setup::minibatch(case), weight, &mut pass).loss;
        if let Some(labelled) = setup::labelled(case) {
            loss += module.label_loss(&labelled, &mut pass);
        }
        adam.minimise(&loss);
    }
}

/// Latent and predictions of a case in evaluation mode.
pub(crate) fn check_results(case: &Case, module: &ScanviModule, report: &mut Report) {
    let minibatch = setup::minibatch(case);
    let forward = case.tolerance("forward");
    let posterior = module.posterior(&minibatch, &mut evaluation(&mut FixedNoise::new(case)));
    report.close(case, "api/latent", &posterior.mean, forward);
    let predict = |from| module.label_probabilities(&minibatch, from, &mut evaluation(&mut FixedNoise::new(case)));
    report.close(case, "api/predict_soft", &predict(PredictFrom::Mean), forward);
    report.close(case, "api/predict_soft_sampled_z", &predict(PredictFrom::Draw), forward);
    if let Some(hard) = case.json["predictions_hard"].as_array() {
        let codes = predict(PredictFrom::Mean).argmax(1, false).to_kind(Kind::Int64);
        let registry = setup::registry(case);
        let labels = registry.labels();
        for (cell, name) in hard.iter().enumerate() {
            let ours = &labels[codes.int64_value(&[cell as i64]) as usize];
            report.holds(&format!("{}: cell {cell} is {name}, not {ours}", case.name), name == ours.as_str());
        }
    }
}

#[test]
fn evaluation_pass() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Nothing, None);
        let _loss = forward(case, "eval", &module, Mode::Evaluation, report);
    });
}

#[test]
fn training_pass_and_gradients() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Everything, None);
        forward(case, "train", &module, Mode::Training, report).backward();
        let ours = scvi::gradients(&module);
        report.group(case, "grad/", &ours, "param/", |name| with_noise_floor(case, "grad", name));
    });
}

#[test]
fn optimiser_steps() {
    check(|case, report| {
        for n_steps in [1, 3] {
            let module = setup::module(case, "param/", Trainable::Everything, None);
            let mut adam = adam(&case.json["optimiser"], all_tensors(&module));
            step(case, &module, &mut adam, n_steps);
            let ours = scvi::upstream(&module);
            report.group(case, &format!("step{n_steps}/"), &ours, "param/", |_| case.tolerance("step"));
        }
    });
}

#[test]
fn latent_and_predictions() {
    check(|case, report| {
        check_results(case, &setup::module(case, "param/", Trainable::Nothing, None), report);
    });
}
