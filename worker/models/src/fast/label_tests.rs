//! The networks of labels against autograd, on random options and shapes.

use archipelago_anndata::Csr;
use proptest::prelude::*;
use tch::Device;

use super::tests::{check_allocations, compare_modules, dataset, norms, some_counts};
use crate::{
    data::{Dataset, Encoded, Encoding, LABELS, LabelNames, Registry},
    nn::{Builder, ConditionSource, Mode, Source, Trainable},
    zoo::{
        family::Norms,
        scanvi::{ClassifierParameters, LabelOptions, ScanviConfig, ScanviModule},
        scvi::ScviConfig,
    },
};

#[derive(Clone, Debug)]
struct Example {
    config: ScanviConfig,
    counts: Vec<f32>,
    labels: Vec<i64>,
    n_labels: usize,
    n_labelled: usize,
}

const N_GENES: usize = 20;

fn config() -> impl Strategy<Value = ScanviConfig> {
    let sizes = (1_usize..50, 1_usize..12, 1_usize..3, 1_usize..3);
    let switches = (any::<bool>(), any::<bool>());
    (sizes, norms(), norms(), switches).prop_map(|(sizes, layer_norm, batch_norm, (linear, logits))| {
        let (n_hidden, n_latent, n_layers, classifier_layers) = sizes;
        let scvi = ScviConfig {
            n_hidden,
            n_latent,
            n_layers,
            use_layer_norm: layer_norm,
            use_batch_norm: batch_norm,
            encode_covariates: true,
            dropout_rate: 0.3,
            ..ScviConfig::for_surgery()
        };
        let own = LabelOptions {
            linear_classifier: linear,
            classifier_parameters: ClassifierParameters {
                n_layers: Some(classifier_layers),
                dropout_rate: Some(0.2),
                logits,
                ..ClassifierParameters::default()
            },
            ..LabelOptions::default()
        };
        ScanviConfig { scvi, own }
    })
}

fn example() -> impl Strategy<Value = Example> {
    (config(), 1_usize..75, 1_usize..40, 0_usize..40).prop_flat_map(|(config, n_cells, n_labels, n_labelled)| {
        let count = prop_oneof![3 => Just(0.0_f32), 2 => (1_u16..30).prop_map(f32::from)];
        let counts = proptest::collection::vec(count, n_cells * N_GENES);
        let labels = proptest::collection::vec(0..n_labels as i64, n_cells);
        let n_labelled = n_labelled.min(n_cells);
        (Just(config), counts, labels).prop_map(move |(config, mut counts, labels)| {
            (0..n_cells).for_each(|cell| counts[cell * N_GENES] += 1.0);
            Example { config, counts, labels, n_labels, n_labelled }
        })
    })
}

/// For two conditions.
fn module(config: ScanviConfig, n_labels: usize, trainable: Trainable) -> ScanviModule {
    let names = (0..n_labels).map(|label| format!("label {label}")).collect();
    let labels = Encoding::Labels(LabelNames { names, unlabelled: None });
    let registry = Registry::default().with(LABELS, labels);
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(2), trainable, [7; 32], Device::Cpu);
    ScanviModule::new(config, &registry, N_GENES, builder).unwrap()
}

fn compare(example: &Example, mode: Mode, trainable: Trainable) {
    let n_cells = example.labels.len();
    let module = module(example.config.clone(), example.n_labels, trainable);
    let counts = Csr::from_dense(n_cells, N_GENES, &example.counts).unwrap();
    let conditions = (0..n_cells as i64).map(|cell| cell % 2).collect();
    let labels = Encoded::Codes { codes: example.labels.clone(), n: example.n_labels, new: vec![] };
    let dataset = Dataset { fields: vec![labels], ..dataset(&counts, conditions) };
    let cells: Vec<usize> = (0..n_cells).rev().collect();
    let cells = (&*cells, &cells[..example.n_labelled]);
    let likelihood = Some(example.config.scvi.gene_likelihood);
    compare_modules(&module, likelihood, &dataset, cells, mode, |cells, pass| module.label_loss(cells, pass));
}

#[test]
fn a_step_with_labels_allocates_nothing() {
    let n_cells = 90;
    let counts = some_counts(n_cells, N_GENES);
    let codes = |n: i64| (0..n_cells as i64).map(|cell| cell % n).collect();
    let labels = Encoded::Codes { codes: codes(3), n: 3, new: vec![] };
    let dataset = Dataset { fields: vec![labels], ..dataset(&counts, codes(2)) };
    let config = ScanviConfig { scvi: ScviConfig::for_surgery(), ..ScanviConfig::default() };
    check_allocations(|trainable| module(config.clone(), 3, trainable), &dataset, 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn surgery_with_labels_has_the_gradients_of_autograd(example in example()) {
        tch::set_num_threads(1);
        compare(&example, Mode::Evaluation, Trainable::Conditions);
    }

    #[test]
    fn training_with_labels_has_the_gradients_of_autograd(mut example in example()) {
        tch::set_num_threads(1);
        example.config.scvi.use_batch_norm = Norms::None;
        compare(&example, Mode::Training, Trainable::Everything);
    }
}
