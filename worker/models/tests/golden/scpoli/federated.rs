//! `federated_*`: what sites train alone, against upstream's sites and against joint training.

use archipelago_common::Columns;
use archipelago_models::{
    model::Module as _,
    nn::{Builder, ConditionSource, Mode, Pass, Source, Trainable},
    surgery::upstream::UpstreamRules as _,
    train::GradientUse,
    zoo::{
        family::{Freeze, OfConditions},
        scpoli::{ScpoliModule, prototypes::Drawing},
    },
};
use tch::{Device, Kind, Tensor};

use super::{
    core,
    setup::{self, OneDraw},
};
use crate::case::{self, Case, Report};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("federated_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("scpoli", is_one, test);
}

const RULES: Freeze =
    Freeze { freeze: true, freeze_expression: true, remove_dropout: true, conditions: OfConditions::Embeddings };

/// A site of a case: its name, the rows of its cells, and the code of its condition in the joint model.
struct Site {
    name: &'static str,
    rows: (i64, i64),
    code: i64,
}

fn sites(case: &Case) -> [Site; 2] {
    let numbers = |field: String| -> Vec<i64> {
        case.json[field].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
    };
    ["site1", "site2"].map(|name| {
        let rows = numbers(format!("{name}_rows"));
        let code = *numbers(format!("{name}_positions_in_joint")).last().unwrap();
        Site { name, rows: (rows[0], rows[1] - rows[0]), code }
    })
}

/// Five steps on some rows; `codes` are the conditions of the cells in the module.
fn train(
    case: &Case,
    module: &ScpoliModule,
    (start, n): (i64, i64),
    codes: Tensor,
    owned: Vec<(String, Tensor, GradientUse)>,
    draws: bool,
) {
    let minibatch = setup::minibatch_of(case, (start, n), codes);
    module.prototypes().draw(draws.then_some(Drawing { clusters: None }));
    let mut optimiser = core::optimiser(case, owned);
    for k in 1..=N_STEPS {
        let mut noise = OneDraw(case.tensor(&format!("noise.step{k}")).narrow(0, start, n));
        let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
        optimiser.minimise(&module.loss(&minibatch, 1.0, &mut pass).loss);
    }
}

fn is_labelled(case: &Case) -> bool {
    case.json["labelled"] == true
}

/// Upstream's training of all cells together, drawn by the reference's prototypes where they have types.
#[test]
fn joint_training() {
    check(|case, report| {
        let module = setup::module(case, &case.group("joint.param."), Trainable::Nothing, Some(&RULES));
        let (owned, codes) = (RULES.trainable(module.weights()), case.tensor("in.batch").select(1, 0));
        train(case, &module, (0, codes.size()[0]), codes, owned, is_labelled(case));
        let ours = setup::upstream(&module);
        for (name, _) in case.group("joint.after.step5.").iter() {
            let full = format!("joint.after.step5.{name}");
            report.close(case, &full, &ours[name], case.tolerance("params_after_steps"));
        }
    });
}

/// Surgery of a condition at a time: what upstream's site gets. A labelled site is drawn by the prototypes, as there.
#[test]
fn a_site_alone() {
    check(|case, report| {
        for site in &sites(case) {
            let ours = setup::upstream(&alone(case, site, is_labelled(case)));
            for (name, dim) in [("theta", 1), ("embeddings.0.weight", 0)] {
                let what = format!("{}: {}: {name}", case.name, site.name);
                let theirs = case.tensor(&format!("{}.after.step5.{name}", site.name));
                let last = theirs.size()[dim as usize] - 1;
                let tolerance = case.tolerance("params_after_steps");
                report.tensors(&what, &ours[name], &theirs.narrow(dim, last, 1), tolerance);
                let merged = case.tensor(&format!("merged.{name}")).narrow(dim, site.code, 1);
                report.tensors(&format!("{what}, merged"), &ours[name], &merged, tolerance);
            }
        }
    });
}

/// Sites alone and joint training come to the same where the spec's table says so, and to something else where it says that.
#[test]
fn sites_alone_are_joint_training_where_they_can_be() {
    check(|case, report| {
        let measured = &case.json["measured_differences"];
        for (name, dim) in [("theta", 1), ("embeddings.0.weight", 0)] {
            let sites = sites(case);
            let worst = sites.iter().map(|site| {
                let ours = setup::upstream(&alone(case, site, is_labelled(case)));
                let joint = case.tensor(&format!("joint.after.step5.{name}")).narrow(dim, site.code, 1);
                (&ours[name] - joint).abs().max().double_value(&[])
            });
            let worst = worst.fold(0.0, f64::max);
            let theirs = measured[name]["max_abs_joint_minus_merged_new"].as_f64().unwrap();
            let what =
                format!("{}: {name}: differs from joint training by {worst:.1e}, upstream by {theirs:.1e}", case.name);
            report.holds(&what, if theirs <= SAME { worst <= SAME } else { worst >= theirs / 2.0 });
        }
    });
}

/// Exact surgery is drawn by no prototype: labels of cells change nothing.
#[test]
fn exact_surgery_does_not_look_at_types() {
    check(|case, report| {
        for site in &sites(case) {
            let module = alone(case, site, false);
            let codes = Tensor::zeros([site.rows.1], (Kind::Int64, Device::Cpu));
            let minibatch = setup::minibatch_of(case, site.rows, codes);
            let mut noise = OneDraw(case.tensor("noise.step1").narrow(0, site.rows.0, site.rows.1));
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let terms = module.loss(&minibatch, 1.0, &mut pass);
            let without = (&terms.reconstruction + &terms.kl_local).mean(Kind::Float);
            report.holds(&format!("{}: {}", case.name, site.name), terms.loss == without && terms.further.is_empty());
        }
    });
}

/// The module of one site's condition after surgery.
fn alone(case: &Case, site: &Site, draws: bool) -> ScpoliModule {
    let (base, columns, _) = setup::split(case, &case.group("joint.param."));
    let own: [&Columns; 1] = [&columns[site.code as usize]];
    let conditions = ConditionSource::Stored(&own);
    let builder = Builder::new(Source::Stored(&base), conditions, Trainable::Conditions, [0; 32], Device::Cpu);
    let n_genes = case.tensor("in.x").size()[1] as usize;
    let module = ScpoliModule::new(setup::config(case), &setup::registry(case), n_genes, builder).unwrap();
    let columns = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
    let owned = columns.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
    let (owned, codes) = (owned.collect(), Tensor::zeros([site.rows.1], (Kind::Int64, Device::Cpu)));
    train(case, &module, site.rows, codes, owned, draws);
    module
}

/// Steps of these cases.
const N_STEPS: u32 = 5;
/// Rounding.
const SAME: f64 = 1e-6;
