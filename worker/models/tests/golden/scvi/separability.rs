//! `surgery_separability`: columns trained alone are the columns trained pooled.

use std::collections::BTreeMap;

use archipelago_common::Columns;
use archipelago_models::{
    data::{Covariates, Minibatch, Registry},
    fast::{Autoencoder, Purpose},
    model::Module as _,
    nn::{Builder, ConditionSource, Mode, Pass, Source, Trainable},
    train::{Adam, AdamOptions, Decay, GradientUse},
    upstream::Layout,
    zoo::scvi::{ScviConfig, ScviModule},
};
use tch::{Device, Kind, Tensor};

use crate::{
    case::{self, Case, Tolerance},
    noise::OneDraw,
    runner::kernels::{csr, dataset},
};

pub(crate) const NAME: &str = "surgery_separability";

#[test]
fn a_condition_trained_alone_gets_the_columns_of_pooled_training() {
    case::run(
        "scvi",
        |name| name == NAME,
        |case, report| {
            let n_genes = case.n_genes();
            let fresh =
                Builder::new(Source::Fresh, ConditionSource::Fresh(N_POOLED), Trainable::Nothing, [0; 32], Device::Cpu);
            let layout = Layout::of(build(n_genes, fresh).weights());
            let (base, columns) = layout.split(&case.group("pooled_init/")).unwrap();
            for (code, alone) in [(N_REFERENCE, "q0_alone30"), (N_REFERENCE + 1, "q1_alone30")] {
                let start: [&Columns; 1] = [&columns[code]];
                let conditions = ConditionSource::Stored(&start);
                let builder =
                    || Builder::new(Source::Stored(&base), conditions, Trainable::Conditions, [0; 32], Device::Cpu);
                let module = build(n_genes, builder());
                train(case, &module, code as i64);
                let by_kernels = train_by_kernels(case, &build(n_genes, builder()), code as i64);
                for stack in ["z_encoder.encoder", "decoder.px_decoder"] {
                    let layer = format!("{stack}.fc_layers.Layer 0.0");
                    let ours = module.weights().get(&format!("{layer}.condition")).unwrap().get(0);
                    for (group, position) in [("pooled30", code), (alone, N_REFERENCE)] {
                        let matrix = case.tensor(&format!("{group}/{layer}.weight"));
                        let width = matrix.size()[1] - if group == alone { N_REFERENCE + 1 } else { N_POOLED } as i64;
                        let theirs = matrix.select(1, width + position as i64);
                        let tolerance = Tolerance { rtol: 1e-4, atol: 2e-6 };
                        report.tensors(&format!("{group}: {layer}, code {code}"), &ours, &theirs, tolerance);
                        let ours = by_kernels[&format!("{layer}.condition")].get(0);
                        report.tensors(&format!("{group}: {layer}, code {code}, kernels"), &ours, &theirs, tolerance);
                    }
                }
            }
        },
    );
}

fn build(n_genes: usize, builder: Builder<'_>) -> ScviModule {
    ScviModule::new(config(), &Registry::default(), n_genes, builder).unwrap()
}

/// Thirty steps on the summed loss of one condition's cells, as exact surgery sees them.
fn train(case: &Case, module: &ScviModule, code: i64) {
    let rows = case.tensor("input/batch").squeeze_dim(1).eq(code).nonzero().squeeze_dim(1);
    let x = case.tensor("input/x").index_select(0, &rows);
    let condition = Tensor::zeros([rows.size()[0]], (Kind::Int64, Device::Cpu));
    let covariates = Covariates { condition, axes: Vec::new(), categorical: Vec::new() };
    let minibatch = Minibatch::of_tensors(&Registry::default(), x, covariates, |_| unreachable!("there is no field"));
    let owned = module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
    let owned = owned.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
    let options = AdamOptions { rate: 1e-3, eps: 0.01, weight_decay: 0.0, decay: Decay::L2 };
    let mut adam = Adam::new(options, owned.collect::<Vec<_>>());
    for _ in 0..30 {
        let mut noise = OneDraw(case.tensor("noise/z").index_select(0, &rows));
        let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
        let loss = module.loss(&minibatch, 0.35, &mut pass).loss * minibatch.n_cells() as f64;
        adam.minimise(&loss);
    }
}

/// The same thirty steps without libtorch. The kernels' loss is a mean over cells; with an epsilon as much smaller, Adam's
/// steps are those of the sum.
fn train_by_kernels(case: &Case, module: &ScviModule, code: i64) -> BTreeMap<String, Tensor> {
    let rows = case.tensor("input/batch").squeeze_dim(1).eq(code).nonzero().squeeze_dim(1);
    let all = csr(&case.tensor("input/x"));
    let cells: Vec<usize> = Vec::<i64>::try_from(&rows).unwrap().into_iter().map(|row| row as usize).collect();
    let counts = all.select_rows(&cells);
    let dataset = dataset(&counts, vec![0; cells.len()]);
    let cells: Vec<usize> = (0..cells.len()).collect();
    let trains = |name: &str| module.weights().get(name).is_some_and(Tensor::requires_grad);
    let purpose = Purpose::Train(Mode::Evaluation, cells.len());
    let mut fast = Autoencoder::new(module, &dataset, purpose, &trains).unwrap();
    let eps = 0.01 / cells.len() as f64;
    let options = AdamOptions { rate: 1e-3, eps, weight_decay: 0.0, decay: Decay::L2 };
    for _ in 0..30 {
        let mut noise = OneDraw(case.tensor("noise/z").index_select(0, &rows));
        let _terms = fast.step(&cells, &[], 0.35, &mut noise, &[options]);
    }
    fast.values()
}

/// The tutorial's options at the fixture's size.
fn config() -> ScviConfig {
    let likelihood = archipelago_models::distributions::Likelihood::Nb;
    ScviConfig { n_hidden: 16, n_latent: 5, gene_likelihood: likelihood, ..ScviConfig::for_surgery() }
}

/// Batches of the reference in the fixture.
const N_REFERENCE: usize = 3;
/// Batches after surgery.
const N_POOLED: usize = 5;
