//! trVAE against scArches 0.6.1.

mod core;
mod federated;
mod files;
mod setup;
mod stopping;
mod surgery;

use archipelago_models::{
    nn::{LayerRules, Trainable},
    surgery::upstream::UpstreamRules,
    zoo::trvae::TrvaeModule,
};
use tch::Tensor;

use crate::{
    case::{Case, Report, Tolerance},
    runner::{
        self,
        native::{Native, native_tests},
    },
};

/// The cases of trVAE.
struct Trvae;

native_tests!(Trvae, surgery);

impl Native for Trvae {
    const MODEL: &'static str = "trvae";

    const OWN: &'static [fn(&str) -> bool] = &[runner::federated::is_one, files::is_one];

    type Module = TrvaeModule;

    fn module(case: &Case, trainable: Trainable, rules: Option<&dyn LayerRules>) -> TrvaeModule {
        setup::module(&setup::config(case), &case.group("param."), trainable, rules)
    }

    fn compare_evaluation(case: &Case, module: &TrvaeModule, report: &mut Report) {
        core::evaluation(case, module, report);
    }

    fn compare_loss(case: &Case, module: &TrvaeModule, k: u32, report: &mut Report) -> Tensor {
        core::loss_of_step(case, module, k, report)
    }

    fn gradient_tolerance(case: &Case, name: &str) -> Tolerance {
        setup::gradient_tolerance(case, name)
    }

    fn rules(case: &Case) -> Box<dyn UpstreamRules> {
        Box::new(surgery::flags(case))
    }

    fn trains(case: &Case, name: &str) -> bool {
        surgery::flags(case).trains(name)
    }
}
