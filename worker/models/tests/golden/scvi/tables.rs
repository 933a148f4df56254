//! Tables: distributions, schedules, gene alignment, differential expression.

use archipelago_anndata::{Csr, align};
use archipelago_common::task::Warmup;
use archipelago_models::{
    data::{RandomState, Split, TrainSize},
    distributions::{negative_binomial, poisson},
    results::differential_expression::{
        self, Change, Decision, DifferentialExpression, Draws, FoldChange, GeneDifference, Hypothesis,
    },
    train::{EarlyStopping, KlWarmup, Monitor, Plateau, Verdict, default_epochs},
};
use ndarray::{Array2, Axis, s};
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
    // Upstream counts epochs where there is a number of them, else steps; 0 counts as none.
    let given = |name: &str| number(name).filter(|&n| n > 0);
    let over = match (given("n_epochs"), given("n_steps")) {
        (Some(n), _) => Warmup::over_epochs(n as u32),
        (None, Some(n)) => Warmup::over_steps(n),
        (None, None) => Warmup::Off,
    };
    let warmup = KlWarmup { over, min: row["min"].as_f64().unwrap(), max: row["max"].as_f64().unwrap(), period: None };
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

#[test]
fn differential_expression() {
    check("differential_expression", |case, report| {
        let draws = (matrix(case, "f64/scales1"), matrix(case, "f64/scales2"));
        let x = matrix(case, "x");
        let group_means =
            |rows: std::ops::Range<usize>| -> Vec<f64> { x.slice(s![rows, ..]).mean_axis(Axis(0)).unwrap().to_vec() };
        let means = (group_means(0..40), group_means(40..80));
        let decide = |decision: &Decision| {
            let draws = Draws { first: draws.0.view(), second: draws.1.view() };
            differential_expression::decide(draws, (&means.0, &means.1), decision).unwrap()
        };
        let vanilla = decide(&Decision::Vanilla);
        column(case, report, "vanilla/proba_m1", &vanilla, |gene| gene.probability);
        column(case, report, "vanilla/proba_m2", &vanilla, |gene| 1.0 - gene.probability);
        column(case, report, "vanilla/bayes_factor", &vanilla, |gene| gene.bayes_factor);
        column(case, report, "vanilla/scale1", &vanilla, |gene| gene.scale_1);
        column(case, report, "vanilla/scale2", &vanilla, |gene| gene.scale_2);
        for (name, hypothesis, levels, estimates) in [
            ("change", Hypothesis::Direction, vec![], false),
            ("change_two", Hypothesis::Difference, vec![0.5, 0.9], false),
            ("change_autopseudo", Hypothesis::Direction, vec![], true),
        ] {
            let scalar = |what: &str| case.json["scalars"][format!("{name}/{what}")].as_f64().unwrap();
            let pseudocount = (!estimates).then(|| scalar("pseudocounts"));
            let delta = Some(scalar("delta"));
            let result =
                decide(&Decision::Change(Change { delta, pseudocount, hypothesis, credible_levels: levels.clone() }));
            let used = result.pseudocount.unwrap();
            report.holds(&format!("{name}: pseudocount {used}"), (used / scalar("pseudocounts") - 1.0).abs() < 1e-9);
            change_columns(case, report, name, &result, &levels);
        }
    });
}

fn change_columns(case: &Case, report: &mut Report, name: &str, result: &DifferentialExpression, levels: &[f64]) {
    let mut column = |what: &str, value: &dyn Fn(&GeneDifference) -> f64| {
        column(case, report, &format!("{name}/{what}"), result, value);
    };
    column("proba_de", &|gene| gene.probability);
    column("proba_not_de", &|gene| 1.0 - gene.probability);
    column("bayes_factor", &|gene| gene.bayes_factor);
    column("scale1", &|gene| gene.scale_1);
    column("scale2", &|gene| gene.scale_2);
    column("lfc_mean", &|gene| change(gene).mean);
    column("lfc_median", &|gene| change(gene).median);
    column("lfc_std", &|gene| change(gene).std);
    column("lfc_min", &|gene| change(gene).min);
    column("lfc_max", &|gene| change(gene).max);
    for (i, level) in levels.iter().enumerate() {
        column(&format!("lfc_confidence_interval_{level}_min"), &|gene| change(gene).credible[i].0);
        column(&format!("lfc_confidence_interval_{level}_max"), &|gene| change(gene).credible[i].1);
    }
    let probabilities: Vec<f64> = result.genes.iter().map(|gene| gene.probability).collect();
    for rate in [0.05, 0.2] {
        let called = differential_expression::called_at_fdr(&probabilities, rate);
        let theirs: Vec<i64> =
            Vec::try_from(case.tensor(&format!("{name}/is_de_fdr_{rate}")).to_kind(Kind::Int64)).unwrap();
        report.holds(
            &format!("{name}: called at {rate}"),
            called.iter().map(|&c| i64::from(c)).collect::<Vec<_>>() == theirs,
        );
    }
}

fn change(gene: &GeneDifference) -> &FoldChange {
    gene.fold_change.as_ref().unwrap()
}

fn column(
    case: &Case,
    report: &mut Report,
    name: &str,
    result: &DifferentialExpression,
    value: impl Fn(&GeneDifference) -> f64,
) {
    let ours: Vec<f64> = result.genes.iter().map(value).collect();
    let number = |name: &str| case.json["tolerances"][name].as_f64().unwrap();
    let tolerance = Tolerance { rtol: number("rtol"), atol: number("atol") };
    report.close(case, &format!("f64/{name}"), &Tensor::from_slice(&ours), tolerance);
}

fn matrix(case: &Case, name: &str) -> Array2<f64> {
    let tensor = case.tensor(name).to_kind(Kind::Double);
    let (rows, columns) = tensor.size2().unwrap();
    Array2::from_shape_vec((rows as usize, columns as usize), Vec::try_from(tensor.reshape(-1)).unwrap()).unwrap()
}
