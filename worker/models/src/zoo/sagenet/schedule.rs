//! Steps of the networks: momentum, and a rate that falls and starts anew.

use std::{collections::BTreeMap, f64::consts::PI};

use tch::Tensor;

/// The rate of a step of a run, from 0: it falls along half a cosine, and starts anew after fifty steps.
pub fn rate(start: f64, step: u64) -> f64 {
    let floor = FLOOR.min(start);
    let turn = (step % PERIOD) as f64 / PERIOD as f64;
    floor + 0.5 * (start - floor) * (1.0 + (PI * turn).cos())
}

/// Gradient descent with momentum.
#[derive(Debug)]
pub struct Momentum {
    share: f64,
    velocity: BTreeMap<String, Tensor>,
}

impl Momentum {
    /// One that keeps this share of each step for the next.
    pub fn new(share: f64) -> Self {
        Self { share, velocity: BTreeMap::new() }
    }

    /// Moves tensors against their gradients, and clears those. What has no gradient stays.
    pub fn step(&mut self, tensors: &BTreeMap<String, Tensor>, rate: f64) {
        tch::no_grad(|| {
            for (name, tensor) in tensors {
                let mut gradient = tensor.grad();
                if !gradient.defined() {
                    continue;
                }
                let velocity = match self.velocity.remove(name) {
                    Some(before) => before * self.share + &gradient,
                    None => gradient.copy(),
                };
                let _ = tensor.shallow_clone().g_sub_(&(&velocity * rate));
                let _ = gradient.zero_();
                self.velocity.insert(name.clone(), velocity);
            }
        });
    }
}

/// Steps after which the rate starts anew.
const PERIOD: u64 = 50;
/// What the rate falls to.
const FLOOR: f64 = 5e-5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_and_starts_anew() {
        assert_eq!((rate(1e-3, 0), rate(1e-3, 50)), (1e-3, 1e-3));
        assert!((rate(1e-3, 25) - 5.25e-4).abs() < 1e-12 && rate(1e-3, 49) < 6e-5);
        assert_eq!(rate(1e-5, 10), 1e-5);
    }
}
