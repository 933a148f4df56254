//! `core_*`: evaluation and training passes, gradients, optimiser steps, public results.

use archipelago_models::{
    model::{Embedder as _, Module as _, ProteinModel as _},
    nn::{Mode, Pass, Trainable},
    results::{ExpressionAsk, LibraryAsk, ProteinAsk, foreground_probability_of, protein_expression_of},
    train::Adam,
    zoo::totalvi::{Generative, Inference, TotalviModule},
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::setup;
use crate::{
    case::{self, Case, Report},
    noise::{FixedNoise, Masks},
    scvi::{
        core::{adam, all_tensors, compare, evaluation, with_noise_floor},
        setup as scvi,
    },
};

pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with("core_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("totalvi", is_one, test);
}

/// Compares inference, generative and loss terms of one pass with the tensors under `{group}/`; gives the loss.
pub(crate) fn forward(
    case: &Case,
    group: &str,
    module: &TotalviModule,
    mode: Mode,
    masks: Masks,
    report: &mut Report,
) -> Tensor {
    let minibatch = setup::minibatch(case);
    let mut noise = FixedNoise::of_prefix(case, "noise/".to_owned(), masks);
    let mut pass = Pass { mode, noise: &mut noise };
    let inference = module.inference(&minibatch, &mut pass);
    let covariates = &minibatch.covariates;
    let out = module.generative(&inference.z, &inference.library, &minibatch, covariates, &mut pass);
    compare_inference(case, group, &inference, report);
    compare_generative(case, group, &out, report);
    let (forward, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
    let (prior_mean, prior_sd) = module.background_prior(covariates);
    compare(case, &format!("{group}/back_mean_prior_loc"), Some(&prior_mean), forward, report);
    compare(case, &format!("{group}/back_mean_prior_scale"), Some(&prior_sd), forward, report);
    let terms = module.loss_terms(&minibatch, &inference, &out);
    let zeros = terms.kl_z.zeros_like();
    for (name, ours) in [
        ("reconst_loss_gene", &terms.reconstruction_genes),
        ("reconst_loss_protein", &terms.reconstruction_proteins),
        ("kl_div_z", &terms.kl_z),
        ("kl_div_l_gene", terms.kl_l.as_ref().unwrap_or(&zeros)),
        ("kl_div_back_pro", &terms.kl_back),
    ] {
        report.close(case, &format!("{group}/{name}"), ours, per_cell);
    }
    let loss = module.weighted(terms, case.json["kl_weight"].as_f64().unwrap()).loss;
    report.close(case, &format!("{group}/loss"), &loss, per_cell);
    loss
}

fn compare_inference(case: &Case, group: &str, inference: &Inference, report: &mut Report) {
    for (name, ours) in [
        ("qz_mean", &inference.qz.mean),
        ("qz_var", &inference.qz.var),
        ("untran_z", &inference.untransformed_z),
        ("z", &inference.z),
        ("ql_mean", &inference.ql.mean),
        ("ql_var", &inference.ql.var),
        ("untran_l", &inference.log_library),
        ("library_gene", &inference.library),
    ] {
        report.close(case, &format!("{group}/{name}"), ours, case.tolerance("forward"));
    }
}

fn compare_generative(case: &Case, group: &str, out: &Generative, report: &mut Report) {
    for (name, ours) in [
        ("px_scale", Some(&out.px_scale)),
        ("px_rate", Some(&out.px.rate)),
        ("px_r", out.px.r.as_ref()),
        // Without zero inflation upstream computes it all the same and uses it nowhere.
        ("px_dropout", out.px.dropout.as_ref()),
        ("py_back_alpha", Some(&out.back_mean)),
        ("py_back_beta", Some(&out.back_sd)),
        ("log_pro_back_mean", Some(&out.log_back)),
        ("py_rate_back", Some(&out.py.rate_back)),
        ("py_rate_fore", Some(&out.py.rate_fore)),
        ("py_fore_scale", Some(&out.fore_scale)),
        ("py_mixing", Some(&out.py.mixing)),
        ("py_r", Some(&out.py.r)),
        ("py_scale", Some(&out.py.scale())),
        ("per_batch_efficiency", Some(&out.log_efficiency.exp())),
    ] {
        if ours.is_some() {
            compare(case, &format!("{group}/{name}"), ours, case.tolerance("forward"), report);
        }
    }
}

/// Steps on the same minibatch with the same noise; the loss is the case's.
pub(crate) fn step(case: &Case, module: &TotalviModule, adam: &mut Adam, n_steps: usize) {
    let weight = case.json["kl_weight"].as_f64().unwrap();
    for _ in 0..n_steps {
        let mut noise = FixedNoise::new(case);
        let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
        adam.minimise(&module.loss(&setup::minibatch(case), weight, &mut pass).loss);
    }
}

/// Latent, ELBO, normalised expression and what else upstream's public methods give.
pub(crate) fn check_results(case: &Case, module: &TotalviModule, report: &mut Report) {
    let minibatch = setup::minibatch(case);
    let (forward, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
    let posterior = module.posterior(&minibatch, &mut evaluation(&mut FixedNoise::new(case)));
    report.close(case, "api/latent_qzm", &posterior.mean, forward);
    report.close(case, "api/latent_qzv", &posterior.var, forward);
    let terms = module.loss(&minibatch, 1.0, &mut evaluation(&mut FixedNoise::new(case)));
    report.close(case, "api/elbo_per_cell", &-(&terms.reconstruction + &terms.kl_local), per_cell);
    let library = module.library_posterior(&minibatch, &mut evaluation(&mut FixedNoise::new(case)));
    let mean = (&library.mean + &library.var / 2.0).exp();
    report.close(case, "api/latent_library_size_mean", &mean, forward);
    let ask = ExpressionAsk::default();
    let ours = foreground_probability_of(module, &minibatch, &ask, &mut evaluation(&mut FixedNoise::new(case)));
    report.close(case, "api/foreground_probability", &ours, forward);
    let mut expression = |name: &str, ask: &ProteinAsk| {
        let mut noise = FixedNoise::new(case);
        // Only mixing would be drawn from it, and no case does.
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (rna, proteins) = protein_expression_of(module, &minibatch, ask, &mut rng, &mut evaluation(&mut noise));
        report.close(case, &format!("api/normexpr{name}_rna"), &rna, forward);
        report.close(case, &format!("api/normexpr{name}_protein"), &proteins, forward);
    };
    let plain = ProteinAsk::default();
    let with = |expression| ProteinAsk { expression, ..plain.clone() };
    expression("", &plain);
    expression("_latentlib", &with(ExpressionAsk { library: LibraryAsk::Latent, ..ExpressionAsk::default() }));
    expression("_scaled_bg", &ProteinAsk { include_background: true, scale: true, ..plain.clone() });
    expression("_to_batch1", &with(ExpressionAsk { transform: vec![1], ..ExpressionAsk::default() }));
    expression("_to_batch0_and_2", &with(ExpressionAsk { transform: vec![0, 2], ..ExpressionAsk::default() }));
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
fn public_results() {
    check(|case, report| check_results(case, &setup::module(case, "param/", Trainable::Nothing, None), report));
}
