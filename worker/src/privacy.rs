//! What noise on columns proves: the (ε, δ) of differential privacy, for one release and for all of them.
//!
//! # What it says
//! A release is clipped to a norm of `C` and gets Gaussian noise of standard deviation `σ` on every number. Whatever is changed about a
//! condition's cells (one cell, all cells of one person, all of them), it moves by `2C` at most, so that it is as hard to tell whether
//! it was changed as to tell a normal number of mean 0 from one of mean `μ = 2C / σ`. Where trained tensors and statistics leave
//! together, each clipped to `C`, they move by `2C√2`. Releases compose to the root of the sum of squares of their `μ`, whatever later
//! ones make of earlier ones: of one condition over tasks, which holds for whoever has cells in it alone where a
//! reference has one condition key, and of all conditions of a data set, which holds for whoever has cells in several.
//!
//! # What it does not say
//! It is about columns alone: figures, means, embeddings, parts and facts leave without noise. Which batches there are, how many cells
//! they have and that a task was declined is not hidden. The noise is made of the site's secret: who has that takes it off. Numbers are
//! 32-bit floats, whose last bits could tell something of what they are sums of.
//!
//! # Source
//! Dong, Roth & Su 2022, Gaussian differential privacy, for `μ` and its composition (corollary 3.3); Balle & Wang 2018, Improving the
//! Gaussian mechanism, theorem 8, for `δ(ε)`. Checked against `tests/golden/privacy/gaussian.json`.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use archipelago_common::{
    layout::{Axis, TensorKind},
    policy::SitePolicy,
};
use serde::{Deserialize, Serialize};

/// How well a release tells cells from others: `μ`, in millionths, rounded up. Whole numbers are the same before and after a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Loss(u64);

/// What many releases together tell: `μ`, and infinite where one of them had no noise.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
pub struct Composed(f64);

impl Loss {
    /// Of the columns of a key of an axis under a policy; none where they leave without noise, or may be of any size.
    pub fn of(policy: &SitePolicy, axis: &Axis) -> Option<Self> {
        let leaves = |kind: TensorKind| {
            axis.of_kind(kind).filter_map(|name| axis.tensors.get(name)).any(|owned| !owned.spec.shape.contains(&0))
        };
        let n_clipped = [TensorKind::Trained, TensorKind::Statistic].into_iter().filter(|kind| leaves(*kind)).count();
        match (n_clipped, policy.clip_norm) {
            (0, _) => Some(Self(0)),
            (_, Some(clip_norm)) if policy.noise_std > 0.0 => {
                let mu = 2.0 * clip_norm * (n_clipped as f64).sqrt() / policy.noise_std;
                Some(Self((mu * MILLION).ceil() as u64))
            }
            _ => None,
        }
    }

    /// `μ`.
    pub fn mu(self) -> f64 {
        self.0 as f64 / MILLION
    }
}

impl Composed {
    /// Of these releases; none is one without noise.
    pub fn of(losses: impl Iterator<Item = Option<Loss>>) -> Self {
        let square = |loss: Option<Loss>| loss.map_or(f64::INFINITY, |loss| loss.mu().powi(2));
        Self(losses.map(square).sum::<f64>().sqrt())
    }

    /// The same with these.
    #[must_use]
    pub fn and(self, losses: impl Iterator<Item = Loss>) -> Self {
        Self(self.0.hypot(Self::of(losses.map(Some)).0))
    }

    /// The least `ε` for which all that left is (ε, δ)-private; none where there is none.
    pub fn epsilon(self, delta: f64) -> Option<f64> {
        self.0.is_finite().then(|| epsilon_at(self.0, delta))
    }
}

/// The least `δ` for which noise of this `μ` is (ε, δ)-private: `Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ)`.
///
/// # Units  none; `mu` and `epsilon` are 0 or above
pub fn delta_at(mu: f64, epsilon: f64) -> f64 {
    if mu == 0.0 {
        return 0.0;
    }
    // Both terms are exp(−b²/2) times something that neither overflows nor vanishes: ε − a²/2 is −b²/2.
    let (a, b) = (mu / 2.0 + epsilon / mu, mu / 2.0 - epsilon / mu);
    let scale = 0.5 * (-b * b / 2.0).exp();
    let (of_a, of_b) = (erfcx(a * FRAC_1_SQRT_2), erfcx(b.abs() * FRAC_1_SQRT_2));
    let delta = if b <= 0.0 { scale * (of_b - of_a) } else { 1.0 - scale * (of_b + of_a) };
    delta.clamp(0.0, 1.0)
}

/// The least `ε` for which noise of this `μ` is (ε, δ)-private, from above.
pub fn epsilon_at(mu: f64, delta: f64) -> f64 {
    if delta_at(mu, 0.0) <= delta {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while delta_at(mu, high) > delta && high < f64::MAX / 4.0 {
        (low, high) = (high, 2.0 * high);
    }
    // Each step halves what is between the two; below the last bit it stays.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if delta_at(mu, middle) > delta { low = middle } else { high = middle }
    }
    high
}

/// `exp(x²) erfc(x)` for `x` of 0 or above.
///
/// # Source  Abramowitz & Stegun 7.1.6 (a series of positive terms) and 7.1.14 (a continued fraction)
fn erfcx(x: f64) -> f64 {
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > f64::EPSILON * sum {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return (x * x).exp() - 2.0 / PI.sqrt() * sum;
    }
    let fraction = (1..=FRACTIONS).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    1.0 / (PI.sqrt() * fraction)
}

const MILLION: f64 = 1e6;
/// At the least number that the fraction is used for, more of it changes the last bit.
const FRACTIONS: u32 = 200;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use archipelago_common::{
        layout::Owned,
        state_dict::{DType, TensorSpec},
    };
    use serde_json::Value;

    use super::*;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/golden/privacy/gaussian.json")).unwrap()
    }

    fn number(of: &Value, name: &str) -> f64 {
        of[name].as_f64().unwrap()
    }

    #[track_caller]
    fn check(what: &Value, found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance * expected.abs(), "{what}: found {found}, expected {expected}");
    }

    #[test]
    fn deltas_are_those_of_the_normal_distribution_at_sixty_digits() {
        let golden = golden();
        let cases = golden["delta"].as_array().unwrap();
        assert!(cases.len() > 30);
        for case in cases {
            check(case, delta_at(number(case, "mu"), number(case, "epsilon")), number(case, "delta"), 1e-9);
        }
    }

    #[test]
    fn epsilons_are_those_of_another_implementation_and_never_below() {
        let golden = golden();
        for case in golden["epsilon"].as_array().unwrap() {
            let (mu, delta) = (number(case, "mu"), number(case, "delta"));
            let found = epsilon_at(mu, delta);
            assert!((found - number(case, "epsilon")).abs() <= 1e-8 * (1.0 + found), "{case}: found {found}");
            assert!(delta_at(mu, found) <= delta, "{case}: {found} is too little");
        }
    }

    #[test]
    fn compositions_are_what_an_accountant_of_loss_distributions_finds() {
        let golden = golden();
        for case in golden["composed"].as_array().unwrap() {
            let mus = case["mus"].as_array().unwrap().iter().map(|mu| mu.as_f64().unwrap());
            let composed = Composed::of(mus.map(|mu| Some(Loss((mu * MILLION).round() as u64))));
            let found = composed.epsilon(number(case, "delta")).unwrap();
            // The accountant rounds losses to a grid, upwards.
            check(case, found, number(case, "epsilon"), 1e-3);
            assert!(found <= number(case, "epsilon"), "{case}: {found}");
        }
    }

    #[test]
    fn a_release_moves_by_twice_what_it_is_clipped_to() {
        let spec = |n| TensorSpec { dtype: DType::F32, shape: vec![n] };
        let axis = |tensors: &[(&str, TensorKind, usize)]| {
            let owned = |&(name, kind, n): &(&str, TensorKind, usize)| (name.to_owned(), Owned { spec: spec(n), kind });
            Axis::new(archipelago_common::Section::Condition, tensors.iter().map(owned).collect::<BTreeMap<_, _>>())
        };
        let policy = SitePolicy { clip_norm: Some(3.0), noise_std: 2.0, ..SitePolicy::default() };
        let mu = |policy: &SitePolicy, tensors: &[_]| Loss::of(policy, &axis(tensors)).map(Loss::mu);
        let trained = ("w", TensorKind::Trained, 4);
        assert_eq!(mu(&policy, &[trained]), Some(3.0));
        assert_eq!(mu(&policy, &[trained, ("mean", TensorKind::Statistic, 2)]), Some(4.242_641), "rounded up");
        assert_eq!(mu(&policy, &[trained, ("seen", TensorKind::Fact, 2)]), Some(3.0));
        assert_eq!(mu(&policy, &[]), Some(0.0), "what owns nothing tells nothing");
        assert_eq!(mu(&SitePolicy { noise_std: 0.0, ..policy.clone() }, &[trained]), None);
        assert_eq!(mu(&SitePolicy { clip_norm: None, ..policy }, &[trained]), None);
    }

    #[test]
    fn one_release_without_noise_is_one_too_many() {
        let some = Some(Loss(500_000));
        assert_eq!(Composed::of([some, None].into_iter()).epsilon(1e-6), None);
        assert_eq!(Composed::of([].into_iter()).epsilon(1e-6), Some(0.0));
        let (one, two) = (Composed::of([some].into_iter()), Composed::of([some, some].into_iter()));
        assert!(one < two && one.epsilon(1e-6) < two.epsilon(1e-6));
    }
}
