//! The kernels against autograd where vectors stand for conditions and points draw cells.

use archipelago_anndata::Csr;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, no_grad};

use super::tests::{check_allocations, compare_unlabelled, dataset, some_counts};
use crate::{
    data::{Dataset, Encoded, Encoding, LABELS, LabelNames, Registry},
    model::Module as _,
    nn::{Builder, ConditionSource, Mode, Source, Trainable},
    zoo::{
        family::ReconLoss,
        scpoli::{Injected, ScpoliConfig, ScpoliModule, prototypes::Drawing},
    },
};

#[derive(Clone, Debug)]
struct Example {
    config: ScpoliConfig,
    counts: Vec<f32>,
    conditions: Vec<i64>,
    n_conditions: usize,
    n_genes: usize,
    /// Of each cell; as many as there are types where it has none.
    types: Vec<i64>,
    n_types: usize,
    draws: Draws,
}

/// What draws cells.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Draws {
    Nothing,
    Types,
    TypesAndClusters,
}

fn config() -> impl Strategy<Value = ScpoliConfig> {
    let loss = prop_oneof![Just(ReconLoss::Nb), Just(ReconLoss::Zinb), Just(ReconLoss::Mse)];
    let injected = prop_oneof![Just(Injected::Both), Just(Injected::Encoder), Just(Injected::Decoder)];
    let sizes = (proptest::collection::vec(1_usize..50, 1..3), 1_usize..12, 1_usize..40);
    let prototypes = (0.1_f64..3.0, prop_oneof![Just(2.0), Just(1.0), Just(3.0)], 0.0_f64..2.0);
    (sizes, loss, injected, prototypes, any::<bool>(), any::<bool>()).prop_map(
        |((hidden, latent_dim, n_numbers), recon_loss, inject_condition, prototypes, use_bn, use_ln)| ScpoliConfig {
            hidden_layer_sizes: Some(hidden),
            latent_dim,
            embedding_dims: vec![n_numbers],
            dr_rate: 0.3,
            recon_loss,
            inject_condition,
            eta: prototypes.0,
            p_prototype_loss: prototypes.1,
            unlabeled_weight: prototypes.2,
            use_bn,
            use_ln,
            ..ScpoliConfig::default()
        },
    )
}

fn example() -> impl Strategy<Value = Example> {
    let draws = prop_oneof![Just(Draws::Nothing), Just(Draws::Types), Just(Draws::TypesAndClusters)];
    let sizes = (1_usize..75, 1_usize..70, 1_usize..4, 1_usize..5);
    (config(), draws, sizes).prop_flat_map(|(config, draws, (n_cells, n_genes, n_conditions, n_types))| {
        let count = prop_oneof![6 => Just(0.0_f32), 3 => (1_u16..9).prop_map(f32::from)];
        let counts = proptest::collection::vec(count, n_cells * n_genes);
        let conditions = proptest::collection::vec(0..n_conditions as i64, n_cells);
        let types = proptest::collection::vec(0..=n_types as i64, n_cells);
        (Just(config), counts, conditions, types).prop_map(move |(config, mut counts, conditions, types)| {
            (0..n_cells).for_each(|cell| counts[cell * n_genes] += 1.0);
            Example { config, counts, conditions, n_conditions, n_genes, types, n_types, draws }
        })
    })
}

fn module(
    config: &ScpoliConfig,
    (n_genes, n_conditions, n_types): (usize, usize, usize),
    trainable: Trainable,
) -> ScpoliModule {
    let names = (0..n_types).map(|at| format!("type {at}")).collect();
    let labels = Encoding::Labels(LabelNames { names, unlabelled: None });
    let registry = Registry::default().with(LABELS, labels);
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(n_conditions), trainable, [7; 32], Device::Cpu);
    ScpoliModule::new(config.clone(), &registry, n_genes, builder).unwrap()
}

/// Prototypes somewhere, of all types but the last where there are several.
fn draw(module: &ScpoliModule, n_types: usize, draws: Draws) {
    let n_latent = module.config().latent_dim as i64;
    let somewhere = |n: i64| (Tensor::arange(n * n_latent, (Kind::Float, Device::Cpu)) * 0.7).sin().view([n, n_latent]);
    let put = |name: &str, values: Tensor| no_grad(|| module.weights().require(name).0.shallow_clone().copy_(&values));
    let is_present: Vec<f32> = (0..n_types).map(|at| if at == 0 || at + 1 < n_types { 9.0 } else { 0.0 }).collect();
    put("prototypes.labeled.n", Tensor::from_slice(&is_present));
    put("prototypes.labeled.mean", somewhere(n_types as i64));
    let drawing = match draws {
        Draws::Nothing => None,
        Draws::Types => Some(Drawing { clusters: None }),
        Draws::TypesAndClusters => Some(Drawing { clusters: Some(somewhere(3) + 0.2) }),
    };
    module.prototypes().draw(drawing);
}

fn with_types<'a>(dataset: Dataset<'a>, types: &[i64], n: usize) -> Dataset<'a> {
    Dataset { fields: vec![Encoded::Codes { codes: types.to_vec(), n, new: vec![] }], ..dataset }
}

fn compare(example: &Example, mode: Mode, trainable: Trainable) {
    let Example { config, n_conditions, n_genes, n_types, .. } = example;
    let n_cells = example.conditions.len();
    let module = module(config, (*n_genes, *n_conditions, *n_types), trainable);
    draw(&module, *n_types, example.draws);
    let counts = Csr::from_dense(n_cells, *n_genes, &example.counts).unwrap();
    let dataset = with_types(dataset(&counts, example.conditions.clone()), &example.types, *n_types);
    let likelihood = config.recon_loss.likelihood();
    compare_unlabelled(&module, likelihood, &dataset, mode);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn surgery_has_the_gradients_of_autograd(mut example in example()) {
        tch::set_num_threads(1);
        // Nothing draws cells in exact surgery.
        example.draws = Draws::Nothing;
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
    let conditions = (0..n_cells as i64).map(|cell| cell % 2).collect();
    let types: Vec<i64> = (0..n_cells as i64).map(|cell| cell % 3).collect();
    let dataset = with_types(dataset(&counts, conditions), &types, 2);
    let module = |trainable| {
        let module = module(&ScpoliConfig::default(), (n_genes, 2, 2), trainable);
        draw(&module, 2, Draws::TypesAndClusters);
        module
    };
    check_allocations(module, &dataset, 0);
}
