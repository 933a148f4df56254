//! `surgery_*`: upstream's surgery to the letter; `shot_surgery`: without training.

use archipelago_models::{
    model::Module as _,
    nn::{Mode, Pass, Trainable},
    zoo::family::{Freeze, OfConditions},
};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{
    Scpoli,
    setup::{self, OneDraw},
};
use crate::{
    case::{self, Case},
    runner::native::Native as _,
};

pub(super) fn is_shot(name: &str) -> bool {
    name == "shot_surgery"
}

/// The flags that a case was made with.
pub(super) fn flags(case: &Case) -> Freeze {
    let flag = |name: &str, default| case.json["load_query_data"][name].as_bool().unwrap_or(default);
    let default = Freeze::default();
    Freeze { freeze: flag("freeze", default.freeze), conditions: OfConditions::Embeddings, ..default }
}

/// Here rows and columns are added beside the old ones: nothing grows.
#[test]
fn the_base_stays_and_rows_and_columns_are_added() {
    let is_one = |name: &str| name.starts_with("surgery_");
    case::run("scpoli", is_one, |case, report| {
        let split = |tensors| setup::split(case, &tensors);
        let ((old_base, old, _), (base, all, _)) = (split(Scpoli::reference(case)), split(case.group("param.")));
        report.holds(&format!("{}: base", case.name), old_base == base);
        report.holds(&format!("{}: columns", case.name), all.starts_with(&old) && all.len() > old.len());
    });
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
            let mut minibatch = setup::cells(case, x);
            let losses: Vec<f64> = (0..)
                .zip(&known)
                .map(|(code, old)| {
                    let mut noise = OneDraw(case.tensor(&format!("noise.{new}.{old}")));
                    let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                    minibatch.covariates = minibatch.covariates.with_condition(code);
                    let loss = module.loss(&minibatch, 0.0, &mut pass).reconstruction.mean(Kind::Float);
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
