//! Tables: distributions, schedules, gene alignment, differential expression.

use archipelago_anndata::{Csr, align};
use archipelago_models::{
    data::{RandomState, Split, TrainSize},
    distributions::{negative_binomial, poisson},
    train::{EarlyStopping, KlWarmup, Monitor, Plateau, Verdict, default_epochs},
};
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::case::{self, Case, Report, Tolerance};

pub(crate) const NAMES: [&str; 4] = ["distributions", "schedules", "gene_alignment", "differential_expression"];

fn check(name: &str, test: impl Fn(&Case, &mut Report)) {
    case::run("scvi", |found| found == name, test);
}

#[test]
fn distributions_and_their_gradients() {
    check("distributions", |case, report| {
        let inputs = ["x", "mu", "theta", "logits", "mu2"];
        let doubles: Vec<Tensor> =
            inputs.iter().map(|name| case.tensor(name).to_kind(Kind::Double).set_requires_grad(*name != "x")).collect();
        let [x, mu, theta, logits, mu2] = doubles.as_slice() else { unreachable!() };
        let rows: [(&str, Tensor); 4] = [
            ("nb", negative_binomial::log_prob(x, mu, theta)),
            ("zinb", negative_binomial::zero_inflated_log_prob(x, mu, theta, logits)),
            ("nbmixture", negative_binomial::mixture_log_prob(x, mu, mu2, theta, logits)),
            ("poisson", poisson::log_prob(x, &(mu + 1e-9))),
        ];
        let well = well_conditioned(case);
        for (name, ours) in rows {
            // In double precision against the arbiter everywhere; the formula is the same.
            report.close(case, &format!("f64/{name}_log_prob"), &ours, Tolerance { rtol: 1e-6, atol: 1e-6 });
            let stated = case.tolerance("log_prob");
            report.tensors(
                name,
                &ours.detach().masked_select(&well),
                &case.tensor(&format!("{name}/log_prob")).reshape(-1).masked_select(&well),
                stated,
            );
            for (input, tensor) in ["mu", "theta", "logits", "mu2"].iter().zip(&doubles[1..]) {
                let Some(theirs) = case.find(&format!("{name}/grad_{input}")) else { continue };
                let ours = Tensor::run_backward(&[ours.sum(Kind::Double)], &[tensor], true, false).remove(0);
                let (ours, theirs) = (ours.masked_select(&well), theirs.masked_select(&well));
                report.tensors(&format!("{name}/grad_{input}"), &ours, &theirs, stated);
            }
        }
    });
}

/// Rows whose single-precision columns can be trusted: not tiny or huge dispersion, not a huge count under a tiny one.
fn well_conditioned(case: &Case) -> Tensor {
    let (x, theta) = (case.tensor("x"), case.tensor("theta"));
    let fine = theta.gt(1e-7).logical_and(&theta.lt(5e5));
    fine.logical_and(&x.lt(9e4).logical_or(&theta.gt(0.05)))
}

#[test]
fn log_likelihoods_in_single_precision() {
    check("distributions", |case, report| {
        let t = |name: &str| case.tensor(name);
        let (x, mu, theta, logits, mu2) = (t("x"), t("mu"), t("theta"), t("logits"), t("mu2"));
        let well = well_conditioned(case);
        let rows: [(&str, Tensor); 4] = [
            ("nb", negative_binomial::log_prob(&x, &mu, &theta)),
            ("zinb", negative_binomial::zero_inflated_log_prob(&x, &mu, &theta, &logits)),
            ("nbmixture", negative_binomial::mixture_log_prob(&x, &mu, &mu2, &theta, &logits)),
            ("poisson", poisson::log_prob(&x, &(mu + 1e-9))),
        ];
        for (name, ours) in rows {
            let theirs = case.tensor(&format!("f64/{name}_log_prob")).reshape(-1).masked_select(&well);
            report.tensors(name, &ours.masked_select(&well), &theirs, case.tolerance("log_prob"));
        }
    });
}

#[test]
fn schedules() {
    check("schedules", |case, report| {
        let rows = |name: &str| case.json[name].as_array().unwrap().clone();
        for (n, epochs) in case.json["max_epochs"].as_object().unwrap() {
            let ours = default_epochs(n.parse().unwrap());
            report.holds(
                &format!("epochs for {n} cells: {ours}, expected {epochs}"),
                Some(u64::from(ours)) == epochs.as_u64(),
            );
        }
        for row in rows("kl_weight") {
            report.holds(&format!("KL weight {row}"), (kl_weight(&row) - row["value"].as_f64().unwrap()).abs() < 1e-12);
        }
        for row in rows("data_split_sizes") {
            let (size, n) = (|name: &str| row[name].as_u64().unwrap() as usize, row["n"].as_u64().unwrap() as usize);
            let is_default = row["train_size_defaulted"].as_bool().unwrap();
            let train =
                if is_default { TrainSize::Default } else { TrainSize::Share(row["train_size"].as_f64().unwrap()) };
            let ours = Split::sizes(n, train, row["validation_size"].as_f64(), size("batch_size"));
            report.holds(&format!("split {row}: {ours:?}"), ours == (size("n_train"), size("n_validation")));
        }
        for row in rows("reduce_lr_on_plateau") {
            report.holds(&format!("plateau {row}"), plateau_rates(&row));
        }
        for row in rows("early_stopping") {
            report.holds(&format!("early stopping {row}"), stops_after(&row) == row["stops_after_index"].as_u64());
        }
        let order = &case.json["data_split_order"];
        let numbers = |name: &str| -> Vec<usize> {
            order[name].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
        };
        let (seed, n) = (order["seed"].as_u64().unwrap() as u32, order["n"].as_u64().unwrap() as usize);
        report.holds("permutation", RandomState::new(seed).permutation(n) == numbers("permutation"));
        let split = Split::new(n, TrainSize::Default, None, 128, seed);
        report.holds("split order", split.validation == numbers("validation") && split.train == numbers("train"));
    });
}

fn kl_weight(row: &Value) -> f64 {
    let number = |name: &str| row[name].as_u64();
    let warmup = KlWarmup {
        n_epochs: number("n_epochs").map(|n| n as u32),
        n_steps: number("n_steps"),
        min: row["min"].as_f64().unwrap(),
        max: row["max"].as_f64().unwrap(),
    };
    warmup.weight(number("epoch").unwrap() as u32, number("step").unwrap())
}

fn plateau_rates(row: &Value) -> bool {
    let number = |name: &str| row[name].as_f64().unwrap();
    let (mut rate, patience) = (number("lr"), number("patience") as u32);
    let mut plateau = Plateau::new(number("factor"), patience, number("threshold"), number("min_lr"));
    let expected = row["lr_after"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap());
    row["metric"].as_array().unwrap().iter().zip(expected).all(|(value, expected)| {
        rate = plateau.observe(value.as_f64().unwrap(), rate);
        (rate - expected).abs() < 1e-15
    })
}

fn stops_after(row: &Value) -> Option<u64> {
    assert_eq!(row["mode"], "min");
    let (patience, warmup) = (row["patience"].as_u64().unwrap() as u32, row["warmup"].as_u64().unwrap() as u32);
    let mut rule = EarlyStopping::new(Monitor::Validation, patience, row["min_delta"].as_f64().unwrap(), warmup);
    let values = row["metric"].as_array().unwrap();
    values.iter().position(|v| rule.observe(v.as_f64().unwrap()) == Verdict::Stop).map(|i| i as u64)
}

#[test]
fn gene_alignment() {
    check("gene_alignment", |case, report| {
        let names = |key: &str| -> Vec<String> {
            case.json[key].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        let x = case.tensor("x");
        let (rows, columns) = x.size2().unwrap();
        let dense: Vec<f32> = Vec::try_from(x.to_kind(Kind::Float).reshape(-1)).unwrap();
        let query = Csr::from_dense(rows as usize, columns as usize, &dense).unwrap();
        let alignment =
            align::align(&names("query_genes"), &names("reference_genes"), align::Duplicates::Refuse).unwrap();
        let ours = Tensor::from_slice(&alignment.apply(&query).unwrap().to_dense());
        report.close(case, "aligned", &ours, Tolerance { rtol: 0.0, atol: 0.0 });
        report.holds("coverage", (alignment.coverage() - case.json["found_fraction"].as_f64().unwrap()).abs() < 1e-12);
    });
}
