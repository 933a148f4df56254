//! The kernels against autograd on scArches' native networks: no biases in decoders, dropout in them, a discrepancy between conditions.

use archipelago_anndata::Csr;
use proptest::prelude::*;
use tch::Device;

use super::tests::{check_allocations, compare_unlabelled, dataset, some_counts};
use crate::{
    nn::{Builder, ConditionSource, Mode, Source, Trainable},
    zoo::{
        family::ReconLoss,
        trvae::{TrvaeConfig, TrvaeModule},
    },
};

#[derive(Clone, Debug)]
struct Example {
    config: TrvaeConfig,
    counts: Vec<f32>,
    conditions: Vec<i64>,
    n_conditions: usize,
    n_genes: usize,
}

fn config() -> impl Strategy<Value = TrvaeConfig> {
    let loss = prop_oneof![Just(ReconLoss::Nb), Just(ReconLoss::Zinb), Just(ReconLoss::Mse)];
    let sizes = (proptest::collection::vec(1_usize..50, 1..4), 1_usize..12);
    let pull = (any::<bool>(), proptest::option::of(0_usize..3), 0.1_f64..3.0);
    (sizes, loss, pull, any::<bool>(), any::<bool>()).prop_map(
        |((hidden_layer_sizes, latent_dim), recon_loss, (use_mmd, mmd_boundary, beta), use_bn, use_ln)| TrvaeConfig {
            hidden_layer_sizes,
            latent_dim,
            dr_rate: 0.3,
            use_mmd,
            mmd_boundary,
            recon_loss,
            beta,
            use_bn,
            use_ln,
            ..TrvaeConfig::default()
        },
    )
}

fn example() -> impl Strategy<Value = Example> {
    (config(), 1_usize..75, 1_usize..70, 1_usize..4).prop_flat_map(|(config, n_cells, n_genes, n_conditions)| {
        let count =
            prop_oneof![6 => Just(0.0_f32), 3 => (1_u16..9).prop_map(f32::from), 1 => (9_u16..200).prop_map(f32::from)];
        let counts = proptest::collection::vec(count, n_cells * n_genes);
        let conditions = proptest::collection::vec(0..n_conditions as i64, n_cells);
        (Just(config), counts, conditions).prop_map(move |(config, mut counts, conditions)| {
            (0..n_cells).for_each(|cell| counts[cell * n_genes] += 1.0);
            Example { config, counts, conditions, n_conditions, n_genes }
        })
    })
}

fn compare(example: &Example, mode: Mode, trainable: Trainable) {
    let Example { config, n_conditions, n_genes, .. } = example;
    let n_cells = example.conditions.len();
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(*n_conditions), trainable, [7; 32], Device::Cpu);
    let module = TrvaeModule::new(config.clone(), *n_genes, builder).unwrap();
    let counts = Csr::from_dense(n_cells, *n_genes, &example.counts).unwrap();
    let dataset = dataset(&counts, example.conditions.clone());
    let likelihood = config.recon_loss.likelihood();
    compare_unlabelled(&module, likelihood, &dataset, mode);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn surgery_has_the_gradients_of_autograd(example in example()) {
        tch::set_num_threads(1);
        compare(&example, Mode::Evaluation, Trainable::Conditions);
    }

    #[test]
    fn training_has_the_gradients_of_autograd(mut example in example()) {
        tch::set_num_threads(1);
        example.config.use_bn = false;
        compare(&example, Mode::Training, Trainable::Everything);
    }
}

#[test]
fn a_step_allocates_nothing() {
    let (n_cells, n_genes) = (90, 40);
    let counts = some_counts(n_cells, n_genes);
    let dataset = dataset(&counts, (0..n_cells as i64).map(|cell| cell % 2).collect());
    let module = |trainable| {
        let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(2), trainable, [7; 32], Device::Cpu);
        TrvaeModule::new(TrvaeConfig::default(), n_genes, builder).unwrap()
    };
    check_allocations(module, &dataset, 0);
}
