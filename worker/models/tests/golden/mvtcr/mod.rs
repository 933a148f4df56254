//! mvTCR 0.2.1.2, in double precision.

mod setup;

use std::collections::BTreeSet;

use archipelago_models::{
    data::{Chain, ReceptorForm, Receptors},
    model::{Embedder as _, Module as _},
    nn::{Mode, Pass, SeededNoise, Trainable},
    surgery::upstream::UpstreamRules as _,
    train::{GradientUse, Optimiser},
    upstream::{Layout, Named},
    zoo::{
        family::Frozen,
        mvtcr::{self, MvtcrModule, clonotypes::ByClonotype, criterion},
    },
};
use ndarray::Array2;
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::{
    case::{self, Case, Report},
    noise::Draws,
};
use setup::{adam, annealing, minibatch, module, tolerance};

const MODEL: &str = "mvtcr";

fn is_surgery(name: &str) -> bool {
    name.starts_with("surgery_")
}

fn is_preparation(name: &str) -> bool {
    name == "sampling_tokens_pseudo_metric"
}

fn is_network(name: &str) -> bool {
    ["concat_", "moe_", "poe_", "rna_", "tcr_"].iter().any(|start| name.starts_with(start))
}

#[test]
fn every_case_is_claimed_by_a_test() {
    let is_claimed = |name: &str| is_network(name) || is_surgery(name) || is_preparation(name);
    let names = case::cases(MODEL).into_iter().map(|case| case.name);
    let unclaimed: Vec<String> = names.filter(|name| !is_claimed(name)).collect();
    assert!(unclaimed.is_empty(), "no test runs these cases of {MODEL}: {unclaimed:?}");
}

/// Our tensors, or what follows from them, as upstream has them.
fn as_upstream(module: &MvtcrModule, of: impl Fn(&Tensor) -> Tensor) -> Named {
    let weights = module.weights();
    Layout::of(weights).join(weights, |_, tensor| Some(of(tensor)))
}

fn latent(case: &Case, module: &MvtcrModule, whose: &str) -> Tensor {
    let mut noise = SeededNoise::new([0; 32]);
    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
    module.posterior(&minibatch(case, whose), &mut pass).mean
}

#[test]
fn a_pass_and_every_term_of_its_loss() {
    case::run(
        MODEL,
        |name| is_network(name) || is_surgery(name),
        |case, report| {
            let group = if is_surgery(&case.name) { "query/param/" } else { "param/" };
            let module = module(case, group, Trainable::Nothing);
            let within = tolerance(case);
            let mut close = |name: &str, ours: &Tensor| report.close(case, name, ours, within);
            close("eval/latent", &latent(case, &module, ""));
            let (cells, mut noise) = (minibatch(case, ""), Draws::of_step(case, 0));
            let mut pass = Pass { mode: mode(case), noise: &mut noise };
            let inference = module.inference(&cells, &mut pass);
            let decoded = module.generative(&inference, &cells, &mut pass);
            let terms = module.loss_terms(&cells, &inference, &decoded, annealing(case, 0));
            for (k, (latent, z)) in inference.latents.iter().zip(&inference.z).enumerate() {
                close(&format!("out/mu{k}"), &latent.mean);
                close(&format!("out/logvar{k}"), &latent.log_var);
                close(&format!("out/z{k}"), z);
            }
            for (what, tensors) in [("rna", &decoded.rna), ("tcr", &decoded.tcr)] {
                let n_theirs = (0..).take_while(|k| case.find(&format!("out/{what}_pred{k}")).is_some()).count();
                assert_eq!(tensors.len(), n_theirs, "{}: decoded {what}", case.name);
                for (k, ours) in tensors.iter().enumerate() {
                    close(&format!("out/{what}_pred{k}"), ours);
                }
            }
            // What there is nothing of is stored as no tensor of cells, but as a single 0.
            close("out/rna_loss", &terms.rna.reshape(case.tensor("out/rna_loss").size()));
            close("out/tcr_loss", &terms.tcr.reshape(case.tensor("out/tcr_loss").size()));
            close("out/kld_loss", &terms.kl);
            close("out/loss", &terms.total().reshape(case.tensor("out/loss").size()));
            let per_cell = terms.per_cell.mean(Kind::Double) - (&terms.rna + &terms.tcr);
            report.holds(&format!("{}: cells' shares add up", case.name), per_cell.double_value(&[]).abs() < 1e-12);
        },
    );
}

/// Surgery with frozen statistics evaluates; everything else trains.
fn mode(case: &Case) -> Mode {
    match case.json["batch_norm_mode_in_query_training"].as_str() {
        Some(mode) if mode.starts_with("eval") => Mode::Evaluation,
        _ => Mode::Training,
    }
}

#[test]
fn three_steps() {
    case::run(MODEL, is_network, |case, report| {
        let module = module(case, "param/", Trainable::Everything);
        let trained = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
        let owned =
            trained.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied)).collect();
        steps(case, &module, owned, report);
        report.close(case, "eval_after/latent", &latent(case, &module, ""), tolerance(case));
    });
}

fn steps(case: &Case, module: &MvtcrModule, owned: Vec<(String, Tensor, GradientUse)>, report: &mut Report) {
    let within = tolerance(case);
    let cells = minibatch(case, "");
    let mut optimiser = Optimiser::new(adam(case), &[], None, owned);
    for step in 0..3 {
        let mut noise = Draws::of_step(case, step);
        let mut pass = Pass { mode: mode(case), noise: &mut noise };
        let total = module.loss(&cells, annealing(case, step), &mut pass).loss;
        report.close(
            case,
            &format!("loss/{step}"),
            &total.reshape(case.tensor(&format!("loss/{step}")).size()),
            within,
        );
        optimiser.minimise(&total);
        if step == 0 {
            let gradient = |tensor: &Tensor| Some(tensor.grad()).filter(Tensor::defined).unwrap_or(tensor.zeros_like());
            let ours = as_upstream(module, gradient);
            for (name, _) in case.group("grad/").iter() {
                report.close(case, &format!("grad/{name}"), &ours[name], within);
            }
        }
    }
    let ours = as_upstream(module, Tensor::shallow_clone);
    for (name, _) in case.group("after3/").iter().filter(|(name, _)| !is_constant(name)) {
        report.close(case, &format!("after3/{name}"), &ours[name], within);
    }
}

/// Waves of positions follow from the sizes: we keep none.
fn is_constant(name: &str) -> bool {
    name.ends_with("positional_encoding.pe")
}

#[test]
fn surgery_trains_the_table_of_conditions_and_nothing_else() {
    case::run(MODEL, is_surgery, |case, report| {
        let module = module(case, "query/param/", Trainable::Nothing);
        let owned = Frozen { unfrozen: false, trains: mvtcr::trains }.trainable(module.weights());
        let listed: BTreeSet<&str> =
            case.json["trainable"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let names: Vec<&str> = owned.iter().map(|(name, ..)| name.trim_end_matches(".row")).collect();
        report.holds(&format!("{}: {names:?} train", case.name), listed == names.iter().copied().collect());
        let n_known = case.json["n_conditions_reference"].as_i64().unwrap();
        let within = tolerance(case);
        report.close(case, "eval/reference_latent", &latent(case, &module, "reference_"), within);
        let before = as_upstream(&module, Tensor::copy);
        steps(case, &module, owned, report);
        report.close(case, "eval_after/latent", &latent(case, &module, ""), within);
        report.close(case, "eval_after/reference_latent", &latent(case, &module, "reference_"), within);
        let changed = case.json["tensors_changed_by_query_training"].as_array().unwrap();
        for (name, ours) in as_upstream(&module, Tensor::shallow_clone) {
            let is_same = ours == before[&name];
            let may_change = changed.iter().any(|other| other == name.as_str());
            report.holds(&format!("{}: {name} stays", case.name), is_same || may_change);
            if name == "cond_emb.weight" {
                let rows = |tensor: &Tensor| tensor.narrow(0, 0, n_known);
                report.holds(&format!("{}: rows of the reference", case.name), rows(&ours) == rows(&before[&name]));
            }
        }
    });
}

#[test]
fn tokens_shares_of_draws_and_the_pseudo_metric() {
    case::run(MODEL, is_preparation, |case, report| {
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let given = &case.json["tokens"];
        let form = ReceptorForm { chains: vec![Chain::Beta], length: given["pad_to"].as_u64().unwrap() as usize };
        let receptors = Receptors::new(vec![(Chain::Beta, texts(&given["sequences"]))]);
        let codes = form.encode("receptor", &receptors).unwrap();
        let rows: Vec<Value> = codes.rows().into_iter().map(|row| serde_json::json!(row.to_vec())).collect();
        report.holds(&format!("{}: tokens {rows:?}", case.name), given["ids"] == Value::Array(rows));

        let given = &case.json["balanced_sampling"];
        let labels = numbered(&texts(&given["labels"]));
        let mask = given["train_mask"].as_array().unwrap();
        let train: Vec<usize> = (0..labels.len()).filter(|&cell| mask[cell] == 1).collect();
        let shares = ByClonotype(labels).shares(&train);
        let theirs: Vec<f64> =
            given["weights_of_train_cells"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect();
        let off = shares.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max);
        report.holds(&format!("{}: shares are off by {off}", case.name), shares.len() == theirs.len() && off < 1e-12);

        let given = &case.json["pseudo_metric"];
        let x = case.tensor("pseudo/X");
        let (n, width) = (x.size()[0] as usize, x.size()[1] as usize);
        let values: Vec<f32> = Vec::try_from(x.reshape(-1).to_kind(Kind::Float)).unwrap();
        let latent = Array2::from_shape_vec((n, width), values).unwrap();
        let rows = criterion::joined(latent.view()).unwrap();
        report.holds(&format!("{}: joined cells {rows:?}", case.name), given["graph_rows"] == serde_json::json!(rows));
        let mut sum = 0.0;
        for (column, weight) in given["weights"].as_object().unwrap() {
            let labels: Vec<Option<i64>> = numbered(&texts(&given["labels"][column])).into_iter().map(Some).collect();
            let ours = criterion::f1_within(latent.view(), &labels).unwrap();
            let theirs = given["weighted_f1"][format!("weighted_f1_{column}")].as_f64().unwrap();
            report.holds(&format!("{}: {column} {ours} for {theirs}", case.name), (ours - theirs).abs() < 1e-9);
            sum += weight.as_f64().unwrap() * ours;
        }
        let off = (sum - given["value"].as_f64().unwrap()).abs();
        report.holds(&format!("{}: the sum is off by {off}", case.name), off < given["tolerance"].as_f64().unwrap());
    });
}

fn numbered(labels: &[String]) -> Vec<i64> {
    let names: BTreeSet<&String> = labels.iter().collect();
    labels.iter().map(|label| names.iter().position(|name| *name == label).unwrap() as i64).collect()
}
