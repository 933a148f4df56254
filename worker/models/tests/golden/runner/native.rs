//! What is asked of the cases of scArches' own models: the evaluation pass and steps of a reference (`ref*`), and the same of upstream's
//! surgery to the letter (`surgery_*`) with what grows, what trains and what moves. What sites train alone is in [`super::federated`], and
//! saved folders are in [`super::folder`].
//!
//! A model's file says what its network is and compares what it says ([`Native`]); [`native_tests`] makes the tests. A case that
//! neither these nor the model's own tests know fails.

use archipelago_common::StateDict;
use archipelago_models::{
    model::Module,
    nn::{LayerRules, Trainable, from_tch},
    surgery::upstream::{UpstreamRules, extend},
    train::{GradientUse, Optimiser},
};
use serde_json::Value;
use tch::Tensor;

use super::{
    core::{adam_options, all_tensors},
    gradients, upstream,
};
use crate::case::{self, Case, Report, Tolerance};

/// A model, as its golden cases know it.
pub(crate) trait Native {
    /// Its name in the zoo, which is that of the folder of its cases.
    const MODEL: &'static str;

    /// Kinds of cases that the model's own tests run.
    const OWN: &'static [fn(&str) -> bool];

    /// Its network.
    type Module: Module;

    /// The network of the tensors under `param.`.
    fn module(case: &Case, trainable: Trainable, rules: Option<&dyn LayerRules>) -> Self::Module;

    /// Compares everything that an evaluation pass gives.
    fn compare_evaluation(case: &Case, module: &Self::Module, report: &mut Report);

    /// The loss that step `k` minimises, from 1 on, compared with the case's term by term.
    fn compare_loss(case: &Case, module: &Self::Module, k: u32, report: &mut Report) -> Tensor;

    /// Trains what is owned, everything compared on the way: three steps, of a model that does nothing between them.
    fn train(case: &Case, module: &Self::Module, owned: Owned, report: &mut Report)
    where
        Self: Sized,
    {
        three_steps::<Self>(case, module, owned, report);
    }

    /// How closely a gradient must agree.
    fn gradient_tolerance(case: &Case, _name: &str) -> Tolerance {
        case.tolerance("grad")
    }

    /// The reference's tensors, of a case of surgery.
    fn reference(case: &Case) -> StateDict {
        case.group("ref.")
    }

    /// Whether the network holds the tensor of this upstream name.
    fn holds(_name: &str) -> bool {
        true
    }

    /// The flags of surgery that a case was made with.
    fn rules(_case: &Case) -> Box<dyn UpstreamRules> {
        unreachable!("a model without upstream's surgery has no cases of it")
    }

    /// Whether upstream trains this tensor of a query's model under a case's flags.
    fn trains(_case: &Case, _name: &str) -> bool {
        unreachable!("a model without upstream's surgery has no cases of it")
    }
}

/// What an optimiser owns: tensors by our names.
pub(crate) type Owned = Vec<(String, Tensor, GradientUse)>;

/// Makes the tests that every such model has: those of references, or with `surgery` those of queries too.
macro_rules! native_tests {
    ($model:ty) => {
        #[test]
        fn every_case_is_claimed_by_a_test() {
            $crate::runner::native::every_case_is_claimed::<$model>();
        }

        $crate::runner::native::native_tests! { @each $model: evaluation_pass training }
    };
    ($model:ty, surgery) => {
        $crate::runner::native::native_tests!($model);
        $crate::runner::native::native_tests! { @each $model:
            tensors_grow_as_upstream_grows_them split_and_join_lose_nothing what_trains
            evaluation_pass_of_the_query_model training_of_the_query_model
        }
    };
    (@each $model:ty: $($test:ident)+) => {$(
        #[test]
        fn $test() {
            $crate::runner::native::$test::<$model>();
        }
    )+};
}
pub(crate) use native_tests;

fn is_reference(name: &str) -> bool {
    name.starts_with("ref")
}

fn is_surgery(name: &str) -> bool {
    name.starts_with("surgery_")
}

/// Fails with the names of cases that no test runs.
pub(crate) fn every_case_is_claimed<N: Native>() {
    let is_claimed = |name: &str| is_reference(name) || is_surgery(name) || N::OWN.iter().any(|is_one| is_one(name));
    let names = case::cases(N::MODEL).into_iter().map(|case| case.name);
    let unclaimed: Vec<String> = names.filter(|name| !is_claimed(name)).collect();
    assert!(unclaimed.is_empty(), "no test runs these cases of {}: {unclaimed:?}", N::MODEL);
}

pub(crate) fn evaluation_pass<N: Native>() {
    case::run(N::MODEL, is_reference, |case, report| {
        N::compare_evaluation(case, &N::module(case, Trainable::Nothing, None), report);
    });
}

pub(crate) fn training<N: Native>() {
    case::run(N::MODEL, is_reference, |case, report| {
        let module = N::module(case, Trainable::Everything, None);
        let owned = all_tensors(&module);
        N::train(case, &module, owned, report);
    });
}

pub(crate) fn tensors_grow_as_upstream_grows_them<N: Native>() {
    case::run(N::MODEL, is_surgery, |case, report| {
        let (reference, expected) = (N::reference(case), case.group("param."));
        // The fresh tensors of the fixture are known only in the columns that were taken from them.
        let grown = extend(&reference, &expected).unwrap();
        report.holds(&format!("{}: grown tensors", case.name), grown == expected);
    });
}

pub(crate) fn split_and_join_lose_nothing<N: Native>() {
    case::run(N::MODEL, is_surgery, |case, report| {
        let expected = case.group("param.");
        let (module, _) = query_model::<N>(case);
        let ours = upstream(&module);
        let n_expected = expected.iter().filter(|(name, _)| N::holds(name)).count();
        report.holds(&format!("{}: number of tensors", case.name), ours.len() == n_expected);
        for (name, ours) in ours {
            report.holds(&format!("{}: {name}", case.name), Some(&from_tch(&ours)) == expected.get(&name));
        }
    });
}

pub(crate) fn what_trains<N: Native>() {
    case::run(N::MODEL, is_surgery, |case, report| {
        let listed: Vec<&str> = case.json["trainable"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let is_buffer = |name: &str| name.contains("running_") || name.contains("num_batches_tracked");
        for (name, _) in case.group("param.").iter().filter(|(name, _)| N::holds(name) && !is_buffer(name)) {
            let trains = N::trains(case, name);
            report.holds(&format!("{}: {name} trains: {trains}", case.name), trains == listed.contains(&name));
        }
    });
}

pub(crate) fn evaluation_pass_of_the_query_model<N: Native>() {
    case::run(N::MODEL, is_surgery, |case, report| {
        let (module, _) = query_model::<N>(case);
        N::compare_evaluation(case, &module, report);
    });
}

pub(crate) fn training_of_the_query_model<N: Native>() {
    case::run(N::MODEL, is_surgery, |case, report| {
        let (module, owned) = query_model::<N>(case);
        N::train(case, &module, owned, report);
        compare_changes(case, &module, report);
    });
}

/// The query's model right after surgery, and what its optimiser owns.
fn query_model<N: Native>(case: &Case) -> (N::Module, Owned) {
    let rules = N::rules(case);
    let module = N::module(case, Trainable::Nothing, Some(&*rules));
    let owned = rules.trainable(module.weights());
    (module, owned)
}

/// The optimiser that a case describes, under `train` or at its top.
pub(crate) fn optimiser(case: &Case, owned: Owned) -> Optimiser {
    let train = training_of(case);
    Optimiser::new(adam_options(train), &[], train["clip_value"].as_f64(), owned)
}

/// What a case says of its training, under `train` or at its top.
pub(crate) fn training_of(case: &Case) -> &Value {
    if case.json["train"].is_null() { &case.json } else { &case.json["train"] }
}

/// Three steps of training, everything compared on the way.
fn three_steps<N: Native>(case: &Case, module: &N::Module, owned: Owned, report: &mut Report) {
    let mut optimiser = optimiser(case, owned);
    for k in 1..=3 {
        let loss = N::compare_loss(case, module, k, report);
        optimiser.minimise(&loss);
        if k == 1 {
            report.group(case, "grad.step1.", &gradients(module), "param.", |name| N::gradient_tolerance(case, name));
        }
        let tolerance = case.tolerance("params_after_steps");
        report.group(case, &format!("after.step{k}."), &upstream(module), "param.", |_| tolerance);
    }
}

/// What moved is what moved upstream: row by row or column by column where a tensor has rows or columns of conditions.
fn compare_changes(case: &Case, module: &dyn Module, report: &mut Report) {
    let changed = ["changed_after_3_steps", "changed"].iter().find_map(|name| case.json[*name].as_object()).unwrap();
    for (name, after) in upstream(module) {
        let before = case.tensor(&format!("param.{name}"));
        let what = format!("{}: what moved of {name}", case.name);
        let moved = |dim: i64| {
            let differs = |&at: &i64| before.select(dim, at) != after.select(dim, at);
            serde_json::json!((0..after.size()[dim as usize]).filter(differs).collect::<Vec<_>>())
        };
        match changed.get(&name) {
            None => report.holds(&what, before == after),
            Some(Value::Object(parts)) => {
                let rows = parts.get("rows_changed").map(|rows| *rows == moved(0));
                let columns = parts.get("columns_changed").map(|columns| *columns == moved(1));
                report.holds(&what, rows.or(columns) == Some(true));
            }
            Some(_) => report.holds(&what, before != after),
        }
    }
}
