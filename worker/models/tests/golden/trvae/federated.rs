//! `federated_*`: what sites train alone, against upstream's sites and against joint training.

use archipelago_common::Columns;
use archipelago_models::{
    data::Minibatch,
    model::Module as _,
    nn::{Builder, ConditionSource, Source, Trainable},
    surgery::upstream::UpstreamRules as _,
    zoo::{
        family::Freeze,
        trvae::{TrvaeConfig, TrvaeModule},
    },
};
use tch::{Device, Tensor};

use super::{Trvae, setup};
use crate::{
    case::Case,
    runner::{
        federated::{Federated, Site, check, decays, federated_tests, from_joint, sites},
        native::Owned,
    },
};

federated_tests!(Trvae);

/// The options of all these cases; only the discrepancy differs, and the case's name says whether it is on.
fn config(case: &Case) -> TrvaeConfig {
    let use_mmd = !case.name.contains("nommd");
    TrvaeConfig { hidden_layer_sizes: vec![16, 8], latent_dim: 5, dr_rate: 0.0, use_mmd, ..TrvaeConfig::default() }
}

/// In exact surgery the discrepancy is zero by itself: there is one condition.
impl Federated for Trvae {
    fn joint(case: &Case) -> (TrvaeModule, Owned) {
        let rules = Freeze::default();
        let module = setup::module(&config(case), &case.group("joint.param."), Trainable::Nothing, Some(&rules));
        let owned = rules.trainable(module.weights());
        (module, owned)
    }

    fn of_site(case: &Case, site: &Site) -> TrvaeModule {
        let (base, columns) = setup::split(&config(case), &case.group("joint.param."));
        let own: [&Columns; 1] = [&columns[site.code as usize]];
        let conditions = ConditionSource::Stored(&own);
        let builder = Builder::new(Source::Stored(&base), conditions, Trainable::Conditions, [0; 32], Device::Cpu);
        TrvaeModule::new(config(case), case.tensor("in.x").size()[1] as usize, builder).unwrap()
    }

    fn cells(case: &Case, (start, n): (i64, i64), conditions: Tensor) -> Minibatch {
        setup::minibatch_of(case.tensor("in.x").narrow(0, start, n), conditions)
    }
}

/// A site upstream gets the same new column in all cases; its old ones stay without weight decay only.
#[test]
fn old_columns_of_upstreams_sites_stay_without_weight_decay_only() {
    check::<Trvae>(|case, report| {
        let (old, after) = (case.tensor("ref.theta"), case.tensor("site1.after.step5.theta"));
        let stays = after.narrow(1, 0, old.size()[1]) == old;
        report.holds(&format!("{}: old columns stay", case.name), stays != decays(case));
    });
}

/// With an optimiser that does not see the scale of the loss, sites alone and joint training come to the same columns.
#[test]
fn sites_alone_are_joint_training_where_they_can_be() {
    check::<Trvae>(|case, report| {
        let is_separable = case.name == "federated_nommd_wd0_tiny_eps";
        for site in sites(case).iter().filter(|_| !decays(case)) {
            let worst = from_joint::<Trvae>(case, site).into_values().fold(0.0, f64::max);
            let what = format!("{}: {}: differs from joint training by {worst:.1e}", case.name, site.name);
            report.holds(&what, if is_separable { worst <= SAME } else { worst >= APART });
        }
        report.holds(&format!("{}: has two sites", case.name), sites(case).len() == 2);
    });
}

/// Rounding.
const SAME: f64 = 1e-6;
/// A fifth of what five steps can move at most.
const APART: f64 = 1e-4;
