//! The noise that a case was computed with.

use std::{cell::Cell, collections::BTreeMap};

use archipelago_models::nn::Noise;
use tch::{Device, Kind, Tensor};

use crate::case::Case;

/// Feeds the stored noise of a case, whatever the pass, and its dropout masks where they are asked for.
pub(crate) struct FixedNoise<'a> {
    case: &'a Case,
    prefix: String,
    masks: Masks,
    n_calls: BTreeMap<String, usize>,
}

/// What happens at dropout layers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masks {
    /// Nothing: the case has dropout 0.
    Off,
    /// The stored masks.
    Stored,
}

impl<'a> FixedNoise<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        Self::of_prefix(case, "noise/".to_owned(), Masks::Off)
    }

    pub(crate) fn of_prefix(case: &'a Case, prefix: String, masks: Masks) -> Self {
        Self { case, prefix, masks, n_calls: BTreeMap::new() }
    }
}

impl Noise for FixedNoise<'_> {
    fn normal(&mut self, site: &'static str, shape: &[i64], _: Device) -> Tensor {
        let noise = self.case.tensor(&format!("{}{site}", self.prefix));
        assert_eq!(noise.size(), shape, "noise of site `{site}`");
        noise
    }

    fn keep(&mut self, layer: &str, _: &[i64], _: f64, _: Device) -> Option<Tensor> {
        if self.masks == Masks::Off {
            return None;
        }
        let call = self.n_calls.entry(layer.to_owned()).or_default();
        let name = format!("dropmask/{layer}#{call}");
        *call += 1;
        Some(self.case.tensor(&name).to_kind(Kind::Float))
    }
}

/// One tensor for every draw, and no dropout.
pub(crate) struct OneDraw(pub(crate) Tensor);

impl Noise for OneDraw {
    fn normal(&mut self, _: &'static str, shape: &[i64], _: Device) -> Tensor {
        assert_eq!(self.0.size(), shape);
        self.0.shallow_clone()
    }

    fn keep(&mut self, _: &str, _: &[i64], _: f64, _: Device) -> Option<Tensor> {
        None
    }
}

/// The noise of a step, draw by draw, and no dropout.
pub(crate) struct Draws<'a> {
    case: &'a Case,
    step: usize,
    n_drawn: Cell<usize>,
}

impl<'a> Draws<'a> {
    pub(crate) fn of_step(case: &'a Case, step: usize) -> Self {
        Self { case, step, n_drawn: Cell::new(0) }
    }
}

impl Noise for Draws<'_> {
    fn normal(&mut self, _: &'static str, shape: &[i64], _: Device) -> Tensor {
        let k = self.n_drawn.replace(self.n_drawn.get() + 1);
        let noise = self.case.tensor(&format!("noise/{}/{k}", self.step));
        assert_eq!(noise.size(), shape);
        noise
    }

    fn keep(&mut self, _: &str, _: &[i64], _: f64, _: Device) -> Option<Tensor> {
        None
    }
}
