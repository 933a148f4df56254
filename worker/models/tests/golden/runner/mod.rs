//! What is asked of every model's cases, whatever network it is: forward passes, gradients, steps, results, surgery.
//!
//! A model's file says what a case's constructor means and compares what its network says ([`Golden`]); [`golden_tests`]
//! makes the tests. A case that no test knows fails.

pub(crate) mod core;
pub(crate) mod federated;
pub(crate) mod folder;
pub(crate) mod kernels;
pub(crate) mod native;
pub(crate) mod surgery;

use std::collections::BTreeMap;

use archipelago_common::{Columns, StateDict};
use archipelago_models::{
    model::Module,
    nn::{Builder, ConditionSource, LayerRules, Pass, Source, Trainable},
    upstream::Layout,
};
use tch::{Device, Tensor};

use crate::{
    case::{self, Case, Report},
    noise::Masks,
};

/// A model, as its golden cases know it.
pub(crate) trait Golden {
    /// Its name in the zoo, which is that of the folder of its cases.
    const MODEL: &'static str;

    /// Its network.
    type Module: Module;

    /// The network that a case's constructor describes.
    fn build(case: &Case, builder: Builder<'_>) -> Self::Module;

    /// Number of conditions that the tensors under a prefix are made for.
    fn n_conditions(case: &Case, prefix: &str) -> usize;

    /// What upstream keeps of a condition beside its tensors.
    fn facts(_case: &Case, _code: usize) -> Columns {
        Columns::default()
    }

    /// Compares everything that the network says in one pass with the tensors under `{group}/`; gives the loss.
    fn compare_pass(
        case: &Case,
        group: &str,
        module: &Self::Module,
        pass: &mut Pass<'_>,
        report: &mut Report,
    ) -> Tensor;

    /// The loss that an optimiser step minimises.
    fn loss(case: &Case, module: &Self::Module, pass: &mut Pass<'_>) -> Tensor;

    /// Compares what upstream's public methods give with the tensors under `api/`.
    fn compare_results(case: &Case, module: &Self::Module, report: &mut Report);

    /// The rate of every dropout layer, as the table of freeze flags expects it.
    fn dropout_rate(case: &Case) -> f64;

    /// Cases that other tests than the common ones run.
    fn has_own_test(_name: &str) -> bool {
        false
    }
}

/// Makes the tests that every model has.
macro_rules! golden_tests {
    ($model:ty) => {
        #[test]
        fn every_case_is_claimed_by_a_test() {
            $crate::runner::every_case_is_claimed::<$model>();
        }

        $crate::runner::golden_tests! { @each $model: core
            evaluation_pass training_pass_and_gradients optimiser_steps public_results
        }
        $crate::runner::golden_tests! { @each $model: surgery
            tensors_grow_as_upstream_grows_them split_and_join_lose_nothing passes_and_results_after_surgery
            gradients_after_masking masks steps_with_and_without_weight_decay steps_of_train every_freeze_flag
        }
    };
    (@each $model:ty: $kind:ident $($test:ident)+) => {$(
        #[test]
        fn $test() {
            $crate::runner::$kind::$test::<$model>();
        }
    )+};
}
pub(crate) use golden_tests;

/// Fails with the names of cases that no test runs.
pub(crate) fn every_case_is_claimed<G: Golden>() {
    let names: Vec<String> = case::cases(G::MODEL).into_iter().map(|case| case.name).collect();
    let unclaimed = unclaimed::<G>(&names);
    assert!(unclaimed.is_empty(), "no test runs these cases of {}: {unclaimed:?}", G::MODEL);
}

/// The names that neither the common tests nor the model's own take.
pub(crate) fn unclaimed<G: Golden>(names: &[String]) -> Vec<&str> {
    let is_claimed = |name: &str| core::is_one(name) || surgery::is_one::<G>(name) || G::has_own_test(name);
    names.iter().map(String::as_str).filter(|name| !is_claimed(name)).collect()
}

/// Base and columns that the tensors under a prefix are in our layout.
pub(crate) fn split<G: Golden>(case: &Case, prefix: &str) -> (StateDict, Vec<Columns>) {
    let fresh = ConditionSource::Fresh(G::n_conditions(case, prefix));
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [0; 32], Device::Cpu);
    let (base, mut columns) = Layout::of(G::build(case, builder).weights()).split(&case.group(prefix)).unwrap();
    for (code, columns) in columns.iter_mut().enumerate() {
        let facts = G::facts(case, code);
        facts.0.iter().for_each(|(name, fact)| drop(columns.0.insert(name, fact.clone())));
    }
    (base, columns)
}

/// The module of the tensors under `param/`.
pub(crate) fn module<G: Golden>(case: &Case, trainable: Trainable) -> G::Module {
    build_stored::<G>(case, trainable, None)
}

fn build_stored<G: Golden>(case: &Case, trainable: Trainable, rules: Option<&dyn LayerRules>) -> G::Module {
    let (base, columns) = split::<G>(case, "param/");
    let columns: Vec<&Columns> = columns.iter().collect();
    let conditions = ConditionSource::Stored(&columns);
    let builder = Builder::new(Source::Stored(&base), conditions, trainable, [0; 32], Device::Cpu);
    G::build(case, rules.into_iter().fold(builder, Builder::with_rules))
}

/// A module's tensors under upstream's names.
pub(crate) fn upstream(module: &dyn Module) -> BTreeMap<String, Tensor> {
    Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.detach()))
}

/// Tensors by our names under upstream's.
pub(crate) fn joined(module: &dyn Module, tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let ours = |name: &str, _: &Tensor| tensors.get(name).map(Tensor::shallow_clone);
    Layout::of(module.weights()).join(module.weights(), ours)
}

/// The gradients of a module's tensors under upstream's names.
pub(crate) fn gradients(module: &dyn Module) -> BTreeMap<String, Tensor> {
    Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.grad()).filter(Tensor::defined))
}

/// The groups of a pass with dropout off, and with the stored masks: losses, gradients.
const PASSES: [(&str, &str, Masks); 2] = [("train", "grad/", Masks::Off), ("drop", "dropgrad/", Masks::Stored)];
