//! scVI against scvi-tools 1.4.2.

mod separability;
mod tables;

use archipelago_models::{
    Moments,
    data::{CATEGORICAL, CONTINUOUS, Encoding, LABELS, LabelNames, Range, Registry, SIZE_FACTOR},
    fast::{Autoencoder, Purpose},
    losses::LossTerms,
    model::{CountModel as _, Embedder as _, Module as _},
    nn::{Builder, Pass},
    results::{ExpressionAsk, LibraryAsk, expression_of},
    zoo::scvi::{Generative, Inference, ScviConfig, ScviModule},
};
use tch::{Kind, Tensor};

use crate::{
    case::{Case, Report},
    noise::{FixedNoise, Masks, OneDraw},
    runner::{
        Golden,
        core::{compare, evaluation, kl_weight},
        golden_tests,
        kernels::{InKernels, StoredCells, kernel_tests},
    },
};

/// The cases of scVI.
pub(crate) struct Scvi;

golden_tests!(Scvi);
// Only these cases have masks of dropout.
golden_tests! { @each Scvi: core training_pass_with_dropout }
kernel_tests!(Scvi);

impl Golden for Scvi {
    const MODEL: &'static str = "scvi";

    type Module = ScviModule;

    fn build(case: &Case, builder: Builder<'_>) -> ScviModule {
        ScviModule::new(config(case), &registry(case), case.n_genes(), builder).unwrap()
    }

    fn n_conditions(case: &Case, prefix: &str) -> usize {
        n_conditions(case, prefix)
    }

    fn compare_pass(case: &Case, group: &str, module: &ScviModule, pass: &mut Pass<'_>, report: &mut Report) -> Tensor {
        let minibatch = case.minibatch("input", &registry(case));
        let inference = module.inference(&minibatch, None, pass);
        let (z, library) = (&inference.z, &inference.library);
        let out = module.generative(z, library, &minibatch, &minibatch.covariates, pass);
        let terms = module.loss_terms(&minibatch, &inference, &out);
        compare_network(case, group, &inference, &out, report);
        let per_cell = case.tolerance("loss_per_cell");
        let mut compare =
            |name: &str, ours: &Tensor| compare(case, &format!("{group}/{name}"), Some(ours), per_cell, report);
        let zeros = terms.kl_z.zeros_like();
        compare("reconstruction_loss", &terms.reconstruction);
        compare("kl_divergence_z", &terms.kl_z);
        compare("kl_divergence_l", terms.kl_l.as_ref().unwrap_or(&zeros));
        let loss = LossTerms::new(terms.reconstruction, &terms.kl_z, terms.kl_l.as_ref(), kl_weight(case)).loss;
        compare("loss", &loss);
        loss
    }

    fn loss(case: &Case, module: &ScviModule, pass: &mut Pass<'_>) -> Tensor {
        module.loss(&case.minibatch("input", &registry(case)), kl_weight(case), pass).loss
    }

    fn compare_results(case: &Case, module: &ScviModule, report: &mut Report) {
        let minibatch = case.minibatch("input", &registry(case));
        let (forward, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
        let posterior = module.posterior(&minibatch, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/latent_qzm", &posterior.mean, forward);
        report.close(case, "api/latent_qzv", &posterior.var, forward);
        let terms = module.loss(&minibatch, 1.0, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/elbo_per_cell", &-(&terms.reconstruction + &terms.kl_local), per_cell);
        report.close(case, "api/reconstruction_error_per_cell", &terms.reconstruction, per_cell);
        let mut expression = |name: &str, transform: &[i64], library| {
            let ask = ExpressionAsk { transform: transform.to_vec(), library, n_samples: 1 };
            let ours = expression_of(module, &minibatch, &ask, &mut evaluation(&mut FixedNoise::new(case)));
            report.close(case, name, &ours, forward);
        };
        expression("api/normalized_expression", &[], LibraryAsk::Scaled(1.0));
        expression("api/normalized_expression_1e4", &[], LibraryAsk::Scaled(1e4));
        expression("api/normalized_expression_latent", &[], LibraryAsk::Latent);
        expression("api/normalized_expression_to_batch1", &[1], LibraryAsk::Scaled(1.0));
        expression("api/normalized_expression_to_batch0_and_2", &[0, 2], LibraryAsk::Scaled(1.0));
        compare_marginal_likelihood(case, module, report);
    }

    fn dropout_rate(case: &Case) -> f64 {
        config(case).dropout_rate
    }

    fn has_own_test(name: &str) -> bool {
        name == separability::NAME || tables::NAMES.contains(&name)
    }
}

impl InKernels for Scvi {
    const EVALUATED: &'static [&'static str] =
        &["core_default_zinb", "core_genebatch_deep", "core_poisson", "core_tutorial_nb_layernorm"];
    const TRAINED: &'static [&'static str] = &["core_tutorial_nb_layernorm"];

    fn compare_evaluation(case: &Case, module: &ScviModule, cells: &StoredCells, report: &mut Report) {
        let dataset = cells.dataset();
        let nothing = |_: &str| false;
        let (mean, var) =
            Autoencoder::new(module, &dataset, Purpose::Embed(Moments::MeanAndVariance), &nothing).unwrap().embed();
        let forward = case.tolerance("forward");
        report.close(case, "api/latent_qzm", &Tensor::from_slice(&mean), forward);
        report.close(case, "api/latent_qzv", &Tensor::from_slice(&var), forward);
        let mut fast = Autoencoder::new(module, &dataset, Purpose::Evaluate, &nothing).unwrap();
        let per_cell = |name| Vec::<f64>::try_from(case.tensor(name).to_kind(Kind::Double).reshape(-1)).unwrap();
        let theirs = per_cell("api/elbo_per_cell").into_iter().zip(per_cell("api/reconstruction_error_per_cell"));
        for (cell, (elbo, error)) in theirs.enumerate() {
            let noise = case.tensor("noise/z").get(cell as i64).unsqueeze(0);
            let terms = fast.evaluate(&[cell], 1.0, &mut OneDraw(noise));
            let ours = Tensor::from_slice(&[-terms.negative_elbo, terms.reconstruction]);
            let tolerance = case.tolerance("loss_per_cell");
            report.tensors(
                &format!("{}: cell {cell}", case.name),
                &ours,
                &Tensor::from_slice(&[elbo, error]),
                tolerance,
            );
        }
    }
}

/// Compares what encoders and decoder say with the tensors under `{group}/`.
pub(crate) fn compare_network(case: &Case, group: &str, inference: &Inference, out: &Generative, report: &mut Report) {
    let forward = case.tolerance("forward");
    let ql = inference.ql.as_ref();
    for (name, ours) in [
        ("qz_mean", Some(&inference.qz.mean)),
        ("qz_var", Some(&inference.qz.var)),
        ("z", Some(&inference.z)),
        ("library", Some(&inference.library)),
        ("ql_mean", ql.map(|ql| &ql.mean)),
        ("ql_var", ql.map(|ql| &ql.var)),
        ("px_scale", Some(&out.px_scale)),
        ("px_rate", Some(&out.px.rate)),
        ("px_r", out.px.r.as_ref()),
        ("px_dropout", out.px.dropout.as_ref()),
    ] {
        compare(case, &format!("{group}/{name}"), ours, forward, report);
    }
}

fn compare_marginal_likelihood(case: &Case, module: &ScviModule, report: &mut Report) {
    let n_samples = case.json["marginal_ll_samples"].as_u64().unwrap();
    let weight = |i: u64| {
        let mut noise = FixedNoise::of_prefix(case, format!("noise/mc{i}_"), Masks::Off);
        module.log_importance_weight(&case.minibatch("input", &registry(case)), &mut evaluation(&mut noise))
    };
    let weights: Vec<Tensor> = (0..n_samples).map(weight).collect();
    let marginal = Tensor::stack(&weights, 0).logsumexp([0_i64].as_slice(), false) - (n_samples as f64).ln();
    report.close(case, "api/marginal_ll_per_cell", &marginal, case.tolerance("loss_per_cell"));
}

fn config(case: &Case) -> ScviConfig {
    ScviConfig::parse(&case.options()).unwrap()
}

/// Number of conditions that the tensors under a prefix are made for.
pub(crate) fn n_conditions(case: &Case, prefix: &str) -> usize {
    let all = case.json["batch_codes"].as_array().map(Vec::len).or(case.json["n_batch"].as_u64().map(|n| n as usize));
    let reference = case.json["reference_batches"].as_array().map(Vec::len);
    if prefix == "ref/" { reference.unwrap() } else { all.unwrap() }
}

/// The registry of a case, with the sizes that its tensors show.
fn registry(case: &Case) -> Registry {
    let setup = &case.json["setup"];
    let keys = |key: &str| -> Vec<String> {
        let names = setup[key].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let names = |n: usize| -> Vec<String> { (0..n).map(|i| format!("c{i}")).collect() };
    let mut sizes: Vec<i64> = match case.find("input/cat_covs") {
        Some(codes) => (0..codes.size()[1]).map(|i| codes.select(1, i).max().int64_value(&[]) + 1).collect(),
        None => Vec::new(),
    };
    let continuous = keys("continuous_covariate_keys");
    if let Some(last) = sizes.len().checked_sub(1) {
        let width = case.tensor("param/decoder.px_decoder.fc_layers.Layer 0.0.weight").size()[1];
        let data = config(case).n_latent as i64 + continuous.len() as i64 + n_conditions(case, "param/") as i64;
        sizes[last] = width - data - sizes[..last].iter().sum::<i64>();
    }
    let categorical = keys("categorical_covariate_keys").into_iter().zip(&sizes).map(|(k, &n)| (k, names(n as usize)));
    let px_r = case.find("param/px_r").filter(|px_r| px_r.dim() == 2).map_or(0, |px_r| px_r.size()[1] as usize);
    let mut registry = Registry::default();
    if px_r > 0 {
        registry = registry.with(LABELS, Encoding::Labels(LabelNames { names: names(px_r), unlabelled: None }));
    }
    if !sizes.is_empty() {
        registry = registry.with(CATEGORICAL, Encoding::Categories(categorical.collect()));
    }
    if !continuous.is_empty() {
        registry = registry.with(CONTINUOUS, Encoding::Numbers(continuous));
    }
    match setup["size_factor_key"].is_string() {
        true => registry.with(SIZE_FACTOR, Encoding::Number(Range::Positive)),
        false => registry,
    }
}

#[test]
fn a_case_that_no_test_knows_is_found() {
    let names = ["core_x", "surgery_x", separability::NAME, tables::NAMES[0], "novel_x"].map(str::to_owned);
    assert_eq!(crate::runner::unclaimed::<Scvi>(&names), ["novel_x"]);
}
