//! expiMap against scArches 0.6.1.

mod analysis;
mod core;
mod federated;
mod files;
mod setup;
mod surgery;
mod units;

use archipelago_models::{
    nn::{LayerRules, Trainable},
    surgery::upstream::UpstreamRules,
    zoo::expimap::ExpimapModule,
};
use tch::Tensor;

use crate::{
    case::{Case, Report, Tolerance},
    runner::{
        self,
        native::{Native, Owned, native_tests},
    },
};

/// The cases of expiMap.
struct Expimap;

native_tests!(Expimap, surgery);

impl Native for Expimap {
    const MODEL: &'static str = "expimap";

    /// `add_annotations` is a case of preprocessing.
    const OWN: &'static [fn(&str) -> bool] =
        &[analysis::is_one, runner::federated::is_one, units::is_one, |name| name == "add_annotations"];

    type Module = ExpimapModule;

    fn module(case: &Case, trainable: Trainable, rules: Option<&dyn LayerRules>) -> ExpimapModule {
        setup::model(case).module(&case.group("param."), trainable, rules)
    }

    fn compare_evaluation(case: &Case, module: &ExpimapModule, report: &mut Report) {
        core::evaluation(case, module, report);
    }

    fn compare_loss(case: &Case, module: &ExpimapModule, k: u32, report: &mut Report) -> Tensor {
        core::loss_of_step(case, module, k, report)
    }

    fn train(case: &Case, module: &ExpimapModule, owned: Owned, report: &mut Report) {
        core::steps(case, module, owned, report);
    }

    fn gradient_tolerance(case: &Case, name: &str) -> Tolerance {
        setup::gradient_tolerance(case, name)
    }

    /// Upstream keeps hard masks among its tensors.
    fn holds(name: &str) -> bool {
        !name.ends_with(".mask")
    }

    fn rules(case: &Case) -> Box<dyn UpstreamRules> {
        Box::new(surgery::flags(case))
    }

    fn trains(case: &Case, name: &str) -> bool {
        surgery::flags(case).trains(name)
    }
}
