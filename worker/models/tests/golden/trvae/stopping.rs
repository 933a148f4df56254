//! `metrics/early_stopping`: traces of the rule that stops scArches' trainers.

use archipelago_models::zoo::family::stopping::{Course, Stopping, StoppingOptions};
use serde_json::Value;

use crate::case;

/// The rule looks at values that fall; of those that shall rise, it is shown their negatives.
fn observed(kwargs: &Value, sequence: &Value) -> Vec<f64> {
    let sign = if kwargs["mode"].as_str() == Some("max") { -1.0 } else { 1.0 };
    sequence.as_array().unwrap().iter().map(|value| sign * value.as_f64().unwrap()).collect()
}

fn options(kwargs: &Value) -> StoppingOptions {
    let default = StoppingOptions::default();
    let count = |name: &str| kwargs[name].as_u64().map(|n| n as u32);
    let lr_patience = count("lr_patience").or(default.lr_patience);
    let reduces = kwargs["reduce_lr"].as_bool().unwrap_or(true);
    StoppingOptions {
        patience: count("patience").unwrap_or(default.patience),
        threshold: kwargs["threshold"].as_f64().unwrap_or(default.threshold),
        lr_patience: lr_patience.filter(|_| reduces),
        ..default
    }
}

#[test]
fn traces_are_upstreams() {
    let Some(case) = case::find("metrics", "early_stopping") else { return };
    let runs = case.json["runs"].as_array().unwrap();
    for run in runs {
        let kwargs = &run["kwargs"];
        let values = observed(kwargs, &case.json["sequences"][run["sequence"].as_str().unwrap()]);
        let mut stopping = Stopping::new(options(kwargs));
        let trace = run["trace"].as_array().unwrap();
        for (epoch, (expected, value)) in trace.iter().zip(values).enumerate() {
            let verdict = stopping.observe(value);
            let course = verdict.course;
            let found = [verdict.is_best, course != Course::Stop, course == Course::LowerRate];
            assert_eq!(serde_json::json!(found), *expected, "{} {}, epoch {epoch}", run["options"], run["sequence"]);
        }
    }
    assert!(!runs.is_empty());
}
