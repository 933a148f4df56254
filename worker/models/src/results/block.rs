//! Blocks: what a decoder says of the features of one field, whatever they are and however they are distributed.
//!
//! Expression, draws, correlations and comparisons run over the blocks of a model in their order. A model with a modality of
//! its own implements [`Block`] for it in its folder.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Gamma, Normal, Poisson};
use tch::{Kind, Tensor};

use super::{LibraryAsk, to_vec};
use crate::{
    data::{Field, RNA, Slot, Values, slot::Matrix},
    distributions::{CountParameters, Likelihood},
};

/// A field that a model decodes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BlockCard {
    /// Name of the field.
    pub field: &'static str,
    /// Its values; none for gene expression.
    pub slot: Option<Slot<Matrix>>,
    /// What they are.
    pub values: Values,
    /// What one of its features is called. In tables of several blocks it ends the names of all but the first one's, as
    /// upstream does (`NAME_feature`).
    pub feature: &'static str,
    /// Added to expression before fold changes are taken.
    pub prior_expression: f32,
    /// Pseudocount of fold changes of a model with this block; fitted if none.
    pub pseudocount: Option<f64>,
}

impl BlockCard {
    /// Gene expression.
    pub const RNA: Self = Self {
        field: RNA,
        slot: None,
        values: Values::Counts,
        feature: "gene",
        prior_expression: 0.0,
        pseudocount: None,
    };

    /// Whether these are the features of a field.
    pub fn is_of(&self, field: &Field) -> bool {
        field.name == self.field
    }
}

/// What a decoder says of the features of a field, for some cells.
pub trait Block {
    /// Expected values free of noise, `[n, n_features]`.
    fn expression(&self, library: LibraryAsk) -> Tensor;

    /// One draw for every cell and feature, row by row.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<f32>;

    /// One draw without counting noise and library size, row by row; of logarithms if asked for.
    fn denoised(&self, log: bool, rng: &mut ChaCha8Rng) -> Vec<f64>;
}

/// Counts of genes with a library size.
#[derive(Debug)]
pub struct CountBlock {
    /// Expected share of each gene, `[n, n_genes]`.
    pub scale: Tensor,
    /// Parameters of the counts.
    pub counts: CountParameters,
    /// Their distribution.
    pub likelihood: Likelihood,
}

impl Block for CountBlock {
    fn expression(&self, library: LibraryAsk) -> Tensor {
        match library {
            LibraryAsk::Scaled(size) => &self.scale * size,
            LibraryAsk::Latent => self.counts.rate.shallow_clone(),
        }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let rate = &self.counts.rate;
        let rates = to_vec(rate);
        let r = self.counts.r.as_ref().map(|r| to_vec(&r.expand_as(rate).contiguous()));
        let dropout = self.counts.dropout.as_ref().map(|logits| to_vec(&logits.sigmoid()));
        let draw = |i: usize| {
            let (rate, r) = (f64::from(rates[i]), r.as_ref().map_or(f64::INFINITY, |r| f64::from(r[i])));
            match self.likelihood {
                Likelihood::Normal => Normal::new(rate, r).map_or(rate, |normal| normal.sample(rng)) as f32,
                Likelihood::Poisson => poisson(rate, rng),
                Likelihood::Nb => poisson(gamma(r, rate, rng), rng),
                Likelihood::Zinb => {
                    let count = poisson(gamma(r, rate, rng), rng);
                    let is_dropped = dropout.as_ref().is_some_and(|dropout| rng.random::<f32>() <= dropout[i]);
                    if is_dropped { 0.0 } else { count }
                }
            }
        };
        (0..rates.len()).map(draw).collect()
    }

    /// Gamma draws around the expression of a cell with `DENOISED_LIBRARY` counts.
    fn denoised(&self, log: bool, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let means = to_vec(&(&self.scale * DENOISED_LIBRARY));
        let shapes = self.counts.r.as_ref().map(|r| to_vec(&r.expand_as(&self.scale).contiguous()));
        let draw = |(i, &mean): (usize, &f32)| {
            let shape = shapes.as_ref().map_or(f64::INFINITY, |shapes| f64::from(shapes[i]));
            let drawn = gamma(shape, f64::from(mean), rng);
            if log { (drawn + SMALLEST).ln() } else { drawn }
        };
        means.iter().enumerate().map(draw).collect()
    }
}

/// Normalised, log-transformed values of genes, of whose noise nothing is known.
#[derive(Debug)]
pub struct ValueBlock {
    /// What is expected of each cell, `[n, n_genes]`.
    pub values: Tensor,
}

impl Block for ValueBlock {
    /// Shares of what the logarithms are of; the values as they are for a cell's own size, which normalisation took out of them.
    fn expression(&self, library: LibraryAsk) -> Tensor {
        match library {
            LibraryAsk::Scaled(size) => {
                let normalised = self.values.expm1();
                let totals = normalised.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float);
                normalised / totals.clamp_min(SMALLEST) * size
            }
            LibraryAsk::Latent => self.values.shallow_clone(),
        }
    }

    fn draw(&self, _rng: &mut ChaCha8Rng) -> Vec<f32> {
        to_vec(&self.values)
    }

    fn denoised(&self, log: bool, _rng: &mut ChaCha8Rng) -> Vec<f64> {
        let values = to_vec(&self.values).into_iter().map(f64::from);
        if log { values.collect() } else { values.map(f64::exp_m1).collect() }
    }
}

/// A gamma draw of this shape and mean; the mean itself where the shape or the mean is degenerate.
pub fn gamma(shape: f64, mean: f64, rng: &mut ChaCha8Rng) -> f64 {
    Gamma::new(shape, mean / shape).map_or(mean, |gamma| gamma.sample(rng))
}

/// A Poisson draw of this rate.
pub fn poisson(rate: f64, rng: &mut ChaCha8Rng) -> f32 {
    Poisson::new(rate.min(LARGEST_RATE)).map_or(0.0, |poisson| poisson.sample(rng)) as f32
}

/// Library size that denoised draws are made for, as upstream.
const DENOISED_LIBRARY: f64 = 1_000.0;
/// Upstream's bound on the rate of a Poisson draw.
const LARGEST_RATE: f64 = 1e8;
/// Keeps logarithms finite.
const SMALLEST: f64 = 1e-8;
