//! `surgery_*`: upstream's surgery to the letter, with proteins that a query batch lacks.

use archipelago_models::{
    model::Module as _,
    nn::{Mode, Trainable},
    surgery::upstream::{Flags, extend},
    train::GradientUse,
    zoo::totalvi::TotalviModule,
};
use tch::Tensor;

use super::{core, setup};
use crate::{
    case::{self, Case, Report},
    noise::Masks,
    scvi::{core as scvi_core, setup as scvi, surgery as rules},
};

pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with("surgery_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("totalvi", is_one, test);
}

/// The query model right after surgery with default flags, and what its optimiser owns.
fn query_model(case: &Case) -> (TotalviModule, Vec<(String, Tensor, GradientUse)>) {
    let module = setup::module(case, "param/", Trainable::Nothing, Some(&Flags::default()));
    let owned = Flags::default().trainable(module.weights());
    (module, owned)
}

#[test]
fn tensors_grow_as_upstream_grows_them_and_split_without_loss() {
    check(|case, report| {
        let (reference, expected) = (case.group("ref/"), case.group("param/"));
        let grown = extend(&reference, &expected).unwrap();
        report.holds(&format!("{}: grown tensors", case.name), grown == expected);
        rules::check_split(case, &setup::module(case, "param/", Trainable::Nothing, None), report);
    });
}

#[test]
fn passes_and_results_after_surgery() {
    check(|case, report| {
        let (module, _) = query_model(case);
        let _loss = core::forward(case, "eval", &module, Mode::Evaluation, Masks::Off, report);
        core::check_results(case, &module, report);
        let _loss = core::forward(case, "train", &module, Mode::Training, Masks::Off, report);
    });
}

#[test]
fn gradients_after_masking() {
    check(|case, report| {
        let (module, owned) = query_model(case);
        core::forward(case, "train", &module, Mode::Training, Masks::Off, report).backward();
        rules::mask_gradients(&owned);
        let ours = scvi::gradients(&module);
        report.group(case, "grad/", &ours, "param/", |name| scvi_core::with_noise_floor(case, "grad", name));
    });
}

#[test]
fn masks() {
    check(|case, report| {
        let (module, owned) = query_model(case);
        rules::check_masks(case, &module, &owned, report);
    });
}

#[test]
fn steps_with_and_without_weight_decay() {
    check(|case, report| {
        for (prefix, options, n_steps) in
            [("step1/", "optimiser", 1), ("step3/", "optimiser", 3), ("wdstep3/", "optimiser_wdstep", 3)]
        {
            let (module, owned) = query_model(case);
            core::step(case, &module, &mut scvi_core::adam(&case.json[options], owned), n_steps);
            let ours = scvi::upstream(&module);
            report.group(case, prefix, &ours, "param/", |_| case.tolerance("step"));
        }
    });
}

#[test]
fn every_freeze_flag() {
    check(|case, report| {
        let module = setup::module(case, "param/", Trainable::Nothing, None);
        let config = setup::config(case);
        assert_eq!(config.dropout_rate_encoder, config.dropout_rate_decoder, "one rate is compared");
        rules::check_flags(case, &module, config.dropout_rate_encoder, report);
    });
}
