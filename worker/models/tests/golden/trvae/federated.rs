//! `federated_*`: what sites train alone, against upstream's sites and against joint training.

use archipelago_common::Columns;
use archipelago_models::{
    model::Module as _,
    nn::{Builder, ConditionSource, Mode, Pass, Source, Trainable},
    surgery::upstream::UpstreamRules as _,
    train::GradientUse,
    zoo::{
        family::Freeze,
        trvae::{TrvaeConfig, TrvaeModule},
    },
};
use tch::{Device, Tensor};

use super::setup::{self, OneDraw};
use crate::{
    case::{self, Case, Report},
    runner::native::optimiser,
};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("federated_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("trvae", is_one, test);
}

/// The options of all these cases; only the discrepancy differs, and the case's name says whether it is on.
fn config(case: &Case) -> TrvaeConfig {
    let use_mmd = !case.name.contains("nommd");
    TrvaeConfig { hidden_layer_sizes: vec![16, 8], latent_dim: 5, dr_rate: 0.0, use_mmd, ..TrvaeConfig::default() }
}

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
        let code = *numbers(format!("{name}_columns_in_joint")).last().unwrap();
        Site { name, rows: (rows[0], rows[1] - rows[0]), code }
    })
}

fn weight_decay(case: &Case) -> f64 {
    case.json["train"]["weight_decay"].as_f64().unwrap()
}

/// Five steps on some rows; `codes` are the conditions of the cells in the module.
fn train(
    case: &Case,
    module: &TrvaeModule,
    (start, n): (i64, i64),
    codes: Tensor,
    owned: Vec<(String, Tensor, GradientUse)>,
    mode: Mode,
) {
    let minibatch = setup::minibatch_of(case.tensor("in.x").narrow(0, start, n), codes);
    let mut optimiser = optimiser(case, owned);
    for k in 1..=N_STEPS {
        let mut noise = OneDraw(case.tensor(&format!("noise.step{k}")).narrow(0, start, n));
        let mut pass = Pass { mode, noise: &mut noise };
        optimiser.minimise(&module.loss(&minibatch, 1.0, &mut pass).loss);
    }
}

/// Upstream's training of all cells together, with all columns in the optimiser.
#[test]
fn joint_training() {
    check(|case, report| {
        let rules = Freeze::default();
        let module = setup::module(&config(case), &case.group("joint.param."), Trainable::Nothing, Some(&rules));
        let (owned, codes) = (rules.trainable(module.weights()), case.tensor("in.batch"));
        train(case, &module, (0, codes.size()[0]), codes, owned, Mode::Training);
        let ours = setup::upstream(&module);
        for (name, _) in case.group("joint.after.step5.").iter() {
            let full = format!("joint.after.step5.{name}");
            report.close(case, &full, &ours[name], case.tolerance("params_after_steps"));
        }
    });
}

/// Exact surgery, a condition at a time: the discrepancy is zero by itself, and no other column is in the optimiser.
///
/// A site upstream gets the same new column in all cases; with weight decay it is not exact surgery that computes it.
#[test]
fn a_site_alone() {
    check(|case, report| {
        for site in sites(case).iter().filter(|_| weight_decay(case) == 0.0) {
            let module = exact(case, site);
            let ours = setup::upstream(&module);
            for (name, column) in &ours {
                let Some(theirs) = case.find(&format!("{}.after.step5.{name}", site.name)) else { continue };
                let what = format!("{}: {}: {name}", case.name, site.name);
                let theirs = theirs.narrow(1, theirs.size()[1] - 1, 1);
                report.tensors(&what, column, &theirs, case.tolerance("params_after_steps"));
                let merged = case.tensor(&format!("merged.{name}")).narrow(1, site.code, 1);
                report.tensors(&format!("{what}, merged"), column, &merged, case.tolerance("params_after_steps"));
            }
        }
        // Old columns of upstream's sites stay only without weight decay.
        let (old, after) = (case.tensor("ref.theta"), case.tensor("site1.after.step5.theta"));
        let stays = after.narrow(1, 0, old.size()[1]) == old;
        report.holds(&format!("{}: old columns stay", case.name), stays == (weight_decay(case) == 0.0));
    });
}

/// With an optimiser that does not see the scale of the loss, sites alone and joint training come to the same columns.
#[test]
fn sites_alone_are_joint_training_where_they_can_be() {
    check(|case, report| {
        let is_separable = case.name == "federated_nommd_wd0_tiny_eps";
        for site in sites(case).iter().filter(|_| weight_decay(case) == 0.0) {
            let ours = setup::upstream(&exact(case, site));
            let worst = ours.iter().filter_map(|(name, column)| {
                let joint = case.find(&format!("joint.after.step5.{name}"))?.narrow(1, site.code, 1);
                Some((column - joint).abs().max().double_value(&[]))
            });
            let worst = worst.fold(0.0, f64::max);
            let what = format!("{}: {}: differs from joint training by {worst:.1e}", case.name, site.name);
            report.holds(&what, if is_separable { worst <= SAME } else { worst >= APART });
        }
        report.holds(&format!("{}: has two sites", case.name), sites(case).len() == 2);
    });
}

/// The module of one site's condition after exact surgery.
fn exact(case: &Case, site: &Site) -> TrvaeModule {
    let (base, columns) = setup::split(&config(case), &case.group("joint.param."));
    let own: [&Columns; 1] = [&columns[site.code as usize]];
    let conditions = ConditionSource::Stored(&own);
    let builder = Builder::new(Source::Stored(&base), conditions, Trainable::Conditions, [0; 32], Device::Cpu);
    let n_genes = case.tensor("in.x").size()[1] as usize;
    let module = TrvaeModule::new(config(case), n_genes, builder).unwrap();
    let columns = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
    let owned = columns.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
    let (owned, codes) = (owned.collect(), Tensor::zeros([site.rows.1], (tch::Kind::Int64, Device::Cpu)));
    train(case, &module, site.rows, codes, owned, Mode::Evaluation);
    module
}

/// Steps of these cases.
const N_STEPS: u32 = 5;
/// Rounding.
const SAME: f64 = 1e-6;
/// A fifth of what five steps can move at most.
const APART: f64 = 1e-4;
