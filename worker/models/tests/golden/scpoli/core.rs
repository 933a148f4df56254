//! `ref_*`: the evaluation pass, losses, gradients, optimiser steps, prototypes.

use archipelago_common::task::Warmup;
use archipelago_models::{
    nn::{Mode, Pass},
    train::{AdamOptions, GroupSpec, KlWarmup, Method, Optimiser},
    zoo::scpoli::{
        ClusterPrototypes, ScpoliModule,
        prototypes::{Drawing, Statistics, cluster},
    },
};
use ndarray::Array2;
use tch::{Kind, Tensor};

use super::setup::{self, OneDraw};
use crate::{
    case::{self, Case, Report, Tolerance},
    native,
    runner::{
        core::adam_options,
        native::{Owned, training_of},
    },
};

/// Compares everything that a pass without training gives.
pub(super) fn evaluation(case: &Case, module: &ScpoliModule, report: &mut Report) {
    let minibatch = setup::minibatch(case);
    let mut noise = OneDraw(case.tensor("noise.eval"));
    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
    let inference = module.inference(&minibatch, &mut pass);
    let totals = case.tensor("in.sizefactor").unsqueeze(1);
    let decoded = module.generative(&inference.z, &totals, &inference.embedded, &mut pass);
    let terms = module.loss_terms(&minibatch, &inference, &decoded);
    let theta = module.dispersion(&minibatch, &minibatch.covariates);
    let forward = case.tolerance("forward");
    report.close(case, "out.batch_embeddings", &inference.embedded, forward);
    for (i, table) in module.embeddings().tables().iter().enumerate() {
        report.close(case, &format!("out.embeddings_after_lookup.{i}"), table, forward);
    }
    report.close(case, "out.z_mean", &inference.qz.mean, forward);
    report.close(case, "out.z_log_var", &(&inference.qz.var - 1e-4).log(), forward);
    report.close(case, "out.z", &inference.z, forward);
    report.close(case, "out.y1", &decoded.first, forward);
    native::output(case, &decoded.output, theta.as_ref(), report);
    let loss = case.tolerance("loss");
    report.close(case, "out.eval_recon_loss", &terms.reconstruction.mean(Kind::Float), loss);
    report.close(case, "out.eval_kl_loss", &terms.kl.mean(Kind::Float), loss);
}

/// The loss of step `k`, compared with the case's.
pub(super) fn loss_of_step(case: &Case, module: &ScpoliModule, k: u32, report: &mut Report) -> Tensor {
    let (minibatch, config) = (setup::minibatch(case), module.config());
    let mut noise = OneDraw(case.tensor(&format!("noise.step{k}")));
    let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
    let inference = module.inference(&minibatch, &mut pass);
    let totals = case.tensor("in.sizefactor").unsqueeze(1);
    let decoded = module.generative(&inference.z, &totals, &inference.embedded, &mut pass);
    let terms = module.loss_terms(&minibatch, &inference, &decoded);
    let (tolerance, alpha) = (case.tolerance("loss"), warmup(case).weight(k - 1, u64::from(k - 1)));
    let name = |term: &str| format!("loss.step{k}.{term}");
    let (recon, kl) = (terms.reconstruction.mean(Kind::Float), terms.kl.mean(Kind::Float));
    let total = terms.total(alpha, config);
    report.close(case, &name("alpha"), &Tensor::from(alpha), tolerance);
    report.close(case, &name("loss"), &total, tolerance);
    report.close(case, &name("cvae_loss"), &(&recon + &kl * alpha), tolerance);
    let unweighted = &recon + &kl;
    let figures = terms.figures(config);
    let Some((_, unweighted)) = figures.iter().find(|(name, _)| *name == "unweighted_loss") else {
        report.close(case, &name("unweighted_loss"), &unweighted, tolerance);
        report.holds(&format!("{}: step {k}: nothing draws", case.name), case.find(&name("prototype_loss")).is_none());
        return total;
    };
    report.close(case, &name("unweighted_loss"), unweighted, tolerance);
    for (figure, value) in figures.iter().filter(|(figure, _)| *figure != "unweighted_loss") {
        // Upstream logs a term for the minibatches that have cells of it.
        match case.find(&name(figure)) {
            Some(_) => report.close(case, &name(figure), value, tolerance),
            None => report.tensors(&format!("{}: step {k}: {figure}", case.name), value, &Tensor::from(0.0), EXACT),
        }
    }
    let is_told = |term: &str| figures.iter().any(|(figure, _)| *figure == term);
    let has = |term: &str| case.find(&name(term)).is_some();
    report.holds("clusters draw where upstream's do", is_told("unlabeled_loss") == has("unlabeled_loss"));
    total
}

const EXACT: Tolerance = Tolerance { rtol: 0.0, atol: 0.0 };

/// How the weight of the divergence rises in a case; a step is an epoch of one iteration.
fn warmup(case: &Case) -> KlWarmup {
    let train = &case.json["train"];
    let over = train["alpha_epoch_anneal"].as_u64().map_or(Warmup::Off, |n| Warmup::over_epochs(n as u32));
    KlWarmup { over, min: 0.0, max: train["alpha_kl"].as_f64().unwrap(), period: None }
}

fn adam(case: &Case) -> AdamOptions {
    adam_options(training_of(case))
}

/// The optimiser that a case describes: embeddings do not decay.
pub(super) fn optimiser(case: &Case, owned: Owned) -> Optimiser {
    let adam = adam(case);
    let method = Method::Adam(AdamOptions { weight_decay: 0.0, ..adam });
    Optimiser::new(adam, &[GroupSpec { takes: |name| name.contains("embedding"), method }], None, owned)
}

/// One draw of every cell's latent state, in evaluation mode.
fn latent(case: &Case, module: &ScpoliModule, noise: &str) -> Array2<f32> {
    let _guard = tch::no_grad_guard();
    let mut noise = OneDraw(case.tensor(noise));
    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
    native::rows(&module.inference(&setup::minibatch(case), &mut pass).z)
}

/// Prototypes of types from the cells, and the comparison with the case's.
fn renew(case: &Case, module: &ScpoliModule, latent: &Array2<f32>, (own, group): (&[bool], &str), report: &mut Report) {
    let types = module.levels().of_minibatch(&setup::minibatch(case));
    let mut statistics = Statistics::new(module.levels().types().len(), latent.ncols());
    for (cell, z) in latent.rows().into_iter().enumerate() {
        let mut of_cell = Vec::<i64>::try_from(types.get(cell as i64)).unwrap();
        of_cell.dedup();
        of_cell.into_iter().filter(|code| *code >= 0).for_each(|code| statistics.add(code as usize, z));
    }
    module.prototypes().set(&statistics, own);
    let forward = case.tolerance("forward");
    for (part, ours) in [("mean", module.prototypes().mean()), ("cov", module.prototypes().cov())] {
        let name = format!("{group}.prototypes_labeled.{part}");
        if case.find(&name).is_some() {
            report.close(case, &name, ours, forward);
        }
    }
}

/// Every epoch of a case, of one step each, everything compared on the way.
pub(super) fn epochs(case: &Case, module: &ScpoliModule, owned: Owned, report: &mut Report) {
    let train = &case.json["train"];
    let number = |name: &str| train[name].as_u64().unwrap() as u32;
    let (n_epochs, pretraining) = (number("n_epochs"), number("pretraining_epochs"));
    let has_prototypes = train["prototype_training"] == true && module.levels().finest().is_some();
    let mut optimiser = optimiser(case, owned);
    let before = module.prototypes().mean().copy();
    let own: Vec<bool> = module.prototypes().are_present().into_iter().map(|is_present| !is_present).collect();
    if let Some(new) = case.json["new_prototypes"].as_array() {
        let n_own = own.iter().filter(|is_own| **is_own).count();
        report.holds(&format!("{}: types that the query brings", case.name), n_own == new.len());
    }
    let mut clusters: Option<ClusterPrototypes> = None;
    for k in 1..=n_epochs {
        let draws = has_prototypes && k > pretraining;
        if draws && k == pretraining + 1 {
            let latent = latent(case, module, "noise.prototype_init");
            report.tensors(
                &format!("{}: latent.prototype_init", case.name),
                &archipelago_models::nn::of_rows(latent.view()),
                &case.tensor("latent.prototype_init"),
                case.tolerance("forward"),
            );
            renew(case, module, &latent, (&own, "prototype_init"), report);
            if let Some(theirs) = case.find("prototype_init.prototypes_unlabeled.mean") {
                check_clusters(case, module, &latent, &theirs, report);
                clusters = Some(ClusterPrototypes::new(&theirs, adam(case)));
            }
        }
        let of_clusters = clusters.as_ref().map(|clusters| clusters.means().detach());
        module.prototypes().draw(draws.then_some(Drawing { clusters: of_clusters }));
        let loss = loss_of_step(case, module, k, report);
        optimiser.minimise(&loss);
        let prefix = format!("grad.step{k}.");
        if !case.group(&prefix).is_empty() {
            let tolerance = case.tolerance("grad");
            native::gradients(case, &prefix, &setup::gradients(module), tolerance, report);
        }
        let tolerance = case.tolerance("params_after_steps");
        report.group(case, &format!("after.step{k}."), &setup::upstream(module), "param.", |_| tolerance);
        if draws {
            let latent = latent(case, module, &format!("noise.epoch_end{k}"));
            renew(case, module, &latent, (&own, &format!("epoch_end{k}")), report);
            if let Some(clusters) = &mut clusters {
                clusters.step(&archipelago_models::nn::of_rows(latent.view()), module.config().p_prototype_loss);
                let name = format!("epoch_end{k}.prototypes_unlabeled.mean");
                report.close(case, &name, clusters.means(), case.tolerance("forward"));
            }
        }
    }
    for code in (0_i64..).zip(&own).filter(|(_, is_own)| !**is_own).map(|(code, _)| code) {
        let stays = module.prototypes().mean().get(code) == before.get(code);
        report.holds(&format!("{}: prototype {code} is the reference's and stays", case.name), stays);
    }
}

/// Our clusters are no worse than upstream's: as close to the cells for k-means, and the same ones where both find the same.
fn check_clusters(case: &Case, module: &ScpoliModule, latent: &Array2<f32>, theirs: &Tensor, report: &mut Report) {
    let found = cluster(latent.view(), module.config(), 0).unwrap();
    let theirs = native::rows(theirs);
    let nearest = |means: &Array2<f32>| -> f64 {
        let distance = |z: ndarray::ArrayView1<'_, f32>| {
            let to = |mean: ndarray::ArrayView1<'_, f32>| (&z - &mean).mapv(f64::from).mapv(|d| d * d).sum();
            means.rows().into_iter().map(to).fold(f64::INFINITY, f64::min)
        };
        latent.rows().into_iter().map(distance).sum()
    };
    let (ours, upstreams) = (nearest(&found.means), nearest(&theirs));
    let what = format!(
        "{}: {} clusters at {ours:.4}, upstream's {} at {upstreams:.4}",
        case.name,
        found.means.nrows(),
        theirs.nrows()
    );
    case::say(&what);
    let is_leiden = module.config().clustering == archipelago_models::zoo::scpoli::Clustering::Leiden;
    let is_as_good =
        if is_leiden { found.means.nrows().abs_diff(theirs.nrows()) <= 2 } else { ours <= upstreams * (1.0 + 1e-4) };
    report.holds(&what, is_as_good);
}
