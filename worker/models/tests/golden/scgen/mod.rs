//! scGen against scArches 0.6.1.

mod arithmetic;
mod core;
mod files;
mod setup;

use archipelago_models::{
    nn::{LayerRules, Trainable},
    zoo::scgen::ScgenModule,
};
use tch::Tensor;

use crate::{
    case::{Case, Report},
    runner::native::{Native, native_tests},
};

/// The cases of scGen.
struct Scgen;

native_tests!(Scgen);

impl Native for Scgen {
    const MODEL: &'static str = "scgen";

    const OWN: &'static [fn(&str) -> bool] = &[arithmetic::is_one];

    type Module = ScgenModule;

    fn module(case: &Case, trainable: Trainable, _: Option<&dyn LayerRules>) -> ScgenModule {
        setup::module(case, trainable)
    }

    fn compare_evaluation(case: &Case, module: &ScgenModule, report: &mut Report) {
        core::evaluation(case, module, report);
    }

    fn compare_loss(case: &Case, module: &ScgenModule, k: u32, report: &mut Report) -> Tensor {
        core::loss_of_step(case, module, k, report)
    }
}
