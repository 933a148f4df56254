//! `federated_*`: what sites train alone, against upstream's sites and against joint training.

use archipelago_common::Columns;
use archipelago_models::{
    data::Minibatch,
    model::Module as _,
    nn::{Builder, ConditionSource, Mode, Pass, Source, Trainable},
    surgery::upstream::UpstreamRules as _,
    train::Optimiser,
    zoo::{
        family::{Freeze, OfConditions},
        scpoli::{ScpoliModule, prototypes::Drawing},
    },
};
use tch::{Device, Kind, Tensor};

use super::{
    Scpoli, core,
    setup::{self, OneDraw},
};
use crate::{
    case::Case,
    runner::{
        federated::{Federated, Site, check, federated_tests, from_joint, sites},
        native::Owned,
    },
};

federated_tests!(Scpoli);

const RULES: Freeze =
    Freeze { freeze: true, freeze_expression: true, remove_dropout: true, conditions: OfConditions::Embeddings };

impl Federated for Scpoli {
    fn joint(case: &Case) -> (ScpoliModule, Owned) {
        let module = setup::module(case, &case.group("joint.param."), Trainable::Nothing, Some(&RULES));
        let owned = RULES.trainable(module.weights());
        (module, owned)
    }

    fn of_site(case: &Case, site: &Site) -> ScpoliModule {
        let (base, columns, _) = setup::split(case, &case.group("joint.param."));
        let own: [&Columns; 1] = [&columns[site.code as usize]];
        let conditions = ConditionSource::Stored(&own);
        let builder = Builder::new(Source::Stored(&base), conditions, Trainable::Conditions, [0; 32], Device::Cpu);
        let n_genes = case.tensor("in.x").size()[1] as usize;
        ScpoliModule::new(setup::config(case), &setup::registry(case), n_genes, builder).unwrap()
    }

    fn cells(case: &Case, rows: (i64, i64), conditions: Tensor) -> Minibatch {
        setup::minibatch_of(case, rows, conditions)
    }

    fn optimiser(case: &Case, owned: Owned) -> Optimiser {
        core::optimiser(case, owned)
    }

    /// Labelled cells are drawn by the reference's prototypes, as there.
    fn begin(case: &Case, module: &ScpoliModule) {
        let is_labelled = case.json["labelled"] == true;
        module.prototypes().draw(is_labelled.then_some(Drawing { clusters: None }));
    }
}

/// Sites alone and joint training come to the same where the spec's table says so, and to something else where it says that.
#[test]
fn sites_alone_are_joint_training_where_they_can_be() {
    check::<Scpoli>(|case, report| {
        let differences = sites(case).map(|site| from_joint::<Scpoli>(case, &site));
        for name in ["theta", "embeddings.0.weight"] {
            let worst = differences.iter().map(|of_site| of_site[name]).fold(0.0, f64::max);
            let theirs = case.json["measured_differences"][name]["max_abs_joint_minus_merged_new"].as_f64().unwrap();
            let what =
                format!("{}: {name}: differs from joint training by {worst:.1e}, upstream by {theirs:.1e}", case.name);
            report.holds(&what, if theirs <= SAME { worst <= SAME } else { worst >= theirs / 2.0 });
        }
    });
}

/// Exact surgery is drawn by no prototype: labels of cells change nothing.
#[test]
fn exact_surgery_does_not_look_at_types() {
    check::<Scpoli>(|case, report| {
        for site in &sites(case) {
            let module = Scpoli::of_site(case, site);
            let minibatch = Scpoli::cells(case, site.rows, Tensor::zeros([site.rows.1], (Kind::Int64, Device::Cpu)));
            let mut noise = OneDraw(case.tensor("noise.step1").narrow(0, site.rows.0, site.rows.1));
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let terms = module.loss(&minibatch, 1.0, &mut pass);
            let without = (&terms.reconstruction + &terms.kl_local).mean(Kind::Float);
            report.holds(&format!("{}: {}", case.name, site.name), terms.loss == without && terms.further.is_empty());
        }
    });
}

/// Rounding.
const SAME: f64 = 1e-6;
