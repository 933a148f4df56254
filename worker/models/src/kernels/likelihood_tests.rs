//! Values and gradients against libtorch's autograd in double precision, on random rows and on the worst ones.

use proptest::prelude::*;
use tch::{Kind, Tensor};

use super::*;
use crate::{
    distributions::{CountParameters, Likelihood},
    kernels::Level,
};

/// One cell.
#[derive(Clone, Debug)]
struct Example {
    counts: Vec<f32>,
    logits: Vec<f32>,
    log_r: Vec<f32>,
    dropout: Vec<f32>,
}

/// Value and gradients by logits, log dispersion and dropout logits.
struct Result {
    value: f64,
    gradients: [Vec<f64>; 3],
}

const KINDS: [(Counts, Likelihood); 3] = [
    (Counts::NegativeBinomial, Likelihood::Nb),
    (Counts::ZeroInflated, Likelihood::Zinb),
    (Counts::Poisson, Likelihood::Poisson),
];

fn autograd(example: &Example, likelihood: Likelihood) -> Result {
    let leaf = |values: &[f32]| Tensor::from_slice(values).to_kind(Kind::Double).set_requires_grad(true);
    let (logits, log_r, dropout) = (leaf(&example.logits), leaf(&example.log_r), leaf(&example.dropout));
    let x = Tensor::from_slice(&example.counts).to_kind(Kind::Double);
    let parameters = CountParameters {
        rate: logits.softmax(-1, Kind::Double) * x.sum(Kind::Double),
        r: Some(log_r.exp()),
        dropout: Some(dropout.shallow_clone()),
    };
    let value = parameters.log_prob(likelihood, &x).sum(Kind::Double);
    value.backward();
    let gradient = |leaf: &Tensor| {
        let gradient = leaf.grad();
        if gradient.defined() { Vec::try_from(gradient).unwrap() } else { vec![0.0; example.counts.len()] }
    };
    Result { value: value.double_value(&[]), gradients: [gradient(&logits), gradient(&log_r), gradient(&dropout)] }
}

/// The kernel, with dispersions that train (`true`) or are constant.
fn kernel_of(level: Level, example: &Example, kind: Counts, trains: bool) -> Result {
    let n_genes = example.counts.len();
    let mut dispersion = Dispersion::new(n_genes);
    set_dispersion(level, &pad(&example.log_r), &mut dispersion);
    let (genes, counts): (Vec<u32>, Vec<f32>) =
        (0..).zip(&example.counts).filter(|(_, count)| **count > 0.0).map(|(gene, &count)| (gene, count)).unzip();
    let (mut logits, mut dropout) = (pad(&example.logits), pad(&example.dropout));
    let (mut of_log_r, mut scratch) = (pad(&vec![0.0; n_genes]), Scratch::new(n_genes));
    let mut wanted = (trains && kind != Counts::Poisson).then_some(&mut of_log_r[..]);
    let found = row(
        level,
        kind,
        Row {
            logits: &mut logits,
            dropout: &mut dropout,
            n_genes,
            genes: &genes,
            counts: &counts,
            total: counts.iter().sum(),
            dispersion: &dispersion,
            scale: 1.0,
            of_log_r: wanted.as_deref_mut(),
        },
        &mut scratch,
    );
    let found = f64::from(found) + f64::from(finish(level, &dispersion, 1.0, wanted, &mut scratch));
    assert!(scratch.dense.iter().all(|&x| x == 0.0), "the next row would see these counts");
    let with_theta = (!trains && kind != Counts::Poisson).then_some(&dispersion);
    let value = found + constants(level, &genes, &counts, with_theta);
    let numbers = |values: &[f32]| values[..n_genes].iter().map(|&v| f64::from(v)).collect();
    Result { value, gradients: [numbers(&logits), numbers(&of_log_r), numbers(&dropout)] }
}

fn pad(values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    values.resize(padded(values.len()), 0.0);
    values
}

/// Errors are measured against the largest term that a number is a sum of.
fn compare(example: &Example, kind: Counts, found: &Result, exact: &Result, what: &str) {
    let total: f64 = example.counts.iter().map(|&x| f64::from(x)).sum();
    let largest = example.log_r.iter().map(|&r| f64::from(r).exp()).fold(1.0, f64::max);
    let bound = 3e-6 * (exact.value.abs() + 20.0 * total + example.counts.len() as f64) + 1e-5;
    let off = (found.value - exact.value).abs();
    assert!(off <= bound, "{what} {kind:?}: the value {} is off by {off}, expected {}", found.value, exact.value);
    let names = ["logits", "log_r", "dropout"];
    for ((name, found), exact) in names.iter().zip(&found.gradients).zip(&exact.gradients) {
        if exact.iter().any(|gradient| gradient.is_nan()) {
            // Autograd divides 0 by 0 where a cell without counts has rates of 0; there is nothing to learn from it.
            assert!(total == 0.0 && found.iter().all(|&gradient| gradient == 0.0), "{what} {kind:?}: {found:?}");
            continue;
        }
        if *name == "dropout" && kind != Counts::ZeroInflated || *name == "log_r" && found.iter().all(|&g| g == 0.0) {
            continue;
        }
        for (gene, (found, exact)) in found.iter().zip(exact).enumerate() {
            let x = f64::from(example.counts[gene]);
            // digamma(x + theta) - digamma(theta) is a difference of logarithms: its error is theirs, times theta.
            let terms = if *name == "log_r" {
                20.0 * largest.min(1.0 + f64::from(example.log_r[gene]).exp()) + x
            } else {
                total
            };
            let off = (found - exact).abs();
            let bound = 2e-6 * (terms + exact.abs() + 1.0);
            assert!(
                off <= bound,
                "{what} {kind:?}: gradient by {name} of gene {gene} is {found}, expected {exact} ({bound:e})"
            );
        }
    }
}

fn check(example: &Example, what: &str) {
    for (kind, likelihood) in KINDS {
        let exact = autograd(example, likelihood);
        for level in Level::available() {
            for trains in [true, false] {
                compare(example, kind, &kernel_of(level, example, kind, trains), &exact, what);
            }
        }
    }
}

fn example(n_genes: usize) -> impl Strategy<Value = Example> {
    let count =
        prop_oneof![8 => Just(0.0_f32), 4 => (1_u16..12).prop_map(f32::from), 1 => (12_u16..3000).prop_map(f32::from)];
    let numbers = |range: std::ops::Range<f32>| proptest::collection::vec(range, n_genes);
    (proptest::collection::vec(count, n_genes), numbers(-6.0..6.0), numbers(-4.0..5.0), numbers(-8.0..8.0))
        .prop_map(|(counts, logits, log_r, dropout)| Example { counts, logits, log_r, dropout })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn rows_of_any_length_have_the_values_and_gradients_of_autograd(
        example in (1_usize..80).prop_flat_map(example),
    ) {
        check(&example, "random");
    }

    #[test]
    fn bits_do_not_depend_on_the_instruction_set(example in (1_usize..80).prop_flat_map(example)) {
        for (kind, _) in KINDS {
            let bits = |level| {
                let Result { value, gradients } = kernel_of(level, &example, kind, true);
                (value.to_bits(), gradients.map(|g| g.iter().map(|v| v.to_bits()).collect::<Vec<_>>()))
            };
            let first = bits(Level::best());
            for level in Level::available() {
                prop_assert_eq!(&bits(level), &first);
            }
        }
    }
}

#[test]
fn extreme_rows_have_the_values_and_gradients_of_autograd() {
    let n = 37;
    let logits: Vec<f32> = (0..n).map(|gene| (gene as f32 * 0.7).sin() * 3.0).collect();
    let sparse = |x: f32| (0..n).map(|gene| if gene % 5 == 0 { x } else { 0.0 }).collect::<Vec<f32>>();
    let plain = Example { counts: sparse(2.0), logits, log_r: vec![0.3; n], dropout: vec![-0.5; n] };
    check(&Example { counts: vec![0.0; n], ..plain.clone() }, "empty");
    check(&Example { counts: sparse(1e5), ..plain.clone() }, "counts of 100,000");
    check(&Example { counts: vec![3.0; n], ..plain.clone() }, "dense");
    check(&Example { counts: sparse(2.5), ..plain.clone() }, "not whole");
    check(&Example { log_r: vec![-11.0; n], ..plain.clone() }, "dispersions near 0");
    check(&Example { dropout: vec![40.0; n], ..plain.clone() }, "certain zeros");
    check(&Example { dropout: vec![-40.0; n], ..plain.clone() }, "no extra zeros");
    let peaked = (0..n).map(|gene| if gene == 3 { 60.0 } else { 0.0 }).collect();
    check(&Example { logits: peaked, ..plain }, "one gene has it all");
}

#[test]
fn a_huge_dispersion_is_poisson() {
    let n = 20;
    let counts: Vec<f32> = (0..n).map(|gene| (gene % 4) as f32).collect();
    let logits = vec![0.0; n];
    let example = Example { counts, logits, log_r: vec![16.0; n], dropout: vec![0.0; n] };
    let nb = kernel_of(Level::best(), &example, Counts::NegativeBinomial, false);
    let poisson = kernel_of(Level::best(), &example, Counts::Poisson, false);
    for (nb, poisson) in nb.gradients[0].iter().zip(&poisson.gradients[0]) {
        assert!((nb - poisson).abs() < 1e-5, "{nb} is not {poisson}");
    }
}

#[test]
fn a_logit_that_is_no_number_is_not_hidden() {
    let example =
        Example { counts: vec![1.0, 0.0], logits: vec![f32::NAN, 0.0], log_r: vec![0.0; 2], dropout: vec![0.0; 2] };
    for (kind, _) in KINDS {
        assert!(kernel_of(Level::best(), &example, kind, false).value.is_nan());
    }
}
