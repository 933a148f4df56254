//! The kernels against autograd where batch norm takes the statistics of a minibatch, and what its running statistics become.

use archipelago_anndata::Csr;
use proptest::prelude::*;
use tch::{Device, Tensor};

use super::tests::{check_allocations, compare_modules, dataset, norms};
use crate::{
    data::Registry,
    distributions::Likelihood,
    fast::{Autoencoder, Purpose},
    model::Module,
    nn::{Builder, ConditionSource, Mode, Pass, SeededNoise, Source, Trainable},
    train::Slot,
    zoo::{
        family::Norms,
        scgen::{ScgenConfig, ScgenModule},
        scvi::{ScviConfig, ScviModule},
    },
};

/// Cells of a minibatch: of very few, batch norm leaves next to nothing but rounding.
const CELLS: std::ops::Range<usize> = 12..75;

#[derive(Clone, Debug)]
struct Example {
    values: Vec<f32>,
    n_cells: usize,
    n_genes: usize,
}

fn example() -> impl Strategy<Value = Example> {
    (CELLS, 2_usize..70).prop_flat_map(|(n_cells, n_genes)| {
        let value = prop_oneof![2 => Just(0.0_f32), 3 => (1_u16..9).prop_map(f32::from)];
        proptest::collection::vec(value, n_cells * n_genes).prop_map(move |mut values| {
            (0..n_cells).for_each(|cell| values[cell * n_genes] += 1.0);
            Example { values, n_cells, n_genes }
        })
    })
}

fn scgen(config: &ScgenConfig, n_genes: usize) -> ScgenModule {
    let fresh = ConditionSource::Fresh(0);
    let builder = Builder::new(Source::Fresh, fresh, Trainable::Everything, [7; 32], Device::Cpu);
    ScgenModule::new(config.clone(), &Registry::default(), n_genes, builder).unwrap()
}

fn scvi(config: &ScviConfig, n_genes: usize, trainable: Trainable) -> ScviModule {
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(2), trainable, [7; 32], Device::Cpu);
    ScviModule::new(config.clone(), &Registry::default(), n_genes, builder).unwrap()
}

fn compare(module: &dyn Module, example: &Example) {
    let counts = Csr::from_dense(example.n_cells, example.n_genes, &example.values).unwrap();
    let dataset = dataset(&counts, (0..example.n_cells as i64).map(|cell| cell % 2).collect());
    let cells: Vec<usize> = (0..example.n_cells).rev().collect();
    compare_modules(module, Some(Likelihood::Nb), &dataset, (&cells, &[]), Mode::Training, |_, _| {
        unreachable!("no cell is labelled")
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn values_have_the_gradients_of_autograd(
        example in example(),
        hidden_layer_sizes in proptest::collection::vec(2_usize..50, 1..4),
        z_dimension in 1_usize..12,
    ) {
        tch::set_num_threads(1);
        let config = ScgenConfig { hidden_layer_sizes, z_dimension, dr_rate: 0.3, ..ScgenConfig::default() };
        compare(&scgen(&config, example.n_genes), &example);
    }

    #[test]
    fn counts_have_the_gradients_of_autograd(
        example in example(),
        (use_batch_norm, use_layer_norm) in (norms(), norms()),
        (n_hidden, n_layers) in (2_usize..50, 1_usize..4),
    ) {
        tch::set_num_threads(1);
        let config = ScviConfig {
            n_hidden,
            n_layers,
            use_batch_norm,
            use_layer_norm,
            encode_covariates: true,
            dropout_rate: 0.3,
            ..ScviConfig::for_surgery()
        };
        compare(&scvi(&config, example.n_genes, Trainable::Everything), &example);
    }

    #[test]
    fn running_statistics_become_those_of_autograd(example in example()) {
        tch::set_num_threads(1);
        let config = ScgenConfig { hidden_layer_sizes: vec![9, 40], ..ScgenConfig::default() };
        let (ours, theirs) = (scgen(&config, example.n_genes), scgen(&config, example.n_genes));
        let counts = Csr::from_dense(example.n_cells, example.n_genes, &example.values).unwrap();
        let dataset = dataset(&counts, vec![0; example.n_cells]);
        let cells: Vec<usize> = (0..example.n_cells).collect();
        let trains = |name: &str| ours.weights().get(name).is_some_and(Tensor::requires_grad);
        let mut fast = Autoencoder::new(&ours, &dataset, Purpose::Train(Mode::Training, 80), &trains).unwrap();
        let (mut noise, mut same) = (SeededNoise::new([3; 32]), SeededNoise::new([3; 32]));
        for minibatch in [&cells[..9], &cells[3..], &cells[1..8]] {
            let _gradients = fast.gradients(minibatch, &[], 0.7, &mut noise);
            let mut pass = Pass { mode: Mode::Training, noise: &mut same };
            let _loss = theirs.loss(&dataset.minibatch(minibatch, Device::Cpu), 0.7, &mut pass);
        }
        let no_slots: &mut [Slot] = &mut [];
        fast.store(ours.weights(), no_slots);
        let mut n_compared = 0;
        for (name, weight) in theirs.weights().iter().filter(|(name, _)| name.contains("running") || name.contains("tracked")) {
            let found = ours.weights().require(name).0;
            let off = (found - &weight.tensor).abs().max().double_value(&[]);
            let largest = weight.tensor.abs().max().double_value(&[]);
            prop_assert!(off <= 1e-5 * (1.0 + largest), "`{name}` is off by {off:e}, largest {largest:e}");
            n_compared += 1;
        }
        prop_assert_eq!(n_compared, 9);
    }
}

#[test]
fn a_step_with_batch_norm_allocates_nothing() {
    let (n_cells, n_genes) = (90, 40);
    let counts = super::tests::some_counts(n_cells, n_genes);
    let dataset = dataset(&counts, (0..n_cells as i64).map(|cell| cell % 2).collect());
    let config = ScviConfig { use_batch_norm: Norms::Both, ..ScviConfig::for_surgery() };
    let module = |trainable| scvi(&config, n_genes, trainable);
    check_allocations(module, &dataset, 0);
}
