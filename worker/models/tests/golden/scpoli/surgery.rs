//! `surgery_*`: upstream's surgery to the letter; `shot_surgery`: without training.

use archipelago_models::{
    model::Module as _,
    nn::{Mode, Pass, Trainable, from_tch},
    surgery::upstream::{UpstreamRules as _, extend},
    zoo::{
        family::{Freeze, OfConditions},
        scpoli::{ScpoliModule, shot},
    },
};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{
    core,
    setup::{self, OneDraw},
};
use crate::case::{self, Case, Report};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("surgery_")
}

pub(super) fn is_shot(name: &str) -> bool {
    name == "shot_surgery"
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("scpoli", is_one, test);
}

/// The flags that a case was made with.
fn flags(case: &Case) -> Freeze {
    let flag = |name: &str, default| case.json["load_query_data"][name].as_bool().unwrap_or(default);
    let default = Freeze::default();
    Freeze { freeze: flag("freeze", default.freeze), conditions: OfConditions::Embeddings, ..default }
}

fn query_model(case: &Case) -> ScpoliModule {
    setup::module(case, &case.group("param."), Trainable::Nothing, Some(&flags(case)))
}

#[test]
fn rows_and_columns_grow_and_nothing_else() {
    check(|case, report| {
        let reference = case.group("ref.");
        let tensors = reference.iter().filter(|(name, _)| !name.starts_with("prototypes_"));
        let (reference, expected) = (tensors.map(|(n, t)| (n.to_owned(), t.clone())).collect(), case.group("param."));
        let grown = extend(&reference, &expected).unwrap();
        report.holds(&format!("{}: grown tensors", case.name), grown == expected);
        let ((old_base, old, _), (base, all, _)) = (setup::split(case, &reference), setup::split(case, &expected));
        report.holds(&format!("{}: base", case.name), old_base == base);
        report.holds(&format!("{}: columns", case.name), all.starts_with(&old) && all.len() > old.len());
        let ours = setup::upstream(&query_model(case));
        report.holds(&format!("{}: number of tensors", case.name), ours.len() == expected.iter().count());
        for (name, ours) in ours {
            report.holds(&format!("{}: {name}", case.name), Some(&from_tch(&ours)) == expected.get(&name));
        }
    });
}

#[test]
fn what_trains() {
    check(|case, report| {
        let listed: Vec<&str> = case.json["trainable"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for (name, _) in case.group("param.").iter() {
            let trains = flags(case).trains(name);
            report.holds(&format!("{}: {name} trains: {trains}", case.name), trains == listed.contains(&name));
        }
    });
}

#[test]
fn evaluation_pass_of_the_query_model() {
    check(|case, report| core::evaluation(case, &query_model(case), report));
}

#[test]
fn epochs_of_the_query_model() {
    check(|case, report| {
        let module = query_model(case);
        let before = case.find("ref.prototypes_labeled.mean").unwrap();
        let owned = flags(case).trainable(module.weights());
        core::epochs(case, &module, owned, report);
        check_changes(case, &module, report);
        let n_reference = before.size()[0];
        let after = module.prototypes().mean().narrow(0, 0, n_reference);
        report.holds(&format!("{}: the reference's prototypes stay", case.name), after == before);
        let n_new = case.json["new_prototypes"].as_array().unwrap().len() as i64;
        report.holds("types that the query brings", module.prototypes().mean().size()[0] == n_reference + n_new);
    });
}

/// What moved, row by row and column by column, is what moved upstream.
fn check_changes(case: &Case, module: &ScpoliModule, report: &mut Report) {
    let changed = case.json["changed"].as_object().unwrap();
    for (name, after) in setup::upstream(module) {
        let before = case.tensor(&format!("param.{name}"));
        let what = format!("{}: what moved of {name}", case.name);
        let moved = |dim: i64| -> Vec<i64> {
            let differs = |&at: &i64| before.select(dim, at) != after.select(dim, at);
            (0..after.size()[dim as usize]).filter(differs).collect()
        };
        match changed.get(&name) {
            None => report.holds(&what, before == after),
            Some(Value::Object(parts)) if parts.contains_key("rows_changed") => {
                report.holds(&what, parts["rows_changed"] == serde_json::json!(moved(0)));
            }
            Some(Value::Object(parts)) => {
                report.holds(&what, parts["columns_changed"] == serde_json::json!(moved(1)));
            }
            Some(_) => report.holds(&what, before != after),
        }
    }
}

#[test]
fn a_condition_without_training_takes_the_nearest_one() {
    case::run("scpoli", is_shot, |case, report| {
        let _guard = tch::no_grad_guard();
        let module = setup::module(case, &case.group("ref."), Trainable::Nothing, None);
        let names = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let known = names(&case.json["reference_conditions"]["study"]);
        let all = names(&case.json["conditions"]["study"]);
        let of_cell = names(&case.json["query_condition_of_cell"]);
        for new in &all[known.len()..] {
            let cells: Vec<i64> =
                (0..).zip(&of_cell).filter(|(_, condition)| *condition == new).map(|(cell, _)| cell).collect();
            let x = case.tensor("in.x").index_select(0, &Tensor::from_slice(&cells));
            let minibatch = setup::cells(case, x);
            let losses: Vec<f64> = (0..)
                .zip(&known)
                .map(|(code, old)| {
                    let mut noise = OneDraw(case.tensor(&format!("noise.{new}.{old}")));
                    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                    let loss = shot::loss_as(&module, &minibatch, code, &mut pass).mean(Kind::Float);
                    let theirs = case.json["recon_losses"][format!("{new}|{old}")].as_f64().unwrap();
                    report.tensors(
                        &format!("{}: {new} as {old}", case.name),
                        &loss,
                        &Tensor::from(theirs),
                        case.tolerance("loss"),
                    );
                    loss.double_value(&[])
                })
                .collect();
            let best = (0..known.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
            report.holds(
                &format!("{new} is most like {}", known[best]),
                case.json["mapping"][new] == known[best].as_str(),
            );
            // What the new condition owns is what that one owns, after it was looked up.
            let mapped = case.group("mapped.");
            let at = all.iter().position(|name| name == new).unwrap() as i64;
            let ours = setup::upstream(&module);
            for (name, dim) in [("theta", 1), ("embeddings.0.weight", 0)] {
                let theirs = archipelago_models::nn::to_tch(name, mapped.get(name).unwrap()).unwrap().select(dim, at);
                let own = ours[name].select(dim, best as i64);
                report.tensors(&format!("{}: {name} of {new}", case.name), &own, &theirs, case.tolerance("forward"));
            }
        }
    });
}
