//! `federated_*`: what sites train alone, against upstream's sites and against joint training.

use archipelago_common::StateDict;
use archipelago_models::{
    model::Module as _,
    nn::{Mode, Pass, Trainable},
    surgery::upstream::UpstreamRules as _,
    train::{AdamOptions, Decay, GradientUse, Optimiser},
    zoo::expimap::{Configuration, ExpimapConfig, ExpimapModule, FreezeTerms, Penalty},
};
use tch::{Device, Kind, Tensor};

use super::setup::{self, Draws, Model};
use crate::case::{self, Case, Report};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("federated_")
}

fn check(test: impl Fn(&Case, &mut Report)) {
    case::run("expimap", is_one, test);
}

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

/// Five steps on some rows; `codes` are the conditions of the cells in the module.
fn train(
    case: &Case,
    module: &ExpimapModule,
    (start, n): (i64, i64),
    codes: Tensor,
    owned: Vec<(String, Tensor, GradientUse)>,
    mode: Mode,
) {
    let minibatch = setup::minibatch_of(case.tensor("in.x").narrow(0, start, n), codes);
    let value = |name: &str| case.json[name].as_f64().unwrap();
    let (rate, eps, weight_decay) = (value("lr"), value("eps"), value("weight_decay"));
    let options = AdamOptions { rate, eps, weight_decay, decay: Decay::L2 };
    let mut optimiser = Optimiser::new(options, &[], None, owned);
    let penalties = Penalty::all(module);
    for k in 1..=case.json["n_steps"].as_u64().unwrap() as u32 {
        let mut noise = Draws::latent(case.tensor(&format!("noise.step{k}")).narrow(0, start, n));
        let mut pass = Pass { mode, noise: &mut noise };
        optimiser.minimise(&module.loss(&minibatch, 1.0, &mut pass).loss);
        penalties.iter().for_each(|penalty| penalty.apply(k - 1, rate));
    }
}

/// Upstream's training of all cells together, with all columns in the optimiser.
#[test]
fn joint_training() {
    check(|case, report| {
        let rules = FreezeTerms::default();
        let module = joint(case).module(&case.group("joint.param."), Trainable::Nothing, Some(&rules));
        let (owned, codes) = (rules.trainable(module.weights()), case.tensor("in.batch"));
        train(case, &module, (0, codes.size()[0]), codes, owned, Mode::Training);
        let ours = setup::upstream(&module);
        for (name, _) in case.group("joint.after.step5.").iter() {
            let full = format!("joint.after.step5.{name}");
            report.close(case, &full, &ours[name], case.tolerance("params_after_steps"));
        }
    });
}

/// Exact surgery, a condition at a time; new terms are the site's own.
#[test]
fn a_site_alone() {
    check(|case, report| {
        for site in &sites(case) {
            let ours = setup::upstream(&exact(case, site));
            let tolerance = case.tolerance("params_after_steps");
            for (name, _) in case.group(&format!("{}.after.step5.", site.name)).iter() {
                let theirs = case.tensor(&format!("{}.after.step5.{name}", site.name));
                let what = format!("{}: {}: {name}", case.name, site.name);
                match ours.get(&format!("own.{name}")) {
                    Some(own) => report.tensors(&what, own, &theirs, tolerance),
                    None => {
                        let theirs = theirs.narrow(1, theirs.size()[1] - 1, 1);
                        report.tensors(&what, &ours[name], &theirs, tolerance);
                        let merged = case.tensor(&format!("merged.{name}")).narrow(1, site.code, 1);
                        report.tensors(&format!("{what}, merged"), &ours[name], &merged, tolerance);
                    }
                }
            }
        }
    });
}

/// Without new terms sites alone and joint training come to the same columns. With them they do not, by what upstream measured.
#[test]
fn sites_alone_are_joint_training_where_nothing_is_shared() {
    check(|case, report| {
        for site in &sites(case) {
            let ours = setup::upstream(&exact(case, site));
            let worst = ours.iter().filter_map(|(name, column)| {
                let joint = case.find(&format!("joint.after.step5.{name}"))?.narrow(1, site.code, 1);
                Some((column - joint).abs().max().double_value(&[]))
            });
            let worst = worst.fold(0.0, f64::max);
            let what = format!("{}: {}: differs from joint training by {worst:.1e}", case.name, site.name);
            let has_new = case.json["extension"] == true;
            report.holds(&what, if has_new { (APART..CLOSE).contains(&worst) } else { worst <= SAME });
        }
    });
}

/// The module of one site's condition after exact surgery.
fn exact(case: &Case, site: &Site) -> ExpimapModule {
    let joint = joint(case);
    let (stored, columns) = joint.split(&case.group("joint.param."));
    let is_new = |name: &str| name.contains("ext_L") || name.contains("expand_");
    let tensors = |new: bool| stored.iter().filter(move |(name, _)| is_new(name) == new);
    let base: StateDict = tensors(false).map(|(name, t)| (name.to_owned(), t.clone())).collect();
    let local: StateDict = tensors(true).map(|(name, t)| (format!("own.{name}"), t.clone())).collect();
    let own = config(case);
    let reference = ExpimapConfig { n_ext: 0, use_hsic: false, ..own.clone() };
    let configuration = Configuration { reference, own: Some((own, None)) };
    let site_model = Model { configuration, registry: joint.registry };
    let module = site_model.of_condition(&base, &local, &columns[site.code as usize]);
    let trained = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
    let owned = trained.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
    let (owned, codes) = (owned.collect(), Tensor::zeros([site.rows.1], (Kind::Int64, Device::Cpu)));
    train(case, &module, site.rows, codes, owned, Mode::Evaluation);
    module
}

/// Rounding.
const SAME: f64 = 1e-6;
/// Between these: what the independence criterion's coupling of all cells of a minibatch moves.
const APART: f64 = 5e-6;
const CLOSE: f64 = 1e-4;
