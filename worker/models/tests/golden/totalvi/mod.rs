//! totalVI against scvi-tools 1.4.2.

mod adversary;

use archipelago_common::{Columns, Tensor as Stored};
use archipelago_models::{
    data::{Encoding, Panel, Registry, Values},
    model::{Embedder as _, Module as _},
    nn::{Builder, Pass},
    results::{ExpressionAsk, LibraryAsk},
    zoo::totalvi::{
        Generative, Inference, PROTEINS, ProteinAsk, TotalviConfig, TotalviModule, foreground_probability_of,
        protein_expression_of,
    },
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::{
    case::{Case, Report},
    noise::FixedNoise,
    runner::{
        Golden,
        core::{compare, evaluation, kl_weight},
        golden_tests,
    },
    scvi::n_conditions,
};

/// The cases of totalVI.
pub(crate) struct Totalvi;

golden_tests!(Totalvi);

impl Golden for Totalvi {
    const MODEL: &'static str = "totalvi";

    type Module = TotalviModule;

    fn build(case: &Case, builder: Builder<'_>) -> TotalviModule {
        TotalviModule::new(config(case), &registry(case), case.n_genes(), builder).unwrap()
    }

    fn n_conditions(case: &Case, prefix: &str) -> usize {
        n_conditions(case, prefix)
    }

    /// Which proteins were measured in a batch: all, where the case has no mask of it.
    fn facts(case: &Case, code: usize) -> Columns {
        let n_proteins = n_proteins(case);
        let flags: Vec<f32> = match case.json["protein_batch_mask"].get(code.to_string()) {
            Some(flags) => flags.as_array().unwrap().iter().map(|flag| flag.as_f64().unwrap() as f32).collect(),
            None => vec![1.0; n_proteins],
        };
        let flags = Stored::from_f32(&[n_proteins], &flags);
        Columns([("protein_measured.condition".to_owned(), flags)].into_iter().collect())
    }

    fn compare_pass(
        case: &Case,
        group: &str,
        module: &TotalviModule,
        pass: &mut Pass<'_>,
        report: &mut Report,
    ) -> Tensor {
        let minibatch = case.minibatch("input", &registry(case));
        let inference = module.inference(&minibatch, pass);
        let covariates = &minibatch.covariates;
        let out = module.generative(&inference.z, &inference.library, &minibatch, covariates, pass);
        compare_inference(case, group, &inference, report);
        compare_generative(case, group, &out, report);
        let (forward, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
        let (prior_mean, prior_sd) = module.background_prior(covariates);
        compare(case, &format!("{group}/back_mean_prior_loc"), Some(&prior_mean), forward, report);
        compare(case, &format!("{group}/back_mean_prior_scale"), Some(&prior_sd), forward, report);
        let terms = module.loss_terms(&minibatch, &inference, &out);
        let zeros = terms.kl_z.zeros_like();
        for (name, ours) in [
            ("reconst_loss_gene", &terms.reconstruction_genes),
            ("reconst_loss_protein", &terms.reconstruction_proteins),
            ("kl_div_z", &terms.kl_z),
            ("kl_div_l_gene", terms.kl_l.as_ref().unwrap_or(&zeros)),
            ("kl_div_back_pro", &terms.kl_back),
        ] {
            report.close(case, &format!("{group}/{name}"), ours, per_cell);
        }
        let loss = module.weighted(terms, kl_weight(case)).loss;
        report.close(case, &format!("{group}/loss"), &loss, per_cell);
        loss
    }

    fn loss(case: &Case, module: &TotalviModule, pass: &mut Pass<'_>) -> Tensor {
        module.loss(&case.minibatch("input", &registry(case)), kl_weight(case), pass).loss
    }

    /// Latent, ELBO, normalised expression and what else upstream's public methods give.
    fn compare_results(case: &Case, module: &TotalviModule, report: &mut Report) {
        let minibatch = case.minibatch("input", &registry(case));
        let (forward, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
        let posterior = module.posterior(&minibatch, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/latent_qzm", &posterior.mean, forward);
        report.close(case, "api/latent_qzv", &posterior.var, forward);
        let terms = module.loss(&minibatch, 1.0, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/elbo_per_cell", &-(&terms.reconstruction + &terms.kl_local), per_cell);
        let library = module.inference(&minibatch, &mut evaluation(&mut FixedNoise::new(case))).ql;
        let mean = (&library.mean + &library.var / 2.0).exp();
        report.close(case, "api/latent_library_size_mean", &mean, forward);
        let ask = ExpressionAsk::default();
        let ours = foreground_probability_of(module, &minibatch, &ask, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/foreground_probability", &ours, forward);
        let mut expression = |name: &str, ask: &ProteinAsk| {
            let mut noise = FixedNoise::new(case);
            // Only mixing would be drawn from it, and no case does.
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let (rna, proteins) = protein_expression_of(module, &minibatch, ask, &mut rng, &mut evaluation(&mut noise));
            report.close(case, &format!("api/normexpr{name}_rna"), &rna, forward);
            report.close(case, &format!("api/normexpr{name}_protein"), &proteins, forward);
        };
        let plain = ProteinAsk::default();
        let with = |expression| ProteinAsk { expression, ..plain.clone() };
        expression("", &plain);
        expression("_latentlib", &with(ExpressionAsk { library: LibraryAsk::Latent, ..ExpressionAsk::default() }));
        expression("_scaled_bg", &ProteinAsk { include_background: true, scale: true, ..plain.clone() });
        expression("_to_batch1", &with(ExpressionAsk { transform: vec![1], ..ExpressionAsk::default() }));
        expression("_to_batch0_and_2", &with(ExpressionAsk { transform: vec![0, 2], ..ExpressionAsk::default() }));
    }

    fn dropout_rate(case: &Case) -> f64 {
        let config = config(case);
        assert_eq!(config.dropout_rate_encoder, config.dropout_rate_decoder, "one rate is compared");
        config.dropout_rate_encoder
    }
}

fn compare_inference(case: &Case, group: &str, inference: &Inference, report: &mut Report) {
    for (name, ours) in [
        ("qz_mean", &inference.qz.mean),
        ("qz_var", &inference.qz.var),
        ("untran_z", &inference.untransformed_z),
        ("z", &inference.z),
        ("ql_mean", &inference.ql.mean),
        ("ql_var", &inference.ql.var),
        ("untran_l", &inference.log_library),
        ("library_gene", &inference.library),
    ] {
        report.close(case, &format!("{group}/{name}"), ours, case.tolerance("forward"));
    }
}

fn compare_generative(case: &Case, group: &str, out: &Generative, report: &mut Report) {
    for (name, ours) in [
        ("px_scale", Some(&out.px_scale)),
        ("px_rate", Some(&out.px.rate)),
        ("px_r", out.px.r.as_ref()),
        // Without zero inflation upstream computes it all the same and uses it nowhere.
        ("px_dropout", out.px.dropout.as_ref()),
        ("py_back_alpha", Some(&out.back_mean)),
        ("py_back_beta", Some(&out.back_sd)),
        ("log_pro_back_mean", Some(&out.log_back)),
        ("py_rate_back", Some(&out.py.rate_back)),
        ("py_rate_fore", Some(&out.py.rate_fore)),
        ("py_fore_scale", Some(&out.fore_scale)),
        ("py_mixing", Some(&out.py.mixing)),
        ("py_r", Some(&out.py.r)),
        ("py_scale", Some(&out.py.scale())),
        ("per_batch_efficiency", Some(&out.log_efficiency.exp())),
    ] {
        if ours.is_some() {
            compare(case, &format!("{group}/{name}"), ours, case.tolerance("forward"), report);
        }
    }
}

/// Options of a case.
fn config(case: &Case) -> TotalviConfig {
    TotalviConfig::parse(&case.options()).unwrap()
}

fn registry(case: &Case) -> Registry {
    let names = (0..n_proteins(case)).map(|i| format!("p{i}")).collect();
    let panel = Panel { names, values: Values::Counts, may_lack: true };
    Registry::default().with(PROTEINS, Encoding::Matrix(panel))
}

fn n_proteins(case: &Case) -> usize {
    case.tensor("input/proteins").size()[1] as usize
}
