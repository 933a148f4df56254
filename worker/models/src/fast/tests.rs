//! The kernels against autograd, on networks of random options and shapes.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    aggregate::Aggregate,
    data::{Dataset, Minibatch, Registry},
    distributions::Likelihood,
    model::{Embedder as _, Module},
    nn::{Builder, ConditionSource, Mode, Noise, Pass, Role, SeededNoise, Source, Trainable},
    train::{AdamOptions, Decay},
    zoo::{
        family::Norms,
        scvi::{BatchNormAffine, Dispersion, ScviConfig, ScviModule},
    },
};

#[derive(Clone, Debug)]
struct Example {
    config: ScviConfig,
    counts: Vec<f32>,
    conditions: Vec<i64>,
    n_conditions: usize,
    n_genes: usize,
}

pub(super) fn norms() -> impl Strategy<Value = Norms> {
    prop_oneof![Just(Norms::Both), Just(Norms::None), Just(Norms::Encoder), Just(Norms::Decoder)]
}

fn config() -> impl Strategy<Value = ScviConfig> {
    let likelihood = prop_oneof![Just(Likelihood::Nb), Just(Likelihood::Zinb), Just(Likelihood::Poisson)];
    let dispersion = prop_oneof![Just(Dispersion::Gene), Just(Dispersion::GeneBatch)];
    let sizes = (1_usize..50, 1_usize..12, 1_usize..4);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (sizes, likelihood, dispersion, norms(), norms(), switches).prop_map(
        |((n_hidden, n_latent, n_layers), gene_likelihood, dispersion, layer_norm, batch_norm, switches)| ScviConfig {
            n_hidden,
            n_latent,
            n_layers,
            gene_likelihood,
            dispersion,
            use_layer_norm: layer_norm,
            use_batch_norm: batch_norm,
            encode_covariates: switches.0,
            deeply_inject_covariates: switches.1,
            // Raw counts through no norm leave rates so near 0 that autograd has few bits of their logarithms left; the kernel has them all.
            log_variational: switches.2 || gene_likelihood == Likelihood::Poisson,
            dropout_rate: 0.3,
            batch_norm_affine: if switches.3 { BatchNormAffine::Conditions } else { BatchNormAffine::Shared },
            ..ScviConfig::default()
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
            // An empty cell makes autograd divide 0 by 0 under Poisson; the kernels' own tests have it.
            (0..n_cells).for_each(|cell| counts[cell * n_genes] += 1.0);
            Example { config, counts, conditions, n_conditions, n_genes }
        })
    })
}

/// Cells of which counts and conditions are known.
pub(super) fn dataset(counts: &Csr, conditions: Vec<i64>) -> Dataset<'_> {
    Dataset::new(counts, conditions)
}

/// Compares loss and gradients of one minibatch of all cells.
fn compare(example: &Example, mode: Mode, trainable: Trainable) {
    let Example { config, n_conditions, n_genes, .. } = example;
    let n_cells = example.conditions.len();
    let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(*n_conditions), trainable, [7; 32], Device::Cpu);
    let module = ScviModule::new(config.clone(), &Registry::default(), *n_genes, builder).unwrap();
    if mode == Mode::Evaluation {
        set_offsets(&module);
    }
    let counts = Csr::from_dense(n_cells, *n_genes, &example.counts).unwrap();
    let dataset = dataset(&counts, example.conditions.clone());
    compare_unlabelled(&module, Some(config.gene_likelihood), &dataset, mode);
}

/// Gives conditions something to add to batch norms, some of it so that nothing is left of a scale.
fn set_offsets(module: &dyn Module) {
    for (_, offset) in module.weights().iter().filter(|(_, weight)| weight.role == Role::ConditionOffset) {
        let numbers =
            (Tensor::arange(offset.tensor.numel() as i64, (Kind::Float, Device::Cpu)).sin() * 2.0).round() / 2.0;
        tch::no_grad(|| offset.tensor.shallow_clone().copy_(&numbers.view_as(&offset.tensor)));
    }
}

/// What [`compare_modules`] does, of a module that learns no labels, over all cells from the last to the first.
pub(super) fn compare_unlabelled(
    module: &dyn Module,
    likelihood: Option<Likelihood>,
    dataset: &Dataset<'_>,
    mode: Mode,
) {
    let cells: Vec<usize> = (0..dataset.n_cells()).rev().collect();
    compare_modules(module, likelihood, dataset, (&cells, &[]), mode, |_, _| unreachable!("no cell is labelled"));
}

/// Compares loss and gradients of a module, of a minibatch and of labelled cells.
pub(super) fn compare_modules(
    module: &dyn Module,
    likelihood: Option<Likelihood>,
    dataset: &Dataset<'_>,
    (cells, labelled): (&[usize], &[usize]),
    mode: Mode,
    label_loss: impl Fn(&Minibatch, &mut Pass<'_>) -> Tensor,
) {
    let n_cells = cells.len();
    let trains = |name: &str| module.weights().get(name).is_some_and(Tensor::requires_grad);
    let mut fast = Autoencoder::new(module, dataset, Purpose::Train(mode, n_cells), &trains).unwrap();
    let (terms, gradients) = fast.gradients(cells, labelled, 0.7, &mut SeededNoise::new([3; 32]));

    let by_autograd = || {
        let mut pass = Pass { mode, noise: &mut SeededNoise::new([3; 32]) };
        let mut terms = module.loss(&dataset.minibatch(cells, Device::Cpu), 0.7, &mut pass);
        if !labelled.is_empty() {
            terms.loss += label_loss(&dataset.minibatch(labelled, Device::Cpu), &mut pass);
        }
        with_gradients(module, &terms.loss)
    };
    judge((module, likelihood, mode), (terms.loss / n_cells as f64, &gradients), by_autograd);
}

/// Compares a loss and its gradients with what autograd says.
fn judge(
    (module, likelihood, mode): (&dyn Module, Option<Likelihood>, Mode),
    (ours, gradients): (f64, &BTreeMap<String, Tensor>),
    by_autograd: impl Fn() -> BTreeMap<String, Tensor>,
) {
    let expected = by_autograd();
    assert!(expected.len() > 1);
    let theirs = expected[LOSS].double_value(&[]);
    if !theirs.is_finite() {
        // Without norms a deep network can leave the finite numbers; the trainer ends with an error then. The kernel of Poisson keeps the
        // logarithm of a rate that underflows.
        let is_poisson = likelihood == Some(Likelihood::Poisson);
        assert!(!ours.is_finite() || is_poisson, "the loss is {ours}, expected {theirs}");
        return;
    }
    let is_off = |name: &str, by: f64| {
        if name == LOSS {
            // Without norms and logarithms a variance can be e^60, which has sixty times the rounding error of its exponent.
            let relative = if theirs.abs() > 1e6 { 1e-3 } else { 2e-5 };
            return by.is_nan() || by > relative * (1.0 + theirs.abs());
        }
        let largest = expected[name].abs().max().double_value(&[]);
        // Single precision on both sides: errors are those of the largest terms, not of what is left of their sum. A rate that is no longer
        // above 0 makes autograd divide 0 by 0.
        !largest.is_nan() && (by.is_nan() || by > 2e-4 * largest + 2e-6 * (1.0 + theirs.abs()))
    };
    let mut off = BTreeMap::from([(LOSS, (ours - theirs).abs())]);
    off.extend(gradients.iter().map(|(name, found)| (name.as_str(), largest_step(found, &expected[name]))));
    assert_eq!(off.len(), expected.len());
    off.retain(|name, by| is_off(name, *by));
    if off.is_empty() {
        return;
    }
    let undecided = rounding_decides(module, &expected, by_autograd);
    off.retain(|name, by| is_off(name, *by - 2.0 * undecided[*name]));
    assert!(off.is_empty(), "{mode:?}: off by {off:?}, where rounding moves {undecided:?}");
}

/// Compares loss and gradients of surgery that draws latent states to a mixture.
fn compare_drawn(example: &Example, aggregate: &Aggregate) {
    let Example { config, n_conditions, n_genes, .. } = example;
    let n_cells = example.conditions.len();
    let (mode, source) = (Mode::Evaluation, ConditionSource::Fresh(*n_conditions));
    let builder = Builder::new(Source::Fresh, source, Trainable::Conditions, [7; 32], Device::Cpu);
    let module = ScviModule::new(config.clone(), &Registry::default(), *n_genes, builder).unwrap();
    let counts = Csr::from_dense(n_cells, *n_genes, &example.counts).unwrap();
    let dataset = dataset(&counts, example.conditions.clone());
    let trains = |name: &str| module.weights().get(name).is_some_and(Tensor::requires_grad);
    let cells: Vec<usize> = (0..n_cells).collect();
    let mut fast = Autoencoder::new(&module, &dataset, Purpose::Train(mode, n_cells), &trains).unwrap();
    fast.draw_to(aggregate, WEIGHT);
    let (terms, gradients) = fast.gradients(&cells, &[], 0.7, &mut SeededNoise::new([3; 32]));
    let by_autograd = || {
        let mut pass = Pass { mode, noise: &mut SeededNoise::new([3; 32]) };
        let minibatch = dataset.minibatch(&cells, Device::Cpu);
        let loss = module.loss(&minibatch, 0.7, &mut pass).loss;
        let divergence = aggregate.divergence(&module.posterior(&minibatch, &mut pass)).mean(Kind::Float);
        with_gradients(&module, &(loss + divergence * WEIGHT))
    };
    judge((&module, Some(config.gene_likelihood), mode), (terms.loss / n_cells as f64, &gradients), by_autograd);
}

/// How much the mixture weighs.
const WEIGHT: f64 = 10.0;

/// Where the loss stands among gradients by name.
const LOSS: &str = "the loss";

fn largest_step(from: &Tensor, to: &Tensor) -> f64 {
    (from - to).abs().max().double_value(&[])
}

/// A loss, and its gradients by name.
fn with_gradients(module: &dyn Module, loss: &Tensor) -> BTreeMap<String, Tensor> {
    let trained = || module.weights().iter().filter(|(_, weight)| weight.tensor.requires_grad());
    trained().for_each(|(_, weight)| weight.tensor.shallow_clone().zero_grad());
    loss.backward();
    let gradients = trained().map(|(name, weight)| (name.to_owned(), weight.tensor.grad().copy()));
    gradients.chain([(LOSS.to_owned(), loss.detach())]).collect()
}

/// How far autograd's own loss and gradients move, by name, where every weight is moved by some units of its last place.
///
/// Next to nothing where they are well determined. A unit that stands at the kink of its ReLU falls on one side or the other, and a norm of
/// values that are all but equal magnifies their rounding: what comes of it is as good as anything else within these steps.
fn rounding_decides(
    module: &dyn Module,
    expected: &BTreeMap<String, Tensor>,
    by_autograd: impl Fn() -> BTreeMap<String, Tensor>,
) -> BTreeMap<String, f64> {
    const STEP: f64 = 1e-5;
    let mut noise = SeededNoise::new([5; 32]);
    let mut steps: BTreeMap<String, f64> = expected.keys().map(|name| (name.clone(), 0.0)).collect();
    for _ in 0..8 {
        let weights = module.weights().iter().map(|(_, weight)| weight.tensor.shallow_clone());
        let mut moved: Vec<(Tensor, Tensor)> =
            weights.filter(|tensor| tensor.kind() == Kind::Float).map(|tensor| (tensor.copy(), tensor)).collect();
        tch::no_grad(|| {
            for (_, tensor) in &mut moved {
                let size = tensor.size();
                *tensor *= 1.0 + STEP * noise.normal("a step", &size, Device::Cpu);
            }
        });
        for (name, there) in by_autograd() {
            let step = largest_step(&there, &expected[&name]);
            let largest = steps.get_mut(&name).unwrap();
            *largest = largest.max(step);
        }
        tch::no_grad(|| moved.iter_mut().for_each(|(kept, tensor)| tensor.copy_(kept)));
    }
    steps
}

#[test]
fn a_step_allocates_nothing() {
    let (n_cells, n_genes) = (90, 40);
    let counts = some_counts(n_cells, n_genes);
    let dataset = dataset(&counts, (0..n_cells as i64).map(|cell| cell % 2).collect());
    let module = |trainable| {
        let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(2), trainable, [7; 32], Device::Cpu);
        ScviModule::new(ScviConfig::for_surgery(), &Registry::default(), n_genes, builder).unwrap()
    };
    check_allocations(module, &dataset, 0);
}

/// Counts of which one in seven is above 0.
pub(super) fn some_counts(n_cells: usize, n_genes: usize) -> Csr {
    let count = |i: usize| if i.is_multiple_of(7) { (i % 5 + 1) as f32 } else { 0.0 };
    Csr::from_dense(n_cells, n_genes, &(0..n_cells * n_genes).map(count).collect::<Vec<_>>()).unwrap()
}

/// Takes steps of training and of surgery in minibatches of 64 with so many labelled cells, and counts allocations after the first few.
pub(super) fn check_allocations<M: Module>(
    module: impl Fn(Trainable) -> M + Sync,
    dataset: &Dataset<'_>,
    n_labelled: usize,
) {
    // A pool of one thread does all the work here, so that all that is allocated is counted.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
    for (mode, trainable) in [(Mode::Training, Trainable::Everything), (Mode::Evaluation, Trainable::Conditions)] {
        pool.install(|| {
            let module = module(trainable);
            let trains = |name: &str| module.weights().get(name).is_some_and(Tensor::requires_grad);
            let mut fast = Autoencoder::new(&module, dataset, Purpose::Train(mode, 64), &trains).unwrap();
            let options = AdamOptions { rate: 1e-3, eps: 0.01, weight_decay: 0.0, decay: Decay::L2 };
            let mut noise = SeededNoise::new([3; 32]);
            let cells: Vec<usize> = (0..dataset.n_cells()).collect();
            let mut epoch = || {
                cells.chunks(64).for_each(|minibatch| {
                    let terms = fast.step(minibatch, &cells[..n_labelled], 0.5, &mut noise, &[options]);
                    assert!(terms.loss.is_finite());
                });
            };
            assert!(allocation_counter::measure(&mut epoch).count_total > 0, "the first steps make room");
            assert_eq!(allocation_counter::measure(&mut epoch).count_total, 0, "{mode:?}");
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn surgery_has_the_gradients_of_autograd(example in example()) {
        tch::set_num_threads(1);
        compare(&example, Mode::Evaluation, Trainable::Conditions);
    }

    #[test]
    fn drawing_to_the_reference_has_the_gradients_of_autograd(
        mut example in example(),
        numbers in proptest::collection::vec((-2.0_f32..2.0, 0.05_f32..2.0), 12 * 50),
        n_components in 2_usize..50,
    ) {
        tch::set_num_threads(1);
        // The encoder's columns are what is drawn.
        example.config.encode_covariates = true;
        let n_latent = example.config.n_latent;
        let table = numbers[..n_components * n_latent].iter().copied();
        let (means, vars): (Vec<f32>, Vec<f32>) = table.unzip();
        compare_drawn(&example, &Aggregate::of_numbers(n_latent, means, vars));
    }

    #[test]
    fn training_has_the_gradients_of_autograd(mut example in example()) {
        tch::set_num_threads(1);
        example.config.use_batch_norm = Norms::None;
        compare(&example, Mode::Training, Trainable::Everything);
    }
}

#[test]
fn what_the_kernels_do_not_know_is_said() {
    let refused = |config: ScviConfig, mode| {
        let builder =
            Builder::new(Source::Fresh, ConditionSource::Fresh(1), Trainable::Everything, [0; 32], Device::Cpu);
        let module = ScviModule::new(config, &Registry::default(), 3, builder).unwrap();
        let counts = Csr::zeros(2, 3);
        let dataset = dataset(&counts, vec![0; 2]);
        let trains = |name: &str| module.weights().get(name).is_some_and(Tensor::requires_grad);
        let refused = Autoencoder::new(&module, &dataset, Purpose::Train(mode, 2), &trains);
        refused.err().map(|why| why.to_string())
    };
    let plain = ScviConfig::for_surgery();
    assert_eq!(refused(plain.clone(), Mode::Training), None);
    let batch_norm = ScviConfig { use_batch_norm: Norms::Encoder, ..plain.clone() };
    assert_eq!(refused(batch_norm, Mode::Training), None);
    let normal = ScviConfig { gene_likelihood: Likelihood::Normal, ..plain.clone() };
    assert!(refused(normal, Mode::Training).unwrap().contains("normal"));
    let latent = ScviConfig { use_observed_lib_size: false, ..plain };
    assert!(refused(latent, Mode::Training).unwrap().contains("library"));
}
