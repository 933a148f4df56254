//! The kernels against autograd where the decoder is one map that is held to sets.

use archipelago_anndata::Csr;
use proptest::prelude::*;
use tch::Device;

use super::tests::{check_allocations, compare_unlabelled, dataset, some_counts};
use crate::{
    data::{Encoding, GENE_SETS, GeneSets, Registry},
    model::Module as _,
    nn::{Builder, ConditionSource, Mode, Source, Trainable},
    zoo::{
        expimap::{Configuration, ExpimapConfig, ExpimapModule, LastLayer},
        family::ReconLoss,
    },
};

#[derive(Clone, Debug)]
struct Example {
    config: ExpimapConfig,
    sets: Vec<Vec<bool>>,
    counts: Vec<f32>,
    conditions: Vec<i64>,
    n_conditions: usize,
}

impl Example {
    fn n_genes(&self) -> usize {
        self.sets[0].len()
    }
}

fn config() -> impl Strategy<Value = ExpimapConfig> {
    let of_values = [LastLayer::Identity, LastLayer::Softplus, LastLayer::Exp, LastLayer::Relu];
    let loss = prop_oneof![
        1 => Just((ReconLoss::Nb, LastLayer::Softmax)),
        1 => proptest::sample::select(of_values.to_vec()).prop_map(|last| (ReconLoss::Mse, last)),
    ];
    let hidden = proptest::collection::vec(1_usize..50, 1..3);
    (hidden, loss, any::<bool>(), any::<bool>(), any::<bool>(), 0.1_f64..1.0).prop_map(
        |(hidden_layer_sizes, (recon_loss, last), soft_mask, use_bn, use_ln, alpha_kl)| ExpimapConfig {
            hidden_layer_sizes,
            dr_rate: 0.3,
            recon_loss,
            decoder_last_layer: Some(last),
            soft_mask,
            use_bn,
            use_ln,
            alpha_kl,
            ..ExpimapConfig::default()
        },
    )
}

fn example() -> impl Strategy<Value = Example> {
    let sizes = (1_usize..75, 1_usize..300, 1_usize..40, 1_usize..4);
    (config(), sizes).prop_flat_map(|(config, (n_cells, n_genes, n_terms, n_conditions))| {
        let sets =
            proptest::collection::vec(proptest::collection::vec(proptest::bool::weighted(0.2), n_genes), n_terms);
        let count = prop_oneof![6 => Just(0.0_f32), 3 => (1_u16..9).prop_map(f32::from)];
        let counts = proptest::collection::vec(count, n_cells * n_genes);
        let conditions = proptest::collection::vec(0..n_conditions as i64, n_cells);
        (Just(config), sets, counts, conditions).prop_map(move |(config, sets, mut counts, conditions)| {
            (0..n_cells).for_each(|cell| counts[cell * n_genes] += 1.0);
            Example { config, sets, counts, conditions, n_conditions }
        })
    })
}

fn module(config: &ExpimapConfig, sets: &[Vec<bool>], n_conditions: usize, trainable: Trainable) -> ExpimapModule {
    let n_genes = sets[0].len();
    let members = |set: &Vec<bool>| (0..).zip(set).filter(|(_, is_member)| **is_member).map(|(gene, _)| gene).collect();
    let terms = (0..sets.len()).map(|at| format!("term {at}")).collect();
    let sets = GeneSets::new(terms, sets.iter().map(members).collect(), n_genes).unwrap();
    let registry = Registry::default().with(GENE_SETS, Encoding::GeneSets(sets));
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(n_conditions), trainable, [7; 32], Device::Cpu);
    let configuration = Configuration::new(config.clone(), None);
    ExpimapModule::new(&configuration, &registry, n_genes, builder).unwrap()
}

fn compare(example: &Example, mode: Mode, trainable: Trainable) {
    let n_cells = example.conditions.len();
    let module = module(&example.config, &example.sets, example.n_conditions, trainable);
    let counts = Csr::from_dense(n_cells, example.n_genes(), &example.counts).unwrap();
    let dataset = dataset(&counts, example.conditions.clone());
    module.prepare(&dataset, &[]).unwrap();
    let likelihood = example.config.recon_loss.likelihood();
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
    let sets: Vec<Vec<bool>> = (0..7).map(|set| (0..n_genes).map(|gene| gene % 7 == set).collect()).collect();
    check_allocations(|trainable| module(&ExpimapConfig::default(), &sets, 2, trainable), &dataset, 0);
}
