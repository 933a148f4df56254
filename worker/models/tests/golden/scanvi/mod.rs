//! scANVI against scvi-tools 1.4.2.

mod pretrained;

use archipelago_models::{
    data::{Encoding, LABELS, LabelNames, Minibatch, Registry},
    fast::{Autoencoder, Purpose},
    model::{Embedder as _, LabelModel as _, Module as _, PredictFrom},
    nn::{Builder, Pass},
    zoo::scanvi::{ScanviConfig, ScanviModule},
};
use tch::{Kind, Tensor};

use crate::{
    case::{Case, Report},
    noise::FixedNoise,
    runner::{
        Golden,
        core::{compare, evaluation, kl_weight},
        golden_tests,
        kernels::{InKernels, StoredCells, kernel_tests},
    },
    scvi::compare_network,
};

/// The cases of scANVI.
pub(crate) struct Scanvi;

golden_tests!(Scanvi);
kernel_tests!(Scanvi);

impl Golden for Scanvi {
    const MODEL: &'static str = "scanvi";

    type Module = ScanviModule;

    fn build(case: &Case, builder: Builder<'_>) -> ScanviModule {
        ScanviModule::new(config(case), &registry(case), case.n_genes(), builder).unwrap()
    }

    fn n_conditions(case: &Case, prefix: &str) -> usize {
        let first = case.tensor(&format!("{prefix}decoder.px_decoder.fc_layers.Layer 0.0.weight"));
        first.size()[1] as usize - config(case).scvi.n_latent
    }

    fn compare_pass(
        case: &Case,
        group: &str,
        module: &ScanviModule,
        pass: &mut Pass<'_>,
        report: &mut Report,
    ) -> Tensor {
        let minibatch = case.minibatch("input", &registry(case));
        let inference = module.scvi().inference(&minibatch, None, pass);
        let (z, library) = (&inference.z, &inference.library);
        let out = module.scvi().generative(z, library, &minibatch, &minibatch.covariates, pass);
        compare_network(case, group, &inference, &out, report);

        let over = module.over_labels(&inference.qz, &inference.z, pass);
        let terms = module.scvi().loss_terms(&minibatch, &inference, &out);
        let (values, per_cell) = (case.tolerance("forward"), case.tolerance("loss_per_cell"));
        let mut check = |name: &str, ours: &Tensor, tolerance| {
            compare(case, &format!("{group}/{name}"), Some(ours), tolerance, report);
        };
        check("comp/probs", &over.probabilities, values);
        check("comp/qz2_mean", &over.qz2.mean, values);
        check("comp/qz2_var", &over.qz2.var, values);
        check("comp/pz1_mean", &over.pz1.mean, values);
        check("comp/pz1_var", &over.pz1.var, values);
        check("comp/neg_log_p_z1_given_z2_y", &over.negative_log_pz1, per_cell);
        check("comp/log_q_z1", &over.log_qz1, per_cell);
        check("comp/kl_z2", &over.kl_z2, per_cell);
        check("comp/kl_y", &over.kl_y, per_cell);
        check("comp/reconstruction_px", &terms.reconstruction, per_cell);
        let terms = module.terms(terms, &over, kl_weight(case));
        check("total_reconstruction_loss", &terms.reconstruction, per_cell);
        check("total_kl_local", &terms.kl_local, per_cell);
        let loss = match labelled(case) {
            None => terms.loss,
            Some(labelled) => {
                let loss = module.label_loss(&labelled, pass);
                check("classification_loss", &(&loss / case.json["classification_ratio"].as_f64().unwrap()), per_cell);
                terms.loss + loss
            }
        };
        check("loss", &loss, per_cell);
        loss
    }

    fn loss(case: &Case, module: &ScanviModule, pass: &mut Pass<'_>) -> Tensor {
        let mut loss = module.loss(&case.minibatch("input", &registry(case)), kl_weight(case), pass).loss;
        if let Some(labelled) = labelled(case) {
            loss += module.label_loss(&labelled, pass);
        }
        loss
    }

    fn compare_results(case: &Case, module: &ScanviModule, report: &mut Report) {
        let minibatch = case.minibatch("input", &registry(case));
        let forward = case.tolerance("forward");
        let posterior = module.posterior(&minibatch, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/latent", &posterior.mean, forward);
        let predict = |from| module.label_probabilities(&minibatch, from, &mut evaluation(&mut FixedNoise::new(case)));
        report.close(case, "api/predict_soft", &predict(PredictFrom::Mean), forward);
        report.close(case, "api/predict_soft_sampled_z", &predict(PredictFrom::Draw), forward);
        if let Some(hard) = case.json["predictions_hard"].as_array() {
            let codes = predict(PredictFrom::Mean).argmax(1, false).to_kind(Kind::Int64);
            let registry = registry(case);
            let labels = registry.labels();
            for (cell, name) in hard.iter().enumerate() {
                let ours = &labels[codes.int64_value(&[cell as i64]) as usize];
                report.holds(&format!("{}: cell {cell} is {name}, not {ours}", case.name), name == ours.as_str());
            }
        }
    }

    fn dropout_rate(case: &Case) -> f64 {
        config(case).scvi.dropout_rate
    }
}

impl InKernels for Scanvi {
    const EVALUATED: &'static [&'static str] =
        &["core_default_zinb", "core_linear_classifier_genebatch", "core_tutorial_from_scvi"];
    const TRAINED: &'static [&'static str] = &["core_tutorial_from_scvi"];

    fn compare_evaluation(case: &Case, module: &ScanviModule, cells: &StoredCells, report: &mut Report) {
        let dataset = cells.dataset();
        let mut fast = Autoencoder::new(module, &dataset, Purpose::Evaluate, &|_| false).unwrap();
        let cells = cells.all();
        let terms = fast.evaluate(&cells, kl_weight(case), &mut FixedNoise::new(case));
        let mean = |name: &str| case.tensor(&format!("eval/{name}")).to_kind(Kind::Double).mean(Kind::Double);
        let (reconstruction, kl) = (mean("total_reconstruction_loss"), mean("total_kl_local"));
        let expected = Tensor::stack(&[reconstruction.shallow_clone(), &reconstruction + &kl], 0);
        let ours = Tensor::from_slice(&[terms.reconstruction, terms.negative_elbo]) / cells.len() as f64;
        report.tensors(&format!("{}: terms", case.name), &ours, &expected, case.tolerance("loss_per_cell"));
    }
}

/// Options of a case.
fn config(case: &Case) -> ScanviConfig {
    let ratio = ("classification_ratio".to_owned(), case.json["classification_ratio"].clone());
    ScanviConfig::parse(&case.options().into_iter().chain([ratio]).collect()).unwrap()
}

/// The registry of a case: its labels without the category of unlabelled cells, which is the last one.
fn registry(case: &Case) -> Registry {
    let names = case.json["label_categories"].as_array().unwrap();
    let mut names: Vec<String> = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let unlabelled = names.pop();
    Registry::default().with(LABELS, Encoding::Labels(LabelNames { names, unlabelled }))
}

/// The stored minibatch of labelled cells, where the case has some.
fn labelled(case: &Case) -> Option<Minibatch> {
    case.find("input_labelled/x").map(|_| case.minibatch("input_labelled", &registry(case)))
}
