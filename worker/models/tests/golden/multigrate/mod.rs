//! Multigrate 1.0.1, and 0.0.2 where it differs, in double precision.

mod organize;
mod saved;
mod setup;

use std::collections::{BTreeMap, BTreeSet};

use archipelago_models::{
    model::Module as _,
    nn::{Mode, Pass, Trainable},
    surgery::upstream::UpstreamRules as _,
    train::{GradientUse, Optimiser, Sampler as _},
    zoo::{
        family::Frozen,
        multigrate::{self, Grouped, Inference, MultigrateModule},
    },
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tch::Tensor;

use crate::{
    case::{self, Case, Report},
    noise::Draws,
};
use setup::{adam, as_upstream, kl_weight, minibatch, module, tolerance, upstream_name};

const MODEL: &str = "multigrate";

fn is_surgery(name: &str) -> bool {
    name.starts_with("surgery_")
}

fn is_sampler(name: &str) -> bool {
    name == "stratified_sampler"
}

fn is_network(name: &str) -> bool {
    let starts = ["cont_", "latent_", "legacy002_", "mixture_", "paired_", "trimodal_"];
    starts.iter().any(|start| name.starts_with(start))
}

#[test]
fn every_case_is_claimed_by_a_test() {
    let is_claimed = |name: &str| is_network(name) || is_surgery(name) || is_sampler(name) || name == organize::CASE;
    let names = case::cases(MODEL).into_iter().map(|case| case.name);
    let unclaimed: Vec<String> = names.filter(|name| !is_claimed(name)).collect();
    assert!(unclaimed.is_empty(), "no test runs these cases of {MODEL}: {unclaimed:?}");
}

fn stacked(inference: &Inference, of: impl Fn(&archipelago_models::zoo::multigrate::Latent) -> &Tensor) -> Tensor {
    Tensor::stack(&inference.marginal.iter().map(of).collect::<Vec<_>>(), 1)
}

/// The total of one pass, as training sees it.
fn loss(case: &Case, module: &MultigrateModule, step: usize) -> Tensor {
    let (cells, mut noise) = (minibatch(case), Draws::of_step(case, step));
    let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
    module.loss(&cells, kl_weight(case), &mut pass).loss
}

fn by_upstream_name(
    case: &Case,
    module: &MultigrateModule,
    of: impl Fn(&Tensor) -> Tensor,
) -> BTreeMap<String, Tensor> {
    let named = |(name, weight): (&str, &archipelago_models::nn::Weight)| {
        (upstream_name(case, name), as_upstream(name, &of(&weight.tensor)))
    };
    module.weights().iter().map(named).collect()
}

#[test]
fn a_pass_and_every_term_of_its_loss() {
    case::run(MODEL, is_network, |case, report| {
        let (module, cells, mut noise) =
            (module(case, "param/", Trainable::Everything), minibatch(case), Draws::of_step(case, 0));
        let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
        let inference = module.inference(&cells, &mut pass);
        let decoded = module.generative(&inference.joint.z, &inference, &mut pass);
        let terms = module.loss_terms(&cells, &inference, &decoded, Mode::Training);
        let within = tolerance(case);
        let mut close = |name: &str, ours: &Tensor| {
            if case.find(name).is_some() {
                report.close(case, name, ours, within);
            }
        };
        close("out/mu_marginal", &stacked(&inference, |latent| &latent.mean));
        close("out/logvar_marginal", &stacked(&inference, |latent| &latent.log_var));
        close("out/z_marginal", &stacked(&inference, |latent| &latent.z));
        close("out/mu", &inference.joint.mean);
        close("out/logvar", &inference.joint.log_var);
        close("out/z_joint", &inference.joint.z);
        for (m, decoded) in decoded.iter().enumerate() {
            close(&format!("out/r{m}"), &decoded.value());
            if let Some(logits) = &decoded.dropout {
                close(&format!("out/r{m}_zi"), logits);
            }
        }
        let sums: Vec<Tensor> = terms.of_modalities.iter().map(|loss| loss.sum(loss.kind())).collect();
        close("out/recon_per_modality", &Tensor::stack(&sums, 0));
        close("out/recon_per_cell", &terms.reconstruction);
        close("out/kl_per_cell", &(&terms.kl * kl_weight(case)));
        close("out/integ", &terms.integ);
        close("out/loss", &terms.total(kl_weight(case), module.config()));
    });
}

#[test]
fn three_steps() {
    case::run(MODEL, is_network, |case, report| {
        let module = module(case, "param/", Trainable::Everything);
        let trained = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
        let owned =
            trained.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied)).collect();
        steps(case, &module, owned, report);
    });
}

fn steps(case: &Case, module: &MultigrateModule, owned: Vec<(String, Tensor, GradientUse)>, report: &mut Report) {
    let within = tolerance(case);
    let mut optimiser = Optimiser::new(adam(case), &[], None, owned);
    for step in 0..3 {
        let total = loss(case, module, step);
        report.close(case, &format!("loss/{step}"), &total, within);
        optimiser.minimise(&total);
        if step == 0 {
            let gradient = |tensor: &Tensor| Some(tensor.grad()).filter(Tensor::defined).unwrap_or(tensor.zeros_like());
            let ours = by_upstream_name(case, module, gradient);
            for (name, _) in case.group("grad/").iter() {
                report.close(case, &format!("grad/{name}"), &ours[name], within);
            }
        }
    }
    let ours = by_upstream_name(case, module, Tensor::shallow_clone);
    for (name, _) in case.group("after3/").iter().filter(|(_, t)| t.shape().iter().product::<usize>() > 0) {
        report.close(case, &format!("after3/{name}"), &ours[name], within);
    }
}

#[test]
fn surgery_trains_the_tables_that_grew_and_dispersions_of_groups() {
    case::run(MODEL, is_surgery, |case, report| {
        let module = module(case, "query/param/", Trainable::Nothing);
        let listed: Vec<&str> = strings(&case.json["trainable_after_load_query_data"]);
        let rules = Frozen { unfrozen: false, trains: multigrate::trains };
        // In a case the first covariate has gained nothing; its rows are the reference's there, and no query's.
        let grew = |name: &str| !name.starts_with("cat_covariate_embeddings.0");
        let owned: Vec<_> = rules.trainable(module.weights()).into_iter().filter(|(name, ..)| grew(name)).collect();
        let names: Vec<String> = owned.iter().map(|(name, ..)| upstream_name(case, name)).collect();
        let (ours, theirs): (BTreeSet<&str>, BTreeSet<&str>) =
            (names.iter().map(String::as_str).collect(), listed.into_iter().collect());
        report.holds(&format!("{}: {ours:?} train, expected {theirs:?}", case.name), ours == theirs);
        for (name, reference) in case.group("ref/param/").iter() {
            let (ours, theirs) =
                (case.tensor(&format!("query/param/{name}")), case.tensor(&format!("ref/param/{name}")));
            let along = if name.starts_with("theta") { 1 } else { 0 };
            let kept = match reference.shape().get(along) {
                Some(&n) if ours.numel() > 0 => ours.narrow(along as i64, 0, n as i64),
                _ => ours,
            };
            report.holds(&format!("{}: {name} is the reference's", case.name), kept == theirs);
        }
        steps(case, &module, owned, report);
    });
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn minibatches_hold_halves_of_groups() {
    case::run(MODEL, is_sampler, |case, report| {
        for (n, one) in case.json["cases"].as_array().unwrap().iter().enumerate() {
            let list = |name: &str| -> Vec<usize> {
                one[name].as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as usize).collect()
            };
            let (cells, labels) = (list("indices"), list("labels"));
            let mut groups = vec![-1_i64; cells.iter().max().unwrap() + 1];
            cells.iter().zip(&labels).for_each(|(&cell, &label)| groups[cell] = label as i64);
            let size = one["batch_size"].as_u64().unwrap() as usize;
            assert_eq!(one["min_size_per_class"].as_u64().unwrap() as usize, size / 2);
            let sampler = Grouped(groups);
            let order = sampler.unshuffled(&cells, size, one["drop_last"].as_bool().unwrap());
            let ours: Vec<Value> = order.minibatches().map(|cells| serde_json::json!(cells)).collect();
            report.holds(&format!("{}: minibatches of {n}: {ours:?}", case.name), one["batches"] == Value::Array(ours));
            // Shuffled, every half is still of one group.
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let drawn = sampler.training(&cells, size, &mut rng);
            let kept: BTreeSet<&usize> = drawn.cells().iter().collect();
            let n_kept = order.cells().len();
            let is_same_size = !one["drop_last"].as_bool().unwrap() || drawn.cells().len() == n_kept;
            report.holds(
                &format!("{}: cells of {n}, drawn", case.name),
                kept.len() == drawn.cells().len() && is_same_size,
            );
        }
    });
}
