//! scPoli against scArches 0.6.1.

mod classify;
mod core;
mod federated;
mod files;
mod setup;
mod surgery;

use archipelago_common::StateDict;
use archipelago_models::{
    nn::{LayerRules, Trainable},
    surgery::upstream::UpstreamRules,
    zoo::scpoli::ScpoliModule,
};
use tch::Tensor;

use crate::{
    case::{Case, Report},
    runner::{
        self,
        native::{Native, Owned, native_tests},
    },
};

/// The cases of scPoli.
struct Scpoli;

native_tests!(Scpoli, surgery);

impl Native for Scpoli {
    const MODEL: &'static str = "scpoli";

    const OWN: &'static [fn(&str) -> bool] = &[surgery::is_shot, runner::federated::is_one, classify::is_one];

    type Module = ScpoliModule;

    fn module(case: &Case, trainable: Trainable, rules: Option<&dyn LayerRules>) -> ScpoliModule {
        setup::module(case, &case.group("param."), trainable, rules)
    }

    fn compare_evaluation(case: &Case, module: &ScpoliModule, report: &mut Report) {
        core::evaluation(case, module, report);
    }

    fn compare_loss(case: &Case, module: &ScpoliModule, k: u32, report: &mut Report) -> Tensor {
        core::loss_of_step(case, module, k, report)
    }

    fn train(case: &Case, module: &ScpoliModule, owned: Owned, report: &mut Report) {
        core::epochs(case, module, owned, report);
    }

    /// Prototypes are among these tensors, and none of the network's.
    fn reference(case: &Case) -> StateDict {
        let tensors = case.group("ref.");
        let of_network = tensors.iter().filter(|(name, _)| !name.starts_with("prototypes_"));
        of_network.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn rules(case: &Case) -> Box<dyn UpstreamRules> {
        Box::new(surgery::flags(case))
    }

    fn trains(case: &Case, name: &str) -> bool {
        surgery::flags(case).trains(name)
    }
}
