//! `units_*`: the proximal operators and the independence criterion by themselves.

use archipelago_models::{
    losses::hsic::{bandwidth, hsic},
    zoo::expimap::{shrink_columns, shrink_each},
};
use serde_json::Value;

use crate::case;

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("units_")
}

fn list<'a>(case: &'a case::Case, name: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    case.json[name].as_array().unwrap().iter().enumerate()
}

#[test]
fn proximal_operators() {
    case::run("expimap", is_one, |case, report| {
        let tolerance = case.tolerance("all");
        for (i, given) in list(case, "group_lasso") {
            let omega = case.find(&format!("group_lasso.{i}.omega"));
            let threshold = given["threshold"].as_f64().unwrap();
            let ours = shrink_columns(&case.tensor(&format!("group_lasso.{i}.in")), threshold, omega.as_ref());
            report.close(case, &format!("group_lasso.{i}.out"), &ours, tolerance);
        }
        for (i, given) in list(case, "l1") {
            let mask = case.find(&format!("l1.{i}.mask"));
            let threshold = given["threshold"].as_f64().unwrap();
            let ours = shrink_each(&case.tensor(&format!("l1.{i}.in")), threshold, mask.as_ref());
            report.close(case, &format!("l1.{i}.out"), &ours, tolerance);
        }
    });
}

#[test]
fn independence() {
    case::run("expimap", is_one, |case, report| {
        let tolerance = case.tolerance("all");
        for (i, _) in list(case, "hsic") {
            let input = |name: &str| case.tensor(&format!("hsic.{i}.{name}")).set_requires_grad(true);
            let (z, s) = (input("z"), input("s"));
            let ours = hsic(&z, &s);
            report.close(case, &format!("hsic.{i}.value"), &ours, tolerance);
            ours.backward();
            report.close(case, &format!("hsic.{i}.grad_z"), &z.grad(), tolerance);
            report.close(case, &format!("hsic.{i}.grad_s"), &s.grad(), tolerance);
        }
        for (n, expected) in case.json["bandwidth"].as_object().unwrap() {
            let (ours, expected) = (bandwidth(n.parse().unwrap()), expected.as_f64().unwrap());
            report.holds(&format!("{}: bandwidth of {n}", case.name), (ours - expected).abs() <= 1e-6 * expected);
        }
    });
}
