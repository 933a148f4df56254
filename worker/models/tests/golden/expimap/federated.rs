//! `federated_*`: what sites train alone, against upstream's sites and against joint training.

use archipelago_common::StateDict;
use archipelago_models::{
    data::Minibatch,
    model::Module as _,
    nn::{Noise, Trainable},
    surgery::upstream::UpstreamRules as _,
    zoo::expimap::{Configuration, ExpimapConfig, ExpimapModule, FreezeTerms, Penalty},
};
use tch::Tensor;

use super::{
    Expimap,
    setup::{self, Draws, Model},
};
use crate::{
    case::Case,
    runner::{
        federated::{Federated, Site, check, federated_tests, from_joint, sites},
        native::Owned,
    },
};

federated_tests!(Expimap);

/// The options of these cases; the two with new terms have two without sets.
fn config(case: &Case) -> ExpimapConfig {
    let n_ext = if case.json["extension"] == true { 2 } else { 0 };
    ExpimapConfig {
        hidden_layer_sizes: vec![16, 8],
        dr_rate: 0.0,
        n_ext,
        use_hsic: n_ext > 0,
        hsic_one_vs_all: true,
        ..setup::config(case)
    }
}

fn joint(case: &Case) -> Model {
    let mask = case.tensor("joint.param.decoder.L0.expr_L.mask").tr();
    setup::model_of(config(case), &mask, None)
}

impl Federated for Expimap {
    fn joint(case: &Case) -> (ExpimapModule, Owned) {
        let rules = FreezeTerms::default();
        let module = joint(case).module(&case.group("joint.param."), Trainable::Nothing, Some(&rules));
        let owned = rules.trainable(module.weights());
        (module, owned)
    }

    /// New terms are the site's own.
    fn of_site(case: &Case, site: &Site) -> ExpimapModule {
        let joint = joint(case);
        let (stored, columns) = joint.split(&case.group("joint.param."));
        let is_new = |name: &str| name.contains("ext_L") || name.contains("expand_");
        let tensors = |new: bool| stored.iter().filter(move |(name, _)| is_new(name) == new);
        let base: StateDict = tensors(false).map(|(name, t)| (name.to_owned(), t.clone())).collect();
        let local: StateDict = tensors(true).map(|(name, t)| (format!("own.{name}"), t.clone())).collect();
        let own = config(case);
        let reference = ExpimapConfig { n_ext: 0, use_hsic: false, ..own.clone() };
        let configuration = Configuration::new(reference, Some((own, None)));
        let site_model = Model { configuration, registry: joint.registry };
        site_model.of_condition(&base, &local, &columns[site.code as usize])
    }

    fn cells(case: &Case, (start, n): (i64, i64), conditions: Tensor) -> Minibatch {
        setup::minibatch_of(case.tensor("in.x").narrow(0, start, n), conditions)
    }

    fn noise(drawn: Tensor) -> Box<dyn Noise> {
        Box::new(Draws::latent(drawn))
    }

    fn after_step(case: &Case, module: &ExpimapModule, k: u32) {
        let rate = case.json["lr"].as_f64().unwrap();
        Penalty::all(module).iter().for_each(|penalty| penalty.apply(k - 1, rate));
    }
}

/// Without new terms sites alone and joint training come to the same columns. With them they do not, by what upstream measured.
#[test]
fn sites_alone_are_joint_training_where_nothing_is_shared() {
    check::<Expimap>(|case, report| {
        for site in &sites(case) {
            let worst = from_joint::<Expimap>(case, site).into_values().fold(0.0, f64::max);
            let what = format!("{}: {}: differs from joint training by {worst:.1e}", case.name, site.name);
            let has_new = case.json["extension"] == true;
            report.holds(&what, if has_new { (APART..CLOSE).contains(&worst) } else { worst <= SAME });
        }
    });
}

/// Rounding.
const SAME: f64 = 1e-6;
/// Between these: what the independence criterion's coupling of all cells of a minibatch moves.
const APART: f64 = 5e-6;
const CLOSE: f64 = 1e-4;
