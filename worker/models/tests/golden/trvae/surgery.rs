//! `surgery_*`: upstream's surgery to the letter: grown tensors, what trains, steps.

use archipelago_models::{
    model::Module as _,
    nn::{Trainable, from_tch},
    surgery::upstream::{UpstreamRules as _, extend},
    zoo::{family::Freeze, trvae::TrvaeModule},
};
use serde_json::Value;

use super::{core, setup};
use crate::case::{self, Case, Report};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("surgery_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("trvae", is_one, test);
}

/// The flags that a case was made with.
fn flags(case: &Case) -> Freeze {
    let flag = |name: &str, default| case.json["load_query_data"][name].as_bool().unwrap_or(default);
    let default = Freeze::default();
    Freeze {
        freeze: flag("freeze", default.freeze),
        freeze_expression: flag("freeze_expression", default.freeze_expression),
        remove_dropout: flag("remove_dropout", default.remove_dropout),
    }
}

fn query_model(case: &Case) -> TrvaeModule {
    setup::module(&setup::config(case), &case.group("param."), Trainable::Nothing, Some(&flags(case)))
}

#[test]
fn tensors_grow_as_upstream_grows_them() {
    check(|case, report| {
        let (reference, expected) = (case.group("ref."), case.group("param."));
        // The fresh tensors of the fixture are known only in the columns that were taken from them.
        let grown = extend(&reference, &expected).unwrap();
        report.holds(&format!("{}: grown tensors", case.name), grown == expected);
        // Here new columns are values beside the old ones: nothing grows.
        let config = setup::config(case);
        let ((old_base, old), (base, all)) = (setup::split(&config, &reference), setup::split(&config, &expected));
        report.holds(&format!("{}: base", case.name), old_base == base);
        report.holds(&format!("{}: columns", case.name), all.starts_with(&old) && all.len() > old.len());
    });
}

#[test]
fn split_and_join_lose_nothing() {
    check(|case, report| {
        let expected = case.group("param.");
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
        let is_buffer = |name: &str| name.contains("running_") || name.contains("num_batches_tracked");
        for (name, _) in case.group("param.").iter().filter(|(name, _)| !is_buffer(name)) {
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
fn three_steps_of_the_query_model() {
    check(|case, report| {
        let module = query_model(case);
        let owned = flags(case).trainable(module.weights());
        core::steps(case, &module, owned, report);
        check_changes(case, &module, report);
    });
}

/// What moved, column by column where tensors have columns, is what moved upstream.
fn check_changes(case: &Case, module: &TrvaeModule, report: &mut Report) {
    let changed = case.json["changed_after_3_steps"].as_object().unwrap();
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
