//! `surgery_*`: upstream's surgery to the letter: what trains, steps, new terms.

use archipelago_models::{
    model::Module as _,
    nn::{Trainable, from_tch},
    surgery::upstream::UpstreamRules as _,
    zoo::{
        expimap::{ExpimapModule, FreezeTerms},
        family::Freeze,
    },
};
use serde_json::Value;

use super::{core, setup};
use crate::case::{self, Case, Report};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("surgery_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("expimap", is_one, test);
}

/// The flags that a case was made with.
fn flags(case: &Case) -> FreezeTerms {
    let flag = |name: &str, default| case.json["load_query_data"][name].as_bool().unwrap_or(default);
    let default = FreezeTerms::default();
    FreezeTerms {
        common: Freeze {
            freeze: flag("freeze", default.common.freeze),
            freeze_expression: flag("freeze_expression", default.common.freeze_expression),
            remove_dropout: flag("remove_dropout", default.common.remove_dropout),
            ..default.common
        },
        unfreeze_ext: flag("unfreeze_ext", default.unfreeze_ext),
    }
}

fn query_model(case: &Case) -> ExpimapModule {
    setup::model(case).module(&case.group("param."), Trainable::Nothing, Some(&flags(case)))
}

/// What the module does not hold: upstream keeps hard masks among its tensors.
fn is_mask(name: &str) -> bool {
    name.ends_with(".mask")
}

#[test]
fn split_and_join_lose_nothing() {
    check(|case, report| {
        let expected = case.group("param.");
        let ours = setup::upstream(&query_model(case));
        let n_expected = expected.iter().filter(|(name, _)| !is_mask(name)).count();
        report.holds(&format!("{}: number of tensors", case.name), ours.len() == n_expected);
        for (name, ours) in ours {
            report.holds(&format!("{}: {name}", case.name), Some(&from_tch(&ours)) == expected.get(&name));
        }
    });
}

#[test]
fn what_trains() {
    check(|case, report| {
        let listed: Vec<&str> = case.json["trainable"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for (name, _) in case.group("param.").iter().filter(|(name, _)| !is_mask(name)) {
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
fn all_steps_of_the_query_model() {
    check(|case, report| {
        let module = query_model(case);
        let owned = flags(case).trainable(module.weights());
        core::steps(case, &module, owned, report);
        check_changes(case, &module, report);
    });
}

/// What moved, column by column where tensors have columns, is what moved upstream.
fn check_changes(case: &Case, module: &ExpimapModule, report: &mut Report) {
    let changed = case.json["changed"].as_object().unwrap();
    for (name, after) in setup::upstream(module) {
        let before = case.tensor(&format!("param.{name}"));
        let what = format!("{}: what moved of {name}", case.name);
        match changed.get(&name) {
            None => report.holds(&what, before == after),
            Some(Value::Object(columns)) => {
                let moved = |&column: &i64| before.select(1, column) != after.select(1, column);
                let moved: Vec<i64> = (0..after.size()[1]).filter(moved).collect();
                report.holds(&what, columns["columns_changed"] == serde_json::json!(moved));
            }
            Some(_) => report.holds(&what, before != after),
        }
    }
}
