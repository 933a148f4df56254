//! Proximal steps: what penalties do to weights after the optimiser has moved, in place of a gradient.
//!
//! They follow the learning rate, and nothing of Adam's. With a hard threshold there are exact zeros: terms and genes that are off.

use tch::{Kind, Tensor, no_grad};

use super::{ExpimapModule, weights::Masked};
use crate::{
    fast::{self, Shrinking},
    nn::Pass,
    train::{Hook, Step},
};

/// A penalty on some weights, `[n_genes, n_terms]`.
#[derive(Debug)]
pub struct Penalty {
    /// Name of the weights, where they are held to sets.
    name: Option<String>,
    weight: Tensor,
    coefficient: f64,
    rise: Rise,
    shrinks: Shrinks,
}

#[derive(Debug)]
enum Shrinks {
    /// Shrinks whole columns, each by its factor where there are factors, `[n_terms]`.
    Columns { omega: Option<Vec<f32>> },
    /// Shrinks single weights, those where the mask is 0 if there is a mask.
    Each { mask: Option<Tensor> },
}

/// How a coefficient rises to its full size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rise {
    /// Until this epoch; full from the start without.
    pub over: Option<usize>,
    /// In steps of so many epochs.
    pub each: usize,
}

impl Rise {
    const NONE: Self = Self { over: None, each: 1 };

    /// The share in an epoch, from 0. It moves at the ends of the epochs (but the first) whose numbers `each` divides.
    pub fn share(self, epoch: u32) -> f64 {
        let Some(over) = self.over else { return 1.0 };
        let last_end = (epoch as usize).saturating_sub(1) / self.each * self.each;
        (last_end.max(1) as f64 / over as f64).min(1.0)
    }
}

impl Penalty {
    /// The penalties of a module's options on those weights that move, in upstream's order.
    pub fn all<'m>(module: &'m ExpimapModule) -> Vec<Self> {
        let config = module.config();
        let rise_l1 = Rise { over: config.alpha_l1_epoch_anneal, each: config.alpha_l1_anneal_each };
        let rise_gamma = Rise { over: config.gamma_epoch_anneal, each: config.gamma_anneal_each };
        let mut all = Vec::new();
        let mut add =
            |(name, weight): (Option<&str>, &Tensor), coefficient: Option<f64>, rise: Rise, shrinks: Shrinks| {
                if let Some(coefficient) = coefficient.filter(|_| weight.requires_grad()) {
                    all.push(Self {
                        name: name.map(str::to_owned),
                        weight: weight.shallow_clone(),
                        coefficient,
                        rise,
                        shrinks,
                    });
                }
            };
        let of = |masked: &'m Masked| (Some(masked.name.as_str()), &masked.weight);
        let outside = |masked: &Masked| Shrinks::Each { mask: Some(masked.mask.shallow_clone()) };
        let annotated = &module.annotated;
        if config.soft_mask {
            add(of(annotated), config.alpha_l1, rise_l1, outside(annotated));
        }
        let omega = module.omega.as_ref().map(|omega| omega.iter().map(|&factor| factor as f32).collect());
        add(of(annotated), config.alpha, Rise::NONE, Shrinks::Columns { omega });
        for added in &module.added {
            if let Some(free) = &added.free {
                add((None, free), config.gamma_ext, rise_gamma, Shrinks::Each { mask: None });
            }
            if let (Some(masked), true) = (&added.constrained, config.soft_ext_mask) {
                add(of(masked), config.alpha_l1, rise_l1, outside(masked));
            }
        }
        all
    }

    /// What the penalty takes off at a learning rate.
    pub fn threshold(&self, epoch: u32, rate: f64) -> f64 {
        self.coefficient * rate * self.rise.share(epoch)
    }

    /// Moves the weights, in an epoch at a learning rate.
    pub fn apply(&self, epoch: u32, rate: f64) {
        let threshold = self.threshold(epoch, rate);
        let shrunk = no_grad(|| match &self.shrinks {
            Shrinks::Columns { omega } => {
                let omega = omega.as_ref().map(|omega| Tensor::from_slice(omega).to_device(self.weight.device()));
                shrink_columns(&self.weight, threshold, omega.as_ref())
            }
            Shrinks::Each { mask } => shrink_each(&self.weight, threshold, mask.as_ref()),
        });
        no_grad(|| self.weight.shallow_clone().copy_(&shrunk));
    }
}

/// Columns shortened by a threshold, and 0 where they are shorter than it.
///
/// # Shapes   `weight`: `[n_genes, n_terms]`; `omega`: `[n_terms]`; returns like `weight`
/// # Source   Yuan and Lin 2006; checked against scArches 0.6.1
pub fn shrink_columns(weight: &Tensor, threshold: f64, omega: Option<&Tensor>) -> Tensor {
    let norm = weight.square().sum_dim_intlist([0_i64].as_slice(), true, Kind::Float).sqrt();
    let threshold = match omega {
        Some(omega) => omega.view([1, -1]) * threshold,
        None => norm.full_like(threshold),
    };
    // A column of zeros has no length to divide by, and stays what it is.
    let is_kept = norm.gt_tensor(&threshold);
    let share = (norm.ones_like() - &threshold / norm.clamp_min(f64::from(f32::MIN_POSITIVE)))
        .where_self(&is_kept, &norm.zeros_like());
    let is_off = threshold.gt(0.0).logical_and(&is_kept.logical_not());
    weight.where_self(&threshold.le(0.0), &(weight * share)).masked_fill(&is_off, 0.0)
}

/// Weights moved to 0 by a threshold; where a mask is given, those where it is 0.
///
/// # Shapes   all like `weight`
/// # Source   soft thresholding; checked against scArches 0.6.1
pub fn shrink_each(weight: &Tensor, threshold: f64, mask: Option<&Tensor>) -> Tensor {
    let zero = weight.zeros_like();
    let above = (weight - threshold).where_self(&weight.ge(threshold), &zero);
    let shrunk = (weight + threshold).where_self(&weight.le(-threshold), &above);
    match mask {
        Some(mask) => weight.where_self(&mask.gt(0.5), &shrunk),
        None => shrunk,
    }
}

impl Penalty {
    /// What the kernels are told about it, in an epoch at a learning rate; nothing for weights that they do not know.
    fn shrinking(&self, epoch: u32, rate: f64) -> Option<Shrinking<'_>> {
        let what = match &self.shrinks {
            Shrinks::Columns { omega } => fast::Shrinks::Columns(omega.as_deref()),
            Shrinks::Each { mask: Some(_) } => fast::Shrinks::Outside,
            Shrinks::Each { mask: None } => return None,
        };
        Some(Shrinking { tensor: self.name.as_deref()?, threshold: self.threshold(epoch, rate), what })
    }
}

/// The penalties of a run, after each of its steps.
#[derive(Debug)]
pub(super) struct Proximal(pub(super) Vec<Penalty>);

impl Proximal {
    /// Applies them all, in order.
    pub(super) fn apply(&self, epoch: u32, rate: f64) {
        self.0.iter().for_each(|penalty| penalty.apply(epoch, rate));
    }
}

impl Hook for Proximal {
    fn is_in_kernels(&self) -> bool {
        true
    }

    fn shrinks(&self, epoch: u32, rate: f64) -> Vec<Shrinking<'_>> {
        self.0.iter().filter_map(|penalty| penalty.shrinking(epoch, rate)).collect()
    }

    fn after_step(&mut self, step: Step<'_>, _: &mut Pass<'_>) {
        self.apply(step.epoch, step.rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rise: Rise, shares: &[f64]) {
        let found: Vec<f64> = (0..shares.len() as u32).map(|epoch| rise.share(epoch)).collect();
        assert_eq!(found, shares);
    }

    #[test]
    fn a_coefficient_rises_at_the_ends_of_epochs() {
        check(Rise::NONE, &[1.0; 3]);
        check(Rise { over: Some(4), each: 2 }, &[0.25, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0]);
        check(Rise { over: Some(2), each: 1 }, &[0.5, 0.5, 0.5, 1.0]);
    }

    #[test]
    fn without_a_threshold_nothing_moves_not_even_a_column_of_zeros() {
        let weight = Tensor::from_slice2(&[[0.0_f32, 3.0], [0.0, -4.0]]);
        assert_eq!(shrink_columns(&weight, 0.0, None), weight);
        assert_eq!(shrink_each(&weight, 0.0, None), weight);
        let shrunk = shrink_columns(&weight, 2.5, None);
        assert_eq!(shrunk, Tensor::from_slice2(&[[0.0_f32, 1.5], [0.0, -2.0]]));
        assert_eq!(shrink_columns(&weight, 5.0, None), weight.zeros_like());
    }
}
