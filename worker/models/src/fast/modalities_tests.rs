//! The kernels against autograd where cells have several modalities.

use archipelago_anndata::Csr;
use archipelago_common::Name;
use proptest::prelude::*;
use tch::{Device, Tensor};

use super::tests::{check_allocations, compare_unlabelled, dataset, some_counts};
use crate::{
    data::{Dataset, Encoded, Encoding, Panel, Registry},
    distributions::Likelihood,
    fast::{Autoencoder, Purpose},
    model::{Embedder as _, Module as _, Moments},
    nn::{Builder, ConditionSource, Mode, Pass, SeededNoise, Source, Trainable},
    zoo::multigrate::{Mix, ModalityLoss, MultigrateConfig, MultigrateModule, Normalization, Release},
};

#[derive(Clone, Debug)]
struct Example {
    config: MultigrateConfig,
    /// Of each modality in order, row by row.
    values: Vec<Vec<f32>>,
    widths: Vec<usize>,
    conditions: Vec<i64>,
    n_conditions: usize,
}

fn config(n_others: usize) -> impl Strategy<Value = MultigrateConfig> {
    let loss = prop_oneof![Just(ModalityLoss::Nb), Just(ModalityLoss::Zinb), Just(ModalityLoss::Mse)];
    let losses = proptest::collection::vec(loss, n_others + 1);
    let sizes = (1_usize..12, 1_usize..20, proptest::collection::vec(1_usize..50, n_others + 1), 1_usize..4);
    let weights = (proptest::collection::vec(0.3_f64..2.0, n_others + 1), 0.5_f64..2.0, 0.05_f64..1.0);
    let mix = prop_oneof![Just(Mix::Product), Just(Mix::Mixture)];
    let release = prop_oneof![Just(Release::Current), Just(Release::Legacy)];
    let norm =
        prop_oneof![3 => Just(Normalization::Layer), 1 => Just(Normalization::None), 1 => Just(Normalization::Batch)];
    (losses, sizes, weights, (mix, release, norm), any::<bool>(), any::<bool>()).prop_map(
        move |(losses, sizes, weights, (mix, release, normalization), encoders, decoders)| MultigrateConfig {
            modalities: names(n_others),
            losses,
            z_dim: sizes.0,
            cond_dim: sizes.1,
            n_hidden_encoders: sizes.2.clone(),
            n_hidden_decoders: sizes.2,
            n_layers_encoders: vec![sizes.3],
            n_layers_decoders: vec![sizes.3],
            modality_coefs: weights.0,
            recon_coef: weights.1,
            kl_coef: weights.2,
            mix,
            release,
            normalization,
            condition_encoders: encoders,
            condition_decoders: decoders,
            dropout: 0.3,
            ..MultigrateConfig::default()
        },
    )
}

fn names(n_others: usize) -> Vec<Name> {
    (0..n_others).map(|at| format!("modality{at}").parse().unwrap()).collect()
}

fn example() -> impl Strategy<Value = Example> {
    let widths = proptest::collection::vec(1_usize..70, 1..4);
    (widths, 1_usize..75, 1_usize..4).prop_flat_map(|(widths, n_cells, n_conditions)| {
        let count = || prop_oneof![6 => Just(0.0_f32), 3 => (1_u16..9).prop_map(f32::from)];
        let values: Vec<_> = widths.iter().map(|width| proptest::collection::vec(count(), n_cells * width)).collect();
        let conditions = proptest::collection::vec(0..n_conditions as i64, n_cells);
        let lacks = proptest::collection::vec(0_u8..6, n_cells);
        (config(widths.len() - 1), values, conditions, lacks).prop_map(
            move |(config, mut values, conditions, lacks)| {
                for (cell, &lacks) in lacks.iter().enumerate() {
                    let of = |m: usize| cell * widths[m]..(cell + 1) * widths[m];
                    // The total of genes is that of all counts, and autograd divides by it.
                    values[0][cell * widths[0]] += 1.0;
                    if widths.len() > 1 {
                        let first_is_free = config.losses[1..].iter().all(|&loss| loss == ModalityLoss::Mse);
                        match lacks {
                            0 if first_is_free => values[0][of(0)].fill(0.0),
                            1 => values[1][of(1)].fill(0.0),
                            // Its encoder is left out, and in the current release it is compared all the same.
                            2 if config.losses[1] == ModalityLoss::Mse => {
                                values[1][of(1)].iter_mut().for_each(|value| *value = -*value);
                            }
                            _ => {}
                        }
                    }
                }
                let widths = widths.clone();
                Example { config, values, widths, conditions, n_conditions }
            },
        )
    })
}

fn module(
    config: &MultigrateConfig,
    (widths, n_conditions): (&[usize], usize),
    trainable: Trainable,
) -> MultigrateModule {
    let add = |registry: Registry, (name, &width): (&Name, &usize)| {
        let names = (0..width).map(|at| format!("feature {at}")).collect();
        let panel = Panel { names, values: crate::data::Values::Finite, may_lack: true };
        registry.with(name.as_str(), Encoding::Matrix(panel))
    };
    let registry = config.modalities.iter().zip(&widths[1..]).fold(Registry::default(), add);
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(n_conditions), trainable, [7; 32], Device::Cpu);
    MultigrateModule::new(config.clone(), &registry, widths[0], builder).unwrap()
}

fn with_values<'a>(dataset: Dataset<'a>, values: &[Vec<f32>], widths: &[usize]) -> Dataset<'a> {
    let n_cells = dataset.n_cells();
    let matrix = |(values, &width): (&Vec<f32>, &usize)| Csr::from_dense(n_cells, width, values).unwrap();
    let fields = values.iter().zip(widths).skip(1).map(matrix).map(Encoded::Matrix).collect();
    Dataset { fields, ..dataset }
}

fn compare(example: &Example, mode: Mode, trainable: Trainable) {
    let Example { config, values, widths, n_conditions, .. } = example;
    let module = module(config, (widths, *n_conditions), trainable);
    let counts = Csr::from_dense(example.conditions.len(), widths[0], &values[0]).unwrap();
    let dataset = with_values(dataset(&counts, example.conditions.clone()), values, widths);
    compare_unlabelled(&module, Some(Likelihood::Nb), &dataset, mode);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn surgery_has_the_gradients_of_autograd(mut example in example()) {
        tch::set_num_threads(1);
        // Rows of which nothing hears have no gradient.
        example.config.condition_decoders |= !example.config.condition_encoders;
        compare(&example, Mode::Evaluation, Trainable::Conditions);
    }

    #[test]
    fn training_has_the_gradients_of_autograd(mut example in example()) {
        tch::set_num_threads(1);
        example.config.condition_decoders |= !example.config.condition_encoders;
        if example.config.normalization == Normalization::Batch {
            example.config.normalization = Normalization::Layer;
        }
        compare(&example, Mode::Training, Trainable::Everything);
    }

    #[test]
    fn posteriors_are_those_of_autograd(example in example()) {
        tch::set_num_threads(1);
        let Example { config, values, widths, conditions, n_conditions } = &example;
        let module = module(config, (widths, *n_conditions), Trainable::Nothing);
        let n_cells = conditions.len();
        let counts = Csr::from_dense(n_cells, widths[0], &values[0]).unwrap();
        let dataset = with_values(dataset(&counts, conditions.clone()), values, widths);
        let cells: Vec<usize> = (0..n_cells).collect();
        let mut pass = Pass { mode: Mode::Evaluation, noise: &mut SeededNoise::new([1; 32]) };
        let expected = module.posterior(&dataset.minibatch(&cells, Device::Cpu), &mut pass);
        for moments in [Moments::Mean, Moments::MeanAndVariance] {
            let mut fast = Autoencoder::new(&module, &dataset, Purpose::Embed(moments), &|_| false).unwrap();
            let (mean, var) = fast.embed();
            for (found, expected) in [(mean, &expected.mean), (var, &expected.var)] {
                let off = (Tensor::from_slice(&found).view_as(expected) - expected).abs().max().double_value(&[]);
                let largest = expected.abs().max().double_value(&[]);
                prop_assert!(off <= 2e-5 * (1.0 + largest), "off by {off}, largest {largest}");
            }
        }
    }
}

#[test]
fn a_step_allocates_nothing() {
    let (n_cells, n_genes) = (90, 40);
    let counts = some_counts(n_cells, n_genes);
    let values = [vec![], some_counts(n_cells, 9).to_dense()];
    let cells = dataset(&counts, (0..n_cells as i64).map(|cell| cell % 2).collect());
    let cells = with_values(cells, &values, &[n_genes, 9]);
    let losses = vec![ModalityLoss::Nb, ModalityLoss::Mse];
    let config = MultigrateConfig { modalities: names(1), losses, ..MultigrateConfig::default() };
    check_allocations(|trainable| module(&config, (&[n_genes, 9], 2), trainable), &cells, 0);
}

#[test]
fn what_the_kernels_do_not_know_is_said() {
    let refused = |config: MultigrateConfig| module(&config, (&[5], 2), Trainable::Nothing).train_spec().err();
    let plain = MultigrateConfig { losses: vec![ModalityLoss::Nb], ..MultigrateConfig::default() };
    assert_eq!(refused(plain.clone()), None);
    let shares = MultigrateConfig { losses: vec![ModalityLoss::Bce], ..plain };
    assert!(refused(shares).unwrap().to_string().contains("cross entropy"));
}
