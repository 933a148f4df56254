//! What is asked of the cases of sites that train alone (`federated_*`): exact surgery of a condition at a time is what upstream's site gets,
//! and upstream's joint training is what it was. How far the two are apart is each model's own to say ([`from_joint`]).

use std::collections::BTreeMap;

use archipelago_models::{
    data::Minibatch,
    model::Module,
    nn::{Mode, Noise, Pass},
    train::{GradientUse, Optimiser},
};
use tch::{Device, Kind, Tensor};

use super::{
    native::{Native, Owned, optimiser},
    upstream,
};
use crate::{
    case::{self, Case, Report},
    noise::OneDraw,
};

/// A model, as its cases of sites know it.
pub(crate) trait Federated: Native {
    /// The module of all conditions under upstream's rules, and what trains there.
    fn joint(case: &Case) -> (Self::Module, Owned);

    /// The module of one site's condition, as exact surgery builds it.
    fn of_site(case: &Case, site: &Site) -> Self::Module;

    /// Some rows of the case's cells, of these conditions.
    fn cells(case: &Case, rows: (i64, i64), conditions: Tensor) -> Minibatch;

    /// The optimiser of these cases.
    fn optimiser(case: &Case, owned: Owned) -> Optimiser {
        optimiser(case, owned)
    }

    /// What a step draws.
    fn noise(drawn: Tensor) -> Box<dyn Noise> {
        Box::new(OneDraw(drawn))
    }

    /// What happens before the first step.
    fn begin(_case: &Case, _module: &Self::Module) {}

    /// What happens after step `k`, from 1 on.
    fn after_step(_case: &Case, _module: &Self::Module, _k: u32) {}
}

/// Makes the tests that every such model has.
macro_rules! federated_tests {
    ($model:ty) => {
        #[test]
        fn joint_training() {
            $crate::runner::federated::joint_training::<$model>();
        }

        #[test]
        fn a_site_alone() {
            $crate::runner::federated::a_site_alone::<$model>();
        }
    };
}
pub(crate) use federated_tests;

/// A site of a case.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    /// The first of its rows, and how many there are.
    pub(crate) rows: (i64, i64),
    /// The code of its condition in the joint model.
    pub(crate) code: i64,
}

pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with("federated_")
}

pub(crate) fn check<F: Federated>(test: impl Fn(&Case, &mut Report)) {
    case::run(F::MODEL, is_one, test);
}

/// The two sites of a case.
pub(crate) fn sites(case: &Case) -> [Site; 2] {
    let numbers =
        |field: String| -> Option<Vec<i64>> { case.json[field].as_array()?.iter().map(|n| n.as_i64()).collect() };
    ["site1", "site2"].map(|name| {
        let rows = numbers(format!("{name}_rows")).unwrap();
        let columns = numbers(format!("{name}_columns_in_joint"));
        let codes = columns.or_else(|| numbers(format!("{name}_positions_in_joint"))).unwrap();
        Site { name, rows: (rows[0], rows[1] - rows[0]), code: *codes.last().unwrap() }
    })
}

/// Upstream's training of all cells together.
pub(crate) fn joint_training<F: Federated>() {
    check::<F>(|case, report| {
        let (module, owned) = F::joint(case);
        let conditions = case.tensor("in.batch");
        let conditions = if conditions.dim() > 1 { conditions.select(1, 0) } else { conditions };
        train::<F>(case, &module, (0, conditions.size()[0]), conditions, owned, Mode::Training);
        let ours = upstream(&module);
        for (name, _) in case.group("joint.after.step5.").iter() {
            let full = format!("joint.after.step5.{name}");
            report.close(case, &full, &ours[name], case.tolerance("params_after_steps"));
        }
    });
}

/// Exact surgery, a condition at a time, against what upstream's site trained of it; what a site keeps has no other columns beside it.
///
/// With weight decay it is not exact surgery that computes a site's columns.
pub(crate) fn a_site_alone<F: Federated>() {
    check::<F>(|case, report| {
        for site in &sites(case) {
            let ours = if decays(case) { BTreeMap::new() } else { upstream(&alone::<F>(case, site)) };
            let tolerance = case.tolerance("params_after_steps");
            for (name, ours) in &ours {
                let name = name.strip_prefix("own.").unwrap_or(name);
                let Some(theirs) = case.find(&format!("{}.after.step5.{name}", site.name)) else { continue };
                let what = format!("{}: {}: {name}", case.name, site.name);
                // The dimension along which conditions stand, if there is one.
                match (0..ours.dim()).find(|&dim| ours.size()[dim] != theirs.size()[dim]) {
                    None => report.tensors(&what, ours, &theirs, tolerance),
                    Some(dim) => {
                        let own = |of: Tensor, at: i64| of.narrow(dim as i64, at, 1);
                        let last = theirs.size()[dim] - 1;
                        report.tensors(&what, ours, &own(theirs, last), tolerance);
                        let merged = own(case.tensor(&format!("merged.{name}")), site.code);
                        report.tensors(&format!("{what}, merged"), ours, &merged, tolerance);
                    }
                }
            }
        }
        report.holds(&format!("{}: has two sites", case.name), sites(case).len() == 2);
    });
}

/// By how much each tensor of a site's condition differs from joint training at most.
pub(crate) fn from_joint<F: Federated>(case: &Case, site: &Site) -> BTreeMap<String, f64> {
    let differences = upstream(&alone::<F>(case, site)).into_iter().filter_map(|(name, ours)| {
        let joint = case.find(&format!("joint.after.step5.{name}"))?;
        let dim = (0..ours.dim()).find(|&dim| ours.size()[dim] != joint.size()[dim])?;
        let joint = joint.narrow(dim as i64, site.code, 1);
        Some((name, (ours - joint).abs().max().double_value(&[])))
    });
    differences.collect()
}

/// Whether a case's optimiser lets weights decay.
pub(crate) fn decays(case: &Case) -> bool {
    super::native::training_of(case)["weight_decay"] != 0.0
}

/// The module of one site's condition after exact surgery.
pub(crate) fn alone<F: Federated>(case: &Case, site: &Site) -> F::Module {
    let module = F::of_site(case, site);
    let trained = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
    let owned = trained.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied)).collect();
    let conditions = Tensor::zeros([site.rows.1], (Kind::Int64, Device::Cpu));
    train::<F>(case, &module, site.rows, conditions, owned, Mode::Evaluation);
    module
}

/// The steps of a case on some rows.
fn train<F: Federated>(
    case: &Case,
    module: &F::Module,
    rows: (i64, i64),
    conditions: Tensor,
    owned: Owned,
    mode: Mode,
) {
    let minibatch = F::cells(case, rows, conditions);
    let mut optimiser = F::optimiser(case, owned);
    F::begin(case, module);
    for k in 1..=N_STEPS {
        let mut noise = F::noise(case.tensor(&format!("noise.step{k}")).narrow(0, rows.0, rows.1));
        let mut pass = Pass { mode, noise: &mut *noise };
        optimiser.minimise(&module.loss(&minibatch, 1.0, &mut pass).loss);
        F::after_step(case, module, k);
    }
}

/// Steps of these cases.
const N_STEPS: u32 = 5;
